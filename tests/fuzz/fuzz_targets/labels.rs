//! The labels of an image: any JSON map of strings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use partition_layout::labels::ImageLabels;
use std::collections::BTreeMap;

fuzz_target!(|data: &[u8]| {
    let Ok(labels) = serde_json::from_slice::<BTreeMap<String, String>>(data) else { return };
    if let Ok(labels) = ImageLabels::decode(&labels) {
        let _ = labels.unmet_requirement();
        assert_eq!(ImageLabels::decode(&labels.encode()), Ok(labels));
    }
});

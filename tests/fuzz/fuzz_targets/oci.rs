//! What a registry sends as a manifest, an index or an image config.
#![no_main]

use libfuzzer_sys::fuzz_target;
use update_manifest::oci::{Document, ImageConfig, Index, Manifest};

fuzz_target!(|data: &[u8]| {
    match Document::parse(data) {
        Ok(Document::Index(index)) => {
            assert_eq!(Index::parse(data).as_ref(), Ok(&index));
            assert!(Manifest::parse(data).is_err(), "two readers would read two things");
            if let Some(entry) = index.select("amd64") {
                assert!(index.manifests.contains(entry));
            }
        }
        Ok(Document::Manifest(manifest)) => {
            assert_eq!(Manifest::parse(data).as_ref(), Ok(&*manifest));
            assert!(Index::parse(data).is_err(), "two readers would read two things");
        }
        Err(_) => {}
    }
    if let Ok(config) = ImageConfig::parse(data) {
        let _ = config.labels();
    }
});

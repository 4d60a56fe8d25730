//! The referrers API, from what was pushed through the proxy.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Referrers by the digest of what they speak of.
#[derive(Debug, Default)]
pub struct Store {
    by_subject: BTreeMap<String, Vec<Value>>,
}

impl Store {
    /// Takes note of a pushed manifest. Returns the digest of its subject, if it has one.
    pub fn pushed(&mut self, manifest: &[u8]) -> Option<String> {
        let parsed: Value = serde_json::from_slice(manifest).ok()?;
        let subject = parsed["subject"]["digest"].as_str()?.to_owned();
        let artifact_type = match parsed["artifactType"].as_str() {
            Some(kind) => kind.to_owned(),
            None => parsed["config"]["mediaType"].as_str().unwrap_or_default().to_owned(),
        };
        let descriptor = json!({
            "mediaType": parsed["mediaType"],
            "digest": digest(manifest),
            "size": manifest.len(),
            "artifactType": artifact_type,
        });
        self.by_subject.entry(subject.clone()).or_default().push(descriptor);
        Some(subject)
    }

    /// The index for `subject`, behind `crowd` entries that are not there.
    #[must_use]
    pub fn index(&self, subject: &str, crowd: usize) -> Vec<u8> {
        let unrelated = (0..crowd).map(|number| {
            json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest(&number.to_le_bytes()),
                "size": 700,
                "artifactType": "application/spdx+json",
            })
        });
        let listed = self.by_subject.get(subject).cloned().unwrap_or_default();
        let manifests: Vec<Value> = unrelated.chain(listed).collect();
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": manifests,
        })
        .to_string()
        .into_bytes()
    }
}

/// `sha256:…` of some bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

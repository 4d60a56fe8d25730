//! Makes the Rust side of the updater's interface from its description.

#[cfg(not(feature = "network"))]
fn main() {}

#[cfg(feature = "network")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    tonic_prost_build::configure()
        // The CLI's `--json` is these messages, so they cannot drift apart.
        .type_attribute(".", "#[derive(serde::Serialize)]")
        .compile_protos(&["proto/bascule/update/v1/update.proto"], &["proto"])?;
    Ok(())
}

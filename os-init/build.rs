//! Makes the Rust side of the services manager's interface from its description.

#[cfg(not(feature = "wire"))]
fn main() {}

#[cfg(feature = "wire")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    tonic_prost_build::configure()
        // The CLI's `--json` is these messages, so they cannot drift apart.
        .type_attribute(".", "#[derive(serde::Serialize)]")
        .compile_protos(&["proto/bascule/services/v1/services.proto"], &["proto"])?;
    Ok(())
}

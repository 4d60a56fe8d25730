//! Images of services: the updater pulls them, since it alone knows registries and keys.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use os_init::socket;
use updater::cli::tell::Meter;
use updater::failure::Class;
use updater::wire::{PullImageRequest, PullReport, update_client::UpdateClient};

use crate::failure::Failure;

/// Has the image pulled, or finds it there; tells how far it is on a terminal.
///
/// # Errors
/// It is refused, corrupt, cannot be reached, or the updater does not answer.
pub async fn pull(image: &str, json: bool) -> Result<PullReport, Failure> {
    let path = Path::new(updater::site::SOCKET);
    let channel = socket::connect(PathBuf::from(path)).await;
    let channel = channel.map_err(|why| Failure::silent("the updater", path, &why))?;
    let request = PullImageRequest { image: image.to_owned() };
    let lost = |status: tonic::Status| {
        let told = status.message();
        Failure::system(format!("the updater went away ({told}); the same again goes on"))
    };
    let mut stream =
        UpdateClient::new(channel).pull_image(request).await.map_err(lost)?.into_inner();
    let mut meter = Meter::new(!json && std::io::stderr().is_terminal());
    while let Some(message) = stream.message().await.map_err(lost)? {
        let Some(report) = message.pulled else {
            meter.show(&message);
            continue;
        };
        meter.clear();
        return match &report.error {
            None => Ok(report),
            Some(error) => Err(Failure {
                code: Class::from_word(&error.class).exit_code(),
                message: error.message.clone(),
            }),
        };
    }
    Err(Failure::system("the updater went away before it was done; the same again".into()))
}

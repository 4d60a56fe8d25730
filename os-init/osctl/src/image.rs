//! Images of services: the updater pulls them, since it alone knows registries and keys.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use os_init::socket;
use updater::failure::Class;
use updater::wire::{PullImageRequest, PullProgress, PullReport, update_client::UpdateClient};

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
    let shown = !json && std::io::stderr().is_terminal();
    while let Some(message) = stream.message().await.map_err(lost)? {
        let Some(report) = message.report else {
            if shown {
                draw(&message);
            }
            continue;
        };
        if shown {
            // A terminal that is gone has nobody before it.
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
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

fn draw(progress: &PullProgress) {
    let PullProgress { phase, done_bytes, total_bytes, note, .. } = progress;
    let (done, total) = (done_bytes >> 20, total_bytes >> 20);
    let amount = if *total_bytes > 0 { format!(" {done} of {total} MiB") } else { String::new() };
    let note = if note.is_empty() { String::new() } else { format!("; {note}") };
    let mut terminal = std::io::stderr();
    // As above.
    let _ = write!(terminal, "\r\x1b[K{phase}{amount}{note}").and_then(|()| terminal.flush());
}

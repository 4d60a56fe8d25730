//! Pulls images of services for who asks.

use std::sync::Arc;

use os_init::services::images::{FOLDER, Images};
use tokio::sync::mpsc;
use tonic::Status;

use super::Daemon;
use super::jobs::on_wire;
use super::service::{MESSAGES, on_the_way};
use crate::engine::install::open_registry;
use crate::failure::{Class, Failure};
use crate::registry::Reference;
use crate::registry::transport::Patience;
use crate::service_image::{self, Pulled, Source, Tell};
use crate::wire;

type Message = Result<wire::Progress, Status>;

/// Pulls `image` in a task of its own: a client that goes away does not stop it. What is received is
/// how far it is and, at last, the report.
pub fn pull(daemon: Arc<Daemon>, image: String) -> mpsc::Receiver<Message> {
    let (sender, receiver) = mpsc::channel(MESSAGES);
    tokio::spawn(async move {
        let told = sender.clone();
        let tell: Tell = Arc::new(move |progress| {
            // A full channel is a slow client's loss.
            let _ = told.try_send(Ok(on_the_way(progress)));
        });
        let shown = image.clone();
        // Within another one, so that a panic is told too.
        let job = tokio::spawn(async move { daemon.pull_image(&image, tell).await });
        let stopped = |_| Failure::new(Class::System, "engine", "the pull stopped unexpectedly");
        let pulled = job.await.map_err(stopped).and_then(|pulled| pulled);
        let pulled = Some(report(shown, pulled));
        // The client may be gone; the image lies where it is looked for.
        let _ = sender.send(Ok(wire::Progress { pulled, ..Default::default() })).await;
    });
    receiver
}

impl Daemon {
    async fn pull_image(&self, image: &str, tell: Tell) -> Result<Pulled, Failure> {
        let _held = self.pulling.try_lock().map_err(|_| {
            Failure::refused("busy", "another image is being pulled; try again after it")
        })?;
        let reference =
            Reference::parse(image).map_err(|why| Failure::refused("reference", why))?;
        let registry = open_registry(&self.settings(), &reference, Patience::FIELD)?;
        let source = Source {
            registry: &registry,
            reference: &reference,
            platform: self.site.platform(),
            roots: &self.site.roots,
        };
        service_image::pull(&source, &Images::at(FOLDER), tell).await
    }
}

fn report(image: String, pulled: Result<Pulled, Failure>) -> wire::PullReport {
    let of_image = wire::PullReport { image, ..Default::default() };
    match pulled {
        Ok(Pulled { key, downloaded, was_there }) => {
            wire::PullReport { key, was_there, downloaded_bytes: downloaded, ..of_image }
        }
        Err(failure) => wire::PullReport { error: Some(on_wire(&failure)), ..of_image },
    }
}

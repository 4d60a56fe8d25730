//! The calls of the socket.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use os_init::socket;
use partition_layout::slot::Slot;
use partition_layout::verity::hex;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Daemon;
use super::images;
use super::jobs::on_wire;
use crate::engine::install::Progress;
use crate::engine::plan::{Goal, Order};
use crate::engine::slot::inspect_slot;
use crate::failure::{Class, Failure};
use crate::history::Entry;
use crate::policy::{Direction, Leave};
use crate::registry::Reference;
use crate::wire;
use crate::wire::update_server::{Update, UpdateServer};

/// Progress messages that wait for a slow client; more are left out, the newest counts.
pub(super) const MESSAGES: usize = 8;

/// Answers at `path` until the process ends.
///
/// # Errors
/// The system's, when it cannot listen.
pub async fn serve(daemon: Arc<Daemon>, path: &Path) -> Result<(), String> {
    let told = |error: &dyn std::fmt::Display| format!("listen at {}: {error}", path.display());
    let listener = socket::listen(path).map_err(|error| told(&error))?;
    let service = UpdateServer::with_interceptor(Calls { daemon }, socket::only_root);
    tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming(listener)
        .await
        .map_err(|error| told(&error))
}

struct Calls {
    daemon: Arc<Daemon>,
}

#[tonic::async_trait]
impl Update for Calls {
    async fn check(
        &self,
        _: Request<wire::CheckRequest>,
    ) -> Result<Response<wire::Report>, Status> {
        let leave = Leave { quarantined: false, direction: Direction::NotOlder };
        let checked = self.daemon.install(Order { goal: Goal::Look, leave }, None).await;
        Ok(Response::new(answer(&self.daemon, checked)))
    }

    type ApplyStream = Pin<Box<dyn Stream<Item = Result<wire::Progress, Status>> + Send>>;

    async fn apply(
        &self,
        request: Request<wire::ApplyRequest>,
    ) -> Result<Response<Self::ApplyStream>, Status> {
        let asked = request.into_inner();
        let daemon = Arc::clone(&self.daemon);
        let (sender, receiver) = tokio::sync::mpsc::channel(MESSAGES);
        let mut progress = daemon.progress.subscribe();
        // A task of its own: a client that goes away does not stop an installation.
        let job = tokio::spawn(async move { apply(&daemon, &asked).await });
        tokio::spawn(async move {
            let mut job = job;
            loop {
                tokio::select! {
                    done = &mut job => {
                        let report = done.unwrap_or_else(|_| stopped());
                        let last = wire::Progress { report: Some(report), ..Default::default() };
                        // The client may be gone; the history has the result too.
                        let _ = sender.send(Ok(last)).await;
                        return;
                    }
                    changed = progress.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        let now = progress.borrow_and_update().clone();
                        // A full channel is a slow client's loss.
                        let _ = sender.try_send(Ok(on_the_way(now)));
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    type PullImageStream = Self::ApplyStream;

    async fn pull_image(
        &self,
        request: Request<wire::PullImageRequest>,
    ) -> Result<Response<Self::PullImageStream>, Status> {
        let receiver = images::pull(Arc::clone(&self.daemon), request.into_inner().image);
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn status(
        &self,
        _: Request<wire::StatusRequest>,
    ) -> Result<Response<wire::MachineStatus>, Status> {
        let status = self.daemon.status();
        status.map(Response::new).map_err(|failure| Status::unavailable(failure.message))
    }

    async fn history(
        &self,
        request: Request<wire::HistoryRequest>,
    ) -> Result<Response<wire::HistoryAnswer>, Status> {
        let limit = request.into_inner().limit;
        let mut entries = self.daemon.history.entries();
        if limit > 0 {
            let keep = usize::try_from(limit).unwrap_or(usize::MAX);
            entries.drain(..entries.len().saturating_sub(keep));
        }
        let entries = entries.into_iter().map(entry_on_wire).collect();
        Ok(Response::new(wire::HistoryAnswer { entries }))
    }

    async fn rollback(
        &self,
        _: Request<wire::RollbackRequest>,
    ) -> Result<Response<wire::RollbackAnswer>, Status> {
        let answer = self.daemon.roll_back().await.unwrap_or_else(|failure| wire::RollbackAnswer {
            error: Some(on_wire(&failure)),
            ..Default::default()
        });
        Ok(Response::new(answer))
    }

    async fn verify(
        &self,
        request: Request<wire::VerifyRequest>,
    ) -> Result<Response<wire::VerifyAnswer>, Status> {
        let word = request.into_inner().slot;
        let slots = match (word.as_str(), Slot::from_word(&word)) {
            ("", _) => Slot::ALL.to_vec(),
            (_, Some(slot)) => vec![slot],
            (_, None) => return Err(Status::invalid_argument("slot is a or b")),
        };
        let mut answer = wire::VerifyAnswer::default();
        for slot in slots {
            match verify_slot(&self.daemon, slot).await {
                Ok(verdict) => answer.slots.push(verdict),
                Err(failure) => answer.error = Some(on_wire(&failure)),
            }
        }
        Ok(Response::new(answer))
    }

    async fn pause(
        &self,
        request: Request<wire::PauseRequest>,
    ) -> Result<Response<wire::PauseAnswer>, Status> {
        let reason = request.into_inner().reason;
        Ok(Response::new(set_paused(&self.daemon, Some(&reason))))
    }

    async fn resume(
        &self,
        _: Request<wire::ResumeRequest>,
    ) -> Result<Response<wire::PauseAnswer>, Status> {
        Ok(Response::new(set_paused(&self.daemon, None)))
    }
}

/// How far something is, on the wire.
pub(super) fn on_the_way(now: Progress) -> wire::Progress {
    wire::Progress {
        phase: now.phase,
        done_bytes: now.done,
        total_bytes: now.total,
        version: now.version,
        note: now.note,
        ..Default::default()
    }
}

async fn apply(daemon: &Daemon, asked: &wire::ApplyRequest) -> wire::Report {
    let leave = Leave {
        quarantined: asked.force,
        direction: if asked.allow_older { Direction::Any } else { Direction::NotOlder },
    };
    let goal = if asked.stage { Goal::Seal } else { Goal::Arm };
    let source = if asked.source.is_empty() {
        None
    } else {
        match Reference::parse(&asked.source) {
            Ok(source) => Some(source),
            Err(why) => return answer(daemon, Err(Failure::refused("reference", why))),
        }
    };
    answer(daemon, daemon.install(Order { goal, leave }, source).await)
}

fn answer(
    daemon: &Daemon,
    done: Result<(Reference, crate::engine::install::Report), Failure>,
) -> wire::Report {
    match done {
        Ok((source, report)) => daemon.report(&source, &report),
        Err(failure) => wire::Report {
            outcome: "failed".into(),
            error: Some(on_wire(&failure)),
            ..Default::default()
        },
    }
}

fn stopped() -> wire::Report {
    let failure = Failure::new(Class::System, "engine", "the installation stopped unexpectedly");
    wire::Report { outcome: "failed".into(), error: Some(on_wire(&failure)), ..Default::default() }
}

async fn verify_slot(daemon: &Daemon, slot: Slot) -> Result<wire::SlotVerdict, Failure> {
    let device = daemon.site.device(slot);
    let read = tokio::task::spawn_blocking(move || inspect_slot(&device, |_| {}))
        .await
        .map_err(|_| Failure::new(Class::System, "engine", "reading the slot stopped"))?;
    let mut verdict = wire::SlotVerdict { slot: slot.word().to_owned(), ..Default::default() };
    let inspected = match read {
        Ok(inspected) => inspected,
        Err(failure) if failure.kind == "empty" => {
            verdict.empty = true;
            verdict.reason = "no image in this slot".into();
            return Ok(verdict);
        }
        Err(failure) => return Err(failure),
    };
    verdict.root_hash = hex(&inspected.root);
    verdict.slot_sha256 = hex(&inspected.sha256);
    match inspected.is_whole() {
        Ok(trailer) => {
            verdict.whole = true;
            verdict.release = trailer.release;
            verdict.version = trailer.version.clone();
        }
        Err(why) => verdict.reason = why.to_owned(),
    }
    Ok(verdict)
}

fn set_paused(daemon: &Daemon, reason: Option<&str>) -> wire::PauseAnswer {
    match daemon.set_paused(reason) {
        Ok(changed) => {
            if changed {
                let event = if reason.is_some() { "paused" } else { "resumed" };
                daemon.note(Entry {
                    event: event.into(),
                    reason: reason.unwrap_or_default().to_owned(),
                    ..Entry::default()
                });
            }
            wire::PauseAnswer { paused: reason.is_some(), changed, error: None }
        }
        Err(failure) => wire::PauseAnswer {
            paused: daemon.paused().is_some(),
            changed: false,
            error: Some(on_wire(&failure)),
        },
    }
}

fn entry_on_wire(entry: Entry) -> wire::HistoryEntry {
    wire::HistoryEntry {
        at_s: entry.at_s.unwrap_or(0),
        boot_id: entry.boot_id,
        event: entry.event,
        digest: entry.digest,
        release: entry.release,
        version: entry.version,
        slot: entry.slot,
        fault: entry.fault,
        reason: entry.reason,
    }
}

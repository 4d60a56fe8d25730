//! The hands of [`plan`](super::plan): the network here, slot and record in
//! [`perform`](super::perform), off the network's thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kernel_abi::FileDisk;
use partition_layout::boot_state::{Action as RecordAction, Event as RecordEvent};
use partition_layout::record::Record;
use partition_layout::slot::Slot;
use tokio::sync::mpsc;
use update_manifest::digest::Digest;
use update_manifest::oci::{CONFIG_BYTES_MAX, Document, Manifest};
use update_manifest::release::Release;
use update_manifest::trust::NotVouched;
use update_manifest::verified::Verified;

use super::checkpoint::{Keep, KeptFile};
use super::perform::{Local, Place, Streamed, out_of_step};
use super::plan::{Action, Event, Order, Outcome, Pauses, Plan};
use crate::failure::{Class, Failure};
use crate::registry::pull::Pulled;
use crate::registry::session::Credentials;
use crate::registry::signatures::Signed;
use crate::registry::transport::Patience;
use crate::registry::{Access, Reference, Registry, RegistryError};
use crate::settings::Settings;
use crate::site::Site;

/// Pieces of the download on their way to the slot: bounds the memory between the two.
const PIECES: usize = 8;
/// Name of the checkpoint file in the state folder.
const CHECKPOINT: &str = "checkpoint";

/// How far an installation is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub phase: String,
    /// Bytes of the slot done in this phase.
    pub done: u64,
    /// Bytes of the slot in all.
    pub total: u64,
    /// Version of the release, once it is known.
    pub version: String,
    /// Why it waits, if it does.
    pub note: String,
}

/// What became of an installation.
#[derive(Debug, Clone)]
pub struct Report {
    /// How it ended.
    pub result: Result<Outcome, Failure>,
    /// Not before this may the registry be asked again.
    pub retry_after: Option<Duration>,
    /// Digest of the manifest, once known.
    pub digest: Option<Digest>,
    /// The release number, once verified.
    pub release: u64,
    /// The version, once verified.
    pub version: String,
    /// The key that signed.
    pub key: String,
    /// Bytes that came over the network for the layer.
    pub downloaded: u64,
    /// Bytes of the slot that an earlier run had written.
    pub resumed: u64,
    /// How long it took.
    pub took: Duration,
}

/// One installation.
pub struct Install<'a> {
    site: &'a Site,
    registry: Registry,
    source: Reference,
    tell: Arc<dyn Fn(Progress) + Send + Sync>,
    pulled: Option<Pulled>,
    vouched: Option<Verified<Digest>>,
    release: Option<Release>,
    /// Taken while it works on another thread.
    local: Option<Local<Site>>,
    report: Report,
    progress: Progress,
}

/// Opens the registry of the configured source.
///
/// # Errors
/// A refusal when there is no source, or a file that it names cannot be read.
pub fn open_registry(
    settings: &Settings,
    source: &Reference,
    patience: Patience,
) -> Result<Registry, Failure> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|error| {
            let message = format!("read {}, named in the config: {error}", path.display());
            Failure::refused("config", message)
        })
    };
    // What the settings say of one registry is not said of another that was named by hand: above
    // all, its password does not go there.
    let is_configured =
        settings.source.as_ref().is_none_or(|configured| configured.registry == source.registry);
    let password = settings.password_file.as_deref().filter(|_| is_configured).map(read);
    let password = password.transpose()?;
    let credentials = settings.username.clone().zip(password).map(|(username, password)| {
        let password = String::from_utf8_lossy(&password).trim_end_matches(['\r', '\n']).to_owned();
        Credentials { username, password }
    });
    let extra_ca = settings.ca_file.as_deref().map(read).transpose()?;
    let access = Access {
        plain_http: settings.plain_http && is_configured,
        credentials,
        extra_ca,
        patience,
    };
    Registry::new(&source.registry, access).map_err(|why| Failure::refused("config", why))
}

impl<'a> Install<'a> {
    /// Prepares an installation of `source`. Touches nothing.
    #[must_use]
    pub fn new(
        site: &'a Site,
        registry: Registry,
        source: Reference,
        tell: Arc<dyn Fn(Progress) + Send + Sync>,
    ) -> Install<'a> {
        Install {
            site,
            registry,
            source,
            tell,
            pulled: None,
            vouched: None,
            release: None,
            local: Some(Local::new(site.clone())),
            report: Report {
                result: Ok(Outcome::Available),
                retry_after: None,
                digest: None,
                release: 0,
                version: String::new(),
                key: String::new(),
                downloaded: 0,
                resumed: 0,
                took: Duration::ZERO,
            },
            progress: Progress::default(),
        }
    }

    /// Carries out `order` to its end.
    pub async fn run(mut self, order: Order) -> Report {
        let began = Instant::now();
        let patience = self.registry.patience();
        let pauses = Pauses { first: patience.first_wait, longest: patience.longest_wait };
        let (mut plan, mut action) = Plan::begin(order, self.site.machine(), pauses);
        loop {
            if plan.phase() != self.progress.phase {
                self.progress = Progress {
                    phase: plan.phase().to_owned(),
                    done: 0,
                    note: String::new(),
                    ..self.progress
                };
                (self.tell)(self.progress.clone());
            }
            if let Action::Finish(result) = action {
                self.report.result = *result;
                self.report.took = began.elapsed();
                return self.report;
            }
            let event = match self.perform(action).await {
                Ok(event) => event,
                Err(failure) => Event::Failed(failure),
            };
            (plan, action) = plan.step(event, began.elapsed());
        }
    }

    async fn perform(&mut self, action: Action) -> Result<Event, Failure> {
        match action {
            Action::Resolve => self.resolve().await,
            Action::Verify => self.verify().await,
            Action::Describe => self.describe().await,
            Action::Stream => self.stream().await,
            Action::Wait(pause) => {
                tokio::time::sleep(pause).await;
                Ok(Event::Waited)
            }
            local => self.perform_here(local).await,
        }
    }

    /// Does something with slot or record, off the network's thread.
    async fn perform_here(&mut self, action: Action) -> Result<Event, Failure> {
        let mut local = self.local.take().ok_or_else(out_of_step)?;
        let told = self.teller(&self.progress.phase);
        let (local, done) = tokio::task::spawn_blocking(move || {
            let done = local.perform(&action, told);
            (local, done)
        })
        .await
        .map_err(|_| out_of_step())?;
        self.report.resumed = local.resumed;
        self.local = Some(local);
        done
    }

    fn heard(&mut self, error: RegistryError) -> Failure {
        if let RegistryError::CannotKnow { retry_after, .. } = &error {
            self.report.retry_after = *retry_after;
        }
        error.into()
    }

    async fn resolve(&mut self) -> Result<Event, Failure> {
        let pulled = self.registry.manifest(&self.source).await;
        let pulled = pulled.map_err(|error| self.heard(error))?;
        self.report.digest = Some(pulled.digest);
        self.pulled = Some(pulled);
        Ok(Event::Resolved)
    }

    /// Finds a signature for what the tag resolved to; where that is an index, for the index or
    /// for the one image in it that is for this machine.
    async fn verify(&mut self) -> Result<Event, Failure> {
        let pulled = self.pulled.take().ok_or_else(out_of_step)?;
        let repository = self.source.repository.clone();
        let index = match Document::parse(&pulled.bytes) {
            Ok(Document::Index(index)) => Some(index),
            // What cannot be read is told only once it is known to be signed.
            Ok(Document::Manifest(_)) | Err(_) => None,
        };
        let answer = self.registry.signed(&repository, pulled.digest, &self.site.roots).await;
        let (answer, subject) = match (answer, index) {
            (Signed::No(reasons), Some(index)) => match index.select(self.site.platform()) {
                Some(entry) => {
                    let digest = entry.digest;
                    let answer = self.registry.signed(&repository, digest, &self.site.roots).await;
                    (answer, digest)
                }
                None => (Signed::No(reasons), pulled.digest),
            },
            (answer, _) => (answer, pulled.digest),
        };
        match answer {
            Signed::Yes(verified) => {
                self.report.key = verified.key().to_owned();
                self.vouched = Some(verified);
                if subject == pulled.digest {
                    self.pulled = Some(pulled);
                }
                Ok(Event::Vouched)
            }
            Signed::No(reasons) => Err(not_signed(&self.source, subject, &reasons)),
            Signed::CannotKnow(error) => Err(self.heard(error)),
        }
    }

    async fn describe(&mut self) -> Result<Event, Failure> {
        let mut vouched = self.vouched.take().ok_or_else(out_of_step)?;
        let mut bytes = match self.pulled.take() {
            Some(pulled) => pulled.bytes,
            None => self.pull(*vouched.get()).await?,
        };
        let document =
            vouched.document(&bytes).map_err(|error| self.corrupt("manifest", &error))?;
        if let Document::Index(_) = document.get() {
            let platform = self.site.platform();
            vouched = document.image(platform).ok_or_else(|| {
                let message = format!("{}: no single image for {platform} in it", self.source);
                Failure::refused("arch", message)
            })?;
            bytes = self.pull(*vouched.get()).await?;
        }
        let manifest: Verified<Manifest> =
            vouched.manifest(&bytes).map_err(|error| self.corrupt("manifest", &error))?;
        let digest = *vouched.get();
        let repository = self.source.repository.clone();
        let config =
            self.registry.small_blob(&repository, manifest.config(), CONFIG_BYTES_MAX).await;
        let config = config.map_err(|error| self.heard(error))?;
        let release = manifest
            .release(&config)
            .map_err(|why| Failure::refused("not-a-release", format!("{}: {why}", self.source)))?;
        self.report.digest = Some(digest);
        self.report.release = release.get().labels.release;
        self.report.version = release.get().labels.version.clone();
        self.progress.version = self.report.version.clone();
        self.progress.total = release.get().labels.slot_size;
        let release = release.get().clone();
        self.local.as_mut().ok_or_else(out_of_step)?.describe(digest, release.clone());
        self.release = Some(release.clone());
        Ok(Event::Described(digest, Box::new(release)))
    }

    async fn pull(&mut self, digest: Digest) -> Result<Bytes, Failure> {
        let pulled = self.registry.manifest(&self.source.at(digest)).await;
        pulled.map(|pulled| pulled.bytes).map_err(|error| self.heard(error))
    }

    fn corrupt(&self, what: &str, error: &dyn std::fmt::Display) -> Failure {
        Failure::new(Class::Corrupt, what, format!("{}: {what}: {error}", self.source))
    }

    /// One try to stream what is left, from the network into the slot.
    async fn stream(&mut self) -> Result<Event, Failure> {
        let release = self.release.clone().ok_or_else(out_of_step)?;
        let mut local = self.local.take().ok_or_else(out_of_step)?;
        let wanted = local.wanted()?;
        let (sender, mut receiver) = mpsc::channel::<Bytes>(PIECES);
        let told = self.teller("downloading");
        let writing = tokio::task::spawn_blocking(move || {
            let streamed = local.stream(|| receiver.blocking_recv(), told);
            // Dropped here, so that the network side hears at once when the slot side is done.
            drop(receiver);
            (local, streamed)
        });
        let repository = self.source.repository.clone();
        let (bytes, broken) = fetch(&self.registry, &repository, &release, wanted, &sender).await;
        drop(sender);
        let (local, streamed) = writing.await.map_err(|_| out_of_step())?;
        self.local = Some(local);
        self.report.downloaded += bytes;
        match streamed? {
            Streamed::Told(event) => Ok(event),
            Streamed::EndedEarly(done) => {
                // The token or the signed address of a storage server may have run out.
                self.registry.forget_tokens();
                let broken = broken.unwrap_or_else(|| {
                    RegistryError::cannot_know(format!("{}: ended early", self.source))
                });
                let failure = self.heard(broken);
                self.progress.note = failure.message.clone();
                match failure.class {
                    Class::CannotKnow => Ok(Event::Interrupted(done, failure)),
                    _ => Err(failure),
                }
            }
        }
    }

    fn teller(&self, phase: &str) -> impl FnMut(u64) + Send + use<> {
        let tell = Arc::clone(&self.tell);
        let mut progress = Progress { phase: phase.to_owned(), ..self.progress.clone() };
        move |done| {
            progress.done = done;
            tell(progress.clone());
        }
    }
}

impl Place for Site {
    type Disk = FileDisk;

    fn record(&self) -> Result<Record, Failure> {
        Ok(Site::record(self)?.get()?)
    }

    fn tell(&self, event: RecordEvent) -> Result<(RecordAction, Record), Failure> {
        Ok(Site::record(self)?.apply(event)?)
    }

    fn running(&self) -> Slot {
        self.running
    }

    fn shown(&self, slot: Slot) -> String {
        self.device(slot).display().to_string()
    }

    fn open(&self, slot: Slot, write: bool) -> std::io::Result<FileDisk> {
        FileDisk::open(&self.device(slot), write)
    }

    fn checkpoint(&self) -> Box<dyn Keep + Send> {
        // Without the folder there is no checkpoint, which only costs the resume.
        let _ = std::fs::create_dir_all(&self.state);
        Box::new(KeptFile(self.state.join(CHECKPOINT)))
    }
}

/// Hands the bytes `range` of the layer to `sender`. Returns how many came, and why no more did.
async fn fetch(
    registry: &Registry,
    repository: &str,
    release: &Release,
    range: (u64, u64),
    sender: &mpsc::Sender<Bytes>,
) -> (u64, Option<RegistryError>) {
    let (mut at, until) = range;
    let mut bytes = 0;
    while at < until {
        let mut stream = match registry.blob(repository, &release.layer, at, until).await {
            Ok(stream) => stream,
            Err(error) => return (bytes, Some(error)),
        };
        loop {
            match stream.next().await {
                Ok(Some(piece)) => {
                    bytes += piece.len() as u64;
                    at += piece.len() as u64;
                    // The slot side has stopped, and says itself why.
                    if sender.send(piece).await.is_err() {
                        return (bytes, None);
                    }
                }
                Ok(None) => break,
                Err(error) => return (bytes, Some(error)),
            }
        }
    }
    (bytes, None)
}

fn not_signed(source: &Reference, digest: Digest, reasons: &[NotVouched]) -> Failure {
    let kind = reasons.iter().map(|reason| match reason {
        NotVouched::WrongPurpose(_) => (0, "wrong-purpose"),
        NotVouched::WrongSubject => (1, "wrong-subject"),
        NotVouched::UnknownKey => (2, "wrong-key"),
        NotVouched::Unsupported(_) => (3, "unsupported-signature"),
        NotVouched::Malformed(_) | NotVouched::TooLarge(_) => (4, "malformed-signature"),
    });
    match kind.min() {
        None => Failure::refused(
            "unsigned",
            format!(
                "{source} ({digest}) has no signature; sign it with `cosign sign --key`, or, if \
                 it was copied from another registry, copy the signature too with `oras cp -r`"
            ),
        ),
        Some((_, kind)) => {
            let mut told: Vec<String> = reasons.iter().map(ToString::to_string).collect();
            told.sort();
            told.dedup();
            told.truncate(3);
            let told = told.join("; ");
            Failure::refused(kind, format!("{source} ({digest}) is not accepted: {told}"))
        }
    }
}

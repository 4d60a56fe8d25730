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
use update_manifest::oci::CONFIG_BYTES_MAX;
use update_manifest::release::Release;
use update_manifest::verified::Verified;

use super::checkpoint::{Keep, KeptFile};
use super::perform::{Local, Place, Streamed, out_of_step};
use super::plan::{Action, Event, Order, Outcome, Pauses, Plan};
use crate::failure::{Class, Failure};
use crate::registry::pull::Pulled;
use crate::registry::session::Credentials;
use crate::registry::transport::Patience;
use crate::registry::{Access, Reference, Registry, RegistryError};
use crate::settings::Settings;
use crate::site::Site;
use crate::vouch::{self, Unvouched};

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

    fn unvouched(&mut self, why: Unvouched) -> Failure {
        match why {
            Unvouched::Failed(failure) => failure,
            Unvouched::Registry(error) => self.heard(error),
        }
    }

    async fn resolve(&mut self) -> Result<Event, Failure> {
        let pulled = self.registry.manifest(&self.source).await;
        let pulled = pulled.map_err(|error| self.heard(error))?;
        self.report.digest = Some(pulled.digest);
        self.pulled = Some(pulled);
        Ok(Event::Resolved)
    }

    async fn verify(&mut self) -> Result<Event, Failure> {
        let pulled = self.pulled.take().ok_or_else(out_of_step)?;
        let (source, site) = (&self.source, self.site);
        let vouched =
            vouch::vouch(&self.registry, source, site.platform(), &site.roots, pulled).await;
        let (vouched, pulled) = vouched.map_err(|why| self.unvouched(why))?;
        self.report.key = vouched.key().to_owned();
        self.vouched = Some(vouched);
        self.pulled = pulled;
        Ok(Event::Vouched)
    }

    async fn describe(&mut self) -> Result<Event, Failure> {
        let vouched = self.vouched.take().ok_or_else(out_of_step)?;
        let pulled = self.pulled.take();
        let platform = self.site.platform();
        let manifest =
            vouch::manifest(&self.registry, &self.source, platform, vouched, pulled).await;
        let (digest, manifest) = manifest.map_err(|why| self.unvouched(why))?;
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

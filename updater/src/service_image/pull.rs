//! One pull: from the registry, past the signature, layer by layer, into the folder of images.

use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use os_init::services::images::{FOLDER, Images, ROOT};
use sha2::{Digest as _, Sha256};
use update_manifest::digest::Digest;
use update_manifest::oci::{CONFIG_BYTES_MAX, Descriptor, ImageConfig};
use update_manifest::trust::TrustRoots;

use crate::engine::install::Progress;
use crate::failure::{Class, Failure};
use crate::registry::reference::Target;
use crate::registry::{Reference, Registry, RegistryError};
use crate::vouch;

use super::layer::{self, Room, Unfit};

/// The file of a layer until it is unpacked, in the image's folder.
const LAYER: &str = "layer";
/// Most layers of one image; other builders stop at 127.
const LAYERS_MAX: usize = 256;
/// A broken download is taken up so often without a single byte in between.
const TRIES: u32 = 4;
/// So much of the state partition is left free, in bytes.
const SPARE: u64 = 256 << 20;
/// The window that unpacking a zstd frame may want, as a power of two: 16 MiB.
const WINDOW_LOG_MAX: u32 = 24;

/// What became of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The key that signed; empty where the image was there already.
    pub key: String,
    /// Bytes that came over the network for layers.
    pub downloaded: u64,
    /// Whether it was there before.
    pub was_there: bool,
}

/// Where a pull takes from and who is trusted.
pub struct Source<'a> {
    /// The registry.
    pub registry: &'a Registry,
    /// The image, by digest.
    pub reference: &'a Reference,
    /// The machine, in the words of image indexes (`amd64`).
    pub platform: &'a str,
    /// Who may sign.
    pub roots: &'a TrustRoots,
}

/// Hears how far a pull is.
pub type Tell = Arc<dyn Fn(Progress) + Send + Sync>;

/// Pulls an image into `images`, one pull at a time.
///
/// # Errors
/// Refused, corrupt and not known are told apart; nothing that counts is left in `images` then.
pub async fn pull(source: &Source<'_>, images: &Images, tell: Tell) -> Result<Pulled, Failure> {
    let name = source.reference.to_string();
    if !matches!(source.reference.target, Target::Digest(_)) {
        let message =
            format!("{name}: an image of a service is named by its digest: a tag can move");
        return Err(Failure::refused("reference", message));
    }
    if images.has(&name) {
        images.touch(&name);
        return Ok(Pulled { key: String::new(), downloaded: 0, was_there: true });
    }
    let mut progress = Progress { phase: "verifying".into(), ..Progress::default() };
    tell(progress.clone());
    let Source { registry, reference, platform, roots } = *source;
    let received = registry.manifest(reference).await?;
    let (vouched, received) = vouch::vouch(registry, reference, platform, roots, received).await?;
    let key = vouched.key().to_owned();
    let (_, manifest) = vouch::manifest(registry, reference, platform, vouched, received).await?;
    let layers = manifest.get().layers.clone();
    let codings = codings(&name, &layers)?;
    let repository = &reference.repository;
    let config = registry.small_blob(repository, manifest.config(), CONFIG_BYTES_MAX).await?;
    fits(&name, &config, platform)?;

    let began = {
        let (images, name) = (images.clone(), name.clone());
        blocking(move || images.begin(&name).and_then(|folder| Ok((room(&folder)?, folder))))
    };
    let began = began.await?;
    let (room, folder) = began.map_err(|error| on_state(source, Path::new(FOLDER), &error))?;
    progress.phase = "downloading".into();
    progress.total = layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
    let mut pulling = Pulling { source, folder: folder.clone(), room: Some(room), progress, tell };
    let made = async {
        for (layer, coding) in layers.iter().zip(codings) {
            pulling.layer(layer, coding).await?;
        }
        let (images, layer) = (images.clone(), folder.join(LAYER));
        let committed = blocking(move || {
            std::fs::remove_file(layer).and_then(|()| images.commit(&name, &config))
        });
        committed.await?.map_err(|error| on_state(source, &folder, &error))
    };
    if let Err(failure) = made.await {
        // What cannot be removed now is removed before the next pull.
        let _ = blocking(move || std::fs::remove_dir_all(folder)).await;
        return Err(failure);
    }
    Ok(Pulled { key, downloaded: pulling.progress.done, was_there: false })
}

fn on_state(source: &Source<'_>, path: &Path, error: &io::Error) -> Failure {
    let (name, path) = (source.reference, path.display());
    let message = format!("{name}: write {path}: {error}; `osctl status` shows what is free");
    Failure::new(Class::State, "state", message)
}

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Plain,
    Gzip,
    Zstd,
}

fn codings(name: &str, layers: &[Descriptor]) -> Result<Vec<Coding>, Failure> {
    let refused = |why: String| Failure::refused("layers", format!("{name}: {why}"));
    if layers.is_empty() || layers.len() > LAYERS_MAX {
        return Err(refused(format!("{} layers, want 1 to {LAYERS_MAX}", layers.len())));
    }
    let coding = |layer: &Descriptor| match layer.media_type.as_str() {
        "application/vnd.oci.image.layer.v1.tar" => Ok(Coding::Plain),
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Ok(Coding::Gzip),
        "application/vnd.oci.image.layer.v1.tar+zstd" => Ok(Coding::Zstd),
        other => {
            let shown: String = other.chars().take(80).collect();
            Err(refused(format!("a layer of kind {shown:?}, which is not unpacked here")))
        }
    };
    layers.iter().map(coding).collect()
}

/// Whether the image is for this machine.
fn fits(name: &str, config: &[u8], platform: &str) -> Result<(), Failure> {
    let config = ImageConfig::parse(config).map_err(|error| {
        Failure::new(Class::Corrupt, "image-config", format!("{name}: image config: {error}"))
    })?;
    if (config.os.as_str(), config.architecture.as_str()) == ("linux", platform) {
        return Ok(());
    }
    let message = format!(
        "{name}: is for {:?} {:?}, this machine is linux {platform}",
        config.os, config.architecture
    );
    Err(Failure::refused("arch", message))
}

/// What may be unpacked without filling the file system of `folder`.
fn room(folder: &Path) -> io::Result<Room> {
    let has = nix::sys::statvfs::statvfs(folder)?;
    let free = has.blocks_available().saturating_mul(has.fragment_size());
    Ok(Room::of(free.saturating_sub(SPARE), has.files_available()))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let stopped = |_| Failure::new(Class::System, "engine", "unpacking stopped unexpectedly");
    tokio::task::spawn_blocking(work).await.map_err(stopped)
}

struct Pulling<'a> {
    source: &'a Source<'a>,
    /// The image's folder while it is made.
    folder: PathBuf,
    /// Taken while a layer is unpacked on another thread.
    room: Option<Room>,
    progress: Progress,
    tell: Tell,
}

impl Pulling<'_> {
    /// One layer: into a file, its digest compared, and only then unpacked.
    async fn layer(&mut self, layer: &Descriptor, coding: Coding) -> Result<(), Failure> {
        let path = self.folder.join(LAYER);
        let mut room = self.room.take().unwrap_or_default();
        room.hold(layer.size).map_err(|why| self.unfit(layer, why))?;
        let received = Received::create(&path);
        let mut received = received.map_err(|error| on_state(self.source, &path, &error))?;
        self.fetch(layer, &mut received).await?;
        let digest = received.digest();
        if digest != layer.digest {
            let name = self.source.reference;
            let message = format!("{name}: layer {}: received {digest} instead", layer.digest);
            return Err(Failure::new(Class::Corrupt, "layer", message));
        }
        let root = self.folder.join(ROOT);
        let unpacked = blocking(move || {
            let done = File::open(&path)
                .map_err(|error| Unfit::Io(path.display().to_string(), error))
                .and_then(|file| unpack(file, coding, &root, &mut room));
            (done, room)
        });
        let (done, mut room) = unpacked.await?;
        // The next layer's file takes its place.
        room.release(layer.size);
        self.room = Some(room);
        done.map_err(|why| self.unfit(layer, why))
    }

    fn unfit(&self, layer: &Descriptor, why: Unfit) -> Failure {
        let name = self.source.reference;
        match why {
            Unfit::Layer(why) => {
                let message = format!("{name}: layer {}: {why}", layer.digest);
                Failure::new(Class::Corrupt, "layer", message)
            }
            Unfit::Room => Failure::new(
                Class::State,
                "no-room",
                format!(
                    "{name}: is larger than what the state partition has free, but for {} MiB; \
                     `osctl status` shows it",
                    SPARE >> 20
                ),
            ),
            Unfit::Io(path, error) => on_state(self.source, Path::new(&path), &error),
        }
    }

    /// Hands the layer's bytes to `received`, over as many connections as it takes.
    async fn fetch(&mut self, layer: &Descriptor, received: &mut Received) -> Result<(), Failure> {
        let mut tries = 0;
        while received.length < layer.size {
            let before = received.length;
            let broken = match self.connection(layer, received).await {
                Ok(()) => continue,
                Err(Broken::Disk(error)) => {
                    return Err(on_state(self.source, &self.folder.join(LAYER), &error));
                }
                Err(Broken::Registry(broken)) => broken,
            };
            tries = if received.length > before { 1 } else { tries + 1 };
            if tries >= TRIES || !matches!(broken, RegistryError::CannotKnow { .. }) {
                return Err(broken.into());
            }
            // The token or the signed address of a storage server may have run out.
            self.source.registry.forget_tokens();
            let (phase, note) = ("waiting".into(), broken.to_string());
            (self.tell)(Progress { phase, note, ..self.progress.clone() });
            tokio::time::sleep(self.source.registry.patience().first_wait * tries).await;
        }
        Ok(())
    }

    /// What one connection brings of it.
    async fn connection(
        &mut self,
        layer: &Descriptor,
        received: &mut Received,
    ) -> Result<(), Broken> {
        let Source { registry, reference, .. } = *self.source;
        let (from, repository) = (received.length, &reference.repository);
        let mut stream = registry.blob(repository, layer, from, layer.size).await?;
        while let Some(piece) = stream.next().await? {
            received.take(&piece)?;
            self.progress.done += piece.len() as u64;
            (self.tell)(self.progress.clone());
        }
        Ok(())
    }
}

/// Why a connection brought no more.
enum Broken {
    Registry(RegistryError),
    Disk(io::Error),
}

impl From<RegistryError> for Broken {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

fn unpack(file: File, coding: Coding, root: &Path, room: &mut Room) -> Result<(), Unfit> {
    let file = BufReader::new(file);
    match coding {
        Coding::Plain => layer::unpack(file, root, room),
        Coding::Gzip => layer::unpack(flate2::bufread::MultiGzDecoder::new(file), root, room),
        Coding::Zstd => {
            let mut frames = zstd::Decoder::with_buffer(file)
                .map_err(|error| Unfit::Io("zstd".into(), error))?;
            frames
                .window_log_max(WINDOW_LOG_MAX)
                .map_err(|error| Unfit::Io("zstd".into(), error))?;
            layer::unpack(frames, root, room)
        }
    }
}

/// A layer as it has come so far, in a file.
struct Received {
    file: File,
    hash: Sha256,
    length: u64,
}

impl Received {
    fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::create(path)?, hash: Sha256::new(), length: 0 })
    }

    fn take(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.write_all(piece)?;
        self.hash.update(piece);
        self.length += piece.len() as u64;
        Ok(())
    }

    fn digest(self) -> Digest {
        Digest(self.hash.finalize().into())
    }
}

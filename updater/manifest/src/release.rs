//! What a verified image says of itself: the facts that policy and the writer go by.

use partition_layout::frames::{FRAME_SIZE, FrameTable};
use partition_layout::labels::{FRAMES, FRAMES_HEAD, FRAMES_TAIL, ImageLabels};

use crate::digest::Digest;
use crate::oci::{Descriptor, ImageConfig, MEDIA_CONFIG, MEDIA_LAYER, Manifest};
use crate::verified::{Broken, Verified};

/// A release image: what is in the slot, and how the layer carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Facts about the slot.
    pub labels: ImageLabels,
    /// The layer blob.
    pub layer: Descriptor,
    /// Where its frames are.
    pub frames: FrameTable,
}

/// Why a signed image is not a release that we can install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotARelease {
    /// The config's bytes are not those that the manifest names, or not a config.
    Config(Broken),
    /// It does not have exactly one layer of our kind; says what it has.
    Layers(String),
    /// Its labels are not those of a release.
    Labels(String),
    /// The layer's annotations do not describe frames that fit its size.
    Frames(String),
}

impl core::fmt::Display for NotARelease {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            NotARelease::Config(broken) => write!(f, "image config: {broken}"),
            NotARelease::Layers(what) => write!(f, "not an OS image: {what}"),
            NotARelease::Labels(what) => write!(f, "not an OS image: {what}"),
            NotARelease::Frames(what) => write!(f, "layer cannot be read by frames: {what}"),
        }
    }
}

impl std::error::Error for NotARelease {}

impl Verified<Manifest> {
    /// The config's digest and size, to fetch it by.
    pub fn config(&self) -> &Descriptor {
        &self.get().config
    }

    /// The release that this manifest and its config describe.
    ///
    /// # Errors
    /// [`NotARelease`].
    pub fn release(&self, config: &[u8]) -> Result<Verified<Release>, NotARelease> {
        let manifest = self.get();
        if manifest.config.media_type != MEDIA_CONFIG {
            return Err(NotARelease::Layers(format!(
                "config of kind {}",
                quoted(&manifest.config.media_type,)
            )));
        }
        if Digest::of(config) != manifest.config.digest {
            return Err(NotARelease::Config(Broken::DigestDiffers));
        }
        let config = ImageConfig::parse(config)
            .map_err(|error| NotARelease::Config(Broken::Document(error)))?;
        let [layer] = manifest.layers.as_slice() else {
            return Err(NotARelease::Layers(format!("{} layers", manifest.layers.len())));
        };
        if layer.media_type != MEDIA_LAYER {
            return Err(NotARelease::Layers(format!(
                "layer of kind {}",
                quoted(&layer.media_type)
            )));
        }
        let labels = ImageLabels::decode(&config.labels())
            .map_err(|invalid| NotARelease::Labels(invalid.to_string()))?;
        let frames = frame_table(layer, labels.slot_size)?;
        Ok(self.with(Release { labels, layer: layer.clone(), frames }))
    }
}

fn frame_table(layer: &Descriptor, slot_size: u64) -> Result<FrameTable, NotARelease> {
    let find = |name: &str| {
        let missing = || NotARelease::Frames(format!("annotation {name} is missing"));
        layer.annotations.get(name).ok_or_else(missing)
    };
    let number = |name: &str| {
        let text = find(name)?;
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let value = digits.then(|| text.parse::<u64>().ok()).flatten();
        value.ok_or_else(|| NotARelease::Frames(format!("annotation {name} is malformed")))
    };
    if number(partition_layout::labels::FRAME_SIZE)? != FRAME_SIZE {
        return Err(NotARelease::Frames(format!("frames are not of {FRAME_SIZE} bytes")));
    }
    let (head, tail) = (number(FRAMES_HEAD)?, number(FRAMES_TAIL)?);
    let frames = FrameTable::decode(head, find(FRAMES)?, tail, slot_size)
        .map_err(|invalid| NotARelease::Frames(format!("table is malformed ({invalid:?})")))?;
    let end = frames.offset(frames.slot.len()).and_then(|end| end.checked_add(tail));
    if end.is_none_or(|end| end > layer.size) {
        return Err(NotARelease::Frames("frames reach beyond the layer".into()));
    }
    Ok(frames)
}

fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(80).collect::<String>())
}

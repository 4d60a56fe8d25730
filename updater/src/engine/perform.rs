//! The part of the hands that needs no network: slot and record. Synchronous, over any disk.
//!
//! | action | what it is here |
//! |---|---|
//! | read record, force, disarm, seal, arm | asked of the record |
//! | open | trailer zeroed, what was written before taken up |
//! | read back, write trailer, inspect | on the other slot |
//! | stream | [`Local::stream`], with a source of bytes |
//! | resolve, verify, describe, wait, finish | not here |

use std::io;

use bytes::Bytes;
use partition_layout::boot_state::{Action as RecordAction, Event as RecordEvent};
use partition_layout::disk::Disk;
use partition_layout::record::{Content, Record};
use partition_layout::slot::Slot;
use update_manifest::digest::Digest;
use update_manifest::release::Release;

use super::checkpoint::{Checkpoint, Keep};
use super::plan::{Action, Event};
use super::slot::{SlotWriter, Written, inspect_disk};
use crate::failure::{Class, Failure};

/// The machine as an installation touches it.
pub trait Place {
    /// A slot's device.
    type Disk: Disk<Error = io::Error>;

    /// The record as it is now.
    ///
    /// # Errors
    /// A state fault.
    fn record(&self) -> Result<Record, Failure>;

    /// Performs an event; the record is durable when it returns.
    ///
    /// # Errors
    /// A refusal of the rules, or a state fault.
    fn tell(&self, event: RecordEvent) -> Result<(RecordAction, Record), Failure>;

    /// The running slot.
    fn running(&self) -> Slot;

    /// What a slot's device is called.
    fn shown(&self, slot: Slot) -> String;

    /// Opens a slot's device.
    ///
    /// # Errors
    /// The system's.
    fn open(&self, slot: Slot, write: bool) -> io::Result<Self::Disk>;

    /// Where the checkpoint is kept.
    fn checkpoint(&self) -> Box<dyn Keep + Send>;
}

/// What came of streaming.
#[derive(Debug)]
pub enum Streamed {
    /// This is what to tell the plan.
    Told(Event),
    /// The source ended early, with so many frames done.
    EndedEarly(usize),
}

/// One installation's hold on the machine.
pub struct Local<P: Place> {
    place: P,
    target: Option<(Digest, Release)>,
    writer: Option<SlotWriter<P::Disk>>,
    /// Bytes of the slot that an earlier run had written.
    pub resumed: u64,
}

impl<P: Place> Local<P> {
    /// Touches nothing.
    pub fn new(place: P) -> Self {
        Self { place, target: None, writer: None, resumed: 0 }
    }

    /// The verified release that is installed from here on.
    pub fn describe(&mut self, digest: Digest, release: Release) {
        self.target = Some((digest, release));
    }

    /// Performs `action`. `told` hears the bytes of the slot that were read.
    ///
    /// # Errors
    /// Whatever ends the installation.
    pub fn perform(&mut self, action: &Action, told: impl FnMut(u64)) -> Result<Event, Failure> {
        match action {
            Action::ReadRecord => Ok(Event::Record(Box::new(self.place.record()?))),
            Action::Force(digest) => self.tell(RecordEvent::Force { digest: *digest }),
            Action::Disarm => self.tell(RecordEvent::Disarm),
            Action::Seal(facts) => self.tell(RecordEvent::Seal(*facts)),
            Action::Arm => self.tell(RecordEvent::Arm),
            Action::Open => self.open(),
            Action::ReadBack => {
                let (_, release) = self.target.as_ref().ok_or_else(out_of_step)?;
                let writer = self.writer.as_mut().ok_or_else(out_of_step)?;
                writer.read_back(release, told)?;
                Ok(Event::ReadBack)
            }
            Action::WriteTrailer => {
                self.writer.as_mut().ok_or_else(out_of_step)?.write_trailer()?;
                Ok(Event::Done)
            }
            Action::Inspect => self.inspect(told),
            Action::Resolve
            | Action::Verify
            | Action::Describe
            | Action::Stream
            | Action::Wait(_)
            | Action::Finish(_) => Err(out_of_step()),
        }
    }

    fn tell(&self, event: RecordEvent) -> Result<Event, Failure> {
        self.place.tell(event)?;
        Ok(Event::Done)
    }

    fn open(&mut self) -> Result<Event, Failure> {
        let (digest, release) = self.target.as_ref().ok_or_else(out_of_step)?;
        let slot = self.place.running().other();
        let shown = self.place.shown(slot);
        let disk = self
            .place
            .open(slot, true)
            .map_err(|error| super::slot::disk_fault("open", &shown, error))?;
        let checkpoint = Checkpoint::new(self.place.checkpoint(), slot, *digest);
        let writer = self.writer.insert(SlotWriter::new(disk, shown, release, checkpoint)?);
        writer.clear_trailer()?;
        self.resumed = writer.take_up()?;
        Ok(Event::Opened)
    }

    /// The bytes of the layer that are still wanted: from, and until.
    ///
    /// # Errors
    /// When nothing is open.
    pub fn wanted(&self) -> Result<(u64, u64), Failure> {
        self.writer.as_ref().and_then(SlotWriter::wanted).ok_or_else(out_of_step)
    }

    /// Writes what `source` gives, which must begin where [`Local::wanted`] says. `told` hears the
    /// bytes of the slot done so far.
    ///
    /// # Errors
    /// A disk fault, or other bytes than were signed.
    pub fn stream(
        &mut self,
        source: impl FnMut() -> Option<Bytes>,
        told: impl FnMut(u64),
    ) -> Result<Streamed, Failure> {
        let (_, release) = self.target.as_ref().ok_or_else(out_of_step)?;
        let writer = self.writer.as_mut().ok_or_else(out_of_step)?;
        match writer.consume(source, told)? {
            Written::All => {
                writer.check_received(release)?;
                Ok(Streamed::Told(Event::Received))
            }
            Written::BadFrame(why) => Ok(Streamed::Told(Event::BadFrame(writer.done(), why))),
            Written::Partly => Ok(Streamed::EndedEarly(writer.done())),
        }
    }

    fn inspect(&self, told: impl FnMut(u64)) -> Result<Event, Failure> {
        let (_, release) = self.target.as_ref().ok_or_else(out_of_step)?;
        let slot = self.place.running().other();
        let shown = self.place.shown(slot);
        let inspected = self
            .place
            .open(slot, false)
            .map_err(|error| super::slot::disk_fault("open", &shown, error))
            .and_then(|disk| inspect_disk(disk, &shown, told));
        let equal = match inspected {
            Ok(inspected) => {
                inspected.sha256 == release.labels.slot_sha256 && inspected.agrees(release).is_ok()
            }
            // Gone bad since: it is written anew, and a disk that is broken shows then.
            Err(_) => false,
        };
        Ok(Event::Inspected(equal))
    }
}

/// What became of an operator's rollback.
#[derive(Debug)]
pub struct RolledBack {
    /// What is to be done now.
    pub action: RecordAction,
    /// The record before.
    pub before: Record,
    /// The record that is durable now.
    pub after: Record,
}

/// Back to the other slot: takes an armed or running trial back, or arms the other slot after it was
/// read and found whole.
///
/// # Errors
/// A refusal of the record's rules, or a slot that is not whole.
pub fn roll_back<P: Place>(place: &P) -> Result<RolledBack, Failure> {
    let before = place.record()?;
    let other = place.running().other();
    if before.trial.is_none() && before.slot(other).content == Content::Sealed {
        let shown = place.shown(other);
        let disk = place
            .open(other, false)
            .map_err(|error| super::slot::disk_fault("open", &shown, error))?;
        inspect_disk(disk, &shown, |_| {})?.is_whole().map_err(|why| {
            let message =
                format!("slot {other} is not whole: {why}; `osupdate apply` writes it anew");
            Failure::new(Class::Corrupt, "slot", message)
        })?;
    }
    let (action, after) = place.tell(RecordEvent::Rollback)?;
    Ok(RolledBack { action, before, after })
}

/// An action came that cannot come now.
pub(super) fn out_of_step() -> Failure {
    Failure::new(Class::System, "engine", "update engine out of step")
}

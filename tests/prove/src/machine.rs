//! A machine's disk and state file, shared by everything that runs on it, with every write and flush
//! noted as a point at which the power may go.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use partition_layout::disk::Disk;
use strict_disk::StrictDisk;
use updater::engine::checkpoint::Keep;

/// The one file on the state partition that the writing of a slot goes by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct StateFile {
    /// Its content; `None` when there is none.
    pub content: Option<Vec<u8>>,
    /// The partition is full.
    pub full: bool,
}

/// The moment before a write or a flush.
#[derive(Debug, Clone)]
pub struct Cut {
    /// The disk, with what is not flushed.
    pub disk: StrictDisk,
    /// What the state file may be; the first is what it was.
    pub files: Vec<StateFile>,
    /// What would have come next.
    pub before: String,
    /// The generation of the newest record that somebody was told is durable.
    pub acknowledged: u64,
}

/// What is behind [`Shared`].
#[derive(Debug)]
pub struct Machine {
    /// The disk.
    pub disk: StrictDisk,
    /// The state file.
    pub file: StateFile,
    /// The generation of the newest record that somebody was told is durable.
    pub acknowledged: u64,
    /// Points at which the power may go, while they are noted.
    pub cuts: Option<Vec<Cut>>,
}

impl Machine {
    fn note(&mut self, before: impl FnOnce() -> String, file_after: Vec<StateFile>) {
        let Some(cuts) = &mut self.cuts else { return };
        let files = std::iter::once(self.file.clone()).chain(file_after).collect();
        cuts.push(Cut {
            disk: self.disk.clone(),
            files,
            before: before(),
            acknowledged: self.acknowledged,
        });
    }
}

/// A hold on a machine's disk and state.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Mutex<Machine>>);

impl Shared {
    /// A machine with this disk and this state file.
    #[must_use]
    pub fn new(disk: StrictDisk, file: StateFile, acknowledged: u64) -> Self {
        Self(Arc::new(Mutex::new(Machine { disk, file, acknowledged, cuts: None })))
    }

    /// The machine.
    pub fn lock(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(error: strict_disk::Failure) -> io::Error {
    io::Error::other(error.to_string())
}

impl Disk for Shared {
    type Error = io::Error;

    fn sector_size(&self) -> u32 {
        self.lock().disk.sector_size()
    }

    fn size(&self) -> u64 {
        self.lock().disk.size()
    }

    fn read(&mut self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.lock().disk.read(at, buf).map_err(failed)
    }

    fn write(&mut self, at: u64, data: &[u8]) -> io::Result<()> {
        let mut machine = self.lock();
        machine.note(|| format!("a write of {} bytes at {at}", data.len()), Vec::new());
        machine.disk.write(at, data).map_err(failed)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut machine = self.lock();
        machine.note(|| "a flush".into(), Vec::new());
        machine.disk.flush().map_err(failed)
    }
}

/// A partition's device, as the running system opens it.
#[derive(Debug)]
pub struct Part {
    /// The whole disk.
    pub disk: Shared,
    /// Where it begins, in bytes.
    pub start: u64,
    /// Its size in bytes.
    pub size: u64,
}

impl Part {
    fn place(&self, at: u64, length: usize) -> io::Result<u64> {
        let end = at.checked_add(length as u64).filter(|end| *end <= self.size);
        end.map(|_| self.start + at).ok_or_else(|| io::Error::other("outside the partition"))
    }
}

impl Disk for Part {
    type Error = io::Error;

    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read(&mut self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let place = self.place(at, buf.len())?;
        self.disk.read(place, buf)
    }

    fn write(&mut self, at: u64, data: &[u8]) -> io::Result<()> {
        let place = self.place(at, data.len())?;
        self.disk.write(place, data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.disk.flush()
    }
}

/// The state file as the updater keeps its checkpoint in it.
#[derive(Debug)]
pub struct Kept(pub Shared);

impl Kept {
    /// Changes the file; a cut in the middle leaves the old one, or one of `halfway`.
    fn change(&self, what: &str, content: Option<Vec<u8>>, halfway: Vec<Option<Vec<u8>>>) {
        let mut machine = self.0.lock();
        let full = machine.file.full;
        let files =
            halfway.into_iter().map(|content| StateFile { content, full }).collect::<Vec<_>>();
        machine.note(|| format!("the state file is {what}"), files);
        machine.file.content = content;
    }

    fn check_room(&self) -> io::Result<()> {
        if self.0.lock().file.full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Keep for Kept {
    fn read(&self) -> Vec<u8> {
        self.0.lock().file.content.clone().unwrap_or_default()
    }

    fn replace(&self, content: &[u8]) -> io::Result<()> {
        self.check_room()?;
        let new = Some(content.to_vec());
        self.change("replaced", new.clone(), vec![new, None]);
        Ok(())
    }

    fn append(&self, content: &[u8]) -> io::Result<()> {
        self.check_room()?;
        let old = self.read();
        let longer = |tail: &[u8]| Some([&old[..], tail].concat());
        let half = &content[..content.len() / 2];
        let zeros = vec![0; content.len()];
        self.change(
            "appended to",
            longer(content),
            vec![longer(content), longer(half), longer(&zeros)],
        );
        Ok(())
    }

    fn remove(&self) {
        self.change("removed", None, vec![None]);
    }
}

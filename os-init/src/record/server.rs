//! Answers on the record helper's socket.

use super::protocol::{Answer, LINE_MAX, Request};
use partition_layout::boot_state::{self, Action, Event};
use partition_layout::disk::{Disk, Region};
use partition_layout::places::{self, Loaded};
use partition_layout::record::Record;
use partition_layout::slot::Slot;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// A caller that is silent for this long is let go.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// Callers served at a time.
const CALLERS_MAX: usize = 16;

/// The record of one disk, and the slot that runs.
#[derive(Debug)]
pub struct Keeper<D> {
    disk: D,
    running: Slot,
}

impl<D: Disk> Keeper<D> {
    /// A keeper of the record partition `disk`.
    pub fn new(disk: D, running: Slot) -> Self {
        Self { disk, running }
    }

    /// Performs one request. A step that changes nothing writes nothing, except
    /// [`Event::Started`], which stores the loader's last write again: in common firmware the
    /// loader's flush does nothing.
    pub fn answer(&mut self, request: Request) -> Answer {
        let loaded = match places::load(&mut self.disk) {
            Ok(loaded) => loaded,
            Err(error) => return Answer::Failed(format!("read the boot record: {error:?}")),
        };
        let Some((_, newest)) = &loaded.newest else {
            return Answer::Failed("read the boot record: every place is damaged".into());
        };
        let event = match request {
            Request::Get => return Answer::Ok(Action::None, Box::new(newest.clone())),
            Request::Apply(event) => event,
        };
        let step = match boot_state::step(newest, self.running, event) {
            Ok(step) => step,
            Err(refused) => return Answer::Refused(refused.to_string()),
        };
        let again = matches!(event, Event::Started { .. });
        if step.record == *newest && !again {
            return Answer::Ok(step.action, Box::new(step.record));
        }
        self.store(&loaded, &step.record, step.action)
    }

    fn store(&mut self, loaded: &Loaded, record: &Record, action: Action) -> Answer {
        match places::store(&mut self.disk, loaded, record) {
            Ok(stored) => Answer::Ok(action, Box::new(stored)),
            Err(error) => Answer::Failed(format!("write the boot record: {error:?}")),
        }
    }
}

/// Listens at `socket`, for root alone, and answers until the process ends.
///
/// # Errors
/// The system's, when it cannot listen.
pub fn serve<D: Disk + Send + 'static>(keeper: Keeper<D>, socket: &Path) -> io::Result<()> {
    // The socket of a helper that was killed is in the way.
    let _ = fs::remove_file(socket);
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    let keeper = Arc::new(Mutex::new(keeper));
    for stream in listener.incoming() {
        // A failed accept is the caller's loss.
        let Ok(stream) = stream else { continue };
        if Arc::strong_count(&keeper) > CALLERS_MAX {
            continue;
        }
        let keeper = Arc::clone(&keeper);
        thread::spawn(move || {
            // A caller that goes away in the middle is its own loss.
            let _ = talk(&stream, &keeper);
        });
    }
    Ok(())
}

fn talk<D: Disk>(stream: &UnixStream, keeper: &Mutex<Keeper<D>>) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.by_ref().take(LINE_MAX as u64).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let answer = match Request::decode(&line) {
            Some(request) => keeper.lock().unwrap_or_else(PoisonError::into_inner).answer(request),
            None => Answer::Refused("request not understood".into()),
        };
        (&*stream).write_all(answer.encode().as_bytes())?;
    }
}

/// `os-init record`: serves the record partition named in boot.json.
///
/// # Errors
/// A message when the partition cannot be opened or the socket not be made.
pub fn run() -> Result<(), String> {
    let facts = crate::boot_facts::BootFacts::load()
        .map_err(|e| format!("read {}: {e}", crate::boot_facts::PATH))?;
    let running = facts.running().ok_or("no slot is running: nothing to keep a record of")?;
    let disk = kernel_abi::FileDisk::open(Path::new(&facts.record.part), true)
        .map_err(|e| format!("open the record partition {}: {e}", facts.record.part))?;
    let region = Region::new(disk, 0, facts.record.size)
        .ok_or_else(|| format!("{} is smaller than the table says", facts.record.part))?;
    // It must answer when memory is short: the machine is confirmed through it.
    if let Err(error) = nix::sys::mman::mlockall(
        nix::sys::mman::MlockAllFlags::MCL_CURRENT | nix::sys::mman::MlockAllFlags::MCL_FUTURE,
    ) {
        eprintln!("record helper: lock memory: {error}");
    }
    serve(Keeper::new(region, running), Path::new(super::SOCKET))
        .map_err(|e| format!("listen at {}: {e}", super::SOCKET))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Client;
    use kernel_abi::FileDisk;
    use partition_layout::boot_state::ImageFacts;
    use strict_disk::StrictDisk;

    fn image(path: &Path) -> FileDisk {
        fs::File::create(path).unwrap().set_len(16 << 20).unwrap();
        let mut disk = FileDisk::open(path, true).unwrap();
        disk.write(0, &places::encode_identity([5; 16], 512)).unwrap();
        let loaded = places::load(&mut disk).unwrap();
        let facts = ImageFacts { release: 1, secver: 0, digest: [0; 32] };
        places::store(&mut disk, &loaded, &boot_state::factory([5; 16], facts)).unwrap();
        disk
    }

    fn keeper() -> Keeper<StrictDisk> {
        let mut disk = StrictDisk::zeroed(512, 16 << 20);
        disk.put(0, &places::encode_identity([5; 16], 512));
        let loaded = places::load(&mut disk).unwrap();
        let facts = ImageFacts { release: 1, secver: 0, digest: [0; 32] };
        places::store(&mut disk, &loaded, &boot_state::factory([5; 16], facts)).unwrap();
        Keeper::new(disk, Slot::A)
    }

    fn generation(answer: Answer) -> u64 {
        let Answer::Ok(_, record) = answer else { panic!("{answer:?}") };
        record.generation
    }

    #[test]
    fn a_start_is_stored_again_although_it_changes_nothing() {
        let mut keeper = keeper();
        let started = Request::Apply(Event::Started { nonce: [9; 16], watchdog: 0 });
        let first = generation(keeper.answer(started));
        // The loader's flush may have done nothing; this one does.
        assert_eq!(generation(keeper.answer(started)), first + 1);
        assert_eq!(generation(keeper.answer(Request::Get)), first + 1);
        assert!(keeper.disk.unflushed().is_empty());
    }

    #[test]
    fn what_is_refused_or_cannot_be_stored_is_told_and_leaves_the_record() {
        let mut keeper = keeper();
        let refused = keeper.answer(Request::Apply(Event::Rollback));
        assert_eq!(refused, Answer::Refused(boot_state::Refused::NotConfirmed.to_string()));
        let started = Event::Started { nonce: [9; 16], watchdog: 0 };
        let before = generation(keeper.answer(Request::Apply(started)));
        keeper.disk.unwritable = (0..32 << 10).collect();
        let failed = keeper.answer(Request::Apply(Event::Confirm));
        assert!(matches!(failed, Answer::Failed(_)), "{failed:?}");
        assert_eq!(generation(keeper.answer(Request::Get)), before);
        keeper.disk.unreadable = (0..32 << 10).collect();
        assert!(matches!(keeper.answer(Request::Get), Answer::Failed(_)));
    }

    #[test]
    fn a_client_confirms_and_disarms_over_the_socket() {
        let folder = std::env::temp_dir().join(format!("record-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (path, socket) = (folder.join("disk"), folder.join("sock"));
        let keeper = Keeper::new(image(&path), Slot::A);
        let at = socket.clone();
        thread::spawn(move || serve(keeper, &at));
        let mut client = loop {
            match Client::connect_at(&socket) {
                Ok(client) => break client,
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        };
        assert_eq!(
            client.apply(Event::Rollback),
            Err(super::super::Error::Refused(boot_state::Refused::NotConfirmed.to_string()))
        );
        client.apply(Event::Started { nonce: [9; 16], watchdog: 0 }).unwrap();
        let (_, confirmed) = client.apply(Event::Confirm).unwrap();
        assert!(confirmed.slot(Slot::A).proven);
        let (_, again) = client.apply(Event::Confirm).unwrap();
        assert_eq!(again.generation, confirmed.generation, "no change, no write");
        let (_, disarmed) = client.apply(Event::Disarm).unwrap();
        assert_eq!(client.get().unwrap(), disarmed);
        fs::remove_dir_all(&folder).unwrap();
    }
}

//! `/init`: from the kernel's first process to PID 1 of the verified root.
//!
//! Trusts the signed initrd (`/verity`, `/modules`) and the loader's variable; nothing of the command
//! line, the ESP or `/.extra`.

use crate::boot_facts::{self, BootFacts, Place, Slots};
use crate::console::{say, warn};
use crate::find_disk::{self, BootedDisk};
use crate::record::protocol::{Answer, Request};
use crate::record::server::Keeper;
use crate::watchdog::Petted;
use kernel_abi::FileDisk;
use kernel_abi::device_mapper::DeviceMapper;
use nix::mount::{MsFlags, mount};
use partition_layout::boot_state::Event;
use partition_layout::boot_variable::{BootVariable, NAME};
use partition_layout::guid;
use partition_layout::record::Target;
use partition_layout::slot::Slot;
use partition_layout::verity::{VerityTable, hex};
use std::fs;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// Name of the verity device.
pub const ROOT_DEVICE: &str = "bascule-root";
const ROOT: &str = "/sysroot";
const NEXT: &str = "/usr/lib/bascule/os-init";
const VERITY: &str = "/verity";

/// Why the initrd cannot go on.
#[derive(Debug)]
pub enum Failure {
    /// This boot fails; the loader tries again or goes to the other slot.
    Boot(String),
    /// The slot's content is corrupted: evidence.
    Corrupt(String),
}

/// Whether this process is `/init` of our initrd.
#[must_use]
pub fn is_here() -> bool {
    Path::new(VERITY).exists() && std::process::id() == 1
}

/// Goes all the way; returns only when it cannot.
pub fn run() -> Failure {
    if let Err(why) = mount_kernel_file_systems() {
        return Failure::Boot(why);
    }
    let mut watchdog = Petted::default();
    load_modules(&mut watchdog);
    let variable = match read_variable() {
        Ok(variable) => variable,
        Err(why) => return Failure::Boot(why),
    };
    if variable.booted == Target::Recovery {
        return crate::recovery::run(&mut watchdog);
    }
    match enter_root(&variable, &mut watchdog) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn mount_kernel_file_systems() -> Result<(), String> {
    let none: Option<&str> = None;
    for (kind, target, flags, data) in [
        ("proc", "/proc", MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, none),
        ("sysfs", "/sys", MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, none),
        ("devtmpfs", "/dev", MsFlags::MS_NOSUID, Some("mode=755")),
        ("tmpfs", "/run", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755")),
    ] {
        fs::create_dir_all(target).map_err(|e| format!("make {target}: {e}"))?;
        match mount(Some(kind), target, Some(kind), flags, data) {
            // The kernel may have mounted devtmpfs itself.
            Ok(()) | Err(nix::errno::Errno::EBUSY) => {}
            Err(error) => return Err(format!("mount {target}: {error}")),
        }
    }
    Ok(())
}

/// Loads the initrd's modules in the order of their file names. One that has no hardware, or is
/// loaded already, fails, and that is no error; nor is one whose bus is not there (ENOENT: it needs
/// symbols of a module that did not stay).
fn load_modules(watchdog: &mut Petted) {
    let mut paths: Vec<_> =
        fs::read_dir("/modules").into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in &paths {
        let loaded = fs::File::open(path).map_err(|e| e.to_string()).and_then(|file| {
            nix::kmod::finit_module(&file, c"", nix::kmod::ModuleInitFlags::empty())
                .map_err(|e| e.to_string())
        });
        if let Err(why) = loaded
            && !["EEXIST", "ENODEV", "ENOENT"].iter().any(|fine| why.starts_with(fine))
        {
            warn(&format!("load {}: {why}", path.display()));
        }
        watchdog.arm();
        watchdog.pet();
    }
}

fn read_variable() -> Result<BootVariable, String> {
    let folder = "/sys/firmware/efi/efivars";
    let none: Option<&str> = None;
    mount(Some("efivarfs"), folder, Some("efivarfs"), MsFlags::MS_RDONLY, none)
        .map_err(|e| format!("mount {folder}: {e}"))?;
    let path = format!("{folder}/{NAME}-{}", guid::VENDOR);
    let bytes = fs::read(&path).map_err(|e| {
        format!("read the loader's variable {path}: {e}; this kernel must be started by the loader")
    })?;
    // The first four bytes are the variable's attributes.
    bytes
        .get(4..)
        .and_then(BootVariable::decode)
        .ok_or_else(|| format!("read the loader's variable {path}: not understood"))
}

/// What a function that never returns would return.
pub enum Never {}

fn enter_root(variable: &BootVariable, watchdog: &mut Petted) -> Result<Never, Failure> {
    let Target::Slot(slot) = variable.booted else {
        return Err(Failure::Boot("no slot was started".into()));
    };
    let disk = find_disk::wait(variable, &mut || watchdog.pet()).map_err(Failure::Boot)?;
    let facts = gather(&disk, slot, variable).map_err(Failure::Boot)?;
    say(&format!("booted slot {slot} of /dev/{}", disk.name));
    match verified_root(&facts, slot, watchdog) {
        Ok(()) => {}
        Err(Failure::Corrupt(why)) => {
            record_corruption(&facts, slot);
            return Err(Failure::Corrupt(why));
        }
        Err(failure) => return Err(failure),
    }
    switch_root(&facts).map_err(Failure::Boot)
}

fn gather(disk: &BootedDisk, slot: Slot, variable: &BootVariable) -> Result<BootFacts, String> {
    let place = |kind, what: &str| {
        let missing = || format!("find {what} on /dev/{}: not in its table", disk.name);
        let (offset, size) = disk.extent(kind).ok_or_else(missing)?;
        let part = disk.partition_device(offset).ok_or_else(|| {
            format!("find {what} on /dev/{}: the kernel has no device", disk.name)
        })?;
        Ok::<_, String>(Place { dev: format!("/dev/{}", disk.name), offset, size, part })
    };
    let entry = disk.record.slot(slot);
    Ok(BootFacts {
        slot: slot.word().into(),
        trial: disk.record.trial == Some(slot),
        disk: format!("/dev/{}", disk.name),
        disk_id: hex(&disk.record.disk_id),
        sector_size: disk.table.sector_size,
        record: place(guid::RECORD, "the boot record")?,
        slots: Slots { a: place(guid::SLOT_A, "slot A")?, b: place(guid::SLOT_B, "slot B")? },
        release: entry.release,
        version: String::new(),
        digest: (entry.digest != [0; 32]).then(|| hex(&entry.digest)),
        state: "ok".into(),
        state_reason: None,
        loader_version: variable.loader.clone(),
        record_written: variable.record_written,
        record_damaged: variable.damaged,
        reasons: variable.reasons.iter().map(|reason| format!("{reason:?}")).collect(),
        boot_id: hex(&variable.nonce),
    })
}

/// Sets up verity over the slot, mounts it, and reads what the boot needs through it: a corrupted
/// block among those is evidence now, and not a panic later.
fn verified_root(facts: &BootFacts, slot: Slot, watchdog: &mut Petted) -> Result<(), Failure> {
    let boot = |tried: &str, why: String| Failure::Boot(format!("{tried}: {why}"));
    let table = fs::read_to_string(VERITY)
        .ok()
        .and_then(|text| VerityTable::decode(&text))
        .ok_or_else(|| boot("read the verity table in the initrd", "not understood".into()))?;
    let device = &facts.place(slot).part;
    let mapper = DeviceMapper::open(Path::new("/dev/mapper/control"))
        .map_err(|e| boot("open device-mapper", e.to_string()))?;
    let sectors = table.data_blocks.saturating_mul(8);
    let (_, minor) = mapper
        .create(ROOT_DEVICE, sectors, "verity", &table.target(device))
        .map_err(|e| boot("set up verity", e.to_string()))?;
    let corrupt = |why: String| Failure::Corrupt(format!("verify slot {slot}: {why}"));
    let root = format!("/dev/dm-{minor}");
    let mut block = [0; 4096];
    fs::File::open(&root)
        .and_then(|mut file| file.read_exact(&mut block))
        .map_err(|e| corrupt(format!("first block: {e}")))?;
    fs::create_dir_all(ROOT).map_err(|e| boot("make /sysroot", e.to_string()))?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    let none: Option<&str> = None;
    mount(Some(root.as_str()), ROOT, Some("erofs"), flags, none)
        .map_err(|e| corrupt(format!("mount {root}: {e}")))?;
    read_boot_set(watchdog).map_err(corrupt)?;
    match mapper.status(ROOT_DEVICE) {
        Ok(status) if status.starts_with('V') => Ok(()),
        Ok(status) => Err(corrupt(format!("verity says {status:?}"))),
        Err(error) => Err(boot("ask verity", error.to_string())),
    }
}

fn read_boot_set(watchdog: &mut Petted) -> Result<(), String> {
    let list = fs::read_to_string(format!("{ROOT}/usr/share/bascule/boot-set"))
        .map_err(|e| format!("boot set: {e}"))?;
    let mut buffer = vec![0; 256 * 1024];
    for path in list.lines().filter(|line| line.starts_with('/')) {
        let mut file =
            fs::File::open(format!("{ROOT}{path}")).map_err(|e| format!("{path}: {e}"))?;
        while file.read(&mut buffer).map_err(|e| format!("{path}: {e}"))? > 0 {
            watchdog.pet();
        }
    }
    Ok(())
}

/// Writes the evidence into the record; there is no helper yet. A power cut here leaves the record
/// as it was, and the next start finds the same corruption.
fn record_corruption(facts: &BootFacts, slot: Slot) {
    let store = || -> Result<(), String> {
        let disk =
            FileDisk::open(Path::new(&facts.record.part), true).map_err(|e| e.to_string())?;
        match Keeper::new(disk, slot).answer(Request::Apply(Event::VerityError)) {
            Answer::Ok(..) => Ok(()),
            Answer::Refused(why) | Answer::Failed(why) => Err(why),
        }
    };
    if let Err(why) = store() {
        warn(&format!("record the corruption: {why}"));
    }
}

fn switch_root(facts: &BootFacts) -> Result<Never, String> {
    let failed = |tried: &'static str| move |e: nix::errno::Errno| format!("{tried}: {e}");
    fs::create_dir_all("/run/bascule").map_err(|e| format!("make /run/bascule: {e}"))?;
    facts.store(Path::new(boot_facts::PATH)).map_err(|e| format!("write boot.json: {e}"))?;
    let none: Option<&str> = None;
    for folder in ["/dev", "/proc", "/sys", "/run"] {
        let target = format!("{ROOT}{folder}");
        mount(Some(folder), target.as_str(), none, MsFlags::MS_MOVE, none)
            .map_err(|e| format!("move {folder}: {e}"))?;
    }
    free_initrd();
    nix::unistd::chdir(ROOT).map_err(failed("enter the root"))?;
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none).map_err(failed("move the root"))?;
    nix::unistd::chroot(".").map_err(failed("change the root"))?;
    nix::unistd::chdir("/").map_err(failed("enter the root"))?;
    let error = Command::new(NEXT).arg0("os-init").env_clear().exec();
    Err(format!("start {NEXT}: {error}"))
}

/// Gives the initrd's memory back; what stays costs memory and nothing else.
fn free_initrd() {
    let _ = fs::remove_dir_all("/modules");
    for file in [VERITY, "/policy", "/init"] {
        let _ = fs::remove_file(file);
    }
}

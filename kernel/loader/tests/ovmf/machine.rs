//! A machine of QEMU with UEFI firmware, watched through its serial line.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const FIRMWARE: &str = "/usr/share/OVMF";
/// A start takes seconds, with a large image some tens, on a machine that is busy minutes.
const DEADLINE: Duration = Duration::from_secs(300);
/// Between two looks at the serial line.
const POLL: Duration = Duration::from_millis(100);
/// A keyboard repeats a held key some thirty times a second.
const KEY_REPEAT: Duration = Duration::from_millis(30);
/// The key that brings up the question.
const HELD_KEY: u8 = b'b';

/// How the disk is attached.
#[derive(Clone, Copy, Debug)]
pub enum Bus {
    Virtio,
    Scsi,
    Ahci,
    Usb,
    /// With transfers of at most 8 KiB.
    Nvme,
}

/// What is different from an ordinary machine.
#[derive(Clone, Debug)]
pub struct Machine {
    pub bus: Bus,
    pub sector: u32,
    pub memory_mib: u32,
    /// Memory below 4 GiB, where it is to be short.
    pub low_mib: Option<u32>,
    pub secure_boot: bool,
    pub read_only: bool,
    /// More of QEMU's words.
    pub more: Vec<String>,
    /// The answer to the question that holding the key brings up; `None` holds no key.
    pub answer: Option<u8>,
    /// So long the key is held on when the question has come.
    pub holds_on: Duration,
    /// Time passes at once while the processor idles, and fast while it does not: a watchdog's
    /// minutes take seconds, also where a stub waits busily.
    pub hasty: bool,
    /// The firmware finds its variables as the last machine on this disk left them.
    pub keeps_variables: bool,
    /// The disk is not plugged in.
    pub without_disk: bool,
    /// A second disk with the same content, from which the machine does not start.
    pub clone: Option<PathBuf>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            bus: Bus::Virtio,
            sector: 512,
            memory_mib: 512,
            low_mib: None,
            secure_boot: false,
            read_only: false,
            more: Vec::new(),
            answer: None,
            holds_on: Duration::ZERO,
            hasty: false,
            keeps_variables: false,
            without_disk: false,
            clone: None,
        }
    }
}

impl Machine {
    /// Runs the machine until it switches itself off or `enough` lines of the loader or of the
    /// payload satisfy it, and returns what the serial line said.
    ///
    /// Panics with the whole output when that does not happen in time.
    pub fn run(&self, disk: &Path, enough: impl Fn(&str) -> bool) -> String {
        let folder = disk.parent().expect("a disk lies in a folder");
        let log = folder.join("serial.log");
        fs::write(&log, "").expect("make the serial log");
        let mut qemu = Qemu(self.command(disk, folder, &log).spawn().expect("start QEMU"));
        let mut keyboard = qemu.0.stdin.take().expect("the serial line's input");
        let begun = Instant::now();
        let mut asked = None;
        loop {
            thread::sleep(if self.answer.is_some() { KEY_REPEAT } else { POLL });
            let text = plain(&fs::read(&log).expect("read the serial log"));
            if let Some(key) = self.answer {
                if asked.is_none() && text.contains("start by hand") {
                    asked = Some(Instant::now());
                }
                let answers = asked.is_some_and(|asked| asked.elapsed() >= self.holds_on);
                let key = if answers { key } else { HELD_KEY };
                // A machine that has ended takes no more keys; the end is seen below.
                let _ = keyboard.write_all(&[key]).and_then(|()| keyboard.flush());
            }
            let ended = qemu.0.try_wait().expect("look at QEMU").is_some();
            if ended || enough(&text) {
                return text;
            }
            assert!(begun.elapsed() < DEADLINE, "no end in {DEADLINE:?}, serial line:\n{text}");
        }
    }

    fn command(&self, disk: &Path, folder: &Path, log: &Path) -> Command {
        let (code, vars) = if self.secure_boot {
            ("OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.snakeoil.fd")
        } else {
            ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd")
        };
        let own_vars = folder.join("vars.fd");
        if !self.keeps_variables {
            // New variables each time: the loader may rely on none.
            fs::copy(Path::new(FIRMWARE).join(vars), &own_vars)
                .expect("copy the firmware's variables");
        }
        // Without the mode that owns it, the flash must be open to everybody, or nothing is kept.
        let (smm, secure) = if self.secure_boot {
            (",smm=on", ["-global", "driver=cfi.pflash01,property=secure,value=on"].as_slice())
        } else {
            ("", [].as_slice())
        };
        let low = self.low_mib.map(|mib| format!(",max-ram-below-4g={mib}M")).unwrap_or_default();
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-net", "none"])
            .args(["-cpu", "max", "-machine", &format!("q35{smm}{low}")])
            .args(["-m", &format!("{}M", self.memory_mib)])
            .arg("-drive")
            .arg(format!("if=pflash,unit=0,format=raw,readonly=on,file={FIRMWARE}/{code}"))
            .arg("-drive")
            .arg(format!("if=pflash,unit=1,format=raw,file={}", own_vars.display()))
            .arg("-chardev")
            .arg(format!("stdio,id=serial,signal=off,logfile={}", log.display()))
            .args(["-serial", "chardev:serial"])
            .args(self.disk_words(disk))
            .args(secure)
            .args(&self.more)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        qemu.args(if self.hasty {
            ["-accel", "tcg,thread=single", "-icount", "shift=8,sleep=off"].as_slice()
        } else {
            ["-accel", "tcg,thread=multi"].as_slice()
        });
        qemu
    }

    fn disk_words(&self, disk: &Path) -> Vec<String> {
        if self.without_disk {
            return Vec::new();
        }
        let read_only = if self.read_only { ",readonly=on" } else { "" };
        let drive = format!(
            "if=none,id=disk,format=raw,cache=unsafe,discard=unmap,file={}{read_only}",
            disk.display()
        );
        let size = format!("logical_block_size={0},physical_block_size={0}", self.sector);
        let devices = match self.bus {
            Bus::Virtio => vec![format!("virtio-blk-pci,drive=disk,{size}")],
            Bus::Scsi => {
                vec!["virtio-scsi-pci".to_owned(), format!("scsi-hd,drive=disk,{size}")]
            }
            Bus::Ahci => vec!["ide-hd,drive=disk,bus=ide.0".to_owned()],
            Bus::Usb => {
                vec!["qemu-xhci".to_owned(), format!("usb-storage,drive=disk,{size}")]
            }
            Bus::Nvme => vec![
                "nvme,id=nvme,serial=1,mdts=1".to_owned(),
                format!("nvme-ns,drive=disk,{size}"),
            ],
        };
        let mut words = vec!["-drive".to_owned(), drive];
        for device in devices {
            words.extend(["-device".to_owned(), device]);
        }
        if let Some(clone) = &self.clone {
            let drive = format!("if=none,id=clone,format=raw,file={}", clone.display());
            let device = format!("virtio-blk-pci,drive=clone,addr=0x2,{size}");
            words.extend(["-drive".to_owned(), drive, "-device".to_owned(), device]);
        }
        words
    }
}

/// QEMU, ended when dropped.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The text of a serial line without the terminal's control sequences.
fn plain(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut characters = String::from_utf8_lossy(bytes).into_owned().chars().collect::<Vec<_>>();
    characters.reverse();
    while let Some(character) = characters.pop() {
        match character {
            '\x1b' if characters.last() == Some(&'[') => {
                while characters.pop().is_some_and(|it| !it.is_ascii_alphabetic()) {}
            }
            '\n' => text.push('\n'),
            it if it.is_control() => {}
            it => text.push(it),
        }
    }
    text
}

/// A folder for one test, removed when the test passes.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("make the folder of a test");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

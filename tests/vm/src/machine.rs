//! One virtual machine: QEMU with our disk, its serial log, its controls.
//!
//! A machine outlives its QEMU: after [`Machine::power_cut`] the disk and the firmware's
//! variables stay, and [`Machine::power_on`] starts it again from them.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::accel::Accel;
use crate::host_tool::show;
use crate::limit::Place;
use crate::qmp::Qmp;
use crate::ssh::Ssh;
use crate::{accel, artifacts, limit, wait};

/// The address inside every machine behind which its registry is, whatever the port outside.
pub const REGISTRY_ADDRESS: &str = "10.0.2.100:5000";

const OVMF: &str = "/usr/share/OVMF";
/// The emulated processor. Without fast string instructions, which are emulated byte by byte, the
/// guest copies and clears memory in plain loops: a sixth less to compute in each boot.
pub(crate) const EMULATED: &str = "max,erms=off,fsrm=off";

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of its working folder; unique among machines that run at the same time.
    pub name: String,
    /// The disk it starts from; never written, an overlay is.
    pub disk: PathBuf,
    /// Whether the firmware checks signatures (against its built-in test certificate).
    pub secure_boot: bool,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub cpus: u32,
    /// Value of `-rtc`, where the clock is part of the scenario.
    pub rtc: Option<String>,
    /// Whether the network card is plugged into a network on which nobody ever answers.
    pub alone: bool,
    /// Whether it has a serial port and a screen.
    pub consoles: bool,
    /// More arguments for QEMU.
    pub extra: Vec<String>,
    /// Whether every write goes to a log too (`write_log`).
    pub write_log: bool,
    /// Whether QEMU dies with the thread that started it. Only `demo --keep` says no.
    pub tied: bool,
}

impl Options {
    /// A plain machine with one processor and 1 GiB, starting from `disk`.
    pub fn new(name: &str, disk: &Path) -> Self {
        Self {
            name: name.to_owned(),
            disk: disk.to_path_buf(),
            secure_boot: false,
            memory_mib: 1024,
            cpus: 1,
            rtc: None,
            alone: false,
            consoles: true,
            extra: Vec::new(),
            write_log: false,
            tied: true,
        }
    }
}

/// Where the memory of a machine comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Anonymous; lost with QEMU.
    Own,
    /// A file that keeps what is written: the template's.
    Kept(PathBuf),
    /// A template's file, read only on demand, never written.
    Restored(PathBuf),
}

/// A machine. Dropping it ends QEMU and removes its disk, and gives its place back.
pub struct Machine {
    options: Options,
    dir: PathBuf,
    ssh_port: u16,
    process: Option<Process>,
    serial_mark: usize,
    boots: u32,
    _place: Place,
}

struct Process {
    child: Child,
    qmp: Qmp,
}

impl Machine {
    /// Makes the machine's folder, overlay and firmware variables, and waits for a free place.
    /// Does not start it.
    ///
    /// # Errors
    /// The base disk or the firmware is missing, or the folder cannot be made.
    pub fn prepare(options: Options) -> Result<Self> {
        let place = limit::enter()?;
        let dir = artifacts::work_dir().join(&options.name);
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("empty {}", dir.display()))?;
        }
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        overlay(&options.disk, &dir.join("disk.qcow2"))?;
        let vars = if options.secure_boot { "OVMF_VARS_4M.snakeoil.fd" } else { "OVMF_VARS_4M.fd" };
        fs::copy(Path::new(OVMF).join(vars), dir.join("vars.fd"))
            .with_context(|| format!("copy {OVMF}/{vars} (package ovmf)"))?;
        File::create(dir.join("serial.log")).context("create serial.log")?;
        let ssh_port = free_port()?;
        let machine =
            Self { options, dir, ssh_port, process: None, serial_mark: 0, boots: 0, _place: place };
        machine.route_registry(None)?;
        Ok(machine)
    }

    /// Prepares a machine and switches it on.
    ///
    /// # Errors
    /// As [`Machine::prepare`] and [`Machine::power_on`].
    pub fn start(options: Options) -> Result<Self> {
        let mut machine = Self::prepare(options)?;
        machine.power_on()?;
        Ok(machine)
    }

    /// Switches a machine on that is off: firmware, loader, kernel, from its own disk.
    ///
    /// # Errors
    /// It is on already, or QEMU does not start.
    pub fn power_on(&mut self) -> Result<()> {
        self.launch(&Memory::Own, &[])
    }

    pub(crate) fn launch(&mut self, memory: &Memory, extra: &[&str]) -> Result<()> {
        if self.process.is_some() {
            bail!("machine {} is on already", self.options.name);
        }
        self.boots += 1;
        let socket = self.dir.join("qmp.sock");
        // A stale socket of a killed QEMU; absent at the first start.
        let _ = fs::remove_file(&socket);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("qemu.log"))
            .context("open qemu.log")?;
        let mut command = self.command_line(memory)?;
        command.args(extra);
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().context("clone qemu.log")?).stderr(log);
        let mut child = command.spawn().context("start QEMU (package qemu-system-x86)")?;
        match Qmp::connect(&socket) {
            Ok(qmp) => {
                self.process = Some(Process { child, qmp });
                Ok(())
            }
            Err(error) => {
                // It may have ended by itself; then the log says why.
                let _ = child.kill();
                let _ = child.wait();
                let said = fs::read_to_string(self.dir.join("qemu.log")).unwrap_or_default();
                Err(error.context(format!("QEMU did not start: {}", said.trim())))
            }
        }
    }

    fn command_line(&self, memory: &Memory) -> Result<Command> {
        let options = &self.options;
        let mut command = if options.tied {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
            command
        } else {
            // A group of its own: the Ctrl-C for another program is not for this one.
            let mut command = Command::new("qemu-system-x86_64");
            command.process_group(0);
            command
        };
        let smm = if options.secure_boot { "on" } else { "off" };
        command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
        command.args(["-machine", &format!("q35,smm={smm},memory-backend=ram")]);
        match accel::chosen()? {
            Accel::Kvm => command.args(["-accel", "kvm", "-cpu", "host"]),
            Accel::Tcg => command.args(["-accel", "tcg,thread=multi", "-cpu", EMULATED]),
        };
        let size = options.memory_mib;
        let backend = match memory {
            Memory::Own => format!("memory-backend-ram,id=ram,size={size}M"),
            Memory::Kept(file) => {
                format!("memory-backend-file,id=ram,size={size}M,mem-path={},share=on", show(file))
            }
            Memory::Restored(file) => {
                format!("memory-backend-file,id=ram,size={size}M,mem-path={},share=off", show(file))
            }
        };
        command.args(["-object", &backend, "-smp", &options.cpus.to_string()]);
        self.firmware(&mut command);
        self.disk(&mut command)?;
        self.devices(&mut command)?;
        if let Some(rtc) = &options.rtc {
            command.args(["-rtc", rtc]);
        }
        command.args(&options.extra);
        Ok(command)
    }

    fn firmware(&self, command: &mut Command) {
        let code =
            if self.options.secure_boot { "OVMF_CODE_4M.secboot.fd" } else { "OVMF_CODE_4M.fd" };
        if self.options.secure_boot {
            command.args(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
        }
        command.arg("-drive");
        command.arg(format!("if=pflash,unit=0,format=raw,readonly=on,file={OVMF}/{code}"));
        command.arg("-drive");
        command.arg(format!("if=pflash,unit=1,format=raw,file={}", show(&self.vars())));
    }

    fn disk(&self, command: &mut Command) -> Result<()> {
        let file = show(&self.disk_file());
        command.args(["-blockdev", &format!("driver=file,node-name=file0,filename={file}")]);
        command.args(["-blockdev", "driver=qcow2,node-name=disk0,file=file0,discard=unmap"]);
        let mut node = "disk0";
        if self.options.write_log {
            // QEMU wants the file there, and each run needs a log of its own.
            let log = self.write_log_file();
            File::create(&log).with_context(|| format!("create {}", log.display()))?;
            let log = show(&log);
            command.args(["-blockdev", &format!("driver=file,node-name=log0,filename={log}")]);
            command.args([
                "-blockdev",
                "driver=blklogwrites,node-name=logged0,file=disk0,log=log0,\
                 log-sector-size=512,discard=unmap",
            ]);
            node = "logged0";
        }
        command.args(["-device", &format!("virtio-blk-pci,drive={node},bootindex=0")]);
        Ok(())
    }

    fn devices(&self, command: &mut Command) -> Result<()> {
        let relay = artifacts::program("tcp-relay")?;
        let outside = format!(
            "user,id=net0,hostfwd=tcp:127.0.0.1:{}-:22,\
             guestfwd=tcp:{REGISTRY_ADDRESS}-cmd:{} {}",
            self.ssh_port,
            show(&relay),
            show(&self.route_file())
        );
        let alone = "hubport,id=net0,hubid=0".to_owned();
        command.args(["-netdev", if self.options.alone { &alone } else { &outside }]);
        command.args(["-device", "virtio-net-pci,id=nic0,netdev=net0,romfile="]);
        command.args(["-device", "i6300esb", "-action", "watchdog=reset"]);
        command.args(["-device", "virtio-rng-pci", "-device", "vmgenid,guid=auto"]);
        if self.options.consoles {
            let serial = show(&self.serial_file());
            command.args(["-chardev", &format!("file,id=serial0,path={serial},append=on")]);
            command.args(["-serial", "chardev:serial0"]);
        } else {
            command.args(["-serial", "none", "-vga", "none"]);
        }
        let socket = show(&self.dir.join("qmp.sock"));
        command.args(["-qmp", &format!("unix:{socket},server=on,wait=off")]);
        Ok(())
    }

    /// One more argument for QEMU, from the next power on.
    pub fn add_option(&mut self, name: &str, value: &str) {
        self.options.extra.extend([name.to_owned(), value.to_owned()]);
    }

    /// What its clock shows at the next power on, as `-rtc` takes it; none: the host's time.
    pub fn set_clock(&mut self, time: Option<&str>) {
        self.options.rtc = time.map(str::to_owned);
    }

    /// Ends QEMU at once, as a power cut does: what the guest had not flushed may be lost to the
    /// host's cache only, see `write_log` for a stricter cut.
    ///
    /// # Errors
    /// QEMU cannot be waited for.
    pub fn power_cut(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.child.kill().context("kill QEMU")?;
            process.child.wait().context("wait for QEMU")?;
        }
        Ok(())
    }

    /// Waits until QEMU ends by itself, after `poweroff` in the machine.
    ///
    /// # Errors
    /// It does not within `limit`.
    pub fn wait_off(&mut self, limit: Duration) -> Result<()> {
        let Some(process) = self.process.as_mut() else {
            return Ok(());
        };
        wait::until("the machine to switch itself off", limit, || {
            process.child.try_wait().context("wait for QEMU")
        })?;
        self.process = None;
        Ok(())
    }

    /// QEMU's controls.
    ///
    /// # Errors
    /// The machine is off.
    pub fn qmp(&mut self) -> Result<&mut Qmp> {
        match self.process.as_mut() {
            Some(process) => Ok(&mut process.qmp),
            None => bail!("machine {} is off", self.options.name),
        }
    }

    /// What QEMU has computed since the last power on, which a busy host does not make longer; zero
    /// when off.
    pub fn processor_time(&self) -> Duration {
        let pid = self.process.as_ref().map(|it| it.child.id());
        let stat = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
        // Behind the name, which may hold anything: user and system time are fields 14 and 15.
        let stat = stat.as_deref().and_then(|it| it.rsplit(") ").next()).unwrap_or_default();
        let ticks: u64 =
            stat.split(' ').skip(11).take(2).filter_map(|it| it.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Presses the reset button.
    ///
    /// # Errors
    /// The machine is off.
    pub fn reset(&mut self) -> Result<()> {
        self.qmp()?.execute("system_reset", &json!({})).map(drop)
    }

    /// Plugs the network cable in or out.
    ///
    /// # Errors
    /// The machine is off.
    pub fn set_link(&mut self, up: bool) -> Result<()> {
        self.qmp()?.execute("set_link", &json!({"name": "nic0", "up": up})).map(drop)
    }

    /// Puts a registry (or a proxy before it) on `port` behind [`REGISTRY_ADDRESS`], or nothing.
    ///
    /// # Errors
    /// The route file cannot be written.
    pub fn route_registry(&self, port: Option<u16>) -> Result<()> {
        let text = port.map_or_else(|| "none\n".to_owned(), |port| format!("{port}\n"));
        fs::write(self.route_file(), text).context("write the machine's registry route")
    }

    /// How to log in.
    ///
    /// # Errors
    /// The test key is missing.
    pub fn ssh(&self) -> Result<Ssh> {
        Ok(Ssh { port: self.ssh_port, key: artifacts::key("ssh")? })
    }

    /// All that the serial line has said, over all starts.
    pub fn serial(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.serial_file()).unwrap_or_default()).into_owned()
    }

    /// What the serial line has said since the last [`Machine::mark_serial`].
    pub fn serial_since_mark(&self) -> String {
        let bytes = fs::read(self.serial_file()).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.serial_mark..).unwrap_or_default()).into_owned()
    }

    /// Forgets what the serial line has said until now.
    pub fn mark_serial(&mut self) {
        self.serial_mark = fs::metadata(self.serial_file())
            .map_or(0, |meta| usize::try_from(meta.len()).unwrap_or(0));
    }

    /// Waits until the serial line has said `text` since the last mark.
    ///
    /// # Errors
    /// It does not within `limit`, or QEMU ends; the message shows the log's end.
    pub fn wait_serial(&mut self, text: &str, limit: Duration) -> Result<()> {
        let found = wait::until(&format!("`{text}` on the serial line"), limit, || {
            if self.serial_since_mark().contains(text) {
                return Ok(Some(()));
            }
            self.check_running()?;
            Ok(None)
        });
        found.with_context(|| format!("serial line ends with:\n{}", self.serial_tail()))
    }

    /// The last lines of the serial line, for messages.
    pub fn serial_tail(&self) -> String {
        let text = self.serial();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
    }

    /// Fails when QEMU has ended by itself.
    ///
    /// # Errors
    /// It has, or the machine is off.
    pub fn check_running(&mut self) -> Result<()> {
        let Some(process) = self.process.as_mut() else { bail!("the machine is off") };
        if let Some(status) = process.child.try_wait().context("look at QEMU")? {
            let said = fs::read_to_string(self.dir.join("qemu.log")).unwrap_or_default();
            bail!("QEMU ended with {status}: {}", said.trim());
        }
        Ok(())
    }

    /// The machine's options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The machine's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The machine's disk, a qcow2 overlay.
    pub fn disk_file(&self) -> PathBuf {
        self.dir.join("disk.qcow2")
    }

    /// The firmware's variables.
    pub fn vars(&self) -> PathBuf {
        self.dir.join("vars.fd")
    }

    /// The log of writes of the present start.
    pub fn write_log_file(&self) -> PathBuf {
        self.dir.join(format!("writes-{}.log", self.boots))
    }

    fn serial_file(&self) -> PathBuf {
        self.dir.join("serial.log")
    }

    fn route_file(&self) -> PathBuf {
        self.dir.join("registry.port")
    }

    /// Leaves QEMU running and the folder in place, and gives the process, if the machine is on.
    /// Only for `demo --keep`, of a machine that is not tied.
    #[must_use]
    pub fn let_go(self) -> Option<u32> {
        let process = self.process.as_ref().map(|process| process.child.id());
        std::mem::forget(self);
        process
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Nothing to do about a QEMU that is gone, nor about files that are.
        let _ = self.power_cut();
        if std::thread::panicking() {
            eprintln!("machine {}: logs in {}", self.options.name, self.dir.display());
        }
        for name in ["disk.qcow2", "vars.fd"] {
            let _ = fs::remove_file(self.dir.join(name));
        }
        for number in 0..=self.boots {
            let _ = fs::remove_file(self.dir.join(format!("writes-{number}.log")));
        }
    }
}

/// Makes a qcow2 overlay at `path` over the qcow2 or raw disk `base`.
///
/// # Errors
/// qemu-img fails.
pub fn overlay(base: &Path, path: &Path) -> Result<()> {
    let format = if base.extension().is_some_and(|it| it == "qcow2") { "qcow2" } else { "raw" };
    let base = base.canonicalize().with_context(|| format!("find disk {}", base.display()))?;
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", format, "-b", &show(&base), &show(path)])
}

/// Makes `to`, a raw and sparse file: the content of the disk `from`, an overlay with what is below.
///
/// # Errors
/// `qemu-img` fails.
pub fn raw_copy(from: &Path, to: &Path) -> Result<()> {
    qemu_img(&["convert", "-O", "raw", "-S", "64k", &show(from), &show(to)])
}

/// Runs qemu-img.
///
/// # Errors
/// It fails; the message has what it said.
pub fn qemu_img(words: &[&str]) -> Result<()> {
    let output = Command::new("qemu-img")
        .args(words)
        .output()
        .context("start qemu-img (package qemu-utils)")?;
    if !output.status.success() {
        bail!("qemu-img {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// A port on 127.0.0.1 that was free a moment ago.
///
/// # Errors
/// The kernel gives none.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("find a free port")?;
    Ok(listener.local_addr().context("find a free port")?.port())
}

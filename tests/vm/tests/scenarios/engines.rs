//! Container engines that people have unpack the image to the slot file, byte for byte.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use vm_tests::host_tool::{run as tool, show};
use vm_tests::registry::{REPOSITORY, Registry, TAG};
use vm_tests::{artifacts, wait};

const START: Duration = Duration::from_secs(30);

/// Copies files for a snapshot, which works on any file system; nothing of Kubernetes, and no
/// snapshotter that must know what it stands on.
const CONFIG: &str = "\
version = 3
disabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.snapshotter.v1.btrfs']
[[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
platform = 'linux/amd64'
snapshotter = 'native'
";

/// With an own daemon, whose files are nobody else's.
#[test]
fn containerd_unpacks_the_image_to_the_slot_file() -> Result<()> {
    let registry = Registry::start("pulled-by-containerd")?;
    let release = artifacts::release("small")?;
    registry.publish(&release)?;
    let folder = emptied("containerd")?;
    let daemon = Containerd::start(&folder)?;
    let ctr = show(&artifacts::foreign_tool("ctr")?);
    let (address, image) = (show(&daemon.address), name(&registry));
    let pull = ["images", "pull", "--plain-http", "--snapshotter", "native"];
    let mut words = vec!["--address", address.as_str()];
    words.extend(pull);
    words.push(&image);
    tool(&ctr, &words)?;
    drop(daemon);
    let snapshots = folder.join("root/io.containerd.snapshotter.v1.native/snapshots");
    same_slot(&snapshots, &release.slot())?;
    fs::remove_dir_all(&folder)?;
    Ok(())
}

#[test]
fn podman_unpacks_the_image_to_the_slot_file() -> Result<()> {
    let registry = Registry::start("pulled-by-podman")?;
    let release = artifacts::release("small")?;
    registry.publish(&release)?;
    let folder = emptied("podman")?;
    let (root, run) = (show(&folder.join("root")), show(&folder.join("run")));
    let (temporary, image) = (show(&folder.join("tmp")), name(&registry));
    let place = ["--root", &root, "--runroot", &run, "--tmpdir", &temporary];
    let pull = ["--storage-driver", "vfs", "pull", "--tls-verify=false", &image];
    tool("podman", &[place.as_slice(), pull.as_slice()].concat())?;
    same_slot(&folder.join("root/vfs/dir"), &release.slot())?;
    fs::remove_dir_all(&folder)?;
    Ok(())
}

/// A containerd of a test; ended when dropped.
struct Containerd {
    child: Child,
    address: PathBuf,
}

impl Containerd {
    fn start(folder: &Path) -> Result<Self> {
        let address = folder.join("containerd.sock");
        let config = folder.join("config.toml");
        fs::write(&config, CONFIG).with_context(|| format!("write {}", config.display()))?;
        let mut command = as_root()?;
        command.arg(artifacts::foreign_tool("containerd")?);
        for (option, file) in
            [("--config", "config.toml"), ("--root", "root"), ("--state", "state")]
        {
            command.arg(option).arg(folder.join(file));
        }
        command.arg("--address").arg(&address);
        let log_path = folder.join("log");
        let log = fs::File::create(&log_path)?;
        command.stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().context("start containerd")?;
        let mut daemon = Self { child, address };
        let socket = wait::until("containerd's socket", START, || {
            if let Some(status) = daemon.child.try_wait()? {
                bail!("containerd has ended with {status}");
            }
            Ok(daemon.address.exists().then_some(()))
        });
        socket.with_context(|| format!("see {}", log_path.display()))?;
        Ok(daemon)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Who may mount and own what an engine unpacks: root, or root in name spaces of its own.
fn as_root() -> Result<Command> {
    let mut tied = Command::new("setpriv");
    tied.args(["--pdeathsig", "KILL"]);
    if tool("id", &["-u"])?.trim() != "0" {
        tied.args(["unshare", "--map-root-user", "--mount"]);
    }
    Ok(tied)
}

fn name(registry: &Registry) -> String {
    format!("127.0.0.1:{}/{REPOSITORY}:{TAG}", registry.port())
}

fn emptied(engine: &str) -> Result<PathBuf> {
    let folder = artifacts::work_dir().join(format!("engine-{engine}"));
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("empty {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}

/// The one file of the one layer that lies unpacked in `layers`, against the slot image.
fn same_slot(layers: &Path, slot: &Path) -> Result<()> {
    let listed = tool("find", &[&show(layers), "-type", "f"])?;
    let files: Vec<&str> = listed.lines().collect();
    ensure!(
        matches!(files.as_slice(), [file] if file.ends_with("/slot.img")),
        "one layer with one file, the slot image: {files:?}"
    );
    let unpacked = files.first().copied().unwrap_or_default();
    tool("cmp", &[unpacked, &show(slot)])?;
    Ok(())
}

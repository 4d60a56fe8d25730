//! A service without its container, for the machine whose containerd does not start: the command
//! and the mounts of its service file, with all of root's privileges. It is there to mend, not to
//! stay.

use super::file::{MountEntry, ServiceFile};
use super::folders;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::convert::Infallible;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// What must be done so that the command finds what its container would have shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// An empty file system at this path.
    Empty(String),
    /// What is at the first path, at the second.
    Bind(String, String),
}

/// Becomes the service `file` in a mount namespace of its own.
///
/// # Errors
/// A message, when a mount fails or the program cannot be started.
pub fn become_service(file: &ServiceFile) -> Result<Infallible, String> {
    let nothing = None::<&str>;
    let failed = |what: &str| {
        let name = file.name.clone();
        let what = what.to_owned();
        move |error: nix::Error| format!("{name} without a container: {what}: {error}")
    };
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("a mount namespace"))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(nothing, "/", nothing, private, nothing).map_err(failed("make mounts private"))?;
    // As in every container. networkd waits for udev, which there is none of, where /sys is writable.
    let read_only = MsFlags::MS_REMOUNT
        | MsFlags::MS_BIND
        | MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC;
    mount(nothing, "/sys", nothing, read_only, nothing).map_err(failed("make /sys read-only"))?;
    for step in steps(&folders::existing(file)) {
        match step {
            Step::Empty(target) => {
                // On a read-only root it is there already, or the mount says what is missing.
                let _ = fs::create_dir_all(&target);
                let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
                let options = Some("mode=0755");
                mount(Some("tmpfs"), target.as_str(), Some("tmpfs"), flags, options)
                    .map_err(failed(&format!("mount a tmpfs at {target}")))?;
            }
            Step::Bind(source, target) => {
                let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
                mount(Some(source.as_str()), target.as_str(), nothing, flags, nothing)
                    .map_err(failed(&format!("mount {source} at {target}")))?;
            }
        }
    }
    let Some((program, args)) = file.command.split_first() else {
        return Err(format!("{}: no command", file.name));
    };
    let error = Command::new(program).args(args).envs(&file.env).exec();
    Err(format!("{} without a container: start {program}: {error}", file.name))
}

/// Mounts that show something at another place than the root does.
fn steps(mounts: &[MountEntry]) -> Vec<Step> {
    let step = |entry: &MountEntry| {
        let target = entry.target().to_owned();
        match entry.source.as_str() {
            "tmpfs" => Some(Step::Empty(target)),
            source if source == target => None,
            source => Some(Step::Bind(source.to_owned(), target)),
        }
    };
    mounts.iter().filter_map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_elsewhere_is_mounted() {
        let text = "format = 1\nname = \"a\"\ncommand = [\"/x\"]\nmounts = [\n\
                    { source = \"/run/bascule\" },\n{ source = \"/a\", target = \"/b\" },\n\
                    { source = \"tmpfs\", target = \"/run/sshd\" },\n]\n";
        let file = ServiceFile::parse(text).unwrap();
        let expected = vec![Step::Bind("/a".into(), "/b".into()), Step::Empty("/run/sshd".into())];
        assert_eq!(steps(&file.mounts), expected);
    }
}

//! Service files, format 1: TOML, one service a file.
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `format` | version of this format; only 1 is known | required |
//! | `name` | lower-case letters, digits and `-`, at most 32 bytes; the container's id | required |
//! | `description` | one line for people | `""` |
//! | `image` | what its root is: `registry/repository@sha256:…`, pulled before; see [`super::images`] | the OS itself |
//! | `command` | program (absolute path) and arguments | the image's; without `image` it is required |
//! | `args` | arguments for the image's own program, in the place of the image's own; not beside `command` | the image's |
//! | `env` | table of environment variables | `{}` |
//! | `user` | numeric user id; the group has the same number | the image's, 0 |
//! | `writable_root` | whether it may write to its root, into memory, until its next start; only with `image` and `memory_mib` | false |
//! | `capabilities` | capabilities kept, in the form `CAP_NET_ADMIN`; all others are dropped | `[]` |
//! | `devices` | device nodes, or `@other-slot`, `@running-slot` of the booted disk | `[]` |
//! | `mounts` | list of `{ source, target, write, optional }`; a source `tmpfs` makes an empty one | `[]` |
//! | `new_privileges` | whether setuid programs work inside | false |
//! | `network_settings` | whether `/proc/sys/net` may be written | false |
//! | `namespaces` | namespaces of its own, of `pid`, `ipc`, `network`; mounts always are | `["pid", "ipc"]` |
//! | `memory_mib`, `tasks` | limits of the cgroup | none, 512 |
//! | `oom_score_adj` | -1000..1000 | 0 |
//! | `kind` | `daemon`: it is to run for ever; `oneshot`: it is to end with 0, once in each boot; `scheduled`: it is to end with 0, whenever `schedule` says so | `daemon` |
//! | `schedule` | cron expression of five fields, in UTC; see [`super::schedule`] | required for `scheduled` |
//! | `restart` | when it is started again after it ended: `always`, `on-failure`, `never` | daemon `always`, others `never` |
//! | `after` | services that are started first, if they are started at all | `[]` |
//! | `before` | services that are started later; only for services that are not built in | `[]` |
//! | `requires` | services without which it is not started: daemons that run, oneshots that ended with 0 | `[]` |
//! | `labels` | table of words for people and programs; nothing here reads them | `{}` |
//! | `health` | table: how it is asked whether it is well, see below | none: well as soon as it runs |
//! | `requires_path` | a path of the host without which there is nothing to do: it is not started | none |
//! | `gate` | whether the health gate waits for it; for built-in services only | true |
//! | `stop_s` | seconds between TERM and KILL | 10 |
//!
//! `health` has one of `exec` (a program inside, its path and arguments; well is status 0), `tcp` (a
//! port of the machine; well is a connection), `http` (`http://ADDRESS:PORT/PATH`; well is a status
//! of 200 to 399) and `notify` (true: the service says `READY=1` by itself, see [`super::notify`], within
//! `start_s` and once); and `interval_s` (10), `timeout_s` (5), `retries` (3) and `start_s` (30). Who
//! requires the service waits for the first good answer. After `retries` bad ones in a row, the first
//! good one past or `start_s` over, the service has failed: it is stopped, and `restart` decides.
//!
//! Unknown keys are refused by name: a misspelt privilege must not be silently dropped.

mod health;
mod invalid;

pub use health::{Health, Question};
pub use invalid::Invalid;

use super::images;
use super::schedule::Schedule;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Where the services manager's socket lies: who sees this folder as root may command all services.
pub const SOCKET_FOLDER: &str = "/run/os-services";
/// The socket, in [`SOCKET_FOLDER`].
pub const SOCKET: &str = "/run/os-services/services.sock";
/// The longest service name, in bytes.
pub const NAME_MAX: usize = 32;
/// The largest service file that is read, in bytes.
pub const FILE_MAX: usize = 64 * 1024;

/// What becomes of a service in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It runs for ever.
    #[default]
    Daemon,
    /// It does something once in each boot, and ends.
    Oneshot,
    /// It does something whenever its time has come, and ends.
    Scheduled,
}

impl Kind {
    /// The word in service files.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::Oneshot => "oneshot",
            Self::Scheduled => "scheduled",
        }
    }
}

/// A namespace that a service may have to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Namespace {
    /// It sees its own processes and no others.
    Pid,
    /// System V and POSIX message queues and shared memory.
    Ipc,
    /// No network but its own loopback, which is down.
    Network,
}

impl Namespace {
    /// The word in service files and in the runtime specification.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pid => "pid",
            Self::Ipc => "ipc",
            Self::Network => "network",
        }
    }
}

/// When a service that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// However it ended.
    Always,
    /// When it ended with another status than 0, or by a signal.
    OnFailure,
    /// When a person says so.
    Never,
}

/// One service, as its file says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceFile {
    /// Version of the file format, 1.
    pub format: u32,
    /// The service's name and container id.
    pub name: String,
    /// One line for people.
    #[serde(default)]
    pub description: String,
    /// The image that its root is made of, by digest; the OS itself where there is none.
    #[serde(default)]
    pub image: Option<String>,
    /// Program and arguments; empty for the image's own.
    #[serde(default)]
    pub command: Vec<String>,
    /// Arguments for the image's own program, in the place of the image's own.
    #[serde(default)]
    pub args: Option<Vec<String>>,
    /// Environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Numeric user and group; the image's own where there is none.
    #[serde(default)]
    pub user: Option<u32>,
    /// Whether it may write to its root; that is in memory, and gone at its next start.
    #[serde(default)]
    pub writable_root: bool,
    /// Capabilities kept.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Device nodes made inside.
    #[serde(default)]
    pub devices: Vec<String>,
    /// What is mounted inside, beside the defaults.
    #[serde(default)]
    pub mounts: Vec<MountEntry>,
    /// Whether setuid programs gain privileges inside.
    #[serde(default)]
    pub new_privileges: bool,
    /// Whether the kernel's network settings, `/proc/sys/net`, may be written.
    #[serde(default)]
    pub network_settings: bool,
    /// Namespaces that it has to itself; the others are the machine's.
    #[serde(default = "default_namespaces")]
    pub namespaces: Vec<Namespace>,
    /// Memory limit in MiB.
    #[serde(default)]
    pub memory_mib: Option<u64>,
    /// Limit of tasks (processes and threads).
    #[serde(default = "default_tasks")]
    pub tasks: u32,
    /// OOM score adjustment.
    #[serde(default)]
    pub oom_score_adj: i32,
    /// What becomes of it in the end.
    #[serde(default)]
    pub kind: Kind,
    /// When a scheduled service is started; see [`Self::schedule`].
    #[serde(default)]
    schedule: Option<String>,
    /// When it is started again; see [`Self::restart`].
    #[serde(default)]
    restart: Option<Restart>,
    /// Services that are started before this one.
    #[serde(default)]
    pub after: Vec<String>,
    /// Services that are started after this one.
    #[serde(default)]
    pub before: Vec<String>,
    /// Services without which this one is not started.
    #[serde(default)]
    pub requires: Vec<String>,
    /// Words for people and programs.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How it is asked whether it is well.
    #[serde(default)]
    pub health: Option<Health>,
    /// A path of the host without which the service has nothing to do, and is not started.
    #[serde(default)]
    pub requires_path: Option<String>,
    /// Whether the health gate waits for this service; only built-in ones may say.
    #[serde(default)]
    pub gate: Option<bool>,
    /// Seconds between TERM and KILL when it is stopped.
    #[serde(default = "default_stop_s")]
    pub stop_s: u64,
}

/// One mount of a service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountEntry {
    /// A path of the host, or `tmpfs`.
    pub source: String,
    /// Where it appears inside; the same as `source` when absent.
    #[serde(default)]
    pub target: Option<String>,
    /// Whether the service may write there.
    #[serde(default)]
    pub write: bool,
    /// Whether a missing source is passed over.
    #[serde(default)]
    pub optional: bool,
}

impl MountEntry {
    /// The path inside the container.
    pub fn target(&self) -> &str {
        self.target.as_deref().unwrap_or(&self.source)
    }
}

fn default_namespaces() -> Vec<Namespace> {
    vec![Namespace::Pid, Namespace::Ipc]
}

fn default_tasks() -> u32 {
    512
}

fn default_stop_s() -> u64 {
    10
}

/// A name that a service may bear; no such name leads out of a folder.
///
/// # Errors
/// [`Invalid::Value`].
pub fn named(name: &str) -> Result<&str, Invalid> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    match !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(plain) {
        true => Ok(name),
        false => Err(Invalid::Value("name", "is not 1 to 32 of a-z, 0-9 and -".into())),
    }
}

impl ServiceFile {
    /// Reads one service file.
    ///
    /// # Errors
    /// [`Invalid`] with the key and the rule it breaks.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.len() > FILE_MAX {
            return Err(Invalid::TooLarge);
        }
        let file: Self = toml::from_str(text).map_err(|e| Invalid::Syntax(e.to_string()))?;
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<(), Invalid> {
        if self.format != 1 {
            return Err(Invalid::Format(self.format));
        }
        named(&self.name)?;
        if self.image.as_deref().is_some_and(|image| images::digest(image).is_none()) {
            let rule = "is not registry/repository@sha256:<64 hex digits>: a tag can move";
            return Err(Invalid::Value("image", rule.into()));
        }
        if self.writable_root && self.image.is_none() {
            return Err(Invalid::Value(
                "writable_root",
                "is only for services with `image`".into(),
            ));
        }
        if self.writable_root && self.memory_mib.is_none() {
            let rule = "wants `memory_mib`: what is written there is memory";
            return Err(Invalid::Value("writable_root", rule.into()));
        }
        let program = self.command.first();
        if !program.map_or(self.image.is_some(), |program| program.starts_with('/')) {
            return Err(Invalid::Value("command", "does not begin with an absolute path".into()));
        }
        if self.args.is_some() && !self.command.is_empty() {
            return Err(Invalid::Value("args", "and `command` are one too many".into()));
        }
        let words = self.command.iter().chain(self.args.iter().flatten());
        if words.chain(self.env.values()).any(|text| text.contains('\0')) {
            return Err(Invalid::Value("command", "or `env` holds a zero byte".into()));
        }
        if let Some(bad) = self.capabilities.iter().find(|c| !c.starts_with("CAP_")) {
            return Err(Invalid::Value("capabilities", format!("holds `{bad}`, want CAP_…")));
        }
        let device = |d: &String| d.starts_with("/dev/") || d.starts_with('@');
        if let Some(bad) = self.devices.iter().find(|d| !device(d)) {
            return Err(Invalid::Value("devices", format!("holds `{bad}`, want /dev/… or @…")));
        }
        for mount in &self.mounts {
            let source = mount.source == "tmpfs" || mount.source.starts_with('/');
            let climbs = mount.target().split('/').any(|part| part == "..");
            if !source || !mount.target().starts_with('/') || climbs {
                return Err(Invalid::Value(
                    "mounts",
                    format!("{} to {}: want absolute paths", mount.source, mount.target()),
                ));
            }
        }
        if self.requires_path.as_ref().is_some_and(|path| !path.starts_with('/')) {
            return Err(Invalid::Value("requires_path", "is not an absolute path".into()));
        }
        if let Some(Err(rule)) = self.health.as_ref().map(Health::question) {
            return Err(Invalid::Value("health", rule.into()));
        }
        if (self.kind == Kind::Scheduled) != self.schedule.is_some() {
            let rule = "and `kind = \"scheduled\"` want each other";
            return Err(Invalid::Value("schedule", rule.into()));
        }
        if let Some(Err(why)) = self.schedule.as_deref().map(Schedule::parse) {
            return Err(Invalid::Value("schedule", format!("is no cron expression: {why}")));
        }
        if self.kind != Kind::Daemon && self.restart == Some(Restart::Always) {
            let rule = "is `always` for a service that would then never be done";
            return Err(Invalid::Value("restart", rule.into()));
        }
        if !(-1000..=1000).contains(&self.oom_score_adj) {
            return Err(Invalid::Value("oom_score_adj", "is not within -1000 and 1000".into()));
        }
        Ok(())
    }

    /// When it is started again after it ended.
    pub fn restart(&self) -> Restart {
        self.restart.unwrap_or(match self.kind {
            Kind::Daemon => Restart::Always,
            Kind::Oneshot | Kind::Scheduled => Restart::Never,
        })
    }

    /// When a scheduled service is started; none for any other.
    #[must_use]
    pub fn schedule(&self) -> Option<Schedule> {
        // Checked when the file was read.
        self.schedule.as_deref().and_then(|text| Schedule::parse(text).ok())
    }

    /// The same service with another root.
    #[must_use]
    pub fn with_image(&self, image: Option<String>) -> Self {
        Self { image, ..self.clone() }
    }

    /// Whether a start by `other` would come to the same: the order of starts is no part of a run.
    pub fn runs_like(&self, other: &Self) -> bool {
        let run = |file: &Self| Self { after: Vec::new(), before: Vec::new(), ..file.clone() };
        run(self) == run(other)
    }

    /// What it may do that a bare service may not, a word or two each; empty for the least privilege.
    pub fn privileges(&self) -> Vec<String> {
        let mut granted = self.capabilities.clone();
        granted.extend(self.devices.iter().map(|device| format!("device {device}")));
        let shown = self.mounts.iter().filter(|it| it.source != "tmpfs");
        for mount in shown.clone() {
            let verb = if mount.write { "writes" } else { "reads" };
            granted.push(format!("{verb} {}", mount.source));
        }
        let orders = |source: &str| source == "/" || Path::new(SOCKET_FOLDER).starts_with(source);
        if shown.clone().any(|it| orders(&it.source)) {
            granted.push("commands all services".into());
        }
        for (has, words) in [
            (self.writable_root, "writes its own root"),
            (self.new_privileges, "setuid programs"),
            (self.network_settings, "network settings"),
            (!self.namespaces.contains(&Namespace::Pid), "sees all processes"),
            (!self.namespaces.contains(&Namespace::Ipc), "the machine's IPC"),
            (self.oom_score_adj < 0, "kept when memory is short"),
        ] {
            granted.extend(has.then(|| words.to_owned()));
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(rest: &str) -> ServiceFile {
        let head = "format = 1\nname = \"a\"\ncommand = [\"/bin/true\"]\n";
        ServiceFile::parse(&format!("{head}{rest}")).unwrap()
    }

    #[test]
    fn defaults_are_the_least_privilege() {
        let file = with("");
        assert!(file.capabilities.is_empty() && file.devices.is_empty() && !file.new_privileges);
        assert!(file.privileges().is_empty() && file.gate.is_none());
        assert_eq!((file.kind, file.restart()), (Kind::Daemon, Restart::Always));
    }

    #[test]
    fn a_misspelt_key_is_named() {
        let text = "format = 1\nname = \"a\"\ncommand = [\"/x\"]\ncapabilites = []\n";
        let Err(Invalid::Syntax(why)) = ServiceFile::parse(text) else { panic!("accepted") };
        assert!(why.contains("capabilites"), "{why}");
    }

    #[test]
    fn rules_are_enforced() {
        for (line, key) in [
            ("name = \"A\"\ncommand = [\"/x\"]", "name"),
            ("name = \"a\"\ncommand = []", "command"),
            ("name = \"a\"\ncommand = [\"x\"]", "command"),
            ("name = \"a\"\ncommand = [\"/x\"]\ncapabilities = [\"net_admin\"]", "capabilities"),
            ("name = \"a\"\ncommand = [\"/x\"]\ndevices = [\"vda\"]", "devices"),
            ("name = \"a\"\ncommand = [\"/x\"]\nmounts = [{ source = \"/a/../b\" }]", "mounts"),
            ("name = \"a\"\ncommand = [\"/x\"]\nrequires_path = \"x\"", "requires_path"),
            ("name = \"a\"\ncommand = [\"/x\"]\noom_score_adj = 1001", "oom_score_adj"),
            (
                "name = \"a\"\ncommand = [\"/x\"]\nkind = \"oneshot\"\nrestart = \"always\"",
                "restart",
            ),
        ] {
            match ServiceFile::parse(&format!("format = 1\n{line}\n")) {
                Err(Invalid::Value(named, _)) => assert_eq!(named, key),
                other => panic!("{line}: {other:?}"),
            }
        }
        assert_eq!(
            ServiceFile::parse("format = 2\nname = \"a\"\ncommand = [\"/x\"]\n"),
            Err(Invalid::Format(2))
        );
    }

    #[test]
    fn a_oneshot_is_started_once_unless_it_says_otherwise() {
        assert_eq!(with("kind = \"oneshot\"").restart(), Restart::Never);
        let patient = with("kind = \"oneshot\"\nrestart = \"on-failure\"");
        assert_eq!(patient.restart(), Restart::OnFailure);
    }

    #[test]
    fn a_schedule_and_its_kind_want_each_other() {
        let text = |rest: &str| format!("format = 1\nname = \"a\"\ncommand = [\"/x\"]\n{rest}");
        let nightly = with("kind = \"scheduled\"\nschedule = \"0 3 * * *\"");
        assert_eq!(nightly.restart(), Restart::Never);
        assert!(nightly.schedule().is_some() && with("").schedule().is_none());
        for bad in [
            "kind = \"scheduled\"",
            "schedule = \"0 3 * * *\"",
            "kind = \"scheduled\"\nschedule = \"at three\"",
            "kind = \"oneshot\"\nschedule = \"0 3 * * *\"",
        ] {
            let refused = ServiceFile::parse(&text(bad));
            assert!(matches!(refused, Err(Invalid::Value("schedule", _))), "{bad}: {refused:?}");
        }
        let again = "kind = \"scheduled\"\nschedule = \"0 3 * * *\"\nrestart = \"always\"";
        assert!(ServiceFile::parse(&text(again)).is_err());
    }

    #[test]
    fn another_order_is_no_other_run() {
        assert!(with("after = [\"b\"]").runs_like(&with("before = [\"c\"]")));
        assert!(!with("").runs_like(&with("user = 7")));
    }

    #[test]
    fn every_privilege_is_listed() {
        let file = with(
            "capabilities = [\"CAP_KILL\"]\ndevices = [\"/dev/kmsg\"]\nnew_privileges = true\n\
             network_settings = true\noom_score_adj = -1\nnamespaces = [\"network\"]\n\
             mounts = [{ source = \"/var\", write = true }, { source = \"/run\" }]\n",
        );
        let listed = [
            "CAP_KILL",
            "device /dev/kmsg",
            "writes /var",
            "reads /run",
            "commands all services",
            "setuid programs",
            "network settings",
            "sees all processes",
            "the machine's IPC",
            "kept when memory is short",
        ];
        assert_eq!(file.privileges(), listed);
    }
}

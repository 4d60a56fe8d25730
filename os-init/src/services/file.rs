//! Service files, format 1: TOML, one service a file.
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `format` | version of this format; only 1 is known | required |
//! | `name` | lower-case letters, digits and `-`, at most 32 bytes; the container's id | required |
//! | `description` | one line for people | `""` |
//! | `command` | program (absolute path) and arguments | required |
//! | `env` | table of environment variables | `{}` |
//! | `user` | numeric user id; the group has the same number | 0 |
//! | `capabilities` | capabilities kept, in the form `CAP_NET_ADMIN`; all others are dropped | `[]` |
//! | `devices` | device nodes, or `@other-slot`, `@running-slot` of the booted disk | `[]` |
//! | `mounts` | list of `{ source, target, write, optional }`; a source `tmpfs` makes an empty one | `[]` |
//! | `new_privileges` | whether setuid programs work inside | false |
//! | `network_settings` | whether `/proc/sys/net` may be written | false |
//! | `memory_mib`, `tasks` | limits of the cgroup | none, 512 |
//! | `oom_score_adj` | -1000..1000 | 0 |
//! | `after` | services that are started first | `[]` |
//! | `requires_path` | a path of the host without which there is nothing to do: it is not started | none |
//! | `gate` | whether the health gate waits for it | true |
//! | `stop_s` | seconds between TERM and KILL | 10 |
//!
//! Unknown keys are refused by name: a misspelt privilege must not be silently dropped.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

/// The longest service name, in bytes.
pub const NAME_MAX: usize = 32;
/// The largest service file that is read, in bytes.
pub const FILE_MAX: usize = 64 * 1024;

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
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Numeric user and group.
    #[serde(default)]
    pub user: u32,
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
    /// Memory limit in MiB.
    #[serde(default)]
    pub memory_mib: Option<u64>,
    /// Limit of tasks (processes and threads).
    #[serde(default = "default_tasks")]
    pub tasks: u32,
    /// OOM score adjustment.
    #[serde(default)]
    pub oom_score_adj: i32,
    /// Services that are started before this one.
    #[serde(default)]
    pub after: Vec<String>,
    /// A path of the host without which the service has nothing to do, and is not started.
    #[serde(default)]
    pub requires_path: Option<String>,
    /// Whether the health gate waits for this service.
    #[serde(default = "default_gate")]
    pub gate: bool,
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

fn default_tasks() -> u32 {
    512
}

fn default_gate() -> bool {
    true
}

fn default_stop_s() -> u64 {
    10
}

/// Why a service file, or a set of them, is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invalid {
    /// Larger than [`FILE_MAX`].
    TooLarge,
    /// Not TOML, or not of this format; the parser's words.
    Syntax(String),
    /// A format this release does not know.
    Format(u32),
    /// A value that breaks a rule: the key and the rule.
    Value(&'static str, String),
    /// Two files with one name.
    Duplicate(String),
    /// `after` names a service that does not exist: who, whom.
    UnknownAfter(String, String),
    /// Services that wait for each other.
    Cycle(Vec<String>),
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => write!(f, "larger than {FILE_MAX} bytes"),
            Self::Syntax(why) => write!(f, "{}", why.replace('\n', " ").trim()),
            Self::Format(n) => write!(f, "format {n} is not known to this release (known: 1)"),
            Self::Value(key, rule) => write!(f, "`{key}` {rule}"),
            Self::Duplicate(name) => write!(f, "two services are named `{name}`"),
            Self::UnknownAfter(who, whom) => {
                write!(f, "`{who}` starts after `{whom}`, which does not exist")
            }
            Self::Cycle(names) => write!(f, "these wait for each other: {}", names.join(", ")),
        }
    }
}

impl std::error::Error for Invalid {}

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
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if self.name.is_empty() || self.name.len() > NAME_MAX || !self.name.bytes().all(plain) {
            return Err(Invalid::Value("name", "is not 1 to 32 of a-z, 0-9 and -".into()));
        }
        if !self.command.first().is_some_and(|program| program.starts_with('/')) {
            return Err(Invalid::Value("command", "does not begin with an absolute path".into()));
        }
        if self.command.iter().chain(self.env.values()).any(|text| text.contains('\0')) {
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
        if !(-1000..=1000).contains(&self.oom_score_adj) {
            return Err(Invalid::Value("oom_score_adj", "is not within -1000 and 1000".into()));
        }
        Ok(())
    }
}

/// Puts services in an order in which each stands behind those it starts after.
///
/// # Errors
/// A duplicate name, an unknown name in `after`, or a cycle.
pub fn order(files: Vec<ServiceFile>) -> Result<Vec<ServiceFile>, Invalid> {
    let mut waiting: BTreeMap<String, ServiceFile> = BTreeMap::new();
    for file in files {
        if let Some(twice) = waiting.insert(file.name.clone(), file) {
            return Err(Invalid::Duplicate(twice.name));
        }
    }
    for file in waiting.values() {
        if let Some(whom) = file.after.iter().find(|name| !waiting.contains_key(*name)) {
            return Err(Invalid::UnknownAfter(file.name.clone(), whom.clone()));
        }
    }
    let mut ordered: Vec<ServiceFile> = Vec::new();
    while !waiting.is_empty() {
        let ready: Vec<String> = waiting
            .values()
            .filter(|file| !file.after.iter().any(|name| waiting.contains_key(name)))
            .map(|file| file.name.clone())
            .collect();
        if ready.is_empty() {
            return Err(Invalid::Cycle(waiting.into_keys().collect()));
        }
        ordered.extend(ready.iter().filter_map(|name| waiting.remove(name)));
    }
    Ok(ordered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, after: &[&str]) -> ServiceFile {
        let list: Vec<String> = after.iter().map(|a| format!("\"{a}\"")).collect();
        let text = format!(
            "format = 1\nname = \"{name}\"\ncommand = [\"/bin/true\"]\nafter = [{}]\n",
            list.join(",")
        );
        ServiceFile::parse(&text).unwrap()
    }

    #[test]
    fn defaults_are_the_least_privilege() {
        let file = named("a", &[]);
        assert!(file.capabilities.is_empty() && file.devices.is_empty() && !file.new_privileges);
        assert!(file.gate);
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
    fn order_follows_after_and_names_a_cycle() {
        let names = |files: Vec<ServiceFile>| {
            order(files).map(|list| list.into_iter().map(|f| f.name).collect::<Vec<_>>())
        };
        assert_eq!(
            names(vec![named("c", &["b"]), named("b", &["a"]), named("a", &[])]),
            Ok(vec!["a".into(), "b".into(), "c".into()])
        );
        assert_eq!(
            names(vec![named("a", &["b"]), named("b", &["a"]), named("c", &[])]),
            Err(Invalid::Cycle(vec!["a".into(), "b".into()]))
        );
        assert_eq!(
            names(vec![named("a", &["z"])]),
            Err(Invalid::UnknownAfter("a".into(), "z".into()))
        );
        assert_eq!(
            names(vec![named("a", &[]), named("a", &[])]),
            Err(Invalid::Duplicate("a".into()))
        );
    }
}

//! Loads the modules that the machine's devices ask for.
//!
//! Each device has a `modalias`; `modules.alias` maps patterns of these to modules, `modules.dep`
//! names what each module needs first (both as depmod(8) writes them).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use nix::kmod::ModuleInitFlags;

/// Which modules to load, in order, and where they are.
#[derive(Debug, Default)]
pub struct Modules {
    /// Pattern and module.
    aliases: Vec<(String, String)>,
    /// Module to path and what it needs, outermost first.
    files: BTreeMap<String, (String, Vec<String>)>,
}

/// The name of a module's file: `virtio_net` for `kernel/drivers/net/virtio_net.ko`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

impl Modules {
    /// Reads the two files' texts; lines that are not understood are passed over.
    #[must_use]
    pub fn parse(alias: &str, dep: &str) -> Self {
        let mut modules = Self::default();
        for line in alias.lines() {
            let mut words = line.split_whitespace();
            if let (Some("alias"), Some(pattern), Some(module)) =
                (words.next(), words.next(), words.next())
            {
                modules.aliases.push((pattern.into(), module.replace('-', "_")));
            }
        }
        for line in dep.lines() {
            let Some((path, needs)) = line.split_once(':') else { continue };
            let needs = needs.split_whitespace().map(str::to_string).collect();
            modules.files.insert(module_name(path), (path.into(), needs));
        }
        modules
    }

    /// The files to load for these devices, each after what it needs.
    #[must_use]
    pub fn wanted(&self, modaliases: &BTreeSet<String>) -> Vec<String> {
        let mut order = Vec::new();
        for (pattern, module) in &self.aliases {
            if !modaliases.iter().any(|alias| matches(pattern.as_bytes(), alias.as_bytes())) {
                continue;
            }
            let Some((path, needs)) = self.files.get(module) else { continue };
            for file in needs.iter().rev().chain([path]) {
                if !order.contains(file) {
                    order.push(file.clone());
                }
            }
        }
        order
    }
}

/// fnmatch(3) with `*`, `?` and `[…]`, as far as modalias patterns use them. Iterative: a pattern
/// cannot make it slow.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match step(pattern, p, text[t]) {
            Some(next) => (p, t) = (next, t + 1),
            None if pattern.get(p) == Some(&b'*') => {
                star = Some((p, t));
                p += 1;
            }
            None => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                (p, t) = (at + 1, from + 1);
            }
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

/// The place in the pattern after one byte has matched.
fn step(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'*' => None,
        b'?' => Some(p + 1),
        b'[' => {
            let end = p + pattern.get(p..)?.iter().position(|b| *b == b']')?;
            let set = pattern.get(p + 1..end)?;
            let single = set.contains(&byte);
            let range = set.windows(3).any(|w| w[1] == b'-' && (w[0]..=w[2]).contains(&byte));
            (single || range).then_some(end + 1)
        }
        plain => (plain == byte).then_some(p + 1),
    }
}

/// Loads what the devices that are there ask for. Modules that fail are passed over: a device
/// without its driver is missed by whoever needs it, by name.
pub fn load(release: &str) {
    let folder = folder_of(release);
    let modules = read(&folder);
    // A driver brings up a bus with devices of its own: again, until nothing new appears.
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        let found = modaliases(Path::new("/sys/devices"));
        let fresh: BTreeSet<String> = found.difference(&seen).cloned().collect();
        if fresh.is_empty() {
            return;
        }
        insert(&modules, &folder, &fresh);
        seen.extend(fresh);
    }
}

/// Loads the module of a file system that the kernel does not know yet. One that cannot be loaded is
/// missed by who mounts it, by name.
pub fn load_file_system(name: &str) {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if known.lines().any(|line| line.split_whitespace().last() == Some(name)) {
        return;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let folder = folder_of(release.trim());
    insert(&read(&folder), &folder, &BTreeSet::from([format!("fs-{name}")]));
}

fn folder_of(release: &str) -> PathBuf {
    PathBuf::from("/lib/modules").join(release)
}

fn read(folder: &Path) -> Modules {
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    Modules::parse(&read("modules.alias"), &read("modules.dep"))
}

fn insert(modules: &Modules, folder: &Path, aliases: &BTreeSet<String>) {
    for name in modules.wanted(aliases) {
        let Ok(file) = fs::File::open(folder.join(&name)) else { continue };
        let _ = nix::kmod::finit_module(&file, c"", flags(&name));
    }
}

/// A packed module is unpacked by the kernel, when it is told so.
fn flags(name: &str) -> ModuleInitFlags {
    // MODULE_INIT_COMPRESSED_FILE of linux/module.h; the crate does not name it.
    let packed = if name.ends_with(".ko") { 0 } else { 4 };
    ModuleInitFlags::from_bits_retain(packed)
}

fn modaliases(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                waiting.push(entry.path());
            } else if entry.file_name() == "modalias"
                && let Ok(text) = fs::read_to_string(entry.path())
            {
                found.insert(text.trim().to_string());
            }
        }
    }
    found.remove("");
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_depmod_means_them() {
        for (pattern, text, right) in [
            (
                "pci:v00001AF4d*sv*sd*bc*sc*i*",
                "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00",
                true,
            ),
            ("virtio:d00000001v*", "virtio:d00000001v00001AF4", true),
            ("virtio:d00000001v*", "virtio:d00000002v00001AF4", false),
            (
                "usb:v*p*d*dc*dsc*dp*ic08isc06ip[35]0in*",
                "usb:v1p2d3dc0dsc0dp0ic08isc06ip50in00",
                true,
            ),
            (
                "usb:v*p*d*dc*dsc*dp*ic08isc06ip[3-4]0in*",
                "usb:v1p2d3dc0dsc0dp0ic08isc06ip50in00",
                false,
            ),
            ("*", "", true),
            ("a?c", "abc", true),
            ("a[", "ab", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), right, "{pattern} {text}");
        }
    }

    #[test]
    fn what_a_module_needs_comes_first() {
        let modules = Modules::parse(
            "alias virtio:d00000001v* virtio_net\n# comment\n",
            "kernel/net/virtio_net.ko: kernel/net/net_failover.ko kernel/net/failover.ko\n\
             kernel/net/net_failover.ko: kernel/net/failover.ko\nkernel/net/failover.ko:\n",
        );
        let devices = BTreeSet::from(["virtio:d00000001v00001AF4".to_string()]);
        assert_eq!(
            modules.wanted(&devices),
            ["kernel/net/failover.ko", "kernel/net/net_failover.ko", "kernel/net/virtio_net.ko"]
        );
    }
}

//! What the kernel package gives: the kernel, its modules indexed, and those of them that the
//! initrd loads.
//!
//! On the root the modules stay packed as Debian ships them: the kernel unpacks them itself
//! (`CONFIG_MODULE_DECOMPRESS`), and they are a fifth of their size. In the initrd they are plain,
//! since it is packed as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run;
use crate::tree::{Node, Tree};

const MODULES: &str = "usr/lib/modules";

/// The kernel taken out of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// As `uname -r` says.
    pub release: String,
    /// The kernel image.
    pub image: Vec<u8>,
}

/// Takes the kernel out of `/boot`.
///
/// # Errors
/// There is none, or more than one.
pub fn take(tree: &mut Tree) -> Result<Kernel> {
    let mut taken = tree.remove(|path| path.starts_with("boot/vmlinuz-"));
    ensure!(taken.len() == 1, "the packages hold {} kernels instead of one", taken.len());
    match taken.pop() {
        Some((path, Node::File(_, image))) => Ok(Kernel {
            release: path.trim_start_matches("boot/vmlinuz-").to_owned(),
            image: image.to_vec(),
        }),
        _ => anyhow::bail!("the packages' kernel is no file"),
    }
}

/// Makes the indexes of the modules of `release` new, with `depmod` in the folder `work`.
///
/// # Errors
/// depmod fails.
pub fn index(tree: &mut Tree, release: &str, work: &Path) -> Result<()> {
    let prefix = format!("{MODULES}/{release}/");
    let base = work.join("modules");
    if base.exists() {
        fs::remove_dir_all(&base).with_context(|| format!("empty {}", base.display()))?;
    }
    for (path, node) in tree.nodes().filter(|(path, _)| path.starts_with(&prefix)) {
        let Node::File(_, content) = node else { continue };
        let target = base.join("lib/modules").join(path.trim_start_matches("usr/lib/modules/"));
        let folder = target.parent().unwrap_or(&base);
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        fs::write(&target, content.as_slice())
            .with_context(|| format!("write {}", target.display()))?;
    }
    run::quiet(Command::new("depmod").arg("-b").arg(&base).arg(release), "kmod")?;
    // os-init reads the text forms; the binary ones are for kmod, which is not there.
    for name in ["modules.dep", "modules.alias", "modules.softdep"] {
        let from = base.join("lib/modules").join(release).join(name);
        let text = fs::read(&from).with_context(|| format!("read {}", from.display()))?;
        tree.file(&format!("{prefix}{name}"), 0o644, text)?;
    }
    tree.remove(|path| path.starts_with(&prefix) && path.ends_with(".bin"));
    fs::remove_dir_all(&base).with_context(|| format!("remove {}", base.display()))
}

/// The modules that `list` (the text of `kernel/modules`) asks for, in load order, each after what
/// it needs: file name and content.
///
/// # Errors
/// The kernel has no module of that name and has not built it in either.
pub fn for_initrd(tree: &Tree, release: &str, list: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let base = format!("{MODULES}/{release}/");
    let read = |name: &str| -> Result<String> {
        Ok(String::from_utf8_lossy(tree.content(&format!("{base}{name}"))?).into_owned())
    };
    let needs = dependencies(&read("modules.dep")?);
    let built_in: BTreeSet<String> = read("modules.builtin")?.lines().map(module_name).collect();
    let mut order = Vec::new();
    for line in list.lines() {
        let wanted = module_name(line.split('#').next().unwrap_or_default().trim());
        if wanted.is_empty() || built_in.contains(&wanted) {
            continue;
        }
        let (path, before) = needs
            .get(&wanted)
            .with_context(|| format!("kernel {release} has no module {wanted}"))?;
        // modules.dep lists the nearest dependency first: the farthest is loaded first.
        for module in before.iter().rev().chain([path]) {
            if !order.contains(module) {
                order.push(module.clone());
            }
        }
    }
    order
        .iter()
        .map(|path| {
            let content = plain(path, tree.content(&format!("{base}{path}"))?)?;
            let name = path.rsplit('/').next().unwrap_or(path);
            Ok((name.trim_end_matches(".xz").to_owned(), content))
        })
        .collect()
}

/// The module of the file at `path`, unpacked where it is packed.
fn plain(path: &str, content: &[u8]) -> Result<Vec<u8>> {
    if !path.ends_with(".xz") {
        return Ok(content.to_vec());
    }
    let mut plain = Vec::new();
    liblzma::read::XzDecoder::new(content)
        .read_to_end(&mut plain)
        .with_context(|| format!("unpack module {path}"))?;
    Ok(plain)
}

/// `modules.dep` by module name: its path and the paths it needs.
fn dependencies(text: &str) -> BTreeMap<String, (String, Vec<String>)> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| {
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            (module_name(path), (path.to_owned(), needs))
        })
        .collect()
}

/// A module's name as the kernel has it: no folder, no ending, underscores.
fn module_name(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

/// The command line from the text of `kernel/cmdline`, with `more` options behind.
#[must_use]
pub fn command_line(text: &str, more: &[String]) -> String {
    let options =
        text.lines().map(|line| line.split('#').next().unwrap_or_default().trim().to_owned());
    let options: Vec<String> =
        options.filter(|it| !it.is_empty()).chain(more.iter().cloned()).collect();
    options.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::new();
        let base = "usr/lib/modules/6/";
        let dep = "kernel/a.ko: kernel/b.ko kernel/c.ko\nkernel/b.ko: kernel/c.ko\nkernel/c.ko:\n\
                   kernel/virtio-x.ko:\n";
        tree.file(&format!("{base}modules.dep"), 0o644, dep).unwrap();
        tree.file(&format!("{base}modules.builtin"), 0o644, "kernel/fs/ext4.ko\n").unwrap();
        for name in ["a", "b", "c", "virtio-x"] {
            tree.file(&format!("{base}kernel/{name}.ko"), 0o644, name).unwrap();
        }
        tree
    }

    #[test]
    fn needs_come_before_their_users_and_once() {
        let list = "# all\nc # first\nvirtio_x\na\next4\n";
        let modules = for_initrd(&tree(), "6", list).unwrap();
        let names: Vec<&str> = modules.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["c.ko", "virtio-x.ko", "b.ko", "a.ko"]);
    }

    #[test]
    fn a_module_that_is_not_there_is_named() {
        let error = for_initrd(&tree(), "6", "nothing").unwrap_err().to_string();
        assert!(error.contains("no module nothing"), "{error}");
    }

    #[test]
    fn the_command_line_has_no_reasons() {
        let text = "# head\nconsole=tty0   # why\n\ngpt\n";
        assert_eq!(command_line(text, &["x=1".into()]), "console=tty0 gpt x=1");
    }
}

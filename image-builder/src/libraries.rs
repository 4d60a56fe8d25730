//! Libraries that programs name: what was left out of the root must not be needed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};

use crate::tree::{Node, Tree};

/// Checks that every program and library finds the libraries it names inside the tree.
///
/// # Errors
/// A library is missing; all that need one are named.
pub fn check(tree: &Tree) -> Result<()> {
    let names: BTreeSet<&str> = tree
        .nodes()
        .filter(|(_, node)| !matches!(node, Node::Folder(_)))
        .map(|(path, _)| path.rsplit('/').next().unwrap_or(path))
        .collect();
    let mut missing: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (path, node) in tree.nodes() {
        let Node::File(_, content) = node else { continue };
        if path.starts_with("usr/lib/modules") || !content.starts_with(b"\x7fELF") {
            continue;
        }
        for name in needed(content).with_context(|| format!("read the program /{path}"))? {
            if !names.contains(name.as_str()) {
                missing.entry(name).or_default().push(path);
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> =
        missing.iter().map(|(name, users)| format!("{name} (for {})", users.join(" "))).collect();
    bail!("the root lacks libraries: {}; take their packages out of leave_out", lines.join(", "))
}

/// Names of the libraries that the ELF program or library `content` needs.
///
/// # Errors
/// It is malformed.
pub fn needed(content: &[u8]) -> Result<Vec<String>> {
    use object::read::elf::{Dyn, FileHeader};
    type Elf = object::elf::FileHeader64<object::Endianness>;
    let elf = Elf::parse(content)?;
    let endian = elf.endian()?;
    let mut names = Vec::new();
    let sections = elf.sections(endian, content)?;
    let Some((entries, link)) = sections.dynamic(endian, content)? else { return Ok(names) };
    let strings = sections.strings(endian, content, link)?;
    for entry in entries {
        if entry.tag(endian) == object::elf::DT_NEEDED {
            let name = entry.string(endian, strings)?;
            names.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_was_left_out_is_named_with_its_users() {
        let program = std::fs::read("/proc/self/exe").unwrap();
        let names = needed(&program).unwrap();
        assert!(names.iter().any(|name| name == "libc.so.6"), "{names:?}");
        let mut tree = Tree::new();
        tree.file("/usr/bin/one", 0o755, program).unwrap();
        for name in names.iter().filter(|name| *name != "libc.so.6") {
            tree.file(&format!("/usr/lib/{name}"), 0o644, "").unwrap();
        }
        let error = check(&tree).unwrap_err().to_string();
        assert!(error.contains("libc.so.6 (for usr/bin/one)"), "{error}");
        tree.file("/usr/lib/libc.so.6", 0o644, "").unwrap();
        check(&tree).unwrap();
    }
}

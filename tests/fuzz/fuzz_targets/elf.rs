//! A program or library of a package: which libraries it names.
#![no_main]

use image_builder::libraries;
use image_builder::tree::Tree;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut tree = Tree::new();
    tree.file("usr/bin/program", 0o755, data).expect("an empty tree");
    let Ok(names) = libraries::needed(data) else { return };
    if names.is_empty() {
        libraries::check(&tree).expect("it needs nothing");
    } else {
        let _ = libraries::check(&tree);
    }
});

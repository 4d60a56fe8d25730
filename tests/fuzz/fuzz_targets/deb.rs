//! A Debian package: the ar archive, the unpacked or packed tar in it, and the paths of the tree.
#![no_main]

use image_builder::package;
use image_builder::tree::{Tree, place};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut tree = Tree::new();
    if package::read(data, &mut tree, &|path| path.starts_with("usr/share/doc")).is_err() {
        return;
    }
    for (path, _) in tree.nodes() {
        assert!(!path.split('/').any(|part| matches!(part, "" | "." | "..")), "{path:?}");
        assert_eq!(place(path).ok().as_deref(), Some(path), "one path for one place");
    }
    tree.write_tar(std::io::sink(), 0).expect("what was read can be written");
});

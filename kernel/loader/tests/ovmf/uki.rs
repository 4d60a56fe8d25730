//! Kernel images for tests: a real stub around a payload that says how it was started.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The key that the firmware of the secure machines trusts, as Debian ships it.
const SNAKEOIL_KEY: &str = "/usr/share/ovmf/PkKek-1-snakeoil.key";
const SNAKEOIL_CERT: &str = "/usr/share/ovmf/PkKek-1-snakeoil.pem";

/// The stub of the release that images are built with.
pub const SHIPPED_STUB: &str = "shipped";
/// A stub whose kernel may come back. That of 257 then gives back the initrd's memory with its
/// size in bytes where a number of pages belongs, and much of the firmware's own with it.
pub const COMES_BACK: &str = "254";

/// What goes into a kernel image.
pub struct Uki<'a> {
    pub stub: &'a str,
    pub cmdline: &'a str,
    /// Bytes of an initrd of zeros, to make it as large as a test wants.
    pub initrd_bytes: u64,
    pub signed: bool,
    pub kernel: Kernel<'a>,
}

/// What is in the kernel's place.
pub enum Kernel<'a> {
    /// The payload: it says how it was started.
    Payload,
    /// Nothing: the stub comes back with an error.
    Nothing,
    Linux(&'a [u8]),
}

impl Default for Uki<'_> {
    fn default() -> Self {
        Self {
            stub: SHIPPED_STUB,
            cmdline: "",
            initrd_bytes: 4096,
            signed: false,
            kernel: Kernel::Payload,
        }
    }
}

impl Uki<'_> {
    /// Builds the image in `folder`.
    pub fn build(&self, folder: &Path) -> Vec<u8> {
        let stub = PathBuf::from(given("BASCULE_STUBS")).join(format!("{}.efi", self.stub));
        let part = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            fs::write(&path, bytes).expect("write a part of an image");
            path
        };
        let initrd = folder.join("initrd");
        File::create(&initrd)
            .and_then(|file| file.set_len(self.initrd_bytes))
            .expect("make an initrd of zeros");
        let payload = fs::read(given("BASCULE_PAYLOAD")).expect("read the payload");
        let release = b"ID=bascule\nVERSION_ID=1\n";
        let mut parts = vec![
            (".osrel", part("osrel", release)),
            (".cmdline", part("cmdline", self.cmdline.as_bytes())),
            (".initrd", initrd),
        ];
        match self.kernel {
            Kernel::Payload => parts.push((".linux", part("linux", &payload))),
            Kernel::Linux(kernel) => parts.push((".linux", part("linux", kernel))),
            Kernel::Nothing => {}
        }
        let image = folder.join("image.efi");
        let mut objcopy = Command::new("objcopy");
        let mut address = end_of_sections(&stub);
        for (name, path) in &parts {
            let bytes = fs::metadata(path).expect("look at a part").len();
            objcopy
                .arg("--add-section")
                .arg(format!("{name}={}", path.display()))
                .arg("--change-section-vma")
                .arg(format!("{name}={address:#x}"));
            address += bytes.next_multiple_of(4096);
        }
        run(objcopy.arg(&stub).arg(&image));
        let image = if self.signed { sign(&image) } else { image };
        fs::read(image).expect("read the image")
    }
}

/// An add-on that a stub would take: a program with a command line and no kernel.
pub fn add_on(folder: &Path, cmdline: &str) -> Vec<u8> {
    let program = PathBuf::from(given("BASCULE_PAYLOAD"));
    let (text, made) = (folder.join("addon.txt"), folder.join("addon.efi"));
    fs::write(&text, cmdline).expect("write the add-on's command line");
    run(Command::new("objcopy")
        .arg("--add-section")
        .arg(format!(".cmdline={}", text.display()))
        .arg("--change-section-vma")
        .arg(format!(".cmdline={:#x}", end_of_sections(&program)))
        .arg(program)
        .arg(&made));
    fs::read(made).expect("read the add-on")
}

/// Signs a program with the key of the secure machines; the path of the signed one.
pub fn sign(program: &Path) -> PathBuf {
    let key = program.with_extension("key");
    run(Command::new("openssl")
        .args(["rsa", "-in", SNAKEOIL_KEY, "-passin", "pass:snakeoil", "-out"])
        .arg(&key));
    let signed = program.with_extension("signed.efi");
    run(Command::new("sbsign")
        .arg("--key")
        .arg(&key)
        .args(["--cert", SNAKEOIL_CERT, "--output"])
        .arg(&signed)
        .arg(program));
    signed
}

/// The first free page after a program's sections, where a new one may be.
fn end_of_sections(program: &Path) -> u64 {
    let output = Command::new("objdump").arg("-h").arg(program).output().expect("run objdump");
    let text = String::from_utf8(output.stdout).expect("objdump writes text");
    let end = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.len() >= 7 && words[0].parse::<u32>().is_ok())
        .filter_map(|words| {
            let size = u64::from_str_radix(words[2], 16).ok()?;
            Some(u64::from_str_radix(words[3], 16).ok()? + size)
        })
        .max();
    end.expect("a program has sections").next_multiple_of(4096)
}

/// A path from the environment; `cargo xtask test loader` sets them all.
pub fn given(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask test loader`"))
}

/// Runs a tool that must succeed.
pub fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

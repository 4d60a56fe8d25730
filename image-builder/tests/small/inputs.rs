//! What a small release is built from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use image_builder::archive;
use image_builder::lock::{self, Pinned};
use update_manifest::sign::SigningKey;

/// In place of the dynamic linker that runs `mkfs.erofs` and `fsck.erofs`: a file system is a
/// block of zeros and the tar behind it.
const TOOL: &str = r#"#!/bin/sh
set -e
shift 2
program=$1
for word; do
    before=$last last=$word
    case $word in --extract=*) folder=${word#--extract=} ;; esac
done
case $program in
*/mkfs.erofs)
    head -c 4096 /dev/zero > "$before"
    cat "$last" >> "$before"
    truncate -s %4096 "$before"
    ;;
*/fsck.erofs)
    mkdir -p "$folder"
    tail -c +4097 "$last" | tar -x -C "$folder"
    DAMAGE
    ;;
esac
"#;

/// A folder with everything that a build takes, and the commands to run one.
pub struct Inputs {
    pub folder: PathBuf,
}

impl Inputs {
    /// All inputs, in a folder of their own. `damage` is what happens to a file system that is
    /// extracted: shell words, with the place in `$folder`.
    pub fn new(name: &str, damage: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("small-{name}-{}", std::process::id()));
        for inner in ["site/pool", "binaries", "kernel", "services"] {
            fs::create_dir_all(folder.join(inner)).unwrap();
        }
        let inputs = Self { folder };
        inputs.packages(&TOOL.replace("DAMAGE", damage));
        let write = |path: &str, content: &[u8]| fs::write(inputs.at(path), content).unwrap();
        let programs =
            ["os-init", "os-services", "os-log", "os-console", "osupdated", "osupdate", "osctl"];
        for name in programs {
            write(&format!("binaries/{name}"), name.as_bytes());
        }
        write("kernel/cmdline", b"console=ttyS0 # the serial line\ngpt\n");
        write("kernel/modules", b"# none\n");
        write("services/time.toml", b"name = \"time\"\n");
        write("loader.efi", &program(&[7; 2000]));
        write("spec.toml", SPEC.as_bytes());
        let key = SigningKey::from_entropy(&[4; 32]).unwrap();
        write("update.key", key.to_pem().unwrap().as_bytes());
        inputs
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    fn packages(&self, tool: &str) {
        let root = package(&[
            ("boot/vmlinuz-6.12-small", b"kernel"),
            ("usr/lib/modules/6.12-small/modules.builtin", b""),
            ("usr/lib/modules/6.12-small/modules.order", b""),
            ("usr/lib/systemd/boot/efi/linuxx64.efi.stub", &program(&[5; 100])),
            ("usr/bin/busybox", b"busybox"),
            ("usr/bin/tool", &[3; 100_000]),
            ("usr/share/ca-certificates/one.crt", b"certificate\n"),
        ]);
        let tools = package(&[("usr/lib64/ld-linux-x86-64.so.2", tool.as_bytes())]);
        for (name, suite, package) in [("root", "trixie", root), ("tools", "testing", tools)] {
            let path = format!("pool/{name}_1_amd64.deb");
            let file = self.at("site").join(&path);
            fs::write(&file, &package).unwrap();
            let pinned = Pinned {
                suite: suite.into(),
                name: name.into(),
                version: "1".into(),
                arch: "amd64".into(),
                size: package.len() as u64,
                sha256: archive::sha256(&file).unwrap(),
                path,
            };
            lock::write(&self.at(&format!("{name}.lock")), &[pinned]).unwrap();
        }
    }

    /// A key for Secure Boot and its certificate.
    pub fn secure_boot(&self, name: &str) {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9999"]);
        openssl.args(["-subj", &format!("/CN={name}"), "-keyout"]);
        openssl.arg(self.at(&format!("{name}.key"))).arg("-out");
        succeed(openssl.arg(self.at(&format!("{name}.crt"))));
    }

    /// Builds to `out`, with a cache beside it. `secure_boot` are the names of those who sign.
    pub fn build(&self, out: &str, secure_boot: &[&str]) -> Output {
        let out = self.at(out);
        let mut builder = builder();
        builder.env("BASCULE_CACHE", out.with_extension("cache"));
        builder.arg("build").arg(self.at("spec.toml")).args(["--zstd-level", "3"]);
        builder.arg("--mirror").arg(format!("copy://{}", self.at("site").display()));
        for (option, input) in [
            ("--binaries", "binaries"),
            ("--loader", "loader.efi"),
            ("--key", "update.key"),
            ("--kernel", "kernel"),
            ("--services", "services"),
        ] {
            builder.arg(option).arg(self.at(input));
        }
        for name in secure_boot {
            builder.arg("--sb-key").arg(self.at(&format!("{name}.key")));
            builder.arg("--sb-cert").arg(self.at(&format!("{name}.crt")));
        }
        builder.arg("--out").arg(out).output().unwrap()
    }
}

impl Drop for Inputs {
    fn drop(&mut self) {
        // A failed test leaves them to be looked at.
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

const SPEC: &str = r#"
product = "bascule"
kind = "os"
arch = "x86_64"
release = 7
version = "0.7.0"
secver = 2
build_time = 1767225600
lock = "root.lock"
tools_lock = "tools.lock"
suites = ["trixie"]
tools_suite = "testing"
packages = ["root"]
tools = ["tools"]
folder = ["/proc", "/tmp"]
boot_set = ["/usr/bin/tool"]

[[file]]
path = "/etc/motd"
content = "hello\n"
"#;

/// The program under test.
pub fn builder() -> Command {
    Command::new(env!("CARGO_BIN_EXE_image-builder"))
}

/// Runs a command that has to succeed; its output.
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A Debian package of these files.
fn package(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, format!("./{path}"), *content).unwrap();
    }
    let data = zstd::encode_all(&tar.into_inner().unwrap()[..], 1).unwrap();
    let mut package = b"!<arch>\n".to_vec();
    for (name, content) in [("debian-binary", &b"2.0\n"[..]), ("data.tar.zst", &data)] {
        let size = content.len();
        package.extend(format!("{name:<16}{:<32}{size:<10}`\n", 0).bytes());
        package.extend(content);
        package.resize(package.len().next_multiple_of(2), b'\n');
    }
    package
}

/// A UEFI program that the signing tools accept: headers, and one section of `code`.
fn program(code: &[u8]) -> Vec<u8> {
    let raw = code.len().next_multiple_of(0x200);
    let mut bytes = vec![0; 0x400 + raw];
    let mut put = |at: usize, data: &[u8]| bytes[at..at + data.len()].copy_from_slice(data);
    let section = 0x58 + 240;
    put(0, b"MZ");
    put(0x40, b"PE\0\0");
    put(section, b".text");
    put(0x400, code);
    for (at, value) in [(0x44, 0x8664_u16), (0x46, 1), (0x54, 240), (0x56, 0x22e), (0x58, 0x20b)] {
        put(at, &value.to_le_bytes());
    }
    for (at, value) in [
        (0x3c, 0x40),
        (0x58 + 4, raw),
        (0x58 + 16, 0x1000),
        (0x58 + 20, 0x1000),
        (0x58 + 32, 0x1000),
        (0x58 + 36, 0x200),
        (0x58 + 56, 0x3000),
        (0x58 + 60, 0x400),
        // Subsystem: EFI application.
        (0x58 + 68, 10),
        (0x58 + 108, 16),
        (section + 8, code.len()),
        (section + 12, 0x1000),
        (section + 16, raw),
        (section + 20, 0x400),
        (section + 36, 0x6000_0020),
    ] {
        put(at, &u32::try_from(value).unwrap().to_le_bytes());
    }
    bytes
}

/// Every file below `folder` with its content, by path.
pub fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let inner = path.file_name().map(PathBuf::from).unwrap();
            found.extend(files(&path).into_iter().map(|(name, it)| (inner.join(name), it)));
        } else {
            found.push((PathBuf::from(path.file_name().unwrap()), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

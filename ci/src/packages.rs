//! The Debian packages that building, testing and showing need: one table, one reason each.

/// One package of the host.
pub struct Package {
    /// Debian's name.
    pub name: &'static str,
    /// Lowest version that will do, in Debian's notation; empty when any does.
    pub at_least: &'static str,
    /// On Debian 12 it comes from backports, together with all others marked so.
    pub backport: bool,
    /// Why it is needed.
    pub reason: &'static str,
}

const fn stock(name: &'static str, reason: &'static str) -> Package {
    Package { name, at_least: "", backport: false, reason }
}

const fn backport(name: &'static str, at_least: &'static str, reason: &'static str) -> Package {
    Package { name, at_least, backport: true, reason }
}

/// Everything, in the order in which it is shown.
///
/// The QEMU packages come from one suite together: where a newer `qemu-utils` is installed,
/// taking `qemu-system-x86` from the stable suite would remove it.
pub const PACKAGES: &[Package] = &[
    backport("qemu-system-x86", "", "runs the machines of tests and demo"),
    backport("qemu-utils", "", "disk overlays of the machines"),
    backport("osslsigncode", "2.9~", "reproducible Secure Boot signatures (first in 2.9)"),
    stock("ovmf", "UEFI firmware of the machines"),
    stock("gcc", "links programs, builds the C parts of zstd and ring"),
    stock("g++", "the fuzzing engine"),
    stock("binutils", "objcopy, which makes kernel images for the loader's tests"),
    stock("libc6-dev", "static C library of the device programs"),
    stock("make", "C parts of dependencies"),
    stock("protobuf-compiler", "containerd's and our gRPC interfaces"),
    stock("libprotobuf-dev", "their well-known types"),
    stock("docker-registry", "the real registry of tests and demo"),
    stock("skopeo", "a stock tool that must copy our images"),
    stock("podman", "an engine that must unpack our images"),
    stock("busybox-static", "the root of the tests' service images"),
    stock("cryptsetup-bin", "veritysetup, the oracle for our hash tree"),
    stock("gdisk", "sgdisk -v, the oracle for our partition table"),
    stock("dosfstools", "makes and checks the FAT of the ESP"),
    stock("mtools", "fills the ESP without mounting it"),
    stock("sbsigntool", "sbverify, the oracle for Secure Boot signatures"),
    stock("kmod", "depmod for the image's modules"),
    stock("cpio", "the oracle for our initrd writer"),
    stock("xz-utils", "unpacks kernel modules"),
    stock("zstd", "the oracle for our layer"),
    stock("e2fsprogs", "checks the state partition"),
    stock("openssh-client", "logs in to the machines"),
    stock("openssl", "test keys and certificates"),
    stock("gpgv", "checks the archive's signature"),
    stock("debian-archive-keyring", "the archive's keys"),
    stock("ca-certificates", "TLS to the archive where it is configured so"),
];

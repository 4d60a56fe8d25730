//! The OCI runtime specification of a service: from nothing, then what its file grants.
//!
//! Source: <https://github.com/opencontainers/runtime-spec>, version 1.1. What every service gets:
//! the OS root read-only, its own /proc, an empty /dev, tmpfs on /run and /tmp, /sys read-only,
//! namespaces of its own for mounts, processes and IPC, the host's network, no capability, a
//! system call filter, and a cgroup below `/bascule`.

use super::file::{MountEntry, ServiceFile};
use super::images::Process;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The `type_url` under which containerd 1.7 and 2 take a specification.
pub const TYPE_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// Names that exist in a kernel's /proc and tell, or take, what no service needs.
const MASKED: [&str; 7] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 4] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger"];
/// All kernel settings, and all but those of the network: runc mounts nothing over a part of /proc.
const SETTINGS: [&str; 1] = ["/proc/sys"];
const SETTINGS_BUT_NETWORK: [&str; 7] = [
    "/proc/sys/abi",
    "/proc/sys/debug",
    "/proc/sys/dev",
    "/proc/sys/fs",
    "/proc/sys/kernel",
    "/proc/sys/user",
    "/proc/sys/vm",
];

#[derive(Deserialize)]
struct Calls {
    allow: Vec<String>,
    capabilities: BTreeMap<String, Vec<String>>,
}

/// One device node, resolved by the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Where it appears, `/dev/…`.
    pub path: String,
    /// Whether it is a block device (else a character device).
    pub block: bool,
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// Whether the service may write to it.
    pub write: bool,
}

/// Builds the specification. `mounts` are those of the file whose sources exist.
pub fn build(
    file: &ServiceFile,
    process: &Process,
    mounts: &[MountEntry],
    devices: &[Device],
) -> Value {
    let caps = &file.capabilities;
    // Ambient, so that a service that runs as another user keeps what its file grants.
    let ambient: &[String] = if process.user == 0 { &[] } else { caps };
    json!({
        "ociVersion": "1.1.0",
        "process": {
            "terminal": false,
            "user": { "uid": process.user, "gid": process.group },
            "args": process.args,
            "env": environment(process),
            "cwd": process.folder,
            "capabilities": {
                "bounding": caps, "effective": caps, "permitted": caps,
                "inheritable": ambient, "ambient": ambient,
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 65536, "soft": 1024 }],
            "noNewPrivileges": !file.new_privileges,
            "oomScoreAdj": file.oom_score_adj,
        },
        "root": { "path": "rootfs", "readonly": !file.writable_root },
        "mounts": all_mounts(mounts),
        "linux": {
            "cgroupsPath": format!("/bascule/{}", file.name),
            "namespaces": namespaces(file),
            "devices": devices.iter().map(node).collect::<Vec<_>>(),
            "resources": resources(file, devices),
            "maskedPaths": MASKED,
            "readonlyPaths": read_only(file),
            "seccomp": seccomp(caps),
            "rootfsPropagation": "private",
        },
    })
}

/// The variables of what runs in a service; later ones count.
pub fn environment(process: &Process) -> Vec<String> {
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
    std::iter::once(path).chain(process.env.iter().cloned()).collect()
}

fn namespaces(file: &ServiceFile) -> Vec<Value> {
    let own = file.namespaces.iter().map(|it| it.word());
    own.chain(["mount"]).map(|kind| json!({ "type": kind })).collect()
}

fn read_only(file: &ServiceFile) -> Vec<&'static str> {
    let settings: &[&str] = if file.network_settings { &SETTINGS_BUT_NETWORK } else { &SETTINGS };
    READ_ONLY.iter().chain(settings).copied().collect()
}

fn all_mounts(extra: &[MountEntry]) -> Vec<Value> {
    let fresh = |target: &str, kind: &str, options: &[&str]| json!({ "destination": target, "type": kind, "source": kind, "options": options });
    let mut mounts = vec![
        fresh("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        fresh("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=64k"]),
        fresh("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "gid=5"]),
        fresh("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=16m"]),
        fresh("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        fresh("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]),
        fresh("/run", "tmpfs", &["nosuid", "nodev", "mode=755", "size=16m"]),
        fresh("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777", "size=64m"]),
    ];
    // Targets are made there; elsewhere the root is read-only and has to have them.
    let below_var = extra.iter().any(|mount| mount.target().starts_with("/var/"));
    if below_var && extra.iter().all(|mount| mount.target() != "/var") {
        mounts.push(fresh("/var", "tmpfs", &["nosuid", "nodev", "noexec", "mode=755", "size=1m"]));
    }
    for mount in extra {
        let rights = if mount.write { "rw" } else { "ro" };
        mounts.push(if mount.source == "tmpfs" {
            fresh(mount.target(), "tmpfs", &["nosuid", "nodev", "mode=755", "size=64m"])
        } else {
            json!({
                "destination": mount.target(), "type": "bind", "source": mount.source,
                "options": ["rbind", "nosuid", "nodev", rights],
            })
        });
    }
    mounts
}

fn node(device: &Device) -> Value {
    json!({
        "path": device.path,
        "type": if device.block { "b" } else { "c" },
        "major": device.major,
        "minor": device.minor,
        "fileMode": 0o600,
        "uid": 0,
        "gid": 0,
    })
}

fn resources(file: &ServiceFile, devices: &[Device]) -> Value {
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    // The pseudo-terminals: /dev/ptmx and the slaves. runc adds null, zero, random and the like.
    rules.push(json!({ "allow": true, "type": "c", "major": 136, "access": "rwm" }));
    rules.push(json!({ "allow": true, "type": "c", "major": 5, "minor": 2, "access": "rwm" }));
    rules.extend(devices.iter().map(|device| {
        json!({
            "allow": true,
            "type": if device.block { "b" } else { "c" },
            "major": device.major,
            "minor": device.minor,
            "access": if device.write { "rw" } else { "r" },
        })
    }));
    let mut resources = json!({ "devices": rules, "pids": { "limit": file.tasks } });
    if let Some(mib) = file.memory_mib {
        resources["memory"] = json!({ "limit": mib.saturating_mul(1024 * 1024) });
    }
    resources
}

fn seccomp(capabilities: &[String]) -> Value {
    // Our own file, compiled in; a test parses it, so that this cannot fail on a machine.
    let calls: Calls = serde_json::from_str(include_str!("../../services/seccomp.json"))
        .unwrap_or(Calls { allow: Vec::new(), capabilities: BTreeMap::new() });
    let mut names = calls.allow;
    for capability in capabilities {
        names.extend(calls.capabilities.get(capability).into_iter().flatten().cloned());
    }
    let clone = if capabilities.iter().any(|c| c == "CAP_SYS_ADMIN") {
        json!({ "names": ["clone"], "action": "SCMP_ACT_ALLOW" })
    } else {
        // No new namespaces: the CLONE_NEW* bits must be clear.
        json!({
            "names": ["clone"], "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": 0, "value": 0x7E02_0000_u64, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }],
        })
    };
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            { "names": names, "action": "SCMP_ACT_ALLOW" },
            clone,
            { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
            // `personality` only to ask, or for the plain one.
            { "names": ["personality"], "action": "SCMP_ACT_ALLOW",
              "args": [{ "index": 0, "value": 0, "op": "SCMP_CMP_EQ" }] },
            { "names": ["personality"], "action": "SCMP_ACT_ALLOW",
              "args": [{ "index": 0, "value": 0xFFFF_FFFF_u64, "op": "SCMP_CMP_EQ" }] },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::images::Images;

    fn service(extra: &str) -> ServiceFile {
        ServiceFile::parse(&format!("format = 1\nname = \"x\"\ncommand = [\"/x\"]\n{extra}"))
            .unwrap()
    }

    fn built(file: &ServiceFile, mounts: &[MountEntry], devices: &[Device]) -> Value {
        let process = Images::at("/nowhere").process(file).unwrap();
        build(file, &process, mounts, devices)
    }

    #[test]
    fn a_bare_service_may_do_nothing() {
        let spec = built(&service(""), &[], &[]);
        assert_eq!(spec["process"]["capabilities"]["bounding"], json!([]));
        assert_eq!(spec["process"]["noNewPrivileges"], json!(true));
        assert_eq!(spec["root"]["readonly"], json!(true));
        assert_eq!(
            spec["linux"]["resources"]["devices"][0],
            json!({"allow": false, "access": "rwm"})
        );
        let names = spec["linux"]["seccomp"]["syscalls"][0]["names"].as_array().unwrap();
        for refused in
            ["mount", "reboot", "ptrace", "bpf", "clock_settime", "init_module", "kexec_load"]
        {
            assert!(!names.contains(&json!(refused)), "{refused}");
        }
        assert!(names.len() > 250);
    }

    #[test]
    fn it_shares_what_its_file_says_and_no_more() {
        let kinds = |extra| built(&service(extra), &[], &[])["linux"]["namespaces"].clone();
        assert_eq!(kinds(""), json!([{"type": "pid"}, {"type": "ipc"}, {"type": "mount"}]));
        let alone = "namespaces = [\"network\"]";
        assert_eq!(kinds(alone), json!([{"type": "network"}, {"type": "mount"}]));
    }

    #[test]
    fn a_capability_brings_its_calls() {
        let spec = built(&service("capabilities = [\"CAP_SYS_TIME\"]"), &[], &[]);
        let names = spec["linux"]["seccomp"]["syscalls"][0]["names"].as_array().unwrap();
        assert!(names.contains(&json!("clock_settime")));
        assert_eq!(spec["process"]["capabilities"]["effective"], json!(["CAP_SYS_TIME"]));
    }

    #[test]
    fn kernel_settings_are_read_only_but_for_the_network_where_the_file_says_so() {
        let paths = |extra| built(&service(extra), &[], &[])["linux"]["readonlyPaths"].clone();
        let holds = |value: &Value, path: &str| value.as_array().unwrap().contains(&json!(path));
        assert!(holds(&paths(""), "/proc/sys"));
        let network = paths("network_settings = true");
        assert!(holds(&network, "/proc/sys/kernel") && holds(&network, "/proc/sys/fs"));
        assert!(!holds(&network, "/proc/sys") && !holds(&network, "/proc/sys/net"));
    }

    #[test]
    fn mounts_are_read_only_unless_the_file_says_write() {
        let file = service("mounts = [{ source = \"/a\" }, { source = \"/b\", write = true }]");
        let spec = built(&file, &file.mounts, &[]);
        let mounts = spec["mounts"].as_array().unwrap();
        let options = |path: &str| {
            mounts.iter().find(|m| m["destination"] == path).unwrap()["options"].clone()
        };
        assert_eq!(options("/a"), json!(["rbind", "nosuid", "nodev", "ro"]));
        assert_eq!(options("/b"), json!(["rbind", "nosuid", "nodev", "rw"]));
    }

    #[test]
    fn a_target_below_var_can_be_made() {
        let targets = |list: &str| -> Vec<String> {
            let file = service(&format!("mounts = [{list}]"));
            let spec = built(&file, &file.mounts, &[]);
            let all = spec["mounts"].as_array().unwrap();
            all.iter().map(|m| m["destination"].as_str().unwrap().to_owned()).collect()
        };
        let places = targets("{ source = \"/var/data\" }");
        assert_eq!(places[places.len() - 2..], ["/var", "/var/data"]);
        let whole = targets("{ source = \"/var\" }, { source = \"/x\", target = \"/var/x\" }");
        assert_eq!(whole.iter().filter(|it| *it == "/var").count(), 1);
        assert!(!targets("").contains(&"/var".to_owned()));
    }

    #[test]
    fn a_device_is_both_made_and_allowed() {
        let device =
            Device { path: "/dev/vda4".into(), block: true, major: 254, minor: 4, write: true };
        let spec = built(&service(""), &[], std::slice::from_ref(&device));
        assert_eq!(spec["linux"]["devices"][0]["path"], json!("/dev/vda4"));
        let rules = spec["linux"]["resources"]["devices"].as_array().unwrap();
        assert!(rules.iter().any(|r| r["minor"] == 4 && r["access"] == "rw" && r["allow"] == true));
    }
}

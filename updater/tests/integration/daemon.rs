//! The real `osupdated` and `osupdate`, in a mount namespace where our machine's files are the
//! system's. Needs `unshare` (util-linux) and, for others than root, user namespaces.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use fault_proxy::{Faults, Refusal};

use crate::support::machine::Machine;
use crate::support::release::version;
use crate::support::{ARCH, Field, PRODUCT, REPOSITORY, TAG, key};

/// Puts the folder `$1` in the place of the system's, and becomes `$2`.
const ENTER: &str = r#"
mount -t tmpfs none /run && mkdir /run/bascule && mount --bind "$1/run" /run/bascule
mount -t tmpfs none /usr/share && mkdir /usr/share/bascule
mount --bind "$1/share" /usr/share/bascule
mount -t tmpfs none /var/lib && mkdir -p /var/lib/bascule/update
if [ -e "$1/full" ]; then
    mount -t tmpfs -o "$(cat "$1/full")" none /var/lib/bascule/update
    cat /dev/zero > /var/lib/bascule/update/fill 2> /dev/null || true
else
    mount --bind "$1/state" /var/lib/bascule/update
fi
exec "$2"
"#;
/// The services manager kills what has not ended after this long.
const END_MAX: Duration = Duration::from_secs(10);
/// A bound for what has none of its own, on a machine with other work.
const LONG: Duration = Duration::from_secs(120);

/// A running daemon.
struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Daemon {
    /// Starts it on `machine`, which follows `source`, and waits until it answers.
    fn start(machine: &Machine, source: &str) -> Daemon {
        let file = |name: &str, text: &str| fs::write(machine.folder.join(name), text).unwrap();
        file("run/config.toml", &format!("[update]\nsource = \"{source}\"\nplain_http = true\n"));
        file("share/trust/publisher.pub", &key().public_pem().unwrap());
        let release = serde_json::json!({
            "product": PRODUCT, "arch": ARCH, "release": 1, "secver": 0, "version": version(1),
        });
        file("share/release.json", &release.to_string());
        machine.site.boot.store(&machine.folder.join("run/boot.json")).unwrap();
        let socket = machine.folder.join("run/update/osupdated.sock");
        // Another daemon's, which has ended.
        let _ = fs::remove_file(&socket);
        let child = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-euc", ENTER, "sh"])
            .arg(&machine.folder)
            .arg(env!("CARGO_BIN_EXE_osupdated"))
            .stderr(Stdio::inherit())
            .spawn()
            .expect("unshare (util-linux)");
        let mut daemon = Daemon { child, socket };
        until("the daemon's socket", LONG, || {
            assert_eq!(daemon.child.try_wait().unwrap(), None, "osupdated has ended");
            std::os::unix::net::UnixStream::connect(&daemon.socket).is_ok()
        });
        daemon
    }

    /// Runs `osupdate`; returns its exit code and its JSON.
    fn osupdate(&self, word: &str) -> (i32, serde_json::Value) {
        let done = self.command(word).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        (done.status.code().unwrap(), serde_json::from_str(&said).expect(&said))
    }

    fn command(&self, word: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_osupdate"));
        command.arg("--socket").arg(&self.socket).args(["--json", word]);
        command
    }

    /// Asks it to end, as the services manager does, and says how it did.
    fn terminate(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let asked = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &pid]).status().unwrap();
        assert!(asked.success());
        let mut ended = None;
        until("the daemon's end", END_MAX, || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `done`, at most `limit`.
fn until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < limit, "waited {} s for {what}", limit.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn source(field: &Field, tag: &str) -> String {
    format!("{}/{REPOSITORY}:{tag}", field.authority())
}

#[tokio::test]
async fn an_idle_daemon_ends_on_term() {
    let field = Field::start("term-idle").await;
    let daemon = Daemon::start(&field.machine, &source(&field, TAG));
    assert_eq!(daemon.osupdate("status").0, 0);
    assert_eq!(daemon.terminate().code(), Some(0));
}

#[tokio::test]
async fn a_daemon_ends_on_term_in_the_middle_of_an_apply_and_the_next_one_finishes_it() {
    let field = Field::start("term-apply").await;
    let cut_after = Some(field.release.layer.len() as u64 / 2);
    // Half of the layer, and then a silence that is longer than the daemon may take to end.
    field.set(Faults { cut_after, stalls: true, ..Faults::default() });
    let daemon = Daemon::start(&field.machine, &source(&field, TAG));
    let mut apply = daemon.command("apply").stdout(Stdio::null()).spawn().unwrap();
    until("the first frame in the slot", LONG, || {
        field.machine.other_slot().starts_with(&field.release.slot[..4096])
    });
    assert_eq!(daemon.terminate().code(), Some(0));
    assert_eq!(apply.wait().unwrap().code(), Some(111), "the updater does not answer");
    assert!(field.machine.is_half_written());

    field.set(Faults::default());
    let daemon = Daemon::start(&field.machine, &source(&field, TAG));
    let (code, said) = daemon.osupdate("apply");
    assert_eq!(code, 0, "{said}");
    assert!(field.machine.other_slot() == field.release.slot);
    assert!(field.machine.is_armed());
    let (code, said) = daemon.osupdate("apply");
    assert_eq!(code, 1, "armed already: {said}");
    assert_eq!(daemon.terminate().code(), Some(0));
}

/// ST-5: a state partition without a free byte, or without a free inode, takes nothing of an update
/// but its notes: status, apply and rollback work.
#[tokio::test]
async fn a_full_state_partition_stops_no_update() {
    for (name, full) in [("full-bytes", "size=16k"), ("full-inodes", "nr_inodes=2,size=4k")] {
        let field = Field::start(name).await;
        fs::write(field.machine.folder.join("full"), full).unwrap();
        let daemon = Daemon::start(&field.machine, &source(&field, TAG));
        let done = |word: &str| {
            let (code, said) = daemon.osupdate(word);
            assert_eq!(code, 0, "{name}: {word}: {said}");
            said
        };
        done("apply");
        assert!(field.machine.other_slot() == field.release.slot);
        assert_eq!(done("status")["trial"]["slot"], "b");
        // Takes the armed one back; then arms it again.
        done("rollback");
        assert!(!field.machine.is_armed());
        done("rollback");
        assert!(field.machine.is_armed());
        assert_eq!(daemon.terminate().code(), Some(0));
    }
}

/// BR-3: what the loader found damaged is in the status.
#[tokio::test]
async fn the_status_tells_of_damaged_places_of_the_record() {
    let mut field = Field::start("damaged-places").await;
    field.machine.site.boot.record_damaged = 2;
    let daemon = Daemon::start(&field.machine, &source(&field, TAG));
    assert_eq!(daemon.osupdate("status").1["record_damaged"], 2);
    assert_eq!(daemon.terminate().code(), Some(0));
}

#[tokio::test]
async fn the_exit_code_tells_cannot_know_from_refused() {
    let field = Field::unsigned("codes").await;
    let daemon = Daemon::start(&field.machine, &source(&field, TAG));
    let check = |code: i32, class: &str, kind: &str| {
        let (said_code, said) = daemon.osupdate("check");
        assert_eq!(said_code, code, "{said}");
        assert_eq!(said["error"]["class"], class, "{said}");
        assert_eq!(said["error"]["kind"], kind, "{said}");
    };
    check(2, "refused", "unsigned");
    let refusal = Refusal {
        path: "/referrers/".into(),
        status: 200,
        retry_after: None,
        html: true,
        times: 0,
    };
    field.set(Faults { refusal: Some(refusal), ..Faults::default() });
    check(3, "cannot-know", "registry");
    field.set(Faults { pad_manifest: 5 << 20, ..Faults::default() });
    check(4, "corrupt", "registry");
    // The settings are read anew at each use.
    let text = format!("[update]\nsource = \"{}\"\nplain_http = true\n", source(&field, "other"));
    fs::write(field.machine.folder.join("run/config.toml"), text).unwrap();
    field.set(Faults::default());
    check(2, "refused", "absent");
    assert!(field.machine.is_as_at_first());
}

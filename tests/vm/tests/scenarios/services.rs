//! Services that an operator adds by plain files: taken, refused, started in order, kept up, and
//! there again after a reboot.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use vm_tests::machine::Machine;
use vm_tests::template::Template;
use vm_tests::{guest, wait};

/// Long enough for a container to start on a busy host.
const PATIENCE: Duration = Duration::from_secs(120);
const FOLDER: &str = "/var/lib/bascule/services";

/// Writes a service file whose command is this shell line; `rest` is the rest of the file.
fn put(machine: &Machine, folder: &str, name: &str, shell: &str, rest: &str) -> Result<String> {
    let path = format!("{folder}/{name}.toml");
    let head = format!("format = 1\nname = \"{name}\"\ncommand = [\"/bin/sh\", \"-c\", '{shell}']");
    let write = format!("cat > {path} <<'END'\n{head}\n{rest}\nEND\n");
    machine.ssh()?.run(&write)?.ok(&path)?;
    Ok(path)
}

fn service(machine: &Machine, name: &str) -> Result<Value> {
    guest::osctl(machine, &format!("service status {name}")).map(|(_, answer)| answer)
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn wait_state(machine: &Machine, name: &str, state: &str) -> Result<()> {
    let what = format!("service {name} to be {state}");
    wait::until(&what, PATIENCE, || {
        // The manager may be away, which is what some wait for.
        let now = service(machine, name).unwrap_or_default();
        Ok((word(&now, "state") == state).then_some(()))
    })
}

/// What `osctl` says when it refuses.
fn refused(machine: &Machine, words: &str) -> Result<String> {
    let (code, answer) = guest::osctl(machine, words)?;
    assert_eq!(code, 2, "`osctl {words}`: {answer}");
    let error = answer.get("error").context("no error")?;
    Ok(word(error, "message").to_owned())
}

fn lines(machine: &Machine, name: &str) -> Result<usize> {
    let text = machine.ssh()?.run(&format!("osctl service logs {name}"))?.ok("logs")?;
    Ok(text.lines().count())
}

/// Kills a process of the machine by its name, by way of a service that sees all processes.
fn strike(machine: &Machine, victim: &str) -> Result<()> {
    let shell = format!(
        "for it in /proc/[0-9]*; do read -r name < $it/comm; \
         if [ \"$name\" = {victim} ]; then kill -9 ${{it#/proc/}}; fi; done"
    );
    let rest = "kind = \"oneshot\"\nnamespaces = []";
    let file = put(machine, "/tmp", "strike", &shell, rest)?;
    // Whoever would answer may be the victim.
    machine.ssh()?.run_within(&format!("osctl service enable {file}"), PATIENCE)?;
    Ok(())
}

/// CF-6: dependants of a failed oneshot do not start, and the reason is listed; a cycle is refused by
/// name; nothing blocks the boot. What runs survives the death of the manager and of containerd.
#[test]
fn an_operators_services_are_kept_and_wrong_ones_refused() -> Result<()> {
    let mut machine = Template::of_release("v1")?.start("services")?;
    machine.ssh()?.run("mkdir -p /var/shared")?.ok("mkdir")?;
    let rest = "mounts = [{ source = \"/var/shared\", write = true }]";
    let shell = "echo here; touch /var/shared/there; exec sleep infinity";
    let web = put(&machine, "/tmp", "web", shell, rest)?;
    let (code, answer) = guest::osctl(&machine, &format!("service enable {web}"))?;
    assert_eq!(code, 0, "{answer}");
    let (code, answer) = guest::osctl(&machine, "service enable web")?;
    assert_eq!((code, answer.get("changed")), (1, Some(&Value::Bool(false))), "{answer}");
    let now = service(&machine, "web")?;
    assert_eq!((word(&now, "state"), word(&now, "origin")), ("running", "operator"), "{now}");
    assert_eq!(now.get("privileges"), Some(&serde_json::json!(["writes /var/shared"])), "{now}");
    machine.ssh()?.run("ls /var/shared/there")?.ok("what it wrote")?;

    let nightly = "kind = \"scheduled\"\nschedule = \"* * * * *\"";
    let nightly = put(&machine, "/tmp", "nightly", "echo its time", nightly)?;
    let (code, answer) = guest::osctl(&machine, &format!("service enable {nightly}"))?;
    assert_eq!(code, 0, "{answer}");
    assert_ne!(word(&service(&machine, "nightly")?, "state"), "stopped", "it waits for its time");

    requirements(&machine)?;
    refusals(&machine)?;
    health(&machine)?;

    for victim in ["os-services", "containerd"] {
        strike(&machine, victim)?;
        wait_state(&machine, "web", "running")?;
        assert_eq!(lines(&machine, "web")?, 1, "{victim} was killed, and took the service along");
        assert_eq!(lines(&machine, "prep")?, 2, "{victim} was killed, and a oneshot ran again");
    }
    // The session ends with the console that it comes through.
    let restart = "osctl service restart console";
    let _ = machine.ssh()?.run_within(restart, PATIENCE)?;
    guest::wait_ssh(&mut machine, PATIENCE)?;
    assert_eq!(lines(&machine, "web")?, 1, "the console's restart took a service along");
    // More than a minute has gone by since.
    wait_state(&machine, "nightly", "done")?;
    assert!(lines(&machine, "nightly")? > 0, "done, and has not run");
    let (code, answer) = guest::osctl(&machine, "service rm nightly")?;
    assert_eq!(code, 0, "{answer}");
    let (code, answer) = guest::osctl(&machine, "service stop web")?;
    assert_eq!((code, word(&service(&machine, "web")?, "state")), (0, "stopped"), "{answer}");
    let (code, answer) = guest::osctl(&machine, "service restart web")?;
    assert_eq!((code, lines(&machine, "web")?), (0, 2), "{answer}");

    after_a_reboot(&mut machine)
}

fn requirements(machine: &Machine) -> Result<()> {
    let oneshot = "kind = \"oneshot\"";
    let prep = put(machine, "/tmp", "prep", "echo tried; exit 3", oneshot)?;
    let why = refused(machine, &format!("service enable {prep}"))?;
    assert!(why.contains("prep is failed: ended with status 3"), "{why}");
    let rest = "requires = [\"prep\"]";
    let needs = put(machine, "/tmp", "needs", "exec sleep infinity", rest)?;
    let why = refused(machine, &format!("service enable {needs}"))?;
    assert_eq!(why, "needs requires prep, which is failed; `osctl service status prep`");
    let now = service(machine, "needs")?;
    assert_eq!(word(&now, "state"), "waiting", "{now}");
    assert_eq!(word(&now, "reason"), "requires prep, which is failed");
    let (_, status) = guest::osctl(machine, "status")?;
    let attention = status.get("attention").map(Value::to_string).unwrap_or_default();
    assert!(attention.contains("service needs is waiting: requires prep"), "{attention}");

    put(machine, "/tmp", "prep", "echo done", oneshot)?;
    let (code, answer) = guest::osctl(machine, &format!("service enable {prep}"))?;
    assert_eq!(code, 0, "{answer}");
    wait_state(machine, "needs", "running")?;
    let now = service(machine, "needs")?;
    assert_eq!(now.get("privileges"), Some(&Value::Array(Vec::new())), "least privilege: {now}");
    Ok(())
}

fn refusals(machine: &Machine) -> Result<()> {
    for (rest, words) in [
        ("after = [\"nowhere\"]", "`nowhere`, which does not exist"),
        ("after = [\"wrong\"]", "these wait for each other: wrong"),
        ("before = [\"network\"]", "built-in services wait for no other"),
        ("gate = true", "`gate` is for built-in services"),
        ("capabilites = [\"CAP_KILL\"]", "capabilites"),
    ] {
        let file = put(machine, "/tmp", "wrong", "true", rest)?;
        let why = refused(machine, &format!("service enable {file}"))?;
        assert!(why.contains(words), "{rest}: {why}");
        let (code, told) =
            guest::osctl(machine, &format!("service validate {file} /tmp/web.toml"))?;
        assert!(code == 2 && told.to_string().contains(words), "{rest}: {told}");
    }
    let nothing = machine.ssh()?.run(&format!("ls {FOLDER} | grep wrong"))?;
    assert_eq!(nothing.code, 1, "a refused file was kept: {}", nothing.stdout);
    let why = refused(machine, "service stop network")?;
    assert!(why.contains("osctl service restart network"), "{why}");
    let why = refused(machine, "service logs nobody")?;
    assert!(why.contains("no service is named `nobody`"), "{why}");
    Ok(())
}

/// Who is asked whether it is well is up when it says so, and started again when it is not any more.
fn health(machine: &Machine) -> Result<()> {
    let shell = "echo born; sleep 3; touch /tmp/well; sleep 20; rm /tmp/well; exec sleep infinity";
    let rest = "health = { exec = [\"/usr/bin/test\", \"-e\", \"/tmp/well\"], interval_s = 1, \
                timeout_s = 30, retries = 2, start_s = 300 }";
    let file = put(machine, "/tmp", "frail", shell, rest)?;
    let (code, answer) = guest::osctl(machine, &format!("service enable {file}"))?;
    assert_eq!(code, 0, "{answer}");
    let up = answer.get("service").and_then(|it| it.get("up_s")).and_then(Value::as_u64);
    assert!(up >= Some(3), "up before it was well: {answer}");
    wait::until("frail to be started again", PATIENCE, || {
        let restarts = service(machine, "frail")?.get("restarts").and_then(Value::as_u64);
        Ok((restarts > Some(0)).then_some(()))
    })?;
    let why = "frail: is not well: its probe ended with status 1, 2 times in a row";
    assert!(machine.serial().contains(why), "{}", machine.serial_tail());
    let (code, answer) = guest::osctl(machine, "service rm frail")?;
    assert_eq!(code, 0, "{answer}");
    Ok(())
}

/// Enabled ones are there again, disabled ones are not, and files that somebody has put there by hand
/// and that are wrong hinder nothing.
fn after_a_reboot(machine: &mut Machine) -> Result<()> {
    let (code, answer) = guest::osctl(machine, "service disable web")?;
    assert_eq!(code, 0, "{answer}");
    let (code, answer) = guest::osctl(machine, "service rm strike")?;
    assert_eq!(code, 0, "{answer}");
    put(machine, FOLDER, "loop-a", "true", "after = [\"loop-b\"]")?;
    put(machine, FOLDER, "loop-b", "true", "before = [\"loop-a\"]\nafter = [\"loop-a\"]")?;
    guest::reboot_confirmed(machine)?;
    wait_state(machine, "needs", "running")?;
    assert_eq!(word(&service(machine, "web")?, "state"), "stopped");
    let (_, list) = guest::osctl(machine, "service list")?;
    let left_out = list.get("left_out").and_then(Value::as_array).context("left_out")?;
    let names: Vec<&str> = left_out.iter().map(|it| word(it, "name")).collect();
    assert_eq!(names, ["loop-a", "loop-b"], "{list}");
    assert!(left_out.iter().all(|it| word(it, "reason").contains("loop-a, loop-b")), "{list}");
    assert!(machine.serial().contains("service file loop-a: these wait for each other"));
    let (code, _) = guest::osctl(machine, "service rm loop-a")?;
    let (again, left) = guest::osctl(machine, "service enable web")?;
    assert_eq!((code, again), (0, 0), "{left}");
    wait_state(machine, "web", "running")
}

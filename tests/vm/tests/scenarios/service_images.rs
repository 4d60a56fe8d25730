//! Services that run by images of their own: pulled, upgraded alone, put back, and there again after
//! a power cut without a registry.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use vm_tests::machine::Machine;
use vm_tests::registry::Registry;
use vm_tests::release::{Image, digest_of};
use vm_tests::service_image::{self, Contents, reference};
use vm_tests::template::Template;
use vm_tests::{artifacts, guest, wait};

/// Long enough for a container to start on a busy host.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longer than the gate has to pass once more, and what ran before to be put back.
const GATE: Duration = Duration::from_secs(400);

/// Says what it is told to, as sd_notify(3) does.
const NOTIFY: &str = r#"
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
int main(int argc, char **argv) {
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    const char *path = getenv("NOTIFY_SOCKET");
    if (argc != 2 || !path || strlen(path) >= sizeof to.sun_path) return 1;
    strcpy(to.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    ssize_t said = sendto(fd, argv[1], strlen(argv[1]), 0, (struct sockaddr *)&to, sizeof to);
    return said < 0;
}
"#;

fn made(name: &str, shell: &str) -> Result<Image> {
    let notify = service_image::program(&format!("notify-{name}"), NOTIFY)?;
    let programs = vec![("bin/notify", notify)];
    service_image::signed(name, &Contents { shell, programs, ..Contents::default() })
}

fn service(machine: &Machine, name: &str) -> Result<Value> {
    guest::osctl(machine, &format!("service status {name}")).map(|(_, answer)| answer)
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// `osctl WORDS` has to end with `code`; what it answered.
fn osctl(machine: &Machine, words: &str, code: i32) -> Result<Value> {
    let (ended, answer) = guest::osctl(machine, words)?;
    assert_eq!(ended, code, "`osctl {words}`: {answer}");
    Ok(answer)
}

/// The words of a refusal.
fn message(answer: &Value) -> &str {
    answer.pointer("/error/message").and_then(Value::as_str).unwrap_or_default()
}

fn last_line(machine: &Machine, name: &str) -> Result<String> {
    let text = machine.ssh()?.run(&format!("osctl service logs -n 1 {name}"))?.ok("logs")?;
    Ok(text.trim().to_owned())
}

fn runs(machine: &Machine, image: &Image, says: &str) -> Result<()> {
    let now = service(machine, "web")?;
    assert_eq!(
        (word(&now, "state"), word(&now, "image")),
        ("running", &*reference(image)),
        "{now}"
    );
    assert_eq!(last_line(machine, "web")?, says);
    Ok(())
}

/// An image whose service says `word`, and that it is ready.
fn saying(word: &str) -> Result<Image> {
    let shell = format!(
        "touch /x 2>/dev/null && echo wrote; echo {word}; sleep 1; notify READY=1; exec sleep 9999"
    );
    made(word, &shell)
}

/// Has the service `web` run by this image.
fn enable_web(machine: &Machine, image: &Image) -> Result<()> {
    let file = format!(
        "format = 1\nname = \"web\"\nimage = \"{}\"\nhealth = {{ notify = true, \
         start_s = 600 }}",
        reference(image)
    );
    machine.ssh()?.run(&format!("cat > /tmp/web.toml <<'END'\n{file}\nEND"))?.ok("write")?;
    osctl(machine, "service enable /tmp/web.toml", 0)?;
    Ok(())
}

/// IN-4 of images: one service is upgraded alone; the power goes in the middle of another upgrade, the
/// OS is updated by the same boot, no registry answers, and all services run by what was kept.
#[test]
fn one_service_is_upgraded_alone() -> Result<()> {
    let registry = Registry::start("service-images")?;
    let mut machine = Template::armed()?.start("service-images")?;
    machine.route_registry(Some(registry.port()))?;
    let (one, two) = (saying("one")?, saying("two")?);
    for image in [&one, &two] {
        registry.publish_image(image)?;
    }
    enable_web(&machine, &one)?;
    runs(&machine, &one, "one")?;
    assert_eq!(osctl(&machine, "service pull web", 1)?.get("was_there"), Some(&Value::Bool(true)));
    let now = service(&machine, "web")?;
    assert_eq!(now.get("privileges"), Some(&Value::Array(Vec::new())), "least privilege: {now}");

    osctl(&machine, &format!("service upgrade web {}", reference(&two)), 0)?;
    runs(&machine, &two, "two")?;
    osctl(&machine, &format!("service upgrade web {}", reference(&two)), 1)?;
    let updater = upgraded_updater(&machine, &registry)?;
    let late = cut_in_the_middle(&mut machine, &registry)?;
    machine.route_registry(None)?;
    machine.power_on()?;
    assert_eq!(guest::wait_confirmed(&mut machine, guest::BOOT)?, (2, "b".to_owned()));
    wait::asking("web to run by what was kept", PATIENCE, || {
        let now = service(&machine, "web")?;
        Ok((word(&now, "state") == "running").then_some(()))
    })?;
    runs(&machine, &two, "two")?;
    is_whole(&machine, &late)?;
    let now = service(&machine, "updater")?;
    assert_eq!(word(&now, "image"), "", "a newer release brings a newer one: {now}");
    assert!(word(&now, "set_aside").contains(&updater), "{now}");
    assert!(word(&now, "set_aside").contains("release 1"), "{now}");
    osctl(&machine, "service rm web", 0)?;
    let left = machine.ssh()?.run("ls /var/lib/bascule/images")?.ok("ls")?;
    assert!(left.lines().count() <= 3, "what the updater ran by, and two to spare: {left}");
    Ok(())
}

/// What may not run is not tried; what does not get healthy is put back; a rollback goes there and
/// back again.
#[test]
fn what_does_not_get_healthy_is_put_back() -> Result<()> {
    let registry = Registry::start("service-put-back")?;
    let machine = Template::of_release("v1")?.start("service-put-back")?;
    machine.route_registry(Some(registry.port()))?;
    let (three, four) = (saying("three")?, saying("four")?);
    for image in [&three, &four] {
        registry.publish_image(image)?;
    }
    enable_web(&machine, &three)?;
    refusals(&machine, &registry, &three)?;
    osctl(&machine, &format!("service upgrade web {}", reference(&four)), 0)?;
    for (image, says) in [(&three, "three"), (&four, "four")] {
        osctl(&machine, "service rollback web", 0)?;
        runs(&machine, image, says)?;
    }
    Ok(())
}

/// What may not run is not tried; what does not get healthy is not kept.
fn refusals(machine: &Machine, registry: &Registry, runs_now: &Image) -> Result<()> {
    let stranger = service_image::unsigned("stranger", &Contents::default())?;
    registry.publish_image(&stranger)?;
    let answer = osctl(machine, &format!("service upgrade web {}", reference(&stranger)), 2)?;
    assert!(message(&answer).contains("has no signature"), "{answer}");
    let answer = osctl(machine, "service upgrade web 10.0.2.100:5000/bascule/os:stable", 2)?;
    assert!(message(&answer).contains("by its digest"), "{answer}");
    let nowhere = format!("10.0.2.100:5000/bascule/os@sha256:{}", "0".repeat(64));
    let answer = osctl(machine, &format!("service upgrade web {nowhere}"), 2)?;
    assert!(message(&answer).contains("not in the registry"), "{answer}");

    let bad = made("bad", "echo bad; exit 3")?;
    registry.publish_image(&bad)?;
    for name in ["web", "network"] {
        let answer = osctl(machine, &format!("service upgrade {name} {}", reference(&bad)), 2)?;
        let told = message(&answer);
        assert!(told.contains("is not kept") && told.ends_with("runs as before"), "{answer}");
        let now = service(machine, name)?;
        assert_eq!(word(&now, "state"), "running", "{now}");
        assert!(!word(&now, "image").contains(&bad.digest()), "{now}");
    }
    runs(machine, runs_now, "three")?;
    osctl(machine, "service rollback network", 2)?;
    deaf_network(machine, registry)
}

/// It runs, and sets up no network: running is not enough for a service that the machine is reached
/// by.
fn deaf_network(machine: &Machine, registry: &Registry) -> Result<()> {
    let files = vec![("usr/lib/systemd/systemd-networkd", "#!/bin/sh\nexec sleep 9999\n".into())];
    let deaf = service_image::signed("deaf", &Contents { files, ..Contents::default() })?;
    registry.publish_image(&deaf)?;
    let words = format!("service upgrade network {}", reference(&deaf));
    let (code, answer) = guest::osctl_within(machine, &words, GATE)?;
    assert_eq!(code, 2, "{answer}");
    assert!(message(&answer).contains("the network is not up as it was"), "{answer}");
    assert_eq!(word(&service(machine, "network")?, "image"), "");
    Ok(())
}

/// The built-in `updater` by an image of its own; its digest.
fn upgraded_updater(machine: &Machine, registry: &Registry) -> Result<String> {
    let text = |path: &str| machine.ssh()?.run(&format!("cat {path}"))?.ok(path);
    let keys = machine.ssh()?.run("ls /usr/share/bascule/trust")?.ok("ls")?;
    let key = keys.lines().next().context("no key")?;
    let trust = format!("usr/share/bascule/trust/{key}");
    let image = service_image::signed(
        "updater",
        &Contents {
            shell: "",
            files: vec![
                ("usr/share/bascule/release.json", text("/usr/share/bascule/release.json")?),
                (&trust, text(&format!("/{trust}"))?),
            ],
            programs: vec![("usr/lib/bascule/osupdated", artifacts::device_program("osupdated")?)],
        },
    )?;
    registry.publish_image(&image)?;
    let words = format!("service upgrade updater {}", reference(&image));
    let (code, answer) = guest::osctl_within(machine, &words, GATE)?;
    assert_eq!(code, 0, "{answer}");
    let now = service(machine, "updater")?;
    assert_eq!((word(&now, "state"), word(&now, "image")), ("running", &*reference(&image)));
    let (code, status) = guest::osupdate(machine, "status", guest::APPLY)?;
    assert_eq!(code, 0, "the new one answers: {status}");
    Ok(image.digest())
}

/// The power goes while a service is on trial, and as soon as an image is said to be pulled: that one.
fn cut_in_the_middle(machine: &mut Machine, registry: &Registry) -> Result<Image> {
    let sick = made("sick", "echo sick; exec sleep 9999")?;
    registry.publish_image(&sick)?;
    let words = format!("osctl service upgrade web {}", reference(&sick));
    let mut asking = machine.ssh()?.spawn(&words, PATIENCE)?;
    wait::asking("web to run by the image on trial", PATIENCE, || {
        let now = service(machine, "web")?;
        let tried = word(&now, "state") == "running" && word(&now, "image") == reference(&sick);
        Ok(tried.then_some(()))
    })?;
    let late = saying("late")?;
    registry.publish_image(&late)?;
    osctl(machine, &format!("service pull {}", reference(&late)), 0)?;
    machine.power_cut()?;
    // The client's end is the machine's.
    let _ = asking.wait();
    Ok(late)
}

/// A power cut leaves no empty files of an image that counts.
fn is_whole(machine: &Machine, image: &Image) -> Result<()> {
    osctl(machine, &format!("service pull {}", reference(image)), 1)?;
    let folder = format!("/var/lib/bascule/images/{}", image.digest().replace(':', "-"));
    let sum = machine.ssh()?.run(&format!("sha256sum {folder}/root/bin/busybox"))?.ok("sum")?;
    let shell = std::fs::read(service_image::BUSYBOX)?;
    assert!(sum.contains(&digest_of(&shell)["sha256:".len()..]), "other bytes: {sum}");
    Ok(())
}

//! The words of `osctl`: a line or a small table for people, one JSON object for programs.

use os_init::services::wire::{Service, ServiceDetail, ServiceList};
use updater::wire::PullReport;

use crate::failure::Failure;
use crate::import::Written;
use crate::status::{Amount, Machine};
use crate::validate::Verdict;

fn json<T: serde::Serialize>(value: &T) {
    // Our own messages always have a JSON form.
    println!("{}", serde_json::to_string_pretty(value).unwrap_or_default());
}

/// A failure that kept the command from being carried out.
pub fn failure(failure: &Failure, as_json: bool) {
    if as_json {
        let (class, message) = (failure.class(), &failure.message);
        json(&serde_json::json!({ "error": { "class": class, "message": message } }));
    }
    eprintln!("osctl: {}", failure.message);
}

/// All services.
pub fn list(list: &ServiceList, as_json: bool) {
    if as_json {
        return json(list);
    }
    println!("{:16} {:11} {:9} {:>9}  {:9} MAY", "NAME", "STATE", "UP", "MEMORY", "FROM");
    for service in &list.services {
        let may = match service.privileges.as_slice() {
            [] => "nothing more than any".to_owned(),
            privileges => privileges.join(", "),
        };
        println!(
            "{:16} {:11} {:9} {:>9}  {:9} {may}",
            service.name,
            service.state,
            service.up_s.map(duration).unwrap_or_default(),
            service.memory_bytes.map(size).unwrap_or_default(),
            service.origin,
        );
        if !service.image.is_empty() {
            println!("{:16} by {}", "", service.image);
        }
        if !service.set_aside.is_empty() {
            println!("{:16} set aside: {}", "", service.set_aside);
        }
    }
    for file in &list.left_out {
        println!("{:16} left out: {}", file.name, file.reason);
    }
}

/// One service.
pub fn one(service: &Service, as_json: bool) {
    if as_json {
        return json(service);
    }
    let up = service.up_s.map(|up| format!(" for {}", duration(up))).unwrap_or_default();
    println!("{}  {}", service.name, service.description);
    println!("state     {}{up}", service.state);
    if !service.reason.is_empty() {
        let when = if service.up_s.is_some() { "before" } else { "reason" };
        println!("{when:9} {}", service.reason);
    }
    if service.restarts > 0 {
        println!("restarts  {}", service.restarts);
    }
    println!("kind      {}, {}", service.kind, service.origin);
    match (service.image.as_str(), service.own_image.as_str()) {
        ("", _) => {}
        (image, own) if image == own => println!("image     {image}"),
        (image, "") => println!("image     {image}, upgraded; its own root is the OS"),
        (image, own) => println!("image     {image}, upgraded; its file names {own}"),
    }
    if !service.set_aside.is_empty() {
        println!("set aside {}", service.set_aside);
    }
    println!("at boot   {}", if service.enabled { "started" } else { "not started (disabled)" });
    if let Some(next_s) = service.next_s {
        println!("next run  {}", updater::clock::utc(next_s));
    }
    if let Some(memory) = service.memory_bytes {
        println!("memory    {}", size(memory));
    }
    for privilege in &service.privileges {
        println!("may       {privilege}");
    }
    let mut labels: Vec<_> = service.labels.iter().collect();
    labels.sort();
    for (label, value) in labels {
        println!("label     {label} = {value}");
    }
    if service.up_s.is_none() {
        println!("next: osctl service logs {}", service.name);
    }
}

/// A service's file, and what containerd is told.
pub fn detail(detail: &ServiceDetail, as_json: bool) {
    if as_json {
        return json(detail);
    }
    println!("# {}\n{}", detail.path, detail.file.trim_end());
    println!("\n# what containerd is told\n{}", detail.spec);
}

/// What became of an order.
pub fn changed(name: &str, service: Option<&Service>, changed: bool, as_json: bool) {
    if as_json {
        return json(&serde_json::json!({ "service": service, "changed": changed }));
    }
    let so = if changed { "" } else { " already" };
    match service {
        Some(service) => println!("{name} is{so} {}", service.state),
        None => println!("{name} is removed"),
    }
}

/// What became of a pull.
pub fn pulled(report: &PullReport, as_json: bool) {
    if as_json {
        return json(report);
    }
    if report.was_there {
        println!("{} is on this machine already", report.image);
    } else {
        let size = size(report.downloaded_bytes);
        println!("{} pulled, {size}, signed by {}", report.image, report.key);
    }
}

/// What became of a compose file.
pub fn imported(written: &[Written], as_json: bool) {
    if as_json {
        return json(&serde_json::json!({ "services": written }));
    }
    for service in written {
        let state = if service.problem.is_some() { "has to be mended" } else { "can be enabled" };
        println!("{}: {state}", service.file.display());
        for line in service.problem.iter().chain(&service.notes) {
            println!("    {line}");
        }
    }
    if let Some(folder) = written.first().and_then(|it| it.file.parent()) {
        println!("next: osctl service validate {}/*.toml", folder.display());
    }
}

/// What is to say of service files.
pub fn verdicts(verdicts: &[Verdict], beside: bool, as_json: bool) {
    if as_json {
        return json(&serde_json::json!({ "files": verdicts, "beside_built_in": beside }));
    }
    for verdict in verdicts {
        match &verdict.problem {
            Some(problem) => println!("{}: {problem}", verdict.file),
            None if verdict.privileges.is_empty() => println!("{}: fine", verdict.file),
            None => println!("{}: fine; it may: {}", verdict.file, verdict.privileges.join(", ")),
        }
    }
    if !beside {
        println!("no services are built in here: what the files say of others is not checked");
    }
}

/// The whole machine, on one screen.
pub fn machine(machine: &Machine, as_json: bool) {
    if as_json {
        return json(machine);
    }
    if let Some(boot) = &machine.boot {
        let gate = machine.gate.as_ref().map_or("unknown", |it| it.gate.as_str());
        println!(
            "version   {} (release {}), slot {}, {gate}",
            boot.version, boot.release, boot.slot
        );
    }
    if let Some(update) = &machine.update {
        for slot in update.running.iter().chain(&update.other) {
            let fault = if slot.fault.is_empty() { "" } else { ", " };
            let (name, version, state) = (&slot.slot, &slot.version, &slot.state);
            println!("slot {name}    {version} {state}{fault}{}", slot.fault);
        }
        if !update.last_outcome.is_empty() {
            println!("update    {} {}", update.last_outcome, update.last_reason);
        }
        if let Some(updater) = &update.updater {
            let paused = if updater.paused { ", paused" } else { "" };
            println!("policy    {}{paused} {}", updater.policy, updater.last_check);
        }
    }
    if let Some(list) = &machine.services {
        let up = list.services.iter().filter(|it| it.up_s.is_some()).count();
        println!("services  {up} of {} run; gate {}", list.services.len(), list.gate);
    }
    for (what, amount) in [("memory", machine.memory), ("state", machine.state)] {
        if let Some(Amount { total, free }) = amount {
            println!("{what:9} {} of {} free", size(free), size(total));
        }
    }
    for it in &machine.attention {
        println!("ATTENTION {}", it.what);
        if !it.next.is_empty() {
            println!("          next: {}", it.next);
        }
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{mebibytes:.1} MiB") }
}

/// Seconds for people.
fn duration(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let words = [59, 60, 3599, 3600, 86_399, 90_000].map(duration);
        let expected = ["59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "23 h 59 min", "1 d 1 h"];
        assert_eq!(words, expected);
    }
}

//! `osctl status`: one screen from all who know something, and what needs attention.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use os_init::boot_facts::BootFacts;
use os_init::services::wire::{ListRequest, ServiceList};
use os_init::{control, socket};
use serde::Serialize;
use updater::wire::{MachineStatus, StatusRequest, update_client::UpdateClient};

use crate::failure::{DONE, Failure};
use crate::{service, tell};

/// Who does not answer within this is told as silent.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Less room than this part of the state partition needs attention.
const LITTLE_ROOM: u64 = 10;

/// How the machine stands. What is absent did not answer; `attention` says so.
#[derive(Debug, Default, Serialize)]
pub struct Machine {
    /// What is known about this boot.
    pub boot: Option<BootFacts>,
    /// The health gate: `waiting`, `confirmed`, `failed`, `degraded`.
    pub gate: Option<control::Status>,
    /// Slots, trial, updates.
    pub update: Option<MachineStatus>,
    /// The services.
    pub services: Option<ServiceList>,
    /// Memory, in bytes.
    pub memory: Option<Amount>,
    /// The state partition, in bytes.
    pub state: Option<Amount>,
    /// What needs a person.
    pub attention: Vec<Attention>,
}

/// So much of so much, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// All there is.
    pub total: u64,
    /// What can still be used.
    pub free: u64,
}

/// Something that needs a person.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Attention {
    /// What.
    pub what: String,
    /// The command to type next; empty if there is none.
    pub next: String,
}

/// Asks everyone and tells; the exit code.
///
/// # Errors
/// None: who does not answer is told as such.
pub async fn run(json: bool) -> Result<u8, Failure> {
    let mut machine = Machine {
        boot: BootFacts::load().ok(),
        gate: gate(),
        update: within(update()).await,
        services: within(services()).await,
        memory: fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory(&text)),
        state: room(),
        attention: Vec::new(),
    };
    machine.attention = attention(&machine);
    tell::machine(&machine, json);
    Ok(DONE)
}

async fn within<T>(asked: impl Future<Output = Option<T>>) -> Option<T> {
    tokio::time::timeout(ANSWER_MAX, asked).await.ok().flatten()
}

async fn update() -> Option<MachineStatus> {
    let channel = socket::connect(PathBuf::from(updater::site::SOCKET)).await.ok()?;
    let answer = UpdateClient::new(channel).status(StatusRequest {}).await.ok()?;
    Some(answer.into_inner())
}

async fn services() -> Option<ServiceList> {
    let answer = service::connect().await.ok()?.list(ListRequest {}).await.ok()?;
    Some(answer.into_inner())
}

fn gate() -> Option<control::Status> {
    let answer = control::ask(&control::Request::Status).ok()?;
    serde_json::from_str(&answer).ok()
}

/// Total and available of `/proc/meminfo` (proc_meminfo(5)), which counts in KiB.
fn memory(text: &str) -> Option<Amount> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let number = line.trim_start_matches(':').trim().strip_suffix("kB")?.trim();
        number.parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(Amount { total: field("MemTotal")?, free: field("MemAvailable")? })
}

fn room() -> Option<Amount> {
    let room = nix::sys::statvfs::statvfs("/var").ok()?;
    let unit = room.fragment_size();
    Some(Amount {
        total: room.blocks().saturating_mul(unit),
        free: room.blocks_available().saturating_mul(unit),
    })
}

/// What needs a person, the worst first.
fn attention(machine: &Machine) -> Vec<Attention> {
    let mut list = Vec::new();
    let mut add = |what: String, next: &str| list.push(Attention { what, next: next.to_owned() });
    match &machine.gate {
        None => add("PID 1 does not answer".into(), ""),
        Some(gate) if matches!(gate.gate.as_str(), "failed" | "degraded") => {
            add(format!("this boot is {}: {}", gate.gate, gate.reason), "osupdate status");
        }
        Some(_) => {}
    }
    if let Some(boot) = &machine.boot
        && boot.state != "ok"
    {
        let why = boot.state_reason.clone().unwrap_or_default();
        add(format!("the state partition is {}: {why}", boot.state), "df -h /var");
    }
    match &machine.services {
        None => add("the services manager does not answer".into(), ""),
        Some(services) => services_attention(services, &mut add),
    }
    match &machine.update {
        None => add("the updater does not answer".into(), "osctl service logs updater"),
        Some(update) => update_attention(update, &mut add),
    }
    if let Some(state) = machine.state
        && state.free.saturating_mul(LITTLE_ROOM) < state.total
    {
        add("less than a tenth of the state partition is free".into(), "du -xh -d 2 /var");
    }
    list
}

fn services_attention(services: &ServiceList, add: &mut impl FnMut(String, &str)) {
    for service in &services.services {
        let next = format!("osctl service logs {}", service.name);
        let status = format!("osctl service status {}", service.name);
        let told = format!("service {} is {}", service.name, service.state);
        match service.state.as_str() {
            "failed" | "restarting" => add(format!("{told}: {}", service.reason), &next),
            "waiting" if service.reason.starts_with("requires") => {
                add(format!("{told}: {}", service.reason), &next);
            }
            "stopped" if service.reason.starts_with("its image") => {
                add(format!("{told}: {}", service.reason), &status);
            }
            _ => {}
        }
        if !service.set_aside.is_empty() {
            let what = format!(
                "service {}: {}; what its file names runs",
                service.name, service.set_aside
            );
            add(what, &format!("osctl service rollback {}", service.name));
        }
    }
    for file in &services.left_out {
        let what = format!("service file {} is left out: {}", file.name, file.reason);
        add(what, "osctl service validate /var/lib/bascule/services/*.toml");
    }
}

fn update_attention(update: &MachineStatus, add: &mut impl FnMut(String, &str)) {
    if update.last_outcome == "fell-back" {
        add(format!("the last update went back: {}", update.last_reason), "osupdate history");
    }
    if !update.record_written {
        add("the loader could not write the boot record".into(), "osupdate status");
    }
    for problem in update.updater.iter().flat_map(|it| &it.problems) {
        add(format!("configuration: {problem}"), "osupdate status");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use os_init::services::wire::{LeftOut, Service};

    #[test]
    fn memory_is_what_the_kernel_says() {
        let text = "MemTotal:        2000 kB\nMemFree:  1 kB\nMemAvailable:    500 kB\n";
        assert_eq!(memory(text), Some(Amount { total: 2_048_000, free: 512_000 }));
        assert_eq!(memory("MemTotal: 1 kB\n"), None);
        assert_eq!(memory("MemTotal: x kB\nMemAvailable: 1 kB\n"), None);
    }

    #[test]
    fn a_healthy_machine_needs_nobody_and_each_trouble_is_told() {
        let service = |name: &str, state: &str, reason: &str| Service {
            name: name.into(),
            state: state.into(),
            reason: reason.into(),
            ..Service::default()
        };
        let healthy = || Machine {
            gate: Some(control::Status { gate: "confirmed".into(), ..Default::default() }),
            update: Some(MachineStatus { record_written: true, ..Default::default() }),
            services: Some(ServiceList {
                services: vec![service("web", "running", ""), service("old", "stopped", "x")],
                ..Default::default()
            }),
            state: Some(Amount { total: 100, free: 10 }),
            ..Machine::default()
        };
        assert_eq!(attention(&healthy()), []);
        type Break = fn(&mut Machine);
        let troubles: [(Break, &str); 9] = [
            (|it| it.gate = None, "PID 1 does not answer"),
            (|it| it.services = None, "the services manager does not answer"),
            (|it| it.update = None, "the updater does not answer"),
            (
                |it| it.services.as_mut().unwrap().services[0].state = "failed".into(),
                "service web is failed: ",
            ),
            (
                |it| {
                    let web = &mut it.services.as_mut().unwrap().services[0];
                    web.state = "stopped".into();
                    web.reason = "its image is not on this machine".into();
                },
                "service web is stopped: its image",
            ),
            (
                |it| {
                    let web = &mut it.services.as_mut().unwrap().services[0];
                    web.set_aside = "x was chosen over release 1".into();
                },
                "service web: x was chosen over release 1; what its file names runs",
            ),
            (
                |it| {
                    let left = LeftOut { name: "x".into(), reason: "cycle".into() };
                    it.services.as_mut().unwrap().left_out.push(left);
                },
                "service file x is left out: cycle",
            ),
            (|it| it.update.as_mut().unwrap().last_outcome = "fell-back".into(), "went back"),
            (|it| it.state.as_mut().unwrap().free = 9, "less than a tenth"),
        ];
        for (trouble, words) in troubles {
            let mut machine = healthy();
            trouble(&mut machine);
            let told = attention(&machine);
            assert!(told.len() == 1 && told[0].what.contains(words), "{words}: {told:?}");
        }
    }
}

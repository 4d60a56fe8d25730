//! The manager's loop: performs what [`super::supervisor`] decides, gathers what the gate asks.
//!
//! One task per service waits for its end; all else happens in one loop, so that no state is
//! shared. A restart of containerd is noticed by a failed wait; the service is then looked up, and
//! adopted when it still runs.

use super::file::ServiceFile;
use super::runtime::{self, Failed, Runtime};
use super::status::{ServiceStatus, Status};
use super::supervisor::{Action, Event, State};
use super::{built_in, console, probes, resolv, serve, spec};
use crate::boot_facts::BootFacts;
use crate::config::Config;
use crate::console::{say, warn};
use crate::gate::{Facts, Probe, ServiceFact, Verdict};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// How often the loop looks around without being told of anything.
const TICK: Duration = Duration::from_millis(500);
/// How long the manager waits for containerd before it asks again.
const CONNECT_PAUSE: Duration = Duration::from_millis(200);

/// News of one service, from its task to the loop.
enum News {
    Started { index: usize },
    Ended { index: usize, reason: String, by_itself: bool },
}

/// One service under supervision.
struct Supervised {
    file: Arc<ServiceFile>,
    state: State,
    restarts: u32,
    reason: Option<String>,
}

struct Manager {
    services: Vec<Supervised>,
    runtime: Runtime,
    facts: Option<Arc<BootFacts>>,
    news: mpsc::Sender<News>,
    origin: Instant,
    resolv: String,
}

/// Runs until TERM: starts every built-in service, keeps them up, reports.
///
/// # Errors
/// A message when the service files cannot be read, or nothing can be set up at all.
pub async fn run() -> Result<(), String> {
    let config = Config::load_running();
    prepare_folders(&config)?;
    // After the folders: what a service requires may be made there.
    let files = built_in::all()?;
    let (news, mut inbox) = mpsc::channel(64);
    let mut resolv = String::new();
    let mut manager = Manager {
        services: files
            .into_iter()
            .map(|file| Supervised {
                file: Arc::new(file),
                state: State::Waiting,
                restarts: 0,
                reason: None,
            })
            .collect(),
        runtime: connect(&mut resolv).await,
        facts: BootFacts::load().ok().map(Arc::new),
        news,
        origin: Instant::now(),
        resolv,
    };
    let probes = probes::spawn(manager.runtime.clone(), manager.updater_file());
    let status = Arc::new(Mutex::new(Status { services: Vec::new(), gate: String::new() }));
    tokio::spawn(serve::run(Arc::clone(&status)));
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| format!("watch TERM: {e}"))?;
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            Some(news) = inbox.recv() => manager.take(news),
            _ = tick.tick() => {
                manager.advance();
                name_servers(&mut manager.resolv);
                let probed = probes.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let facts = manager.gate_facts(&probed);
                let told = serve::tell_gate(&facts).await;
                *status.lock().unwrap_or_else(PoisonError::into_inner) = manager.status(&told);
            }
            _ = terminate.recv() => break,
        }
    }
    manager.stop_all().await;
    Ok(())
}

fn prepare_folders(config: &Config) -> Result<(), String> {
    let image_shadow = std::fs::read_to_string("/etc/shadow").unwrap_or_default();
    console::write(Path::new(console::FOLDER), &image_shadow, config)
        .map_err(|e| format!("write {}: {e}", console::FOLDER))?;
    super::folders::make(config).map_err(|e| format!("make the services' folders: {e}"))
}

/// Waits for containerd. Where it never comes, PID 1 runs the network by itself, and its name
/// servers are wanted all the same.
async fn connect(resolv: &mut String) -> Runtime {
    let mut told = false;
    loop {
        match Runtime::connect(Path::new(runtime::SOCKET)).await {
            Ok(runtime) => return runtime,
            Err(why) if !told => {
                eprintln!("os-services: {why}; trying on");
                told = true;
            }
            Err(_) => {}
        }
        name_servers(resolv);
        tokio::time::sleep(CONNECT_PAUSE).await;
    }
}

/// Writes resolv.conf when what networkd knows has changed; `written` is what it holds.
fn name_servers(written: &mut String) {
    let state = std::fs::read_to_string("/run/systemd/netif/state").unwrap_or_default();
    let text = resolv::from_networkd(&state);
    if text != *written && super::folders::replace("/run/bascule/etc/resolv.conf", &text).is_ok() {
        *written = text;
    }
}

impl Manager {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn updater_file(&self) -> Option<Arc<ServiceFile>> {
        self.services.iter().find(|s| s.file.name == "updater").map(|s| Arc::clone(&s.file))
    }

    fn take(&mut self, news: News) {
        match news {
            News::Started { index } => {
                if let Some(service) = self.services.get(index) {
                    say(&format!("{} started", service.file.name));
                }
                self.step(index, Event::Started);
            }
            News::Ended { index, reason, by_itself } => {
                if let Some(service) = self.services.get_mut(index) {
                    // Back-off bounds how often; the console is where it is looked for first.
                    warn(&format!("{}: {reason}", service.file.name));
                    service.reason = Some(reason);
                    service.restarts = service.restarts.saturating_add(u32::from(by_itself));
                }
                self.step(index, if by_itself { Event::Ended } else { Event::Delayed });
            }
        }
    }

    fn advance(&mut self) {
        for index in 0..self.services.len() {
            self.step(index, Event::Tick);
            if self.is_ready(index) {
                self.step(index, Event::Ready);
            }
        }
    }

    fn is_ready(&self, index: usize) -> bool {
        // Nobody waits for a service that is left out.
        let up = |name: &String| {
            self.services.iter().all(|service| {
                service.file.name != *name || matches!(service.state, State::Running { .. })
            })
        };
        self.services.get(index).is_some_and(|service| service.file.after.iter().all(up))
    }

    fn step(&mut self, index: usize, event: Event) {
        let now = self.now_ms();
        let Some(service) = self.services.get_mut(index) else { return };
        let (state, action) = service.state.step(event, now);
        service.state = state;
        if action == Action::Start {
            let run = Run {
                index,
                file: Arc::clone(&service.file),
                runtime: self.runtime.clone(),
                facts: self.facts.clone(),
                news: self.news.clone(),
            };
            tokio::spawn(run.until_it_ends());
        }
    }

    fn gate_facts(&self, probed: &probes::Probed) -> Facts {
        let now = self.now_ms();
        let services = self
            .services
            .iter()
            .filter(|service| service.file.gate)
            .map(|service| ServiceFact {
                name: service.file.name.clone(),
                up_ms: match service.state {
                    State::Running { since_ms, .. } => Some(now.saturating_sub(since_ms)),
                    _ => None,
                },
                failures: service.state.failures(),
                reason: service.reason.clone(),
            })
            .collect();
        let updater = match self.updater_file() {
            Some(_) => probed.updater.clone(),
            None => Probe::Bad("has no service file".into()),
        };
        Facts { services, ssh: probed.ssh.clone(), record: probed.record.clone(), updater }
    }

    fn status(&self, verdict: &Verdict) -> Status {
        let now = self.now_ms();
        Status {
            services: self
                .services
                .iter()
                .map(|s| {
                    let reason = s.reason.as_deref();
                    ServiceStatus::new(&s.file.name, s.state, s.restarts, reason, now)
                })
                .collect(),
            gate: match verdict {
                Verdict::Passed => "passed".into(),
                Verdict::Pending(reason) => reason.clone(),
                Verdict::Failed(reason) => format!("failed: {reason}"),
            },
        }
    }

    /// Stops the services, all at once: the machine goes down. None needs another to end well.
    async fn stop_all(&mut self) {
        let now = self.now_ms();
        let mut ends = Vec::new();
        for service in &mut self.services {
            let (state, action) = service.state.step(Event::Stop, now);
            service.state = state;
            if action == Action::Stop {
                let (runtime, file) = (self.runtime.clone(), Arc::clone(&service.file));
                ends.push(tokio::spawn(async move {
                    let grace = Duration::from_secs(file.stop_s);
                    if let Err(why) = runtime.end(&file.name, grace).await {
                        eprintln!("os-services: {why}");
                    }
                }));
            }
        }
        for end in ends {
            // One that panicked has told so.
            let _ = end.await;
        }
    }
}

/// One run of one service.
struct Run {
    index: usize,
    file: Arc<ServiceFile>,
    runtime: Runtime,
    facts: Option<Arc<BootFacts>>,
    news: mpsc::Sender<News>,
}

impl Run {
    async fn until_it_ends(self) {
        let (reason, by_itself) = match self.start_and_wait().await {
            Ok(status) => (format!("ended with status {status}"), true),
            Err(why) => (why.to_string(), !why.runtime),
        };
        // The loop has ended when nobody listens any more.
        let _ = self.news.send(News::Ended { index: self.index, reason, by_itself }).await;
    }

    async fn start_and_wait(&self) -> Result<u32, Failed> {
        let name = &self.file.name;
        if self.runtime.running(name).await?.is_none() {
            let mounts = super::folders::existing(&self.file);
            let devices = super::devices::resolve(&self.file, self.facts.as_deref());
            self.runtime.start(&self.file, &spec::build(&self.file, &mounts, &devices)).await?;
        }
        let _ = self.news.send(News::Started { index: self.index }).await;
        loop {
            match self.runtime.wait(name).await {
                Ok(status) => return Ok(status),
                // containerd went away, not the service: ask again until it can tell.
                Err(_) => loop {
                    tokio::time::sleep(CONNECT_PAUSE).await;
                    match self.runtime.running(name).await {
                        Ok(Some(_)) => break,
                        Ok(None) => {
                            let line = "ended while containerd was away".into();
                            return Err(Failed { line, runtime: false });
                        }
                        Err(_) => {}
                    }
                },
            }
        }
    }
}

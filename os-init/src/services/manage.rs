//! The manager's loop: performs what [`super::supervisor`] decides, gathers what the gate asks,
//! carries out what people order.
//!
//! One task per service waits for its end; all else happens in one loop, so that no state is
//! shared. Nothing in the loop waits for the state partition: files are read and written by those
//! who order. A restart of containerd is noticed by a failed wait; the service is then looked up,
//! and adopted when it still runs.

use super::definitions::{Definition, Definitions, Sources};
use super::file::{Kind, Restart, ServiceFile};
use super::operator::Folder;
use super::orders::{self, Aim, Order, Progress, Stands, Verb};
use super::probes::Probes;
use super::run::{self, News, Run, What};
use super::runtime::{self, AWAY_PAUSE, Runtime, Task};
use super::schedule::now_s;
use super::supervised::{MARKS, Supervised};
use super::supervisor::{Action, Event, State};
use super::wire::Changed;
use super::{built_in, console, gate_facts, probes, resolv, serve};
use crate::boot_facts::BootFacts;
use crate::config::Config;
use crate::console::{say, warn};
use crate::gate::Verdict;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

/// How often the loop looks around without being told of anything.
const TICK: Duration = Duration::from_millis(500);

/// How long the state partition is waited for at the start.
const STATE_MAX: Duration = Duration::from_secs(15);
/// The operator's services are started when the built-in ones are up, or so long after the manager.
const OTHERS_MAX_MS: u64 = 90_000;
/// Images that were chosen for services that the health gate waits for have so long: then the services
/// run by their own roots, so that no choice of an operator speaks against a release.
const CHOSEN_MAX_MS: u64 = 120_000;

/// An order whose effect is not there yet.
struct Pending {
    name: String,
    aim: Aim,
    changed: bool,
    reply: oneshot::Sender<Result<Changed, Status>>,
}

/// All that the loop knows.
pub struct Manager {
    /// The services, by name.
    pub services: BTreeMap<String, Supervised>,
    /// Files that were left out, with the reason.
    pub left_out: Vec<(String, String)>,
    pending: Vec<Pending>,
    runtime: Runtime,
    probes: Probes,
    /// Whether the images that were chosen for built-in services have had their time.
    choices_judged: bool,
    facts: Option<Arc<BootFacts>>,
    news: mpsc::Sender<News>,
    origin: Instant,
    /// When the clock was last looked at, in minutes since 1970.
    minute: u64,
    resolv: String,
}

/// Runs until TERM: starts every enabled service, keeps them up, reports.
///
/// # Errors
/// A message when the service files cannot be read, or nothing can be set up at all.
pub async fn run() -> Result<(), String> {
    folders_in_time(Config::load_running()).await?;
    // After the folders: what a service requires may be made there.
    let sources = Sources::of_machine();
    let definitions = definitions_in_time(&sources).await?;
    let (news, mut inbox) = mpsc::channel(64);
    let mut resolv = String::new();
    let runtime = connect(&mut resolv).await;
    let mut manager = Manager {
        services: BTreeMap::new(),
        left_out: Vec::new(),
        pending: Vec::new(),
        probes: probes::spawn(runtime.clone()),
        choices_judged: false,
        runtime,
        facts: BootFacts::load().ok().map(Arc::new),
        news,
        origin: Instant::now(),
        minute: now_s() / 60,
        resolv,
    };
    manager.take_definitions(definitions, None);
    manager.find_what_was_there().await;
    manager.probes.again(manager.updater());
    let shown = Arc::new(Mutex::new(manager.shown("starting".into())));
    let (orders, mut ordered) = mpsc::channel(16);
    tokio::spawn(serve::run(Arc::clone(&shown), orders, sources));
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| format!("watch TERM: {e}"))?;
    let mut tick = tokio::time::interval(TICK);
    loop {
        let mut gate = None;
        tokio::select! {
            Some(news) = inbox.recv() => manager.take(news),
            Some(order) = ordered.recv() => manager.carry_out(order),
            _ = tick.tick() => {
                manager.advance();
                name_servers(&mut manager.resolv);
                let probed = manager.probes.answers();
                let facts = gate_facts::gather(&manager.services, &probed, manager.now_ms());
                let verdict = serve::tell_gate(&facts).await;
                manager.judge_choices(&verdict);
                gate = Some(verdict);
            }
            _ = terminate.recv() => break,
        }
        {
            let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            let gate = gate.map_or_else(|| shown.gate.clone(), |it| gate_facts::words(&it));
            *shown = manager.shown(gate);
        }
        // After it is shown: who has an answer finds things so.
        manager.answer();
    }
    manager.stop_all().await;
    Ok(())
}

/// All service files; without the operator's where the state partition does not answer: the
/// machine has to be reached all the same.
async fn definitions_in_time(sources: &Sources) -> Result<Definitions, String> {
    let asked = sources.clone();
    let load = tokio::task::spawn_blocking(move || Definitions::load(&asked));
    match tokio::time::timeout(STATE_MAX, load).await {
        Ok(Ok(loaded)) => loaded,
        Ok(Err(error)) => Err(format!("read the service files: {error}")),
        Err(_) => {
            let why = format!("no answer within {} s", STATE_MAX.as_secs());
            Definitions::without(built_in::all()?, &why)
        }
    }
}

/// Makes the folders; goes on without those on the state partition where that does not answer.
async fn folders_in_time(config: Config) -> Result<(), String> {
    let make = tokio::task::spawn_blocking(move || prepare_folders(&config));
    match tokio::time::timeout(STATE_MAX, make).await {
        Ok(Ok(made)) => made,
        Ok(Err(error)) => Err(format!("make the services' folders: {error}")),
        Err(_) => {
            warn("the state partition does not answer; going on without it");
            Ok(())
        }
    }
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
        tokio::time::sleep(AWAY_PAUSE).await;
    }
}

/// Writes resolv.conf when what networkd knows has changed; `written` is what it holds.
fn name_servers(written: &mut String) {
    let state = std::fs::read_to_string(resolv::NETWORKD).unwrap_or_default();
    let text = resolv::from_networkd(&state);
    if text != *written && super::folders::replace("/run/bascule/etc/resolv.conf", &text).is_ok() {
        *written = text;
    }
}

impl Manager {
    /// Milliseconds since the manager started.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Adds what is new and takes up what has changed for the next start. What runs, runs on. After
    /// the start of the machine nothing is started that was not `named`.
    fn take_definitions(&mut self, definitions: Definitions, named: Option<&str>) {
        for (name, why) in &definitions.left_out {
            if !self.left_out.iter().any(|(known, _)| known == name) {
                warn(&format!("service file {name}: {why}; left out"));
            }
        }
        self.left_out = definitions.left_out;
        for definition in definitions.services {
            match self.services.get_mut(&definition.file.name) {
                Some(known) => known.take_definition(definition),
                None => {
                    let name = definition.file.name.clone();
                    let mut service = Supervised::new(definition, Path::new(MARKS));
                    if named.is_some_and(|it| it != name) {
                        service.state = State::Stopped;
                        service.by_hand = true;
                        service.reason = Some("new; enable it, or start the machine again".into());
                    }
                    self.services.insert(name, service);
                }
            }
        }
    }

    /// What an earlier manager of this boot has left: what has ended is not started again unless its
    /// policy says so, what a person has stopped stays stopped, and what must not run is ended.
    async fn find_what_was_there(&mut self) {
        let now = self.now_ms();
        for (name, service) in &mut self.services {
            if matches!(service.state, State::Waiting | State::Resting)
                && service.definition.file.restart() != Restart::Always
            {
                match self.runtime.task(name).await {
                    Ok(Some(Task::Ended { status })) => {
                        let ran = State::Running { since_ms: now, failures: 0, well: true };
                        let ended = Event::Ended { well: status == 0 };
                        // A pause or an end: nothing to perform.
                        (service.state, _) = ran.step(service.policy(), ended, now);
                        service.reason = Some(ended_words(status));
                    }
                    // Its start adopts what runs.
                    Ok(Some(Task::Running { .. })) => service.state = State::Waiting,
                    Ok(None) | Err(_) => {}
                }
            }
        }
        let all_known = !self.left_out.iter().any(|(name, _)| name == "*");
        for name in self.runtime.all_running().await.unwrap_or_default() {
            let known = self.left_out.iter().any(|(it, _)| *it == name) || !all_known;
            let service = self.services.get_mut(&name).filter(|it| it.state == State::Stopped);
            if let Some(service) = service {
                // Disabled and running: somebody has started it, and its start adopts it.
                match service.by_hand {
                    true => drop(self.end(&name)),
                    false => service.state = State::Waiting,
                }
            } else if !known && !self.services.contains_key(&name) {
                let runtime = self.runtime.clone();
                tokio::spawn(async move {
                    if let Err(why) = runtime.end(&name, Duration::from_secs(10)).await {
                        eprintln!("os-services: {why}");
                    }
                });
            }
        }
    }

    fn take(&mut self, News { name, what }: News) {
        let Some(service) = self.services.get_mut(&name) else { return };
        let stopping = matches!(service.state, State::Stopping { .. });
        let (reason, event) = match what {
            What::Started => {
                say(&format!("{name} started"));
                if service.is_on_trial() && service.definition.is_gated() {
                    // What was found out before says nothing of the new one.
                    self.probes.again(self.updater());
                }
                return self.step(&name, Event::Started);
            }
            What::Well => return self.step(&name, Event::Well),
            What::Ended { status } => (ended_words(status), Event::Ended { well: status == 0 }),
            What::Lost(why) if why.runtime => (why.line, Event::Delayed),
            What::Lost(why) => (why.line, Event::Ended { well: false }),
        };
        if stopping {
            service.reason = Some("stopped".into());
        } else {
            // Back-off bounds how often; the console is where it is looked for first.
            warn(&format!("{name}: {reason}"));
            service.reason = Some(reason);
        }
        self.step(&name, event);
        if let Some(service) = self.services.get_mut(&name)
            && matches!((service.state, event), (State::Pausing { .. }, Event::Ended { .. }))
        {
            service.restarts = service.restarts.saturating_add(1);
            service.fall_back_if_failed();
        }
        self.rest(&name);
    }

    /// Has those started whose time has come since the last look.
    fn look_at_the_clock(&mut self) {
        let now = now_s() / 60;
        let before = std::mem::replace(&mut self.minute, now);
        if before == now {
            return;
        }
        let due = self.names(|it| it.is_due(before, now));
        for name in due {
            self.step(&name, Event::Due);
        }
    }

    /// Leaves a scheduled service that is idle to the clock.
    fn rest(&mut self, name: &str) {
        if self.services.get(name).is_some_and(Supervised::may_rest) {
            self.step(name, Event::Schedule);
        }
    }

    fn names(&self, which: impl Fn(&Supervised) -> bool) -> Vec<String> {
        self.services.iter().filter(|(_, it)| which(it)).map(|(name, _)| name.clone()).collect()
    }

    /// Leaves the images that were chosen for built-in services, once and in time, where the gate does
    /// not pass with them.
    fn judge_choices(&mut self, gate: &Verdict) {
        if self.choices_judged {
            return;
        }
        let late = self.now_ms() >= CHOSEN_MAX_MS;
        self.choices_judged = late || *gate == Verdict::Passed;
        if !late || *gate == Verdict::Passed {
            return;
        }
        let left = self.services.iter_mut().filter(|(_, it)| it.definition.is_gated());
        let left: Vec<String> =
            left.filter_map(|(name, it)| it.fall_back().then(|| name.clone())).collect();
        for name in &left {
            self.step(name, Event::Stop);
            self.step(name, Event::Start);
        }
        if !left.is_empty() {
            self.probes.again(self.updater());
        }
    }

    /// What the updater's self-test is run by.
    fn updater(&self) -> Option<Arc<ServiceFile>> {
        self.services.get("updater").map(|it| Arc::clone(&it.definition.file))
    }

    fn advance(&mut self) {
        self.look_at_the_clock();
        for name in self.names(|_| true) {
            self.rest(&name);
        }
        let names: Vec<String> = self.services.keys().cloned().collect();
        for name in names {
            self.step(&name, Event::Tick);
            if self.waits_for(&name).is_empty() && self.may_start_now(&name) {
                self.step(&name, Event::Ready);
            }
        }
        for name in self.names(|it| it.gone && it.state == State::Stopped) {
            self.services.remove(&name);
        }
    }

    /// Built-in services come first: they are what the machine is reached by.
    fn may_start_now(&self, name: &str) -> bool {
        let is_own = |it: &Supervised| it.definition.built_in;
        let on_the_way =
            |it: &Supervised| matches!(it.state, State::Waiting | State::Starting { .. });
        self.services.get(name).is_some_and(is_own)
            || self.now_ms() >= OTHERS_MAX_MS
            || !self.services.values().any(|it| is_own(it) && on_the_way(it))
    }

    /// The services that `name` waits for. Nobody waits for one that is left out.
    #[must_use]
    pub fn waits_for(&self, name: &str) -> Vec<&str> {
        let Some(service) = self.services.get(name) else { return Vec::new() };
        let file = &service.definition.file;
        let state = |name: &String| self.services.get(name).map(|service| service.state);
        let after = file.after.iter().filter(|it| state(it).is_some_and(|it| !it.is_past()));
        let needed =
            file.requires.iter().filter(|it| state(it).is_some_and(|it| !it.is_fulfilled()));
        let mut names: Vec<&str> = after.chain(needed).map(String::as_str).collect();
        names.dedup();
        names
    }

    /// A service that `name` requires and that nobody is going to start.
    #[must_use]
    pub fn blocked_by(&self, name: &str) -> Option<(&str, State)> {
        let requires = &self.services.get(name)?.definition.file.requires;
        requires.iter().find_map(|name| {
            let state = self.services.get(name)?.state;
            state.is_down().then_some((name.as_str(), state))
        })
    }

    fn step(&mut self, name: &str, event: Event) {
        let now = self.now_ms();
        let Some(service) = self.services.get_mut(name) else { return };
        let (state, action) = service.state.step(service.policy(), event, now);
        service.state = state;
        match action {
            Action::None => {}
            Action::Start => {
                service.runs_by = Some(Arc::clone(&service.definition.file));
                let run = Run {
                    file: Arc::clone(&service.definition.file),
                    built_in: service.definition.built_in,
                    runtime: self.runtime.clone(),
                    facts: self.facts.clone(),
                    news: self.news.clone(),
                };
                tokio::spawn(run.until_it_ends());
            }
            Action::Stop => drop(self.end(name)),
        }
    }

    /// Ends the container of `name`; its run then tells so.
    fn end(&self, name: &str) -> Option<tokio::task::JoinHandle<()>> {
        let file = Arc::clone(&self.services.get(name)?.definition.file);
        let runtime = self.runtime.clone();
        Some(tokio::spawn(async move { run::end(&runtime, &file).await }))
    }

    fn carry_out(&mut self, order: Order) {
        let Order { name, verb, definitions, reply } = order;
        let is_new = !self.services.contains_key(&name);
        self.take_ordered(&name, verb, definitions);
        let Some(service) = self.services.get_mut(&name) else {
            // It was asked for by its name a moment ago; nobody waits for the answer if this fails.
            let _ = reply.send(Err(Status::not_found(format!("no service is named `{name}`"))));
            return;
        };
        let settles = matches!(verb, Verb::Settle { .. });
        match verb {
            Verb::Forget => service.gone = true,
            Verb::Stop | Verb::Settle { .. } => {}
            _ => service.gone = false,
        }
        let runs_by = service.runs_by.as_deref();
        let newer = runs_by.is_some_and(|old| !old.runs_like(&service.definition.file));
        let before = service.state;
        // Who has stopped it during a trial wanted it so.
        if !settles {
            service.set_by_hand(verb.aim() == Aim::Down);
        }
        let (events, aim) = orders::events(
            verb,
            &Stands {
                unwanted: service.by_hand || service.gone,
                missing: service.definition.missing.is_some(),
                newer,
                scheduled: service.definition.file.kind == Kind::Scheduled,
                was_daemon: service.runs_by.as_ref().is_some_and(|it| it.kind == Kind::Daemon),
            },
        );
        if settles && service.definition.is_gated() {
            self.probes.again(self.updater());
        }
        for event in events {
            self.step(&name, *event);
        }
        let after = self.services.get(&name).map(|service| service.state);
        let changed = after != Some(before) || is_new || newer || verb == Verb::Forget;
        self.pending.push(Pending { name, aim, changed, reply });
        // Not only at the next tick.
        self.advance();
    }

    /// Takes what an order says of all services; of one on trial only its own orders say anything.
    fn take_ordered(&mut self, name: &str, verb: Verb, definitions: Option<Definitions>) {
        let on_trial = definitions
            .as_ref()
            .filter(|_| verb == Verb::Try)
            .and_then(|all| all.get(name).cloned());
        if let Some(service) = self.services.get_mut(name) {
            match verb {
                Verb::Try => service.end_trial(false),
                Verb::Settle { kept } => service.end_trial(kept),
                _ => {}
            }
            if let Some(definition) = on_trial {
                service.begin_trial(definition);
            }
        }
        if let Some(definitions) = definitions {
            self.take_definitions(definitions, Some(name));
        }
    }

    /// Answers the orders whose effect is there, or cannot come.
    fn answer(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        for order in pending {
            if order.reply.is_closed() {
                continue;
            }
            let Pending { name, aim, changed, reply } = order;
            let Some(service) = self.services.get(&name) else {
                // Removed, which was the order.
                let _ = reply.send(Ok(Changed { service: None, changed }));
                continue;
            };
            let blocked = self.blocked_by(&name);
            match orders::progress(aim, service.state, service.policy().oneshot, blocked.is_some())
            {
                Progress::Under => self.pending.push(Pending { name, aim, changed, reply }),
                Progress::Reached => {
                    let service = Some(self.one_shown(&name, service));
                    let _ = reply.send(Ok(Changed { service, changed }));
                }
                Progress::Missed => {
                    let why = match (aim, blocked) {
                        (Aim::Down, _) => {
                            format!("{name} was started again meanwhile; stop it once more")
                        }
                        (Aim::Up, Some((whom, state))) => format!(
                            "{name} requires {whom}, which is {}; `osctl service status {whom}`",
                            state.word()
                        ),
                        (Aim::Up, None) => {
                            let reason = service.reason.as_deref().unwrap_or("not started");
                            let state = service.state.word();
                            format!("{name} is {state}: {reason}; `osctl service logs {name}`")
                        }
                    };
                    let _ = reply.send(Err(Status::aborted(why)));
                }
            }
        }
    }

    /// Stops the services, all at once: the machine goes down. None needs another to end well.
    async fn stop_all(&mut self) {
        let now = self.now_ms();
        let mut ends = Vec::new();
        let names: Vec<String> = self.services.keys().cloned().collect();
        for name in names {
            let Some(service) = self.services.get_mut(&name) else { continue };
            let (state, action) = service.state.step(service.policy(), Event::Stop, now);
            service.state = state;
            if action == Action::Stop {
                ends.extend(self.end(&name));
            }
        }
        for end in ends {
            // One that panicked has told so.
            let _ = end.await;
        }
    }
}

fn ended_words(status: u32) -> String {
    format!("ended with status {status}")
}

/// The folders that service files lie in.
#[must_use]
pub fn path_of(definition: &Definition, folder: &Folder) -> String {
    let name = &definition.file.name;
    match definition.built_in {
        true => format!("{}/{name}.toml", built_in::FOLDER),
        false => folder.path(name).display().to_string(),
    }
}

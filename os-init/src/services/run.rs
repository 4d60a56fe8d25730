//! One run of one service: started or adopted, and waited for.

use super::file::{Health, Kind, Question, ServiceFile};
use super::health::{Asked, Said, probe};
use super::images::{self, Images, Process};
use super::notify::{self, Notify};
use super::runtime::{AWAY_PAUSE, Failed, Runtime};
use super::{roots, spec};
use crate::boot_facts::BootFacts;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How often, and after which pause each, the end of a container is tried.
const END_TRIES: u32 = 40;
const END_PAUSE: Duration = Duration::from_millis(500);

/// News of one service, from its run to the loop.
#[derive(Debug)]
pub struct News {
    /// The service.
    pub name: String,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Debug)]
pub enum What {
    /// Its process is up.
    Started,
    /// It says that it is well.
    Well,
    /// Its process ended with this status.
    Ended {
        /// The exit status.
        status: u32,
    },
    /// It could not be started, or it is not known how it ended.
    Lost(Failed),
}

/// What a run needs.
pub struct Run {
    /// The service.
    pub file: Arc<ServiceFile>,
    /// Whether it came with the OS.
    pub built_in: bool,
    /// containerd.
    pub runtime: Runtime,
    /// What is known about this boot.
    pub facts: Option<Arc<BootFacts>>,
    /// Where news go.
    pub news: mpsc::Sender<News>,
}

impl Run {
    /// Runs the service to its end.
    pub async fn until_it_ends(self) {
        let what = match self.start_and_wait().await {
            Ok(status) => What::Ended { status },
            Err(why) => What::Lost(why),
        };
        // Where containerd could not be asked it may run on, for the next start to adopt.
        let has_ended = !matches!(&what, What::Lost(why) if why.runtime);
        if has_ended && self.file.writable_root && self.file.kind == Kind::Daemon {
            self.clear().await;
        }
        self.tell(what).await;
    }

    /// Gives back the memory that it has written to. How a oneshot has ended is asked of its container.
    async fn clear(&self) {
        let name = self.file.name.clone();
        let removed = match self.runtime.remove(&name).await {
            Ok(()) => tokio::task::spawn_blocking(move || roots::remove(&name)).await,
            // The next start removes it.
            Err(_) => return,
        };
        if let Ok(Err(error)) = removed {
            eprintln!("os-services: remove the root of {}: {error}", self.file.name);
        }
    }

    async fn tell(&self, what: What) {
        // The loop has ended when nobody listens any more.
        let _ = self.news.send(News { name: self.file.name.clone(), what }).await;
    }

    async fn start_and_wait(&self) -> Result<u32, Failed> {
        let name = &self.file.name;
        let mut running = self.runtime.running(name).await?.is_some();
        if running && !self.runtime.is_of_its_image(&self.file).await? {
            // An earlier manager has tried another image and was ended in the middle of it.
            end(&self.runtime, &self.file).await;
            running = false;
        }
        let ear = speaks(&self.file).then(|| Notify::listen(name, !running)).transpose();
        let ear = ear.map_err(|error| Failed {
            line: format!("listen for {name}: {error}"),
            runtime: false,
        })?;
        if !running {
            let (file, facts) = (Arc::clone(&self.file), self.facts.clone());
            // It looks for what is mounted: a disk that hangs holds this one service.
            let made = tokio::task::spawn_blocking(move || specification(&file, facts.as_deref()));
            let made = made.await.map_err(|error| error.to_string()).and_then(|made| made);
            let (process, spec) = made.map_err(|why| Failed {
                line: format!("describe the container of {name}: {why}"),
                runtime: false,
            })?;
            let root = {
                let name = name.clone();
                move || roots::of(&name, &process)
            };
            self.runtime.start(&self.file, self.built_in, &spec, root).await?;
        }
        self.tell(What::Started).await;
        tokio::select! {
            ended = self.wait() => ended,
            line = self.watch_health(ear) => {
                // It may have ended just now; what is known of it is the same.
                end(&self.runtime, &self.file).await;
                Err(Failed { line, runtime: false })
            }
        }
    }

    /// Asks the service whether it is well for as long as it is; why it is not.
    async fn watch_health(&self, ear: Option<Notify>) -> String {
        let Some(health) = &self.file.health else { return std::future::pending().await };
        if let Some(ear) = ear {
            return self.hear(&ear, health).await;
        }
        let begun = Instant::now();
        let mut asked = Asked::default();
        loop {
            tokio::time::sleep(Duration::from_secs(health.interval_s)).await;
            // Where containerd is away, nobody was asked.
            let Some(answer) = probe(&self.runtime, &self.file, health).await else { continue };
            match asked.take(answer, begun.elapsed(), health) {
                Said::Nothing => {}
                Said::Well => self.tell(What::Well).await,
                Said::Failed(why) => return why,
            }
        }
    }

    /// Waits for its own word that it is well.
    async fn hear(&self, ear: &Notify, health: &Health) -> String {
        let limit = Duration::from_secs(health.start_s);
        if tokio::time::timeout(limit, ear.ready()).await.is_err() {
            return format!("has not said READY=1 within {} s", health.start_s);
        }
        self.tell(What::Well).await;
        ear.listen_on().await;
        String::new()
    }

    async fn wait(&self) -> Result<u32, Failed> {
        let name = &self.file.name;
        loop {
            match self.runtime.wait(name).await {
                Ok(status) => return Ok(status),
                // containerd went away, not the service: ask again until it can tell.
                Err(_) => loop {
                    tokio::time::sleep(AWAY_PAUSE).await;
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

/// Runs a program in the running service of this file, as the service itself is run.
///
/// # Errors
/// As [`Runtime::exec`]; or its image cannot be used.
pub async fn exec(
    runtime: &Runtime,
    file: &Arc<ServiceFile>,
    purpose: &str,
    words: &[&str],
    limit: Duration,
) -> Result<u32, Failed> {
    let read = Arc::clone(file);
    // It may lie on a disk that hangs.
    let process =
        tokio::task::spawn_blocking(move || Images::at(images::FOLDER).process(&read)).await;
    let process = process.map_err(|error| error.to_string()).and_then(|process| process);
    let process = process.map_err(|why| Failed {
        line: format!("run {words:?} in {}: {why}", file.name),
        runtime: false,
    })?;
    runtime.exec(file, &process, purpose, words, limit).await
}

/// Ends a service's container, also where containerd is away for a while.
pub async fn end(runtime: &Runtime, file: &ServiceFile) {
    let grace = Duration::from_secs(file.stop_s);
    for _ in 0..END_TRIES {
        match runtime.end(&file.name, grace).await {
            Ok(()) => return,
            Err(why) if why.runtime => tokio::time::sleep(END_PAUSE).await,
            Err(why) => return eprintln!("os-services: {why}"),
        }
    }
    eprintln!("os-services: {} was not stopped: containerd is away", file.name);
}

/// Whether it says by itself that it is well.
fn speaks(file: &ServiceFile) -> bool {
    let question = file.health.as_ref().map(Health::question);
    matches!(question, Some(Ok(Question::Notify)))
}

/// What is started of a service, and what containerd is told of it.
///
/// # Errors
/// A message: its image is not there or cannot be used.
pub fn specification(
    file: &ServiceFile,
    facts: Option<&BootFacts>,
) -> Result<(Process, serde_json::Value), String> {
    let mut process = Images::at(images::FOLDER).process(file)?;
    let mut mounts = super::folders::existing(file);
    if speaks(file) {
        process.env.push(notify::variable());
        mounts.push(notify::mount(&file.name));
    }
    let devices = super::devices::resolve(file, facts);
    let spec = spec::build(file, &process, &mounts, &devices);
    Ok((process, spec))
}

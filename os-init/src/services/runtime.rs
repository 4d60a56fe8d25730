//! containerd, as far as a service needs it. The only place that talks to it.
//!
//! A task's root is a plain bind mount of the OS root, or an overlay above an image that lies
//! unpacked on the state partition: nothing is pulled, unpacked or snapshotted in order to boot. Output goes to the `os-log` program, which containerd's shim starts for each
//! container and which outlives the services manager.

use super::file::ServiceFile;
use super::images::{self, Process};
use super::spec::{self, TYPE_URL};
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest,
    DeleteProcessRequest, DeleteTaskRequest, ExecProcessRequest, GetContainerRequest, GetRequest,
    KillRequest, ListTasksRequest, StartRequest, WaitRequest, container::Runtime as RuntimeName,
    containers_client::ContainersClient, tasks_client::TasksClient,
};
use containerd_client::types::{Mount, v1::Status};
use prost_types::Any;
use serde_json::{Value, json};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request};

/// containerd's socket.
pub const SOCKET: &str = "/run/containerd/containerd.sock";
/// The namespace of the OS's own services; workloads never run in it.
pub const NAMESPACE: &str = "bascule";
const PROCESS_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// The label of a container that holds the digest of its image; without one its root is the OS's.
const IMAGE_LABEL: &str = "bascule.image";
const LOG_DRIVER: &str = "binary:///usr/lib/bascule/os-log";
/// How long one call may take.
const CALL_MAX: Duration = Duration::from_secs(60);
/// How long a killed program may take to be gone.
const GONE_MAX: Duration = Duration::from_secs(5);
/// Between two questions to a containerd that does not answer.
pub const AWAY_PAUSE: Duration = Duration::from_millis(200);
/// How long a start may take. On a slow, busy machine a container takes a minute, and one that is
/// given up half-way is in its own way at the next start.
const START_MAX: Duration = Duration::from_secs(240);

/// A connection to containerd.
#[derive(Clone)]
pub struct Runtime {
    channel: Channel,
    /// As many starts at a time as there are CPUs: more only make each other slow. Built-in services
    /// do not queue behind others.
    built_in_starts: Arc<Semaphore>,
    other_starts: Arc<Semaphore>,
    /// Programs run in services so far.
    execs: Arc<AtomicU64>,
}

/// A task that containerd knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// It runs.
    Running {
        /// Its first process.
        pid: u32,
    },
    /// It has ended.
    Ended {
        /// Its exit status.
        status: u32,
    },
}

/// A call that failed: what was tried, on which service, and containerd's words.
#[derive(Debug)]
pub struct Failed {
    /// The line for people.
    pub line: String,
    /// Whether the runtime is busy or away, which says nothing about the service.
    pub runtime: bool,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.line)
    }
}

impl std::error::Error for Failed {}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
    request
}

fn bounded<T>(message: T) -> Request<T> {
    within(CALL_MAX, message)
}

fn within<T>(limit: Duration, message: T) -> Request<T> {
    let mut request = request(message);
    request.set_timeout(limit);
    request
}

fn failed(tried: &'static str, name: &str) -> impl FnOnce(tonic::Status) -> Failed {
    move |status| {
        let busy =
            [Code::DeadlineExceeded, Code::Cancelled, Code::Unavailable, Code::AlreadyExists];
        // What an abandoned start has left is cleared away by containerd, in its time.
        let leftover = status.message().contains("file exists");
        // containerd's own answers have no source; a connection that broke meanwhile has.
        let broken = std::error::Error::source(&status).is_some();
        Failed {
            line: format!("{tried} {name}: {}", status.message().replace('\n', " ")),
            runtime: leftover || broken || busy.contains(&status.code()),
        }
    }
}

/// Whether a container or task that is to go was already gone.
fn gone_is_fine<T>(
    answer: Result<T, tonic::Status>,
    tried: &'static str,
    name: &str,
) -> Result<(), Failed> {
    match answer {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(failed(tried, name)(status)),
    }
}

impl Runtime {
    /// Connects to the containerd that listens at `socket`.
    ///
    /// # Errors
    /// [`Failed`] when nothing answers there.
    pub async fn connect(socket: &Path) -> Result<Self, Failed> {
        let channel = containerd_client::connect(socket).await.map_err(|e| Failed {
            line: format!("connect to containerd at {}: {e}", socket.display()),
            runtime: true,
        })?;
        let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let starts = || Arc::new(Semaphore::new(cpus));
        let (built_in_starts, other_starts) = (starts(), starts());
        Ok(Self { channel, built_in_starts, other_starts, execs: Arc::default() })
    }

    fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone())
    }

    fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel.clone())
    }

    /// What is known of the task of `name`, `None` when there is none.
    ///
    /// # Errors
    /// [`Failed`] when containerd does not answer.
    pub async fn task(&self, name: &str) -> Result<Option<Task>, Failed> {
        let get = GetRequest { container_id: name.into(), ..GetRequest::default() };
        match self.tasks().get(bounded(get)).await {
            Ok(answer) => {
                Ok(answer.into_inner().process.and_then(|process| {
                    match Status::try_from(process.status) {
                        Ok(Status::Running) => Some(Task::Running { pid: process.pid }),
                        Ok(Status::Stopped) => Some(Task::Ended { status: process.exit_status }),
                        _ => None,
                    }
                }))
            }
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(failed("ask for the task of", name)(status)),
        }
    }

    /// The process id of the running task, `None` when none runs.
    ///
    /// # Errors
    /// As [`Self::task`].
    pub async fn running(&self, name: &str) -> Result<Option<u32>, Failed> {
        Ok(match self.task(name).await? {
            Some(Task::Running { pid }) => Some(pid),
            Some(Task::Ended { .. }) | None => None,
        })
    }

    /// Whether the container of the service was made of the image that its file names.
    ///
    /// # Errors
    /// As [`Self::task`].
    pub async fn is_of_its_image(&self, file: &ServiceFile) -> Result<bool, Failed> {
        let get = GetContainerRequest { id: file.name.clone() };
        let answer = self.containers().get(bounded(get)).await;
        let container = answer.map_err(failed("ask for the container of", &file.name))?;
        let labels = container.into_inner().container.map(|it| it.labels).unwrap_or_default();
        let wanted = file.image.as_deref().and_then(images::digest);
        Ok(labels.get(IMAGE_LABEL).map(String::as_str) == wanted)
    }

    /// Starts a service afresh and returns its process id; `root` makes what its root is. What an
    /// earlier start left is removed.
    ///
    /// # Errors
    /// [`Failed`]; nothing of the service is left running.
    pub async fn start(
        &self,
        file: &ServiceFile,
        built_in: bool,
        spec: &Value,
        root: impl FnOnce() -> Result<Mount, String> + Send + 'static,
    ) -> Result<u32, Failed> {
        let starts = if built_in { &self.built_in_starts } else { &self.other_starts };
        // It is never closed; were it, starting at once would be right.
        let _turn = starts.acquire().await;
        self.remove(&file.name).await?;
        // After what was there is gone: it is made anew, and may lie on a disk that hangs.
        let made = tokio::task::spawn_blocking(root).await;
        let made = made.map_err(|error| error.to_string()).and_then(|made| made);
        let root = made.map_err(|why| Failed {
            line: format!("make the root of {}: {why}", file.name),
            runtime: false,
        })?;
        let started = self.create_and_start(file, spec, root).await;
        if started.is_err() {
            // The first error is the one to tell.
            let _ = self.remove(&file.name).await;
        }
        started
    }

    async fn create_and_start(
        &self,
        file: &ServiceFile,
        spec: &Value,
        root: Mount,
    ) -> Result<u32, Failed> {
        let name = &file.name;
        let image = file.image.as_deref().and_then(images::digest);
        let container = Container {
            id: name.clone(),
            runtime: Some(RuntimeName { name: "io.containerd.runc.v2".into(), options: None }),
            spec: Some(Any { type_url: TYPE_URL.into(), value: spec.to_string().into_bytes() }),
            labels: image.map(|it| (IMAGE_LABEL.into(), it.into())).into_iter().collect(),
            ..Container::default()
        };
        self.containers()
            .create(bounded(CreateContainerRequest { container: Some(container) }))
            .await
            .map_err(failed("create the container of", name))?;
        let task = CreateTaskRequest {
            container_id: name.clone(),
            rootfs: vec![root],
            stdout: LOG_DRIVER.into(),
            stderr: LOG_DRIVER.into(),
            ..CreateTaskRequest::default()
        };
        self.tasks()
            .create(within(START_MAX, task))
            .await
            .map_err(failed("create the task of", name))?;
        let start = StartRequest { container_id: name.clone(), ..StartRequest::default() };
        let answer = self
            .tasks()
            .start(within(START_MAX, start))
            .await
            .map_err(failed("start the task of", name))?;
        Ok(answer.into_inner().pid)
    }

    /// Waits until the service's process ends and returns its exit status.
    ///
    /// # Errors
    /// [`Failed`] when containerd goes away meanwhile; the task may well run on.
    pub async fn wait(&self, name: &str) -> Result<u32, Failed> {
        let wait = WaitRequest { container_id: name.into(), ..WaitRequest::default() };
        let answer =
            self.tasks().wait(request(wait)).await.map_err(failed("wait for the task of", name))?;
        Ok(answer.into_inner().exit_status)
    }

    /// Asks the service to end, and kills it after `grace`. Its container is left: the machine
    /// goes down, and what is left is on `/run`.
    ///
    /// # Errors
    /// [`Failed`] when containerd does not answer.
    pub async fn end(&self, name: &str, grace: Duration) -> Result<(), Failed> {
        if self.running(name).await?.is_none() {
            return Ok(());
        }
        self.signal(name, 15).await?;
        match tokio::time::timeout(grace, self.until_gone(name)).await {
            Ok(()) => Ok(()),
            Err(_) => self.signal(name, 9).await,
        }
    }

    /// Waits until no task of `name` runs, however often containerd goes away meanwhile.
    async fn until_gone(&self, name: &str) {
        while self.wait(name).await.is_err() && !matches!(self.running(name).await, Ok(None)) {
            tokio::time::sleep(AWAY_PAUSE).await;
        }
    }

    /// The names of all tasks that run.
    ///
    /// # Errors
    /// [`Failed`] when containerd does not answer.
    pub async fn all_running(&self) -> Result<Vec<String>, Failed> {
        let answer = self.tasks().list(bounded(ListTasksRequest::default())).await;
        let tasks = answer.map_err(failed("list the tasks of", NAMESPACE))?.into_inner().tasks;
        let run = tasks.into_iter().filter(|task| task.status == Status::Running as i32);
        // The container's name is in `id` here, and in `container_id` elsewhere.
        Ok(run.map(|task| task.id).collect())
    }

    async fn signal(&self, name: &str, signal: u32) -> Result<(), Failed> {
        let kill = KillRequest {
            container_id: name.into(),
            signal,
            all: signal == 9,
            ..KillRequest::default()
        };
        gone_is_fine(self.tasks().kill(bounded(kill)).await, "signal", name)
    }

    /// Removes whatever is left of the service, running or not.
    ///
    /// # Errors
    /// [`Failed`] when containerd does not answer.
    pub async fn remove(&self, name: &str) -> Result<(), Failed> {
        if self.running(name).await?.is_some() {
            self.signal(name, 9).await?;
            let _ = tokio::time::timeout(CALL_MAX, self.wait(name)).await;
        }
        let task = DeleteTaskRequest { container_id: name.into() };
        gone_is_fine(self.tasks().delete(bounded(task)).await, "delete the task of", name)?;
        let container = DeleteContainerRequest { id: name.into() };
        let answer = self.containers().delete(bounded(container)).await;
        gone_is_fine(answer, "delete the container of", name)
    }

    /// Runs a program inside the running service, as its `process` is run, and returns its exit status.
    /// `purpose` is a word.
    ///
    /// # Errors
    /// [`Failed`] when it cannot be started, or takes longer than `limit`.
    pub async fn exec(
        &self,
        file: &ServiceFile,
        process: &Process,
        purpose: &str,
        args: &[&str],
        limit: Duration,
    ) -> Result<u32, Failed> {
        let name = &file.name;
        // Never one that is in use: what an earlier question, or an earlier manager, has left behind
        // may not be gone yet.
        let number = self.execs.fetch_add(1, Ordering::Relaxed);
        let exec_id = format!("{purpose}-{}-{number}", std::process::id());
        let caps = &file.capabilities;
        let process = json!({
            "terminal": false, "cwd": process.folder, "args": args,
            "user": { "uid": process.user, "gid": process.group },
            "env": spec::environment(process),
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
            "noNewPrivileges": true,
        });
        let exec = ExecProcessRequest {
            container_id: name.clone(),
            exec_id: exec_id.clone(),
            spec: Some(Any {
                type_url: PROCESS_URL.into(),
                value: process.to_string().into_bytes(),
            }),
            ..ExecProcessRequest::default()
        };
        self.tasks().exec(bounded(exec)).await.map_err(failed("prepare a program in", name))?;
        let ended = tokio::time::timeout(limit, self.run_exec(name, &exec_id)).await;
        if ended.is_err() {
            let kill = KillRequest {
                container_id: name.clone(),
                exec_id: exec_id.clone(),
                signal: 9,
                ..KillRequest::default()
            };
            // It may have ended by itself just now.
            let _ = self.tasks().kill(bounded(kill)).await;
            let wait = WaitRequest { container_id: name.clone(), exec_id: exec_id.clone() };
            // Only what has ended can be deleted.
            let _ = self.tasks().wait(within(GONE_MAX, wait)).await;
        }
        let delete = DeleteProcessRequest { container_id: name.clone(), exec_id };
        // A leftover is replaced with the container; the status below is what matters.
        let _ = self.tasks().delete_process(bounded(delete)).await;
        ended.unwrap_or_else(|_| {
            let line = format!("run {args:?} in {name}: no end after {} s", limit.as_secs());
            Err(Failed { line, runtime: false })
        })
    }

    async fn run_exec(&self, name: &str, exec_id: &str) -> Result<u32, Failed> {
        let start = StartRequest { container_id: name.into(), exec_id: exec_id.into() };
        self.tasks().start(bounded(start)).await.map_err(failed("start a program in", name))?;
        let wait = WaitRequest { container_id: name.into(), exec_id: exec_id.into() };
        let answer = self
            .tasks()
            .wait(request(wait))
            .await
            .map_err(failed("wait for a program in", name))?;
        Ok(answer.into_inner().exit_status)
    }
}

//! The manager's two conversations: what people ask and order over its socket, and telling PID 1
//! how the gate stands.
//!
//! Files are read and written here, by the task of the caller: a disk that hangs holds one caller,
//! never the manager's loop.

use super::definitions::{Definition, Definitions, Sources, refusals};
use super::file::{SOCKET, ServiceFile, named};
use super::orders::{Aim, Order, Verb};
use super::try_image::{Wanted, try_image};
use super::wire::services_server::{Services, ServicesServer};
use super::{built_in, gate_facts, logs, manage, run, status, wire};
use crate::boot_facts::BootFacts;
use crate::gate::{Facts, Verdict};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// A service that a trial was about is as it shall be within this, or is told not to be.
const SETTLED_MAX: Duration = Duration::from_secs(300);
const CONTROL: &str = "/run/bascule/control.sock";
/// PID 1 may not hold the manager's loop for longer than this.
const TALK_MAX: Duration = Duration::from_secs(2);
/// Pieces of a log that wait for a slow reader.
const PIECES: usize = 4;

/// Answers on the manager's socket until the process ends.
pub async fn run(
    shown: Arc<Mutex<wire::ServiceList>>,
    orders: mpsc::Sender<Order>,
    sources: Sources,
) {
    let listener = match crate::socket::listen(Path::new(SOCKET)) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("os-services: listen at {SOCKET}: {error}");
            return;
        }
    };
    let calls = Calls { shown, orders, sources, files: Arc::default(), trying: Arc::default() };
    let served = tonic::transport::Server::builder()
        .add_service(ServicesServer::with_interceptor(calls, crate::socket::only_root))
        .serve_with_incoming(listener)
        .await;
    if let Err(error) = served {
        eprintln!("os-services: answer at {SOCKET}: {error}");
    }
}

/// Judges the facts and tells PID 1; what it answers changes nothing here.
pub async fn tell_gate(facts: &Facts) -> Verdict {
    let verdict = crate::gate::judge(facts);
    let line = gate_facts::line(&verdict);
    let talk = async {
        let mut stream = UnixStream::connect(CONTROL).await?;
        stream.write_all(line.as_bytes()).await?;
        let mut answer = [0_u8; 256];
        stream.read(&mut answer).await
    };
    // PID 1 is told again at the next tick.
    let _ = tokio::time::timeout(TALK_MAX, talk).await;
    verdict
}

/// What answers the calls.
#[derive(Clone)]
pub(super) struct Calls {
    shown: Arc<Mutex<wire::ServiceList>>,
    orders: mpsc::Sender<Order>,
    pub(super) sources: Sources,
    /// Held while files are changed: two callers do not mix theirs.
    pub(super) files: Arc<tokio::sync::Mutex<()>>,
    /// Held while a service runs by an image that is not kept yet.
    pub(super) trying: Arc<tokio::sync::Mutex<()>>,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Services for Calls {
    async fn list(&self, _: Request<wire::ListRequest>) -> Answer<wire::ServiceList> {
        let mut list = self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for service in list.services.iter_mut().filter(|it| it.up_s.is_some()) {
            service.memory_bytes = status::memory(&service.name);
        }
        Ok(Response::new(list))
    }

    async fn inspect(&self, request: Request<wire::NameRequest>) -> Answer<wire::ServiceDetail> {
        let name = request.into_inner().name;
        let definitions = self.definitions().await?;
        let definition = known(&definitions, &name)?.clone();
        let list = self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let path = manage::path_of(&definition, &self.sources.folder);
        let read = path.clone();
        let (file, spec) = on_disk(move || {
            let text = std::fs::read_to_string(&read).map_err(|e| e.to_string())?;
            let facts = BootFacts::load().ok();
            let (_, spec) = run::specification(&definition.file, facts.as_ref())?;
            Ok((text, format!("{spec:#}")))
        })
        .await?;
        let service = list.services.into_iter().find(|it| it.name == name);
        Ok(Response::new(wire::ServiceDetail { service, path, file, spec }))
    }

    async fn enable(&self, request: Request<wire::EnableRequest>) -> Answer<wire::Changed> {
        let wire::EnableRequest { name, file } = request.into_inner();
        let name = named(&name).map_err(|e| Status::invalid_argument(e.to_string()))?.to_owned();
        let files = self.files.lock().await;
        let folder = self.sources.folder.clone();
        let enabled = name.clone();
        if file.is_empty() {
            known(&self.definitions().await?, &name)?;
        } else {
            let parsed = ServiceFile::parse(&file);
            let parsed =
                parsed.map_err(|e| Status::invalid_argument(format!("service file: {e}")))?;
            if parsed.name != name {
                let why = format!("the file is of a service `{}`, not `{name}`", parsed.name);
                return Err(Status::invalid_argument(why));
            }
            let folder = self.sources.folder.clone();
            let refused = move || refusals(built_in::all()?, &folder, &[parsed]);
            if let Some((_, why)) = on_disk(refused).await?.iter().find(|(it, _)| *it == name) {
                return Err(Status::failed_precondition(why.to_string()));
            }
        }
        on_disk(move || {
            if !file.is_empty() {
                folder.put(&enabled, &file).map_err(|e| format!("store the file: {e}"))?;
            }
            folder.set_enabled(&enabled, true).map_err(|e| format!("enable {enabled}: {e}"))
        })
        .await?;
        drop(files);
        self.order(name, Verb::Renew).await
    }

    async fn disable(&self, request: Request<wire::NameRequest>) -> Answer<wire::Changed> {
        let name = request.into_inner().name;
        let files = self.files.lock().await;
        self.may_be_down(&self.definitions().await?, &name)?;
        let (folder, disabled) = (self.sources.folder.clone(), name.clone());
        on_disk(move || {
            folder.set_enabled(&disabled, false).map_err(|e| format!("disable {disabled}: {e}"))
        })
        .await?;
        drop(files);
        self.order(name, Verb::Stop).await
    }

    async fn start(&self, request: Request<wire::NameRequest>) -> Answer<wire::Changed> {
        self.order(request.into_inner().name, Verb::Start).await
    }

    async fn stop(&self, request: Request<wire::NameRequest>) -> Answer<wire::Changed> {
        let name = request.into_inner().name;
        self.may_be_down(&self.definitions().await?, &name)?;
        self.order(name, Verb::Stop).await
    }

    async fn restart(&self, request: Request<wire::NameRequest>) -> Answer<wire::Changed> {
        self.order(request.into_inner().name, Verb::Restart).await
    }

    async fn remove(&self, request: Request<wire::NameRequest>) -> Answer<wire::Changed> {
        let name = request.into_inner().name;
        let files = self.files.lock().await;
        let definitions = self.definitions().await?;
        if definitions.get(&name).is_some_and(|it| it.built_in) {
            let why = format!("`{name}` is built in; `osctl service disable {name}` stops it");
            return Err(Status::failed_precondition(why));
        }
        let listed = self.is_listed(&name);
        let left_out = definitions.why_left_out(&name).is_some();
        if !listed && !left_out {
            known(&definitions, &name)?;
        }
        let removed = named(&name).map_err(|e| Status::invalid_argument(e.to_string()))?.to_owned();
        let folder = self.sources.folder.clone();
        on_disk(move || folder.remove(&removed).map_err(|e| format!("remove {removed}: {e}")))
            .await?;
        drop(files);
        let removed = match listed {
            true => self.order(name, Verb::Forget).await,
            false => Ok(Response::new(wire::Changed { service: None, changed: true })),
        };
        if let Ok(_turn) = self.trying.try_lock() {
            self.prune().await;
        }
        removed
    }

    async fn upgrade(&self, request: Request<wire::UpgradeRequest>) -> Answer<wire::Changed> {
        let wire::UpgradeRequest { name, image } = request.into_inner();
        self.try_in_a_task(name, Wanted::Image(image)).await
    }

    async fn rollback(&self, request: Request<wire::NameRequest>) -> Answer<wire::Changed> {
        self.try_in_a_task(request.into_inner().name, Wanted::Previous).await
    }

    type LogsStream = Pin<Box<dyn Stream<Item = Result<wire::LogChunk, Status>> + Send>>;

    async fn logs(&self, request: Request<wire::LogsRequest>) -> Answer<Self::LogsStream> {
        let wire::LogsRequest { name, lines, follow } = request.into_inner();
        known(&self.definitions().await?, &name)?;
        let (sender, receiver) = mpsc::channel(PIECES);
        tokio::spawn(logs::send(name, lines, follow, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl Calls {
    pub(super) async fn definitions(&self) -> Result<Definitions, Status> {
        let sources = self.sources.clone();
        on_disk(move || Definitions::load(&sources)).await
    }

    /// How a service stands, without what is read for each caller.
    pub(super) fn shown_of(&self, name: &str) -> Option<wire::Service> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.services.iter().find(|service| service.name == name).cloned()
    }

    /// What services run by just now, whatever their files say.
    pub(super) fn images_that_run(&self) -> Vec<String> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let has_a_root = |it: &&wire::Service| {
            ["starting", "running", "restarting", "stopping"].contains(&it.state.as_str())
        };
        let run = shown.services.iter().filter(has_a_root);
        run.map(|it| it.image.clone()).filter(|image| !image.is_empty()).collect()
    }

    /// The words for the health gate.
    pub(super) fn gate(&self) -> String {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).gate.clone()
    }

    async fn try_in_a_task(&self, name: String, wanted: Wanted) -> Answer<wire::Changed> {
        let calls = self.clone();
        let tried = tokio::spawn(async move { try_image(&calls, &name, &wanted).await });
        let stopped = |error| Status::unavailable(format!("change the service: {error}"));
        tried.await.map_err(stopped)?.map(Response::new)
    }

    fn is_listed(&self, name: &str) -> bool {
        self.shown_of(name).is_some()
    }

    /// Nobody shuts themselves out of a machine far away.
    fn may_be_down(&self, definitions: &Definitions, name: &str) -> Result<(), Status> {
        match definitions.get(name) {
            Some(it) if it.is_gated() => Err(Status::failed_precondition(format!(
                "the machine is not healthy without `{name}`; `osctl service restart {name}` works"
            ))),
            None if !self.is_listed(name) => known(definitions, name).map(drop),
            Some(_) | None => Ok(()),
        }
    }

    async fn order(&self, name: String, verb: Verb) -> Answer<wire::Changed> {
        // Until the order is sent: no older state of the files comes to the loop after a newer one.
        let files = self.files.lock().await;
        let definitions = self.definitions().await?;
        // What runs can be stopped, whatever has become of its file.
        if verb.aim() == Aim::Up
            && let Some(missing) = &known(&definitions, &name)?.missing
        {
            return Err(Status::failed_precondition(format!("{name}: {missing}")));
        }
        let answer = self.send(name, verb, Some(definitions)).await?;
        drop(files);
        answered(answer).await.map(Response::new)
    }

    /// Puts the service on trial by `image`, in the words of a choice, and waits until it is up; whether
    /// anything had to be done for that.
    pub(super) async fn order_trial(&self, name: &str, image: &str) -> Result<bool, Status> {
        let files = self.files.lock().await;
        let sources = self.sources.clone();
        let (tried, image) = (name.to_owned(), image.to_owned());
        let definitions = on_disk(move || {
            let mut definitions = Definitions::load(&sources)?;
            definitions.run_by(&tried, &image, &sources);
            Ok(definitions)
        })
        .await?;
        let answer = self.send(name.to_owned(), Verb::Try, Some(definitions)).await?;
        drop(files);
        answered(answer).await.map(|it| it.changed)
    }

    /// Ends the trial, also where no file can be read.
    pub(super) async fn order_settled(
        &self,
        name: &str,
        kept: bool,
    ) -> Result<wire::Changed, Status> {
        let files = self.files.lock().await;
        let definitions = self.definitions().await.ok();
        let answer = self.send(name.to_owned(), Verb::Settle { kept }, definitions).await?;
        drop(files);
        let late = |_| Status::aborted(format!("{name} is not there yet"));
        tokio::time::timeout(SETTLED_MAX, answered(answer)).await.map_err(late)?
    }

    async fn send(
        &self,
        name: String,
        verb: Verb,
        definitions: Option<Definitions>,
    ) -> Result<oneshot::Receiver<Result<wire::Changed, Status>>, Status> {
        let (reply, answer) = oneshot::channel();
        let order = Order { name, verb, definitions, reply };
        self.orders.send(order).await.map_err(|_| going_down())?;
        Ok(answer)
    }
}

async fn answered(
    answer: oneshot::Receiver<Result<wire::Changed, Status>>,
) -> Result<wire::Changed, Status> {
    answer.await.map_err(|_| going_down())?
}

fn going_down() -> Status {
    Status::unavailable("the services manager is going down")
}

pub(super) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Status::unavailable),
        Err(error) => Err(Status::unavailable(format!("read or write files: {error}"))),
    }
}

/// The service of this name.
pub(super) fn known<'a>(
    definitions: &'a Definitions,
    name: &str,
) -> Result<&'a Definition, Status> {
    if let Some(definition) = definitions.get(name) {
        return Ok(definition);
    }
    Err(match definitions.why_left_out(name) {
        Some(why) => Status::failed_precondition(format!(
            "the file of {name} is left out: {why}; mend it, or `osctl service rm {name}`"
        )),
        None => Status::not_found(format!("no service is named `{name}`; `osctl service list`")),
    })
}

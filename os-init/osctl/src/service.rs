//! `osctl service`: asks the services manager.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use os_init::services::file::{FILE_MAX, SOCKET, ServiceFile};
use os_init::services::wire::{
    Changed, EnableRequest, ListRequest, LogsRequest, NameRequest, UpgradeRequest,
    services_client::ServicesClient,
};
use os_init::socket;
use tonic::transport::Channel;

use crate::arguments::Service;
use crate::failure::{DONE, Failure, NOTHING};
use crate::{image, import, tell, validate};

/// Connects to the services manager.
///
/// # Errors
/// It does not answer.
pub async fn connect() -> Result<ServicesClient<Channel>, Failure> {
    let path = Path::new(SOCKET);
    let channel = socket::connect(path.to_owned()).await;
    let channel = channel.map_err(|why| Failure::silent("the services manager", path, &why))?;
    Ok(ServicesClient::new(channel))
}

/// Carries out one command; the exit code.
///
/// # Errors
/// [`Failure`].
pub async fn run(command: Service, json: bool) -> Result<u8, Failure> {
    let named = |name: &str| NameRequest { name: name.to_owned() };
    let (done, name) = match &command {
        Service::Validate { files } => return validate::run(files, json),
        Service::Import { file, folder, offline } => {
            return import::run(file, folder, *offline, json).await;
        }
        Service::List => {
            let list = connect().await?.list(ListRequest {}).await.map_err(lost)?;
            tell::list(&list.into_inner(), json);
            return Ok(DONE);
        }
        Service::Status { name } => return status(name, json).await,
        Service::Inspect { name } => {
            let detail = connect().await?.inspect(named(name)).await.map_err(lost)?;
            tell::detail(&detail.into_inner(), json);
            return Ok(DONE);
        }
        Service::Logs { name, follow, lines } => {
            return logs(LogsRequest { name: name.clone(), follow: *follow, lines: *lines }).await;
        }
        Service::Pull { service } => {
            let report = image::pull(&image_of(service).await?, json).await?;
            tell::pulled(&report, json);
            return Ok(if report.was_there { NOTHING } else { DONE });
        }
        Service::Upgrade { name, image } => {
            image::pull(image, json).await?;
            let request = UpgradeRequest { name: name.clone(), image: image.clone() };
            (connect().await?.upgrade(request).await, name.clone())
        }
        Service::Rollback { name } => (connect().await?.rollback(named(name)).await, name.clone()),
        Service::Enable { service } => {
            let (request, image) = enable(service)?;
            if let Some(image) = image {
                image::pull(&image, json).await?;
            }
            let name = request.name.clone();
            (connect().await?.enable(request).await, name)
        }
        Service::Disable { name } => (connect().await?.disable(named(name)).await, name.clone()),
        Service::Start { name } => (connect().await?.start(named(name)).await, name.clone()),
        Service::Stop { name } => (connect().await?.stop(named(name)).await, name.clone()),
        Service::Restart { name } => (connect().await?.restart(named(name)).await, name.clone()),
        Service::Rm { name } => (connect().await?.remove(named(name)).await, name.clone()),
    };
    let Changed { service, changed } = done.map_err(lost)?.into_inner();
    tell::changed(&name, service.as_ref(), changed, json);
    Ok(if changed { DONE } else { NOTHING })
}

async fn status(name: &str, json: bool) -> Result<u8, Failure> {
    let list = connect().await?.list(ListRequest {}).await.map_err(lost)?.into_inner();
    let left_out = list.left_out.iter().find(|it| it.name == name);
    match (list.services.iter().find(|it| it.name == name), left_out) {
        (Some(service), _) => tell::one(service, json),
        (None, Some(it)) => {
            let why = format!("the file of {name} is left out: {}", it.reason);
            return Err(Failure::refused(why));
        }
        (None, None) => {
            let why = format!("no service is named `{name}`; `osctl service list`");
            return Err(Failure::refused(why));
        }
    }
    Ok(DONE)
}

/// The image that a word means: itself, or that of the service of this name.
async fn image_of(word: &str) -> Result<String, Failure> {
    if word.contains('@') {
        return Ok(word.to_owned());
    }
    let list = connect().await?.list(ListRequest {}).await.map_err(lost)?.into_inner();
    match list.services.iter().find(|it| it.name == word) {
        Some(service) if service.image.is_empty() => {
            let why = format!("the root of {word} is the OS itself; there is nothing to pull");
            Err(Failure::refused(why))
        }
        Some(service) => Ok(service.image.clone()),
        None => Err(Failure::refused(format!(
            "{word} is neither a service nor registry/repository@sha256:<64 hex digits>"
        ))),
    }
}

/// A name as it is; a file is read, and must be a service's. With the image that it names.
fn enable(service: &str) -> Result<(EnableRequest, Option<String>), Failure> {
    if !service.ends_with(".toml") {
        return Ok((EnableRequest { name: service.to_owned(), file: String::new() }, None));
    }
    let file = read(Path::new(service))?;
    let parsed = ServiceFile::parse(&file);
    let parsed = parsed.map_err(|why| Failure::refused(format!("{service}: {why}")))?;
    Ok((EnableRequest { name: parsed.name, file }, parsed.image))
}

/// Reads a service file, and no more than one may hold.
///
/// # Errors
/// It cannot be read, or is too large.
pub fn read(path: &Path) -> Result<String, Failure> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_MAX as u64 + 1).read_to_string(&mut text))
        .map_err(|error| Failure::refused(format!("read {}: {error}", path.display())))?;
    Ok(text)
}

async fn logs(request: LogsRequest) -> Result<u8, Failure> {
    let mut stream = connect().await?.logs(request).await.map_err(lost)?.into_inner();
    while let Some(chunk) = stream.message().await.map_err(lost)? {
        let mut out = std::io::stdout();
        // A reader that has seen enough ends it.
        if out.write_all(&chunk.text).and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    Ok(DONE)
}

fn lost(status: tonic::Status) -> Failure {
    Failure::said(&status)
}

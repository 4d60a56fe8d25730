//! gRPC over the machine's own sockets: who may speak, and how to get there.

use hyper_util::rt::TokioIo;
use std::error::Error as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::UdsConnectInfo;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

/// Listens at `path`, for root alone.
///
/// # Errors
/// The system's, when it cannot listen.
pub fn listen(path: &Path) -> std::io::Result<UnixListenerStream> {
    // The socket of a process that was killed is in the way; a missing one is not.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(UnixListenerStream::new(listener))
}

/// The socket's mode says the same; this holds where the folder is shared by mistake.
///
/// # Errors
/// The caller is not root.
pub fn only_root(request: Request<()>) -> Result<Request<()>, Status> {
    let peer = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
    match peer {
        Some(peer) if peer.uid() == 0 => Ok(request),
        _ => Err(Status::permission_denied("only root may ask")),
    }
}

/// Connects to the process that listens at `path`.
///
/// # Errors
/// The system's words, when none does.
pub async fn connect(path: PathBuf) -> Result<Channel, String> {
    // The address is never looked up: the connector goes to the socket.
    let endpoint = Endpoint::from_static("http://socket");
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|error| error.source().map_or_else(|| error.to_string(), ToString::to_string))
}

//! Listening, in a thread of its own, so that any test can use it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::answer;
use crate::faults::Faults;
use crate::referrers::Store;

/// One request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `GET`, `HEAD`, …
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// Whether it carried a login.
    pub has_login: bool,
    /// Whether it arrived at the storage server.
    pub at_storage: bool,
}

/// What the listening threads share.
pub(crate) struct Shared {
    pub faults: Faults,
    pub refused: u32,
    pub cut: u32,
    pub expired: u32,
    pub seen: Vec<Seen>,
    pub store: Store,
}

/// What an answer is made with.
pub(crate) struct Context {
    pub upstream: String,
    pub storage: SocketAddr,
    pub client: Client<HttpConnector, Full<Bytes>>,
    pub shared: Mutex<Shared>,
}

impl Context {
    pub fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running proxy; it ends with the process, or when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    context: Arc<Context>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Proxy {
    /// Starts a proxy at `listen` (port 0 is any) before the registry at `upstream` (`host:port`).
    ///
    /// # Errors
    /// The system's, when it cannot listen.
    pub fn start(listen: &str, upstream: &str, faults: Faults) -> std::io::Result<Proxy> {
        let bind = |address: &str| -> std::io::Result<std::net::TcpListener> {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let (front, back) = (bind(listen)?, bind("127.0.0.1:0")?);
        let address = front.local_addr()?;
        let shared = Shared {
            faults,
            refused: 0,
            cut: 0,
            expired: 0,
            seen: Vec::new(),
            store: Store::default(),
        };
        let context = Arc::new(Context {
            upstream: upstream.to_owned(),
            storage: back.local_addr()?,
            client: Client::builder(TokioExecutor::new()).build_http(),
            shared: Mutex::new(shared),
        });
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let inside = Arc::clone(&context);
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = listen_at(front, Arc::clone(&inside), false) => {}
                    _ = listen_at(back, inside, true) => {}
                    // An error here means that the handle is gone: stop as well.
                    _ = stopped => {}
                }
            });
        });
        Ok(Proxy { address, context, stop: Some(stop) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Turns the switches; counts begin anew.
    pub fn set(&self, faults: Faults) {
        let mut shared = self.context.shared();
        shared.faults = faults;
        shared.refused = 0;
        shared.cut = 0;
        shared.expired = 0;
    }

    /// The requests since the last call.
    #[must_use]
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.context.shared().seen)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may have ended already.
            let _ = stop.send(());
        }
    }
}

async fn listen_at(
    listener: std::net::TcpListener,
    context: Arc<Context>,
    is_storage: bool,
) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let context = Arc::clone(&context);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let context = Arc::clone(&context);
                async move { answer::answer(&context, request, is_storage).await }
            });
            // A connection that breaks is what this proxy is for.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

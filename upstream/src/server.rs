//! Listens, and stops in order: told to stop → streams end and `/ready` says no → requests under way
//! finish within a deadline → the database is closed.

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::serve::ListenerExt as _;
use tokio::{
    net::{TcpListener, UnixListener},
    time::timeout,
};

use crate::{app::App, router};

const DRAIN_MAX: Duration = Duration::from_secs(20);
const UNIX_PREFIX: &str = "unix:";

pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// `host:port` or `unix:/path`. A socket file that nobody listens on any more is replaced.
    pub async fn bind(address: &str) -> anyhow::Result<Self> {
        let Some(path) = address.strip_prefix(UNIX_PREFIX).map(PathBuf::from) else {
            let listener = TcpListener::bind(address).await;
            return listener
                .map(Self::Tcp)
                .with_context(|| format!("listening on {address}"));
        };
        let stale = tokio::net::UnixStream::connect(&path)
            .await
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
        if stale {
            std::fs::remove_file(&path).with_context(|| format!("removing stale {address}"))?;
        }
        UnixListener::bind(&path)
            .map(Self::Unix)
            .with_context(|| format!("listening on {address}"))
    }
}

pub(crate) async fn run(
    app: Arc<App>,
    listener: Listener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let routes = router::build(&app);
    let mut stopped = app.stop.subscribe();
    let stop = app.stop.clone();
    let stopping = async move {
        shutdown.await;
        tracing::info!("stopping");
        stop.send_replace(true);
    };
    let serving = async move {
        match listener {
            Listener::Tcp(listener) => {
                // Events are small and must not wait for the acknowledgement of the one before.
                let listener = listener.tap_io(|socket| {
                    if let Err(error) = socket.set_nodelay(true) {
                        tracing::debug!(error.cause = %error, "no TCP_NODELAY");
                    }
                });
                axum::serve(listener, routes)
                    .with_graceful_shutdown(stopping)
                    .await
            }
            Listener::Unix(listener) => {
                axum::serve(listener, routes)
                    .with_graceful_shutdown(stopping)
                    .await
            }
        }
    };
    let deadline = async move {
        // An error means that the sender is gone, and with it everything that could be waited for.
        let _ = stopped.wait_for(|stopped| *stopped).await;
        tokio::time::sleep(DRAIN_MAX).await;
    };
    tokio::select! {
        served = serving => served.context("serving")?,
        () = deadline => tracing::warn!("requests were still under way at the drain deadline"),
    }
    app.stop.send_replace(true);
    if timeout(DRAIN_MAX, app.store.close()).await.is_err() {
        tracing::warn!("the database did not close in time");
    }
    Ok(())
}

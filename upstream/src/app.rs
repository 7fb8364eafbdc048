//! The composition root: everything a handler needs, made once from the configuration. There are no
//! globals.

use std::{future::Future, sync::Arc};

use anyhow::Context as _;
use tokio::sync::{Semaphore, watch};

use crate::{
    auth::{
        assertion::Verifier,
        keys::{self, Signer},
        password::Passwords,
    },
    background,
    config::{Config, Environment},
    demo::{self, Demo},
    error::ApiResult,
    event::{Work, hub::Hub},
    inbound::model::DeliveryKey,
    kernel::clock::Clock,
    metrics::Metrics,
    router,
    server::{self, Listener},
    store::Store,
};

const STREAMS_MAX: usize = 10_000;

pub(crate) struct App {
    pub store: Store,
    pub hub: Arc<Hub>,
    pub clock: Clock,
    pub metrics: Metrics,
    pub passwords: Passwords,
    pub signer: Signer,
    pub verifier: Verifier,
    pub delivery_key: DeliveryKey,
    pub environment: Environment,
    /// Set to true once, by `serve` when it is told to stop; streams and background tasks listen.
    pub stop: watch::Sender<bool>,
    pub stream_slots: Arc<Semaphore>,
}

impl App {
    pub(crate) async fn work(&self) -> ApiResult<Work> {
        Work::begin(&self.store, &self.hub).await
    }

    pub(crate) fn streams_open(&self) -> usize {
        STREAMS_MAX.saturating_sub(self.stream_slots.available_permits())
    }
}

/// The API, connected and migrated.
pub struct Api {
    app: Arc<App>,
}

impl Api {
    pub async fn open(config: Config) -> anyhow::Result<Self> {
        config.check()?;
        let store = Store::connect(&config).await?;
        store.migrate().await?;
        let clock = Clock::default();
        let delivery_key = DeliveryKey::new(&config.delivery_secret)
            .context("EDGE_DELIVERY_SECRET is not well formed")?;
        let app = App {
            signer: keys::open(&store, clock.now()).await?,
            passwords: Passwords::open().await?,
            metrics: Metrics::new()?,
            verifier: Verifier::new(&config.assertion_secret),
            delivery_key,
            environment: config.environment,
            hub: Arc::new(Hub::default()),
            stop: watch::Sender::new(false),
            stream_slots: Arc::new(Semaphore::new(STREAMS_MAX)),
            clock,
            store,
        };
        background::start(&app);
        Ok(Self { app: Arc::new(app) })
    }

    /// Data to try the API with; may be called again. Refused in production.
    pub async fn seed_demo(&self) -> anyhow::Result<Demo> {
        demo::seed(&self.app).await
    }

    pub fn router(&self) -> axum::Router {
        router::build(&self.app)
    }

    /// The clock of this API, which a test may shift.
    pub fn clock(&self) -> Clock {
        self.app.clock.clone()
    }

    /// Serves until `shutdown`; then streams end, requests under way finish, and the database is
    /// closed.
    pub async fn serve(
        self,
        listener: Listener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<()> {
        server::run(self.app, listener, shutdown).await
    }
}

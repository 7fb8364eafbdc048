//! Runs `chefcloud-api` in this process, for the one-command start. It has a runtime and a listener of
//! its own: the edge reaches it over a real socket, exactly as it would reach another machine.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use chefcloud_api::{Api, Config as ApiConfig, Listener};
use tokio::sync::oneshot;

use crate::app::banner::Demo;
use crate::config::{Config, EmbeddedApi, Environment};
use crate::kernel::secret::Secret;
use crate::listener::drain::{DrainState, EXIT_SOFTWARE, Phase};

/// How long the database may take to open, migrate and seed.
const START_MAX: Duration = Duration::from_secs(60);
/// The API does little; most of its time it waits for the database.
const THREADS: usize = 2;

/// Starts the API on a thread of its own and waits until it listens. Ends with the edge.
///
/// # Errors
/// The database cannot be opened, or the address is taken.
pub(crate) fn start(
    api: &EmbeddedApi,
    config: &Config,
    state: &DrainState,
) -> anyhow::Result<Option<Demo>> {
    make_folder(&api.database_url)?;
    let settings = settings(api, config)?;
    let (listen, seed) = (api.listen, api.seed_demo);
    let closed = state.reached(Phase::Closed);
    let (tell, told) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("chefcloud-api")
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("chefcloud-api".into())
        .spawn(move || {
            let outcome = runtime.block_on(async {
                let opened = open(settings, listen, seed).await;
                let (api, listener, demo) = match opened {
                    Ok(opened) => opened,
                    Err(error) => {
                        let _ = tell.send(Err(error));
                        return Ok(());
                    }
                };
                let _ = tell.send(Ok(demo));
                api.serve(listener, closed).await
            });
            if let Err(error) = outcome {
                tracing::error!(%error, "the embedded API died; the process cannot go on");
                std::process::exit(EXIT_SOFTWARE);
            }
        })?;
    let waiting = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    waiting
        .block_on(async { tokio::time::timeout(START_MAX, told).await })
        .context("the embedded API did not start in time")?
        .context("the embedded API ended while starting")?
        .context("starting the embedded API")
}

async fn open(
    settings: ApiConfig,
    listen: std::net::SocketAddr,
    seed: bool,
) -> anyhow::Result<(Api, Listener, Option<Demo>)> {
    let api = Api::open(settings).await?;
    let demo = if seed {
        let demo = api.seed_demo().await?;
        Some(Demo {
            email: demo.email,
            password: demo.password,
            org_id: demo.org_id,
            po_id: demo.po_id,
            item_id: demo.item_id,
        })
    } else {
        None
    };
    let listener = Listener::bind(&listen.to_string()).await?;
    Ok((api, listener, demo))
}

/// What the edge's configuration says, and for the rest the API's own variables (`DB_POOL_MAX`, …).
fn settings(api: &EmbeddedApi, config: &Config) -> anyhow::Result<ApiConfig> {
    let assertion = text(&config.assertion_secret)?;
    let delivery = text(&config.delivery_secret)?;
    let environment = match config.environment {
        Environment::Development => "development",
        Environment::Production => "production",
    };
    Ok(ApiConfig::from_lookup(|name| match name {
        "CHEFCLOUD_ENV" => Some(environment.to_owned()),
        "DATABASE_URL" => Some(api.database_url.clone()),
        "EDGE_ASSERTION_SECRET" => Some(assertion.clone()),
        "EDGE_DELIVERY_SECRET" => Some(delivery.clone()),
        _ => std::env::var(name).ok(),
    })?)
}

fn text(secret: &Secret) -> anyhow::Result<String> {
    String::from_utf8(secret.expose().to_vec()).context("a secret is not UTF-8")
}

/// SQLite makes the file but not its folder.
fn make_folder(database_url: &str) -> anyhow::Result<()> {
    let Some(path) = database_url.strip_prefix("sqlite://") else {
        return Ok(());
    };
    let path = path.split('?').next().unwrap_or(path);
    if let Some(folder) = Path::new(path)
        .parent()
        .filter(|f| !f.as_os_str().is_empty())
    {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    Ok(())
}

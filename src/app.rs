//! The composition root: a configuration becomes a running process. All wiring is here; nothing here
//! decides about a request.
//!
//! Order of steps: state that outlives reloads → [`Live`] from the configuration → listeners →
//! background services → [`server::run`].

pub(crate) mod banner;
mod inbox;
mod keys;
mod live;
mod logging;
mod reload;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use pingora::apps::HttpServerOptions;
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use pingora::services::ServiceWithDependents;

use crate::admin;
use crate::cache;
use crate::cli::Serve;
use crate::cluster::redis::Redis;
use crate::config::reload::ReloadStatus;
use crate::config::{Config, ConfigSource};
use crate::kernel::clock::Clock;
use crate::kernel::facts::Scheme;
use crate::kernel::id::Random;
use crate::limit::concurrency::Slots;
use crate::limit::store::Limiter;
use crate::listener::accept;
use crate::listener::event::{Event, Observer};
use crate::listener::handover::Sockets;
use crate::listener::tls::Tls;
use crate::listener::{self, drain::DrainState};
use crate::proxy::body::Budget;
use crate::proxy::builtin;
use crate::proxy::shared::Shared;
use crate::proxy::{Edge, Role};
use crate::server::{self, AtClose, Parts, critical};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refusals::Recent;
use crate::upstream::health;
use crate::webhook::books::Shelf;

/// The edge could not be started (`EX_SOFTWARE`).
const EXIT_SOFTWARE: u8 = 70;
/// Callers that the limiter tells apart per named limit.
const LIMIT_KEYS_MAX: usize = 1_000_000;
/// How often idle callers are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Starts logging and runs the edge. What keeps it from starting goes to the log.
#[must_use]
pub fn start(config: Config, source: ConfigSource, how: Serve) -> ExitCode {
    logging::init(&config.log);
    run(config, source, how).unwrap_or_else(|error| {
        tracing::error!(error = format!("{error:#}"), "maitred cannot start");
        ExitCode::from(EXIT_SOFTWARE)
    })
}

fn run(config: Config, source: ConfigSource, how: Serve) -> anyhow::Result<ExitCode> {
    let clock = Clock::system();
    let state = DrainState::new(Duration::from_millis(config.drain.streams_window_ms));
    let mut sockets = match how {
        Serve::Upgrade => {
            Sockets::take_over(&config.upgrade_socket).context("taking the listeners over")?
        }
        Serve::Fresh => Sockets::default(),
    };
    let demo = live::start_embedded_api(&config, &state)?;
    let tls = live::tls(&config, &clock)?;
    let threads = config.threads;
    let (drain, upgrade_socket) = (config.drain, config.upgrade_socket.clone());
    let admin = sockets
        .listen(config.admin)
        .with_context(|| format!("admin {}", config.admin))?;
    let shared = Arc::new(shared(
        config,
        clock,
        state.clone(),
        tls,
        how == Serve::Upgrade,
    )?);
    let policies = reload::Policies::of(&shared.live.load().config)
        .context("neither listeners.https nor listeners.http is configured")?;

    let conf = Arc::new(server::configuration(threads));
    let mut services = listeners(&shared, &policies, &mut sockets, &conf)?;
    let file = source.path.clone();
    services.extend(background(&shared, &policies, source, admin)?);
    banner::print(&shared, demo.as_ref(), file.as_deref());

    let ready = {
        let shared = shared.clone();
        async move {
            while !builtin::not_ready(&shared, &shared.live.load()).is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let configuration = server::configuration(threads);
    let ready = Box::pin(ready);
    Ok(server::run(Parts {
        configuration,
        drain,
        state,
        sockets,
        upgrade_socket,
        services,
        ready,
    }))
}

fn shared(
    config: Config,
    clock: Clock,
    drain: DrainState,
    tls: Option<Arc<Tls>>,
    successor: bool,
) -> anyhow::Result<Shared> {
    let metrics = Arc::new(Metrics::new()?);
    let build = [env!("CARGO_PKG_VERSION"), builtin::COMMIT];
    metrics.build_info.with_label_values(&build).set(1);
    let cache_limits = cache::Limits {
        bytes_max: config.cache.bytes_max,
        lock_wait_ms: config.cache.lock_timeout_ms,
        ..cache::Limits::default()
    };
    let reload = ReloadStatus::started(&config, clock.unix());
    let redis = config.redis.clone();
    let redis = redis.map(|settings| Redis::new(settings, clock.clone(), Random::from_os()));
    let redis = redis.transpose().context("redis")?;
    let live = live::Live::build(config, None, &clock)?;
    Ok(Shared {
        random: Random::from_os(),
        metrics,
        refusals: Recent::default(),
        live: ArcSwap::from_pointee(live),
        reload,
        limiter: Limiter::new(clock.clone(), LIMIT_KEYS_MAX),
        slots: Slots::new(),
        books: Shelf::new(),
        redis,
        successor,
        bodies: Budget::default(),
        cache: cache::phases::Cache::leak(&cache_limits, clock.clone()),
        drain,
        tls,
        clock,
    })
}

fn listeners(
    shared: &Arc<Shared>,
    policies: &reload::Policies,
    sockets: &mut Sockets,
    conf: &Arc<ServerConf>,
) -> anyhow::Result<Vec<Box<dyn ServiceWithDependents>>> {
    let live = shared.live.load();
    let mut services: Vec<Box<dyn ServiceWithDependents>> = Vec::new();
    if let Some((policy, _)) = &live.config.https {
        let role = Role::Routes(Scheme::Https);
        let policies = policies.https.clone();
        services.push(listener(
            "https", shared, role, policy, policies, sockets, conf,
        )?);
    }
    if let Some(http) = &live.config.http {
        let role = match http.redirect_to_port {
            Some(_) => Role::Redirect,
            None => Role::Routes(Scheme::Http),
        };
        let policies = policies.http.clone();
        services.push(listener(
            "http",
            shared,
            role,
            &http.listener,
            policies,
            sockets,
            conf,
        )?);
    }
    Ok(services)
}

fn listener(
    name: &'static str,
    shared: &Arc<Shared>,
    role: Role,
    policy: &listener::Policy,
    policies: Arc<ArcSwap<listener::Policy>>,
    sockets: &mut Sockets,
    conf: &Arc<ServerConf>,
) -> anyhow::Result<Box<dyn ServiceWithDependents>> {
    let socket = sockets
        .listen(policy.address)
        .with_context(|| format!("{name} listener on {}", policy.address))?;
    let mut proxy = http_proxy(
        conf,
        Edge {
            shared: shared.clone(),
            role,
        },
    );
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(Duration::from_millis(policy.keepalive_timeout_ms));
    proxy.server_options = Some(options);
    let tls = match role {
        Role::Routes(Scheme::Https) => shared.tls.clone(),
        Role::Routes(Scheme::Http) | Role::Redirect => None,
    };
    let edge = accept::Edge::new(name, socket, policies, tls, Arc::new(proxy), &shared.drain)?
        .observed(observer(name, shared.metrics.clone()));
    tracing::info!(listener.name = name, listener.address = %edge.local_addr(), "listening");
    Ok(Box::new(edge))
}

fn observer(name: &'static str, metrics: Arc<Metrics>) -> Observer {
    Arc::new(move |event| match event {
        Event::Opened => metrics.connections.with_label_values(&[name]).inc(),
        Event::Closed => metrics.connections.with_label_values(&[name]).dec(),
        Event::Refused(why) => {
            metrics
                .connections_refused
                .with_label_values(&[name, why.label()])
                .inc();
        }
    })
}

fn background(
    shared: &Arc<Shared>,
    policies: &reload::Policies,
    source: ConfigSource,
    admin: std::net::TcpListener,
) -> anyhow::Result<Vec<Box<dyn ServiceWithDependents>>> {
    let state = &shared.drain;
    let checks = {
        let shared = shared.clone();
        let clock = shared.clock.clone();
        async move {
            health::keep(
                move || shared.live.load().pools.values().cloned().collect(),
                clock,
            )
            .await;
            Ok::<(), std::convert::Infallible>(())
        }
    };
    let sweeps = {
        let shared = shared.clone();
        async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                shared.limiter.sweep();
            }
        }
    };
    let window = {
        admin.set_nonblocking(true)?;
        tracing::info!(listener.name = "admin", listener.address = %admin.local_addr()?, "listening");
        let view = Arc::new(live::view(shared));
        async move { admin::serve_on(tokio::net::TcpListener::from_std(admin)?, view).await }
    };
    let webhooks = inbox::keep(shared.clone());
    let connection = {
        let redis = shared.redis.clone();
        async move {
            match redis {
                Some(redis) => redis.run().await,
                None => std::future::pending().await,
            }
            Ok::<(), std::convert::Infallible>(())
        }
    };
    let reloads = reload::watch(shared.clone(), policies.clone(), source);
    Ok(vec![
        Box::new(critical("health", state, AtClose::Drop, checks)),
        Box::new(critical::<std::convert::Infallible>(
            "sweeps",
            state,
            AtClose::Drop,
            sweeps,
        )),
        Box::new(critical("admin", state, AtClose::Drop, window)),
        Box::new(critical("redis", state, AtClose::Drop, connection)),
        Box::new(critical("inbox", state, AtClose::Await, webhooks)),
        Box::new(critical("reload", state, AtClose::Drop, reloads)),
    ])
}

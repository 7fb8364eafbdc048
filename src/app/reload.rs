//! Puts a reloaded configuration into effect: everything that can fail first, then the swap. Requests
//! under way and open streams keep what they began with.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::live::Live;
use crate::config::reload::{Outcome, Reloader, watch as watch_files};
use crate::config::{Config, ConfigSource};
use crate::listener;
use crate::proxy::shared::Shared;

/// The listeners' policies, which they read anew for every connection.
#[derive(Clone)]
pub(super) struct Policies {
    pub(super) https: Arc<ArcSwap<listener::Policy>>,
    pub(super) http: Arc<ArcSwap<listener::Policy>>,
}

impl Policies {
    /// As the configuration has them; a listener that is not configured shares the other's.
    pub(super) fn of(config: &Config) -> Option<Self> {
        let https = config.https.as_ref().map(|(policy, _)| policy);
        let http = config.http.as_ref().map(|http| &http.listener);
        let swap = |policy: &listener::Policy| Arc::new(ArcSwap::from_pointee(policy.clone()));
        Some(Self {
            https: swap(https.or(http)?),
            http: swap(http.or(https)?),
        })
    }

    fn store(&self, config: &Config) {
        if let Some((policy, _)) = &config.https {
            self.https.store(Arc::new(policy.clone()));
        }
        if let Some(http) = &config.http {
            self.http.store(Arc::new(http.listener.clone()));
        }
    }
}

/// Watches files and SIGHUP until the process ends. Files count as read when this is called.
pub(super) fn watch(
    shared: Arc<Shared>,
    policies: Policies,
    source: ConfigSource,
) -> impl Future<Output = Result<(), String>> + Send {
    let running = shared.live.load().config.clone();
    let reloader = Reloader::new(source, running, shared.reload.clone(), shared.clock.clone());
    async move {
        let count = |outcome| {
            let result = match outcome {
                Outcome::Replaced => "applied",
                Outcome::Kept => "refused",
            };
            let reloads = &shared.metrics.config_reloads;
            reloads.with_label_values(&[result]).inc();
        };
        watch_files(reloader, |config| apply(&shared, &policies, config), count).await;
        Err("the watcher ended".into())
    }
}

fn apply(shared: &Shared, policies: &Policies, config: Config) -> Result<(), Vec<String>> {
    let before = shared.live.load();
    let live =
        Live::build(config, Some(&before), &shared.clock).map_err(|e| vec![format!("{e:#}")])?;
    if let (Some(tls), Some((_, policy))) = (&shared.tls, &live.config.https) {
        tls.reload(policy).map_err(|e| vec![e.to_string()])?;
    }
    live.take_effect();
    policies.store(&live.config);
    shared.live.store(Arc::new(live));
    Ok(())
}

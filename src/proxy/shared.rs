//! The handles that every request needs. Built by `app`; nothing here decides anything.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::body;
use crate::auth::{self, assertion};
use crate::cache::phases::Cache;
use crate::cluster::redis::Redis;
use crate::config::Config;
use crate::config::reload::ReloadStatus;
use crate::kernel::clock::Clock;
use crate::kernel::id::Random;
use crate::kernel::reject::{Code, Reject};
use crate::limit::concurrency::Slots;
use crate::limit::store::Limiter;
use crate::listener::drain::DrainState;
use crate::listener::tls::Tls;
use crate::plan::{Plan, Then};
use crate::route::table::Table;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refusals::Recent;
use crate::upstream::pool::Pool;
use crate::webhook::books::Shelf;
use crate::webhook::{Endpoint, delivery};

/// State that outlives a reload, and the configuration that does not.
pub struct Shared {
    pub clock: Clock,
    pub random: Random,
    pub metrics: Arc<Metrics>,
    pub refusals: Recent,
    pub live: ArcSwap<Live>,
    /// What became of the last reload.
    pub reload: Arc<ArcSwap<ReloadStatus>>,
    pub limiter: Limiter,
    pub slots: Slots,
    /// The inbox and the memory of accepted webhooks, once they are open.
    pub books: Shelf,
    /// What several nodes share, where it is configured.
    pub redis: Option<Redis>,
    /// Whether this process takes over from another one, which may still hold the inbox.
    pub successor: bool,
    /// Memory for webhook bodies.
    pub bodies: body::Budget,
    pub cache: Cache,
    pub drain: DrainState,
    /// The https listener's certificates, for the check of Host against SNI.
    pub tls: Option<Arc<Tls>>,
}

/// One loaded configuration with what was built from it.
pub struct Live {
    pub config: Config,
    pub routes: Table<Arc<Plan>>,
    pub pools: HashMap<Arc<str>, Arc<Pool>>,
    /// Knows the issuers' keys.
    pub verifier: Arc<auth::Verifier>,
    /// States to the API who is calling.
    pub assertions: assertion::Signer,
    /// Signs what is delivered to the API.
    pub deliveries: delivery::Signer,
}

impl Live {
    /// The webhook endpoints.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        let lanes = self.config.routes.iter().map(|route| &route.plan.then);
        lanes.filter_map(|then| match then {
            Then::Ingest(endpoint) => Some(endpoint),
            Then::Forward { .. } | Then::Subscribe(_) | Then::Reply(_) => None,
        })
    }

    /// A pool by name. The configuration was checked, so a miss is a mistake of ours.
    pub fn pool(&self, name: &str) -> Result<&Arc<Pool>, Reject> {
        let missing = || Reject::new(Code::Internal, "no_pool", format!("no pool named {name}"));
        self.pools.get(name).ok_or_else(missing)
    }
}

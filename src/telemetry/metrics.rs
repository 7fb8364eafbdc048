//! Every metric, declared once with help text, unit suffix and bounded labels. `docs/metrics.md` is
//! generated from this declaration.

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Buckets of request durations, in seconds.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// One line of the reference page.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    pub name: &'static str,
    pub kind: &'static str,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

macro_rules! metrics {
    (@type counter) => { IntCounterVec };
    (@type gauge) => { IntGaugeVec };
    (@type seconds) => { HistogramVec };
    (@new counter $name:literal $help:literal $labels:expr) => {
        IntCounterVec::new(Opts::new($name, $help), $labels)
    };
    (@new gauge $name:literal $help:literal $labels:expr) => {
        IntGaugeVec::new(Opts::new($name, $help), $labels)
    };
    (@new seconds $name:literal $help:literal $labels:expr) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets(SECONDS.to_vec()), $labels)
    };
    ($($field:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        /// All metrics of the process.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: metrics!(@type $kind),)*
        }

        /// Every declaration, for the reference page.
        pub const DECLARED: &[Declared] = &[$(Declared {
            name: $name, kind: stringify!($kind), labels: &[$($label),*], help: $help,
        }),*];

        impl Metrics {
            /// Registers everything in a registry of its own.
            pub fn new() -> Result<Self, prometheus::Error> {
                let registry = Registry::new();
                $(
                    let $field = metrics!(@new $kind $name $help &[$($label),*])?;
                    registry.register(Box::new($field.clone()))?;
                )*
                Ok(Self { registry, $($field),* })
            }
        }
    };
}

metrics! {
    build_info: gauge "maitred_build_info" ["version", "commit"]
        "Always 1; the labels say what is running.";
    config_reloads: counter "maitred_config_reloads_total" ["result"]
        "Configuration reloads by result (applied, refused).";
    connections: gauge "maitred_connections_open" ["listener"]
        "Client connections open now.";
    connections_refused: counter "maitred_connections_refused_total" ["listener", "reason"]
        "Connections closed before a request, by reason.";
    certificate_expiry: gauge "maitred_certificate_expiry_timestamp_seconds" ["name"]
        "When the certificate for this name ends, in seconds since 1970.";
    requests: counter "maitred_requests_total" ["route", "method", "status"]
        "Requests answered, by route, method and status.";
    request_seconds: seconds "maitred_request_duration_seconds" ["route"]
        "Time from the end of the request header to the end of the response, streams excepted.";
    refusals: counter "maitred_refusals_total" ["code", "reason"]
        "Requests refused by the edge, by refusal code and reason.";
    limit_decisions: counter "maitred_limit_decisions_total" ["policy", "decision"]
        "Decisions of the limit engine.";
    webhooks: counter "maitred_webhooks_total" ["endpoint", "outcome"]
        "Webhooks received, by outcome.";
    webhook_secret: counter "maitred_webhook_secret_matched_total" ["endpoint", "secret"]
        "Verified webhooks by the secret that matched; an old secret that no longer counts can go.";
    deliveries: counter "maitred_deliveries_total" ["endpoint", "outcome"]
        "Attempts to deliver stored webhooks, by outcome (delivered, failed, dead; away: nothing was sent).";
    delivery_seconds: seconds "maitred_delivery_duration_seconds" ["endpoint"]
        "Time of one attempt to deliver, the answer's body included.";
    deliveries_in_flight: gauge "maitred_deliveries_in_flight" ["destination"]
        "Attempts to deliver in flight to a pool.";
    dead_letters: counter "maitred_dead_letters_total" ["endpoint", "reason"]
        "Webhooks that are no longer attempted, by reason.";
    replay_entries: gauge "maitred_replay_entries" []
        "Entries held by the replay store.";
    inbox_writable: gauge "maitred_inbox_writable" []
        "1 while webhooks can be kept, 0 after a failed write until the disk is proven again.";
    inbox_commit_seconds: seconds "maitred_inbox_commit_duration_seconds" ["fsync"]
        "Time of one commit of the inbox, with an fsync (yes) or without (no).";
    inbox_commands: counter "maitred_inbox_commands_total" []
        "Commands committed by the inbox; per commit, this is the size of a batch.";
    inbox_entries: gauge "maitred_inbox_entries" ["endpoint", "standing"]
        "Webhooks in the inbox (pending, dead, delivered).";
    inbox_bytes: gauge "maitred_inbox_bytes" ["endpoint", "standing"]
        "What they take.";
    inbox_oldest: gauge "maitred_inbox_oldest_age_seconds" ["endpoint", "standing"]
        "Age of the oldest of them.";
    inbox_claimed: gauge "maitred_inbox_claimed" []
        "Webhooks being delivered now.";
    inbox_disk_bytes: gauge "maitred_inbox_disk_bytes" []
        "What the inbox takes on disk, removed webhooks included until they are compacted away.";
    streams: gauge "maitred_streams_open" ["route"]
        "Event streams open now.";
    streams_closed: counter "maitred_streams_closed_total" ["route", "reason"]
        "Event streams ended, by reason.";
    stream_heartbeats: counter "maitred_stream_heartbeats_total" ["route"]
        "Heartbeats sent into silent streams.";
    cache: counter "maitred_cache_requests_total" ["cache", "status"]
        "Requests on cached routes, by what the cache did.";
    cache_bytes: gauge "maitred_cache_bytes" []
        "Bytes held by the response cache.";
    cache_invalidated: counter "maitred_cache_invalidated_total" []
        "Stored responses removed by group invalidation.";
    upstream_requests: counter "maitred_upstream_requests_total" ["pool", "outcome"]
        "Attempts on upstreams, by outcome.";
    upstream_retries: counter "maitred_upstream_retries_total" ["pool"]
        "Attempts that repeated an earlier one.";
    upstream_in_flight: gauge "maitred_upstream_requests_in_flight" ["pool"]
        "Requests in flight to a pool.";
    upstream_up: gauge "maitred_upstream_endpoint_up" ["pool", "endpoint"]
        "1 while active checks find the endpoint healthy.";
    upstream_breaker: gauge "maitred_upstream_breaker_state" ["pool", "endpoint"]
        "0 closed, 1 half-open, 2 open.";
    auth: counter "maitred_auth_total" ["outcome"]
        "Authentication attempts by outcome.";
}

impl Metrics {
    /// The exposition text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = Vec::new();
        // Encoding into memory fails only on a metric without a name; better no metrics than none
        // of the rest.
        if TextEncoder::new()
            .encode(&self.registry.gather(), &mut out)
            .is_err()
        {
            out.clear();
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// `docs/metrics.md`, generated.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(
        "# Metrics\n\nGenerated from `src/telemetry/metrics.rs`; do not edit. Served at `GET /metrics` \
         on the admin listener, Prometheus text format.\n\n| name | kind | labels | meaning |\n|---|---|---|---|\n",
    );
    for metric in DECLARED {
        let kind = if metric.kind == "seconds" {
            "histogram"
        } else {
            metric.kind
        };
        let labels = metric.labels.join(", ");
        out.push_str(&format!(
            "| `{}` | {kind} | {labels} | {} |\n",
            metric.name, metric.help
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn declarations_are_valid_and_show_up() {
        let metrics = Metrics::new().unwrap();
        metrics
            .webhooks
            .with_label_values(&["billing", "accepted"])
            .inc();
        let text = metrics.text();
        assert!(
            text.contains("maitred_webhooks_total{endpoint=\"billing\",outcome=\"accepted\"} 1")
        );
    }
}

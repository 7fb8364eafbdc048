//! Every metric of the API, declared once. Labels are route patterns and our own words, never
//! anything a caller chose.

use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

const SECONDS_BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

pub(crate) struct Metrics {
    registry: Registry,
    pub requests: IntCounterVec,
    pub request_seconds: HistogramVec,
    pub webhooks: IntCounterVec,
    streams_open: IntGauge,
}

impl Metrics {
    pub(crate) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let requests = IntCounterVec::new(
            Opts::new("chefcloud_http_requests_total", "Requests answered"),
            &["method", "route", "status"],
        )?;
        let request_seconds = HistogramVec::new(
            HistogramOpts::new(
                "chefcloud_http_request_seconds",
                "Time until the answer's head; for streams, until the stream began",
            )
            .buckets(SECONDS_BUCKETS.to_vec()),
            &["route"],
        )?;
        let webhooks = IntCounterVec::new(
            Opts::new(
                "chefcloud_webhooks_total",
                "Verified webhook deliveries by outcome",
            ),
            &["outcome"],
        )?;
        let streams_open = IntGauge::new("chefcloud_streams_open", "Event streams open now")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(request_seconds.clone()))?;
        registry.register(Box::new(webhooks.clone()))?;
        registry.register(Box::new(streams_open.clone()))?;
        Ok(Self {
            registry,
            requests,
            request_seconds,
            webhooks,
            streams_open,
        })
    }

    pub(crate) fn render(&self, streams_open: usize) -> anyhow::Result<String> {
        self.streams_open
            .set(i64::try_from(streams_open).unwrap_or(i64::MAX));
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }
}

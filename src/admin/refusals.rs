//! The recent refusals with what to do about each. Decides the advice; the refusals themselves are
//! kept by `telemetry`.

use serde_json::{Value, json};

use super::answer::Problem;
use super::query::Query;
use crate::kernel::clock::UnixMs;
use crate::kernel::reject::Code;
use crate::telemetry::refusals::Entry;
use crate::webhook::refusal;
use crate::webhook::scheme::print_rfc3339;

/// Before the endpoint's name in a route's.
const WEBHOOKS: &str = "/webhooks/";

const LIMIT_MAX: usize = 256;

/// Which ones are asked for.
pub(super) struct Asked {
    endpoint: Option<String>,
    limit: usize,
}

impl Asked {
    pub(super) fn parse(raw: Option<&str>) -> Result<Self, Problem> {
        let mut query = Query::parse(raw, &["endpoint", "limit"])?;
        Ok(Self {
            endpoint: query.take("endpoint"),
            limit: query.take_number("limit", 1..=LIMIT_MAX, LIMIT_MAX)?,
        })
    }

    /// The newest `limit`, of whatever.
    pub(super) fn newest(limit: usize) -> Self {
        Self {
            endpoint: None,
            limit,
        }
    }

    pub(super) fn pick(&self, entries: Vec<Entry>) -> Vec<Entry> {
        let asked = |entry: &Entry| match &self.endpoint {
            Some(endpoint) => self::endpoint(entry) == Some(endpoint),
            None => true,
        };
        entries.into_iter().filter(asked).take(self.limit).collect()
    }
}

/// The webhook endpoint that was asked for, if it was one.
pub(super) fn endpoint(entry: &Entry) -> Option<&str> {
    entry.route.strip_prefix(WEBHOOKS)
}

pub(super) fn shown(entry: &Entry) -> Value {
    json!({
        "at": print_rfc3339(UnixMs(entry.at_unix_ms)),
        "at_unix_ms": entry.at_unix_ms,
        "request_id": entry.request_id,
        "route": entry.route,
        "endpoint": endpoint(entry),
        "status": entry.status,
        "code": entry.code,
        "label": entry.label,
        "reason": entry.reason,
        "fix": fix(entry),
    })
}

/// What to do: by the precise reason where there is advice of its own, else what the table of
/// refusals says.
pub(super) fn fix(entry: &Entry) -> &'static str {
    let own = refusal::fix(entry.label).filter(|_| endpoint(entry).is_some());
    own.or_else(|| by_label(entry.label)).unwrap_or_else(|| {
        let code = Code::ALL.iter().find(|c| c.row().slug == entry.code);
        code.map_or("", |code| code.row().client_should)
    })
}

fn by_label(label: &str) -> Option<&'static str> {
    Some(match label {
        "body_size" => {
            "If the sender is genuine, raise body_bytes_max of the route or of the webhook endpoint."
        }
        "body_time" => {
            "The body came too slowly: a poor connection, or somebody holds connections open. If the \
             sender is genuine, raise body_timeout_ms."
        }
        "inbox_full" => {
            "The inbox is at entries_max or bytes_max, or its disk is nearly full: see /inbox for what is \
             pending or dead, mend the API or discard, or raise the limit. The provider sends again."
        }
        "inbox_unwritable" => {
            "The inbox's disk (or Redis) does not take writes: see the log and /health/detailed. It is \
             taken up again by itself. The provider sends again."
        }
        "inbox_opening" | "inbox_closed" => {
            "The process is starting or leaving. The provider sends again."
        }
        "body_budget" => {
            "Too many webhook bodies at a time; the provider sends again. If it stays, look for a flood."
        }
        "api" => {
            "The API refused what was delivered: look for this request id, or the event's id, in its log."
        }
        "upstream" | "upstream_connect" | "upstream_timeout" => {
            "The API was not reached or gave no whole answer: see /health/detailed and the API's log."
        }
        _ => return None,
    })
}

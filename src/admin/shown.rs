//! How the inbox is told in JSON. Decides names and forms; reads nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::kernel::clock::UnixMs;
use crate::webhook::inbox::{
    Attempt, DeadReason, Outcome, Plan, Shown, Standing, State, Stats, Summary,
};
use crate::webhook::scheme::print_rfc3339;

/// Of a longer body only its bytes are served, at `/inbox/events/{id}/body`.
pub(super) const TEXT_BYTES_MAX: usize = 65_536;

pub(super) fn stats(stats: &Stats, now: UnixMs) -> Value {
    let total = |standing| plan(stats.total(standing));
    let endpoints: Vec<Value> = stats
        .endpoints
        .iter()
        .map(|e| {
            json!({
                "endpoint": e.endpoint,
                "state": e.standing.name(),
                "entries": e.entries,
                "bytes": e.bytes,
                "oldest": e.oldest.map(print_rfc3339),
                "oldest_age_s": e.oldest.map(|at| now.0.saturating_sub(at.0).max(0) / 1_000),
            })
        })
        .collect();
    json!({
        "pending": total(Standing::Pending),
        "dead": total(Standing::Dead),
        "delivered": total(Standing::Delivered),
        "claimed": stats.claimed,
        "disk_bytes": stats.disk_bytes,
        "endpoints": endpoints,
    })
}

fn plan(plan: Plan) -> Value {
    json!({ "entries": plan.entries, "bytes": plan.bytes })
}

pub(super) fn summary(entry: &Summary) -> Value {
    let (due, dead_reason, ended_at) = match entry.state {
        State::Pending { due } => (due, None, None),
        State::Dead { reason, at } => (None, Some(dead_reason(reason)), Some(at)),
        State::Delivered { at } => (None, None, Some(at)),
    };
    json!({
        "id": entry.id.to_string(),
        "endpoint": entry.endpoint,
        "destination": entry.destination,
        "event_id": entry.event_id,
        "received_at": print_rfc3339(entry.received_at),
        "bytes": entry.bytes,
        "state": entry.state.standing().name(),
        "due_at": due.map(print_rfc3339),
        "dead_reason": dead_reason,
        "ended_at": ended_at.map(print_rfc3339),
        "attempts": entry.attempts,
        "first_failed_at": entry.first_failed_at.map(print_rfc3339),
        "redelivered_at": entry.redelivered_at.map(print_rfc3339),
        "history": entry.history.iter().map(attempt).collect::<Vec<_>>(),
    })
}

/// Why it is dead, in one word.
pub(super) fn dead_reason(reason: DeadReason) -> &'static str {
    match reason {
        DeadReason::Refused => "refused",
        DeadReason::AttemptsExhausted => "attempts_exhausted",
        DeadReason::TooOld => "too_old",
    }
}

fn attempt(attempt: &Attempt) -> Value {
    let (status, error) = match &attempt.outcome {
        Outcome::Status(status) => (Some(*status), None),
        Outcome::NoAnswer(why) => (None, Some(why.as_str())),
    };
    json!({
        "at": print_rfc3339(attempt.at),
        "took_ms": attempt.took_ms,
        "status": status,
        "error": error,
    })
}

/// One entry with its headers, and its body where that is a short text.
pub(super) fn whole(shown: &Shown) -> Value {
    let mut value = about(shown);
    if let Value::Object(fields) = &mut value {
        let body = short_text(&shown.event.body);
        fields.insert("body".into(), json!(body));
    }
    value
}

/// One line of an export.
pub(super) fn exported(shown: &Shown) -> Value {
    let mut value = about(shown);
    if let Value::Object(fields) = &mut value {
        let body = STANDARD.encode(&shown.event.body);
        fields.insert("body_base64".into(), json!(body));
    }
    value
}

/// The body where it is text that fits on a screen.
pub(super) fn short_text(body: &[u8]) -> Option<&str> {
    let short = Some(body).filter(|b| b.len() <= TEXT_BYTES_MAX)?;
    std::str::from_utf8(short).ok()
}

fn about(shown: &Shown) -> Value {
    let event = &shown.event;
    let mut value = summary(&shown.summary);
    if let Value::Object(fields) = &mut value {
        let content_type = event.content_type.as_ref();
        let content_type = content_type.map(|c| String::from_utf8_lossy(c).into_owned());
        fields.insert("provider".into(), json!(event.provider));
        fields.insert("content_type".into(), json!(content_type));
        fields.insert("headers".into(), json!(event.headers));
        fields.insert("traceparent".into(), json!(event.traceparent));
        fields.insert("order_key".into(), json!(event.order_key));
        fields.insert("body_bytes".into(), json!(event.body.len()));
    }
    value
}

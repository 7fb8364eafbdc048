//! What goes over a stream, and where a stream starts. Pure.

use axum::http::HeaderMap;
use serde_json::{Value, json};

use crate::{
    event::{figures::Figures, outbox::Event},
    kernel::clock::Millis,
};

pub(crate) const KPI_EVENT: &str = "kpi-update";

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frame {
    pub id: i64,
    pub event: String,
    pub data: Value,
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the present state, at this head.
    Present(i64),
    /// With what came after this id.
    After(i64),
}

/// A reader too far behind, or ahead of everything (another database), starts with the present.
pub(crate) fn start(last_seen: Option<i64>, head: i64, backlog_max: i64) -> Start {
    match last_seen {
        Some(seen) if (head.saturating_sub(backlog_max)..=head).contains(&seen) => {
            Start::After(seen)
        }
        Some(_) | None => Start::Present(head),
    }
}

/// `Last-Event-ID`, if it is one of ours.
pub(crate) fn last_event_id(headers: &HeaderMap) -> Option<i64> {
    let id = headers
        .get("last-event-id")?
        .to_str()
        .ok()?
        .trim()
        .parse::<i64>()
        .ok()?;
    (id >= 0).then_some(id)
}

pub(crate) fn snapshot(org_id: &str, head: i64, figures: Figures, now: Millis) -> Frame {
    kpi(org_id, head, figures, "snapshot", now)
}

pub(crate) fn kpi_update(org_id: &str, event: &Event) -> Frame {
    let figure = |name: &str| {
        let path = format!("/figures/{name}");
        event
            .payload
            .pointer(&path)
            .and_then(Value::as_i64)
            .unwrap_or_default()
    };
    let figures = Figures {
        revenue_minor: figure("revenue"),
        orders: figure("orders"),
    };
    kpi(org_id, event.id, figures, &event.kind, event.created_at)
}

/// For the edge: the outbox event as it is.
pub(crate) fn edge_event(event: Event) -> Frame {
    Frame {
        id: event.id,
        event: event.kind,
        data: event.payload,
    }
}

fn kpi(org_id: &str, id: i64, figures: Figures, cause: &str, at: Millis) -> Frame {
    let data = json!({
        "orgId": org_id,
        "revenue": figures.revenue_minor,
        "orders": figures.orders,
        "timestamp": at.rfc3339(),
        "cause": cause,
    });
    Frame {
        id,
        event: KPI_EVENT.to_owned(),
        data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_resumes_unless_it_is_too_far_from_the_head() {
        assert_eq!(start(None, 7, 100), Start::Present(7));
        assert_eq!(start(Some(7), 7, 100), Start::After(7));
        assert_eq!(start(Some(3), 7, 100), Start::After(3));
        assert_eq!(start(Some(0), 7, 100), Start::After(0));
        assert_eq!(start(Some(3), 200, 100), Start::Present(200));
        assert_eq!(start(Some(8), 7, 100), Start::Present(7));
    }

    #[test]
    fn only_decimal_ids_are_resumed_from() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("last-event-id", text.parse().unwrap());
            last_event_id(&headers)
        };
        assert_eq!(of("41"), Some(41));
        assert_eq!(of("-1"), None);
        assert_eq!(of("abc"), None);
    }
}

//! Takes a verified delivery: once, and with its effect or not at all.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{
    app::App,
    billing::{
        self,
        model::{Fact, Kind},
    },
    error::{ApiError, ApiResult},
    inbound::{
        model::Delivery,
        store::{self, Taken},
    },
};

const KIND_CHARS_MAX: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Applied,
    Duplicate,
    Ignored,
}

impl Outcome {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Duplicate => "duplicate",
            Self::Ignored => "ignored",
        }
    }
}

/// What a body turned out to be.
struct Reading {
    kind: String,
    fact: Option<Fact>,
}

pub(crate) async fn take(
    app: &App,
    endpoint: &str,
    delivery: &Delivery,
    content_type: &str,
    body: &[u8],
) -> ApiResult<Outcome> {
    let reading = read(delivery, content_type, body)?;
    let outcome = if reading.fact.is_some() {
        Outcome::Applied
    } else {
        Outcome::Ignored
    };
    let now = app.clock.now();
    let digest = hex::encode(Sha256::digest(body));
    let taken = Taken {
        endpoint,
        event_id: &delivery.event_id,
        provider: &delivery.provider,
        kind: &reading.kind,
        outcome: outcome.as_str(),
        body_sha256: &digest,
    };
    let mut work = app.work().await?;
    if !store::remember(&mut work.tx, &taken, now).await? {
        return Ok(Outcome::Duplicate);
    }
    if let Some(fact) = &reading.fact {
        billing::service::apply(&mut work, endpoint, fact, &delivery.event_id, now).await?;
    }
    work.commit().await?;
    Ok(outcome)
}

/// A body in a format or of a kind that we have no use for is no fault of the sender; one of a kind
/// that we do use, and cannot read, is.
fn read(delivery: &Delivery, content_type: &str, body: &[u8]) -> ApiResult<Reading> {
    let json = content_type.is_empty() || content_type.to_ascii_lowercase().contains("json");
    if !json {
        return Ok(Reading {
            kind: "other".to_owned(),
            fact: None,
        });
    }
    let value: Value = serde_json::from_slice(body)
        .map_err(|_| unprocessable("body_not_json", "the body is not valid JSON"))?;
    let name = billing::model::event_name(&value)
        .ok_or_else(|| unprocessable("event_missing", "the body names no event"))?;
    let fact = Kind::parse(name)
        .map(|kind| Fact::read(kind, &value, &delivery.event_id, delivery.received_at))
        .transpose()
        .map_err(|unreadable| unprocessable("event_unreadable", &unreadable.to_string()))?;
    Ok(Reading {
        kind: name.chars().take(KIND_CHARS_MAX).collect(),
        fact,
    })
}

fn unprocessable(code: &'static str, detail: &str) -> ApiError {
    ApiError::Unprocessable {
        code,
        detail: detail.to_owned(),
    }
}

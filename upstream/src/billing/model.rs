//! Billing events as facts, and the fold that turns facts into state. Pure.
//!
//! Two shapes are read: our own flat one (`{"event":"invoice.paid","id":"evt_…","amount":5000}`) and
//! the nested one of the large providers (`{"type":…,"data":{"object":{…}}}`).

use serde_json::Value;

use crate::kernel::{
    clock::{Millis, SECOND_MS},
    id,
    input::{MINOR_UNITS_MAX, is_currency},
};

const REFERENCE_CHARS_MAX: usize = 255;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    ChargeDisputed,
    ChargeRefunded,
    InvoicePaid,
    InvoicePaymentFailed,
    SubscriptionCanceled,
    SubscriptionUpdated,
}

/// One event, read but not yet applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    Invoice {
        reference: String,
        org_id: Option<String>,
        currency: Option<String>,
        change: Change,
    },
    Subscription(SubscriptionFact),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Disputed,
    Failed,
    Paid {
        minor: i64,
    },
    Refunded {
        minor: i64,
    },
    /// A provider that reports the sum of all refunds so far.
    RefundedInAll {
        minor: i64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubscriptionFact {
    pub reference: String,
    pub org_id: Option<String>,
    pub plan: Option<String>,
    pub status: String,
    pub canceled: bool,
    pub at: Millis,
    pub event_id: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("the amount must be a whole number of minor units, 0 or more")]
    Amount,
    #[error("the currency must be a three-letter code")]
    Currency,
    #[error("the plan must be FREE, PRO or ENT")]
    Plan,
    #[error("the event names no subscription")]
    Reference,
}

/// What is known of an invoice. Every field only grows, so order does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InvoiceState {
    pub paid_minor: Option<i64>,
    pub refunded_minor: i64,
    pub failures: i64,
    pub disputes: i64,
}

/// Status and plan are dated apart: an event that names no plan says nothing about the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubscriptionState {
    pub status: Dated,
    pub plan: Option<Dated>,
    pub canceled_at: Option<Millis>,
}

/// A value, when the provider said it and in which event. Later ones win; the event id settles ties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dated {
    pub at: Millis,
    pub by: String,
    pub value: String,
}

impl Dated {
    fn later(self, other: Self) -> Self {
        if (other.at, &other.by) > (self.at, &self.by) {
            other
        } else {
            self
        }
    }
}

impl Kind {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "invoice.paid" => Some(Self::InvoicePaid),
            "invoice.payment_failed" => Some(Self::InvoicePaymentFailed),
            "subscription.updated" | "customer.subscription.updated" => {
                Some(Self::SubscriptionUpdated)
            }
            "subscription.canceled" | "customer.subscription.deleted" => {
                Some(Self::SubscriptionCanceled)
            }
            "charge.refunded" => Some(Self::ChargeRefunded),
            "charge.dispute.created" => Some(Self::ChargeDisputed),
            _ => None,
        }
    }
}

/// The name of an event in either shape.
pub(crate) fn event_name(body: &Value) -> Option<&str> {
    ["event", "type"]
        .iter()
        .find_map(|field| body.get(field)?.as_str())
}

impl Fact {
    /// `event_id` stands in for the invoice where the event names none: money that moved is recorded
    /// even when nobody says what for.
    pub(crate) fn read(
        kind: Kind,
        body: &Value,
        event_id: &str,
        received_at: Millis,
    ) -> Result<Self, Unreadable> {
        let object = body
            .pointer("/data/object")
            .or_else(|| body.get("data"))
            .unwrap_or(body);
        let nested = !std::ptr::eq(object, body);
        match kind {
            Kind::InvoicePaid => {
                let minor = amount(object, &["amount_paid", "amount", "total"])?;
                invoice(object, nested, event_id, Change::Paid { minor })
            }
            Kind::InvoicePaymentFailed => invoice(object, nested, event_id, Change::Failed),
            Kind::ChargeRefunded => {
                let change = if object.get("amount_refunded").is_some() {
                    Change::RefundedInAll {
                        minor: amount(object, &["amount_refunded"])?,
                    }
                } else {
                    Change::Refunded {
                        minor: amount(object, &["amount"])?,
                    }
                };
                invoice(object, false, event_id, change)
            }
            Kind::ChargeDisputed => invoice(object, false, event_id, Change::Disputed),
            Kind::SubscriptionUpdated | Kind::SubscriptionCanceled => {
                let at = occurred_at(body).unwrap_or(received_at);
                let canceled = match kind {
                    Kind::SubscriptionCanceled => true,
                    Kind::SubscriptionUpdated => text(object, &["status"]) == Some("canceled"),
                    Kind::ChargeDisputed
                    | Kind::ChargeRefunded
                    | Kind::InvoicePaid
                    | Kind::InvoicePaymentFailed => false,
                };
                subscription(object, nested, event_id, at, canceled)
            }
        }
    }
}

impl InvoiceState {
    pub(crate) fn apply(mut self, change: Change) -> Self {
        match change {
            Change::Disputed => self.disputes = self.disputes.saturating_add(1),
            Change::Failed => self.failures = self.failures.saturating_add(1),
            Change::Paid { minor } => {
                self.paid_minor = Some(self.paid_minor.map_or(minor, |paid| paid.max(minor)));
            }
            Change::Refunded { minor } => {
                self.refunded_minor = self.refunded_minor.saturating_add(minor);
            }
            Change::RefundedInAll { minor } => {
                self.refunded_minor = self.refunded_minor.max(minor);
            }
        }
        self
    }

    /// The gravest thing that is known. A failed attempt says nothing once the invoice is paid.
    pub(crate) fn status(self) -> &'static str {
        match self.paid_minor {
            _ if self.disputes > 0 => "DISPUTED",
            Some(paid) if self.refunded_minor > 0 && self.refunded_minor >= paid => "REFUNDED",
            Some(_) | None if self.refunded_minor > 0 => "PARTLY_REFUNDED",
            Some(_) => "PAID",
            None if self.failures > 0 => "PAYMENT_FAILED",
            None => "OPEN",
        }
    }
}

impl SubscriptionState {
    pub(crate) fn first(fact: &SubscriptionFact) -> Self {
        let dated = |value: &String| Dated {
            at: fact.at,
            by: fact.event_id.clone(),
            value: value.clone(),
        };
        Self {
            status: dated(&fact.status),
            plan: fact.plan.as_ref().map(dated),
            canceled_at: fact.canceled.then_some(fact.at),
        }
    }

    /// The latest word on each thing wins; a cancellation is final.
    pub(crate) fn apply(self, fact: &SubscriptionFact) -> Self {
        let other = Self::first(fact);
        Self {
            status: self.status.later(other.status),
            plan: match (self.plan, other.plan) {
                (Some(plan), Some(other)) => Some(plan.later(other)),
                (plan, other) => plan.or(other),
            },
            canceled_at: match (self.canceled_at, other.canceled_at) {
                (Some(at), Some(other)) => Some(at.min(other)),
                (at, other) => at.or(other),
            },
        }
    }

    pub(crate) fn status(&self) -> &str {
        if self.canceled_at.is_some() {
            "canceled"
        } else {
            &self.status.value
        }
    }

    /// What the organisation may use.
    pub(crate) fn effective_plan(&self) -> Option<&str> {
        if self.canceled_at.is_some() {
            return Some("FREE");
        }
        self.plan.as_ref().map(|plan| plan.value.as_str())
    }
}

fn invoice(
    object: &Value,
    object_is_invoice: bool,
    event_id: &str,
    change: Change,
) -> Result<Fact, Unreadable> {
    let named = text(object, &["invoiceId", "invoice_id", "invoice"]);
    let own = if object_is_invoice {
        text(object, &["id"])
    } else {
        None
    };
    let reference = named.or(own).unwrap_or(event_id);
    let currency = match text(object, &["currency"]).map(str::to_uppercase) {
        Some(code) if !is_currency(&code) => return Err(Unreadable::Currency),
        code => code,
    };
    Ok(Fact::Invoice {
        reference: reference.to_owned(),
        org_id: org(object),
        currency,
        change,
    })
}

fn subscription(
    object: &Value,
    object_is_subscription: bool,
    event_id: &str,
    at: Millis,
    canceled: bool,
) -> Result<Fact, Unreadable> {
    let named = text(
        object,
        &["subscriptionId", "subscription_id", "subscription"],
    );
    let own = if object_is_subscription {
        text(object, &["id"])
    } else {
        None
    };
    let org_id = org(object);
    let reference = named
        .or(own)
        .or(org_id.as_deref())
        .ok_or(Unreadable::Reference)?
        .to_owned();
    let plan = match plan(object) {
        Some(plan) if ["FREE", "PRO", "ENT"].contains(&plan.as_str()) => Some(plan),
        Some(_) => return Err(Unreadable::Plan),
        None => None,
    };
    let status = if canceled {
        "canceled"
    } else {
        text(object, &["status"]).unwrap_or("active")
    };
    Ok(Fact::Subscription(SubscriptionFact {
        reference,
        org_id,
        plan,
        status: status.to_owned(),
        canceled,
        at,
        event_id: event_id.to_owned(),
    }))
}

fn text<'a>(object: &'a Value, fields: &[&str]) -> Option<&'a str> {
    fields
        .iter()
        .find_map(|field| object.get(field)?.as_str())
        .filter(|text| !text.is_empty() && text.len() <= REFERENCE_CHARS_MAX)
}

fn org(object: &Value) -> Option<String> {
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    text(object, &["orgId", "org_id"])
        .or_else(|| text(metadata, &["orgId", "org_id"]))
        .filter(|text| id::plausible(text))
        .map(str::to_owned)
}

fn plan(object: &Value) -> Option<String> {
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    text(object, &["plan"])
        .or_else(|| text(metadata, &["plan"]))
        .map(str::to_uppercase)
}

fn amount(object: &Value, fields: &[&str]) -> Result<i64, Unreadable> {
    fields
        .iter()
        .find_map(|field| object.get(field))
        .and_then(Value::as_i64)
        .filter(|minor| (0..=MINOR_UNITS_MAX).contains(minor))
        .ok_or(Unreadable::Amount)
}

/// The provider's time: seconds or milliseconds since 1970.
fn occurred_at(body: &Value) -> Option<Millis> {
    /// Below this a number of milliseconds would be before 2001.
    const MILLISECONDS_FROM: i64 = 1_000_000_000_000;
    let number = ["created", "occurredAt", "timestamp"]
        .iter()
        .find_map(|field| body.get(field)?.as_i64())
        .filter(|number| *number > 0)?;
    let ms = if number < MILLISECONDS_FROM {
        number.saturating_mul(SECOND_MS)
    } else {
        number
    };
    Some(Millis(ms))
}

#[cfg(test)]
mod tests;

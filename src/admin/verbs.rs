//! Redelivery and discarding: what is meant, the plan of it, and the doing. Decides what a client must
//! say to change entries; how they change is the inbox's.
//!
//! Invariants: a range names a state, so that an empty filter touches nothing; a plan comes with the
//! request that carries it out, which leaves alone what was received later; one verb at a time; every
//! one is logged with who asked.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::Caller;
use super::answer::Problem;
use super::filter::{self, Asked};
use crate::kernel::clock::UnixMs;
use crate::webhook::inbox::{EntryId, Inbox, Plan, Selection, Spread};
use crate::webhook::scheme::print_rfc3339;

/// Ids in one request.
const IDS_MAX: usize = 10_000;
/// Entries per second where a range is redelivered and nothing else is said: an API that was down
/// should not meet all of it at once.
const RATE_DEFAULT: u32 = 50;
const RATE_MAX: u32 = 100_000;

/// What is done to entries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verb {
    Redeliver,
    Discard,
}

impl Verb {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Redeliver => "redeliver",
            Self::Discard => "discard",
        }
    }
}

/// The body of a request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    ids: Option<Vec<String>>,
    filter: Option<Asked>,
    /// Redelivery only.
    rate_per_s: Option<u32>,
    #[serde(default)]
    dry_run: bool,
}

/// A request that makes sense.
struct Order {
    selection: Selection,
    /// As the client would have to write it, with the time of the plan.
    again: Value,
    rate: Option<NonZeroU32>,
}

/// Lets one verb run at a time.
pub(super) type Turn = Arc<Mutex<()>>;

/// Plans it or does it.
pub(super) async fn run(
    verb: Verb,
    request: Request,
    inbox: Inbox,
    turn: &Turn,
    caller: Caller,
    now: UnixMs,
) -> Result<Value, Problem> {
    let dry_run = request.dry_run;
    let order = order(verb, request, now)?;
    if dry_run {
        let plan = inbox.plan(order.selection.clone()).await;
        let plan = plan.map_err(|error| unavailable(&error.to_string()))?;
        return Ok(planned(verb, &order, plan));
    }
    let guard = turn.clone().try_lock_owned().map_err(|_| {
        Problem::new(
            StatusCode::CONFLICT,
            "under-way",
            "another redelivery or discard is under way; try again when it is done",
        )
    })?;
    // A task of its own: whoever asked may go away, and half of a range would be done.
    let work = tokio::spawn(carry_out(verb, order, inbox, guard, caller, now));
    work.await
        .map_err(|_| unavailable("the work was cut short"))?
}

fn order(verb: Verb, request: Request, now: UnixMs) -> Result<Order, Problem> {
    let (selection, mut again, rate) = match (request.ids, request.filter) {
        (Some(ids), None) => {
            let ids = ids_of(&ids)?;
            let again = json!({ "ids": ids.iter().map(EntryId::to_string).collect::<Vec<_>>() });
            (Selection::Ids(ids), again, None)
        }
        (None, Some(asked)) => {
            let (selection, again) = range(asked, now)?;
            (selection, again, NonZeroU32::new(RATE_DEFAULT))
        }
        (Some(_), Some(_)) | (None, None) => {
            return Err(Problem::bad(
                "send either `ids`, a list, or `filter`, e.g. {\"filter\": {\"state\": \"dead\"}}",
            ));
        }
    };
    let rate = match (verb, request.rate_per_s) {
        (Verb::Redeliver, None) => rate,
        (Verb::Redeliver, Some(n)) => {
            let rate = NonZeroU32::new(n).filter(|n| n.get() <= RATE_MAX);
            let wrong = || Problem::bad(format!("`rate_per_s` is a number from 1 to {RATE_MAX}"));
            Some(rate.ok_or_else(wrong)?)
        }
        (Verb::Discard, None) => None,
        (Verb::Discard, Some(_)) => {
            return Err(Problem::bad("`rate_per_s` is for redelivery alone"));
        }
    };
    if let (Value::Object(again), Some(rate)) = (&mut again, rate) {
        again.insert("rate_per_s".into(), json!(rate));
    }
    Ok(Order {
        selection,
        again,
        rate,
    })
}

/// Each once, in the order they were named.
fn ids_of(texts: &[String]) -> Result<Vec<EntryId>, Problem> {
    if texts.is_empty() || texts.len() > IDS_MAX {
        return Err(Problem::bad(format!("`ids` has 1 to {IDS_MAX} of them")));
    }
    let mut seen = BTreeSet::new();
    let mut ids = Vec::with_capacity(texts.len());
    for text in texts {
        let id = filter::id(text)?;
        if seen.insert(id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// What matches and was there at `now`.
fn range(mut asked: Asked, now: UnixMs) -> Result<(Selection, Value), Problem> {
    let mut filter = asked.filter()?;
    if filter.standing.is_none() {
        return Err(Problem::bad(
            "`filter` must name a `state` (pending, dead or delivered); else it would mean all of them",
        ));
    }
    // `to` is exclusive, and what was received in this millisecond is there.
    let until = UnixMs(now.0.saturating_add(1));
    let to = filter.to.map_or(until, |to| to.min(until));
    filter.to = Some(to);
    asked.to = Some(print_rfc3339(to));
    Ok((Selection::Matching(filter), json!({ "filter": asked })))
}

fn planned(verb: Verb, order: &Order, plan: Plan) -> Value {
    let duration_s = order
        .rate
        .map_or(0, |rate| plan.entries.div_ceil(rate.get().into()));
    json!({
        "verb": verb.name(),
        "dry_run": true,
        "count": plan.entries,
        "bytes": plan.bytes,
        "rate_per_s": order.rate,
        "duration_s": duration_s,
        "confirm": order.again,
    })
}

async fn carry_out(
    verb: Verb,
    order: Order,
    inbox: Inbox,
    _turn: OwnedMutexGuard<()>,
    caller: Caller,
    now: UnixMs,
) -> Result<Value, Problem> {
    let done = match verb {
        Verb::Redeliver => {
            let spread = order.rate.map_or(Spread::AtOnce, Spread::PerSecond);
            inbox.redeliver(order.selection, spread, now).await
        }
        Verb::Discard => inbox.discard(order.selection, now).await,
    };
    // Ten thousand ids are no log line.
    let selection: String = order.again.to_string().chars().take(1_000).collect();
    let (who, peer, verb) = (caller.who.name(), caller.peer, verb.name());
    match done {
        Ok(count) => {
            tracing::info!(
                admin.who = who,
                admin.peer = %peer,
                admin.verb = verb,
                inbox.selection = selection,
                inbox.entries = count,
                "inbox entries were changed by an operator"
            );
            Ok(json!({ "verb": verb, "dry_run": false, "count": count }))
        }
        Err(error) => {
            tracing::warn!(
                admin.who = who,
                admin.peer = %peer,
                admin.verb = verb,
                inbox.selection = selection,
                %error,
                "an operator's change of inbox entries has failed; some may be changed"
            );
            Err(unavailable(&format!(
                "{error}; some entries may be changed"
            )))
        }
    }
}

/// The inbox does not answer.
pub(super) fn unavailable(why: &str) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "inbox-unavailable",
        format!("{why}; see /health/detailed and the log"),
    )
}

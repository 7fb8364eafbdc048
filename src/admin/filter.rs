//! Which entries of the inbox a client means: the same names in a query and in a JSON body.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::answer::Problem;
use super::query::Query;
use crate::kernel::clock::UnixMs;
use crate::webhook::inbox::{EntryId, Filter, Order, Standing};
use crate::webhook::scheme::Unit;

/// Longest text in a filter.
const TEXT_BYTES_MAX: usize = 512;

/// The keys of a filter in a query.
pub(super) const KEYS: [&str; 5] = ["endpoint", "state", "event_id", "from", "to"];

/// As a client writes it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Asked {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<String>,
}

impl Asked {
    pub(super) fn of(query: &mut Query) -> Self {
        Self {
            endpoint: query.take("endpoint"),
            state: query.take("state"),
            event_id: query.take("event_id"),
            from: query.take("from"),
            to: query.take("to"),
        }
    }

    /// Newest first, where order matters.
    pub(super) fn filter(&self) -> Result<Filter, Problem> {
        let texts = [&self.endpoint, &self.event_id];
        if texts
            .iter()
            .any(|t| t.as_ref().is_some_and(|t| t.len() > TEXT_BYTES_MAX))
        {
            return Err(Problem::bad(format!(
                "endpoint and event_id have at most {TEXT_BYTES_MAX} bytes"
            )));
        }
        Ok(Filter {
            endpoint: self.endpoint.as_deref().map(Arc::from),
            standing: self.state.as_deref().map(standing).transpose()?,
            event_id: self.event_id.clone(),
            from: moment("from", self.from.as_ref())?,
            to: moment("to", self.to.as_ref())?,
            order: Order::NewestFirst,
        })
    }
}

fn standing(text: &str) -> Result<Standing, Problem> {
    let found = Standing::ALL.into_iter().find(|s| s.name() == text);
    found.ok_or_else(|| {
        let names = Standing::ALL.map(Standing::name).join(", ");
        Problem::bad(format!("`state` is one of {names}"))
    })
}

fn moment(key: &str, text: Option<&String>) -> Result<Option<UnixMs>, Problem> {
    let parse = |text: &String| {
        let parsed = Unit::Rfc3339.parse(text.as_bytes());
        parsed.ok_or_else(|| {
            Problem::bad(format!(
                "`{key}` is a moment in RFC 3339, e.g. 2030-01-31T08:00:00Z"
            ))
        })
    };
    text.map(parse).transpose()
}

/// An entry's name as an operator writes it.
pub(super) fn id(text: &str) -> Result<EntryId, Problem> {
    text.parse().map_err(|()| {
        Problem::bad("an entry's id is `in_` and 16 lower-case hex digits, as the list shows it")
    })
}

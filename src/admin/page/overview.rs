//! `/`: the inbox by endpoint, dead letters, recent events, webhooks since the start, recent refusals.

use serde_json::{Value, json};

use super::super::answer::{Answer, Problem};
use super::super::filter::{self, Asked};
use super::super::query::Query;
use super::super::verbs::unavailable;
use super::super::{View, refusals};
use super::markup::{Button, Html, age, bytes};
use crate::kernel::clock::UnixMs;
use crate::webhook::inbox::{EntryId, Filter, Inbox, Page, Standing, Stats, Summary, Unreadable};

/// Rows of a list.
const ROWS: usize = 50;

/// Reads and shows everything; the query filters the list of events.
pub(in crate::admin) async fn overview(view: &View, raw: Option<&str>) -> Result<Answer, Problem> {
    let [endpoint, state, event_id, from, to] = filter::KEYS;
    let mut query = Query::parse(raw, &[endpoint, state, event_id, from, to, "cursor"])?;
    let asked = Asked::of(&mut query);
    let cursor = query.take("cursor").map(|c| filter::id(&c)).transpose()?;
    let mut html = Html::default();
    begin(&mut html, view, "Webhooks");
    match &(view.inbox)() {
        Some(inbox) => {
            let state = look(inbox, asked.filter()?, cursor).await;
            let state = state.map_err(|error| unavailable(&error.to_string()))?;
            let now = view.clock.unix();
            depths(&mut html, &state.stats, now);
            dead_letters(&mut html, &state);
            events(&mut html, &state.events, &asked);
        }
        None => {
            html.raw("<section id=\"inbox\"><h2>Inbox</h2><p>This edge keeps no webhooks: no endpoint has <code>mode = \"store\"</code>.</p></section>");
        }
    }
    webhooks(&mut html, &(view.webhooks)());
    recent_refusals(&mut html, view);
    end(&mut html);
    Ok(super::html(html.done()))
}

struct Looked {
    stats: Stats,
    dead: Page,
    events: Page,
}

async fn look(
    inbox: &Inbox,
    filter: Filter,
    cursor: Option<EntryId>,
) -> Result<Looked, Unreadable> {
    let dead = Filter {
        standing: Some(Standing::Dead),
        ..Filter::default()
    };
    Ok(Looked {
        stats: inbox.stats().await?,
        dead: inbox.list(dead, None, ROWS).await?,
        events: inbox.list(filter, cursor, ROWS).await?,
    })
}

/// Everything before the sections.
pub(super) fn begin(html: &mut Html, view: &View, title: &'static str) {
    let version = (view.version)();
    let version = version["version"].as_str().unwrap_or_default();
    html.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">")
        .raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>maitred: ")
        .raw(title)
        .raw("</title><link rel=\"stylesheet\" href=\"/assets/page.css\">")
        .raw("<script src=\"/assets/page.js\" defer></script></head><body>")
        .raw("<header><h1><a href=\"/\">maitred</a> ")
        .text(version)
        .raw("</h1><p id=\"live\" role=\"status\"><noscript>Without scripts this page shows the lists as they were when it was loaded; redeliver and discard with <code>maitred inbox</code>.</noscript></p></header>")
        .raw("<p id=\"result\" role=\"status\"></p><main>");
}

/// Everything after them: the dialog in which a plan is confirmed.
pub(super) fn end(html: &mut Html) {
    html.raw("</main><dialog id=\"confirm\" aria-labelledby=\"confirm-title\" aria-describedby=\"confirm-plan\"><form method=\"dialog\">")
        .raw("<h2 id=\"confirm-title\"></h2><p id=\"confirm-plan\"></p>")
        .raw("<button value=\"no\" id=\"confirm-no\" autofocus>cancel</button> <button value=\"yes\" id=\"confirm-yes\"></button>")
        .raw("</form></dialog></body></html>\n");
}

fn depths(html: &mut Html, stats: &Stats, now: UnixMs) {
    html.raw("<section id=\"inbox\" aria-labelledby=\"inbox-title\"><h2 id=\"inbox-title\">Inbox</h2><table>")
        .head(&["endpoint", "state", "entries", "bytes", "oldest", "age of the oldest"])
        .raw("<tbody>");
    for row in &stats.endpoints {
        html.raw("<tr>").cell(&row.endpoint);
        html.cell(row.standing.name()).number(row.entries);
        html.cell(&bytes(row.bytes)).moment(row.oldest);
        let age = row.oldest.map(|at| age(at, now)).unwrap_or_default();
        html.cell(&age).raw("</tr>");
    }
    html.raw("</tbody></table><p>");
    html.text(&format!(
        "{} being delivered now, {} on disk",
        stats.claimed,
        bytes(stats.disk_bytes)
    ));
    html.raw("</p></section>");
}

fn dead_letters(html: &mut Html, state: &Looked) {
    html.raw("<section id=\"dead\" aria-labelledby=\"dead-title\"><h2 id=\"dead-title\">Dead letters</h2>");
    let dead = state.stats.endpoints.iter();
    for row in dead.filter(|row| row.standing == Standing::Dead && row.entries > 0) {
        let filter = json!({ "filter": { "endpoint": row.endpoint, "state": "dead" } });
        let what = format!("all {} dead letters of {}", row.entries, row.endpoint);
        html.raw("<p><bdi>").text(&what).raw("</bdi> ");
        let button = Button {
            place: "all",
            of: &row.endpoint,
            label: &what,
            request: &filter.to_string(),
        };
        html.button("redeliver", &button);
        html.button("discard", &button);
        html.raw("</p>");
    }
    entries(html, "dead", &state.dead.entries, "No dead letters.");
    html.raw("</section>");
}

fn events(html: &mut Html, page: &Page, asked: &Asked) {
    html.raw("<section id=\"events\" aria-labelledby=\"events-title\"><h2 id=\"events-title\">Events</h2>")
        .raw("<form action=\"/\" method=\"get\">");
    let field = |html: &mut Html, name: &'static str, value: &Option<String>| {
        html.raw("<label>").raw(name).raw(" <input");
        html.attribute("id", &format!("filter-{name}"));
        html.attribute("name", name);
        html.attribute("value", value.as_deref().unwrap_or_default());
        html.raw("></label> ");
    };
    field(html, "endpoint", &asked.endpoint);
    html.raw(
        "<label>state <select name=\"state\" id=\"filter-state\"><option value=\"\">any</option>",
    );
    for standing in Standing::ALL {
        html.raw("<option");
        if asked.state.as_deref() == Some(standing.name()) {
            html.raw(" selected");
        }
        html.raw(">").raw(standing.name()).raw("</option>");
    }
    html.raw("</select></label> ");
    field(html, "event_id", &asked.event_id);
    field(html, "from", &asked.from);
    field(html, "to", &asked.to);
    html.raw("<button>show</button></form>");
    entries(html, "events", &page.entries, "Nothing matches.");
    if let Some(next) = page.next {
        html.raw("<p><a id=\"older\"")
            .attribute("href", &older(asked, next))
            .raw(">older</a></p>");
    }
    html.raw("</section>");
}

/// The query of the next page.
fn older(asked: &Asked, next: EntryId) -> String {
    let asked = serde_json::to_value(asked).unwrap_or_default();
    let mut query = format!("/?cursor={next}");
    for (key, value) in asked.as_object().into_iter().flatten() {
        query.push_str(&format!("&{key}="));
        for byte in value.as_str().unwrap_or_default().bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                    query.push(char::from(byte));
                }
                other => query.push_str(&format!("%{other:02X}")),
            }
        }
    }
    query
}

fn entries(html: &mut Html, place: &'static str, rows: &[Summary], none: &'static str) {
    if rows.is_empty() {
        html.raw("<p>").raw(none).raw("</p>");
        return;
    }
    html.raw("<table>")
        .head(&[
            "entry",
            "endpoint",
            "event",
            "received",
            "state",
            "attempts",
            "last attempt",
            "",
        ])
        .raw("<tbody>");
    for row in rows {
        let id = row.id.to_string();
        html.raw("<tr><td><a")
            .attribute("href", &format!("/inbox/events/{id}"))
            .raw(">")
            .text(&id)
            .raw("</a></td>");
        html.cell(&row.endpoint)
            .cell(&row.event_id)
            .moment(Some(row.received_at))
            .cell(&super::entry::state(row))
            .number(row.attempts.into());
        let last = row.history.last().map(super::entry::outcome);
        html.cell(&last.unwrap_or_default());
        let request = json!({ "ids": [id] }).to_string();
        html.raw("<td>");
        let button = Button {
            place,
            of: &id,
            label: &id,
            request: &request,
        };
        html.button("redeliver", &button);
        html.button("discard", &button);
        html.raw("</td></tr>");
    }
    html.raw("</tbody></table>");
}

fn webhooks(html: &mut Html, counts: &Value) {
    html.raw("<section id=\"webhooks\" aria-labelledby=\"webhooks-title\"><h2 id=\"webhooks-title\">Webhooks since the start</h2><table>")
        .head(&["endpoint", "outcome", "count"])
        .raw("<tbody>");
    for row in counts.as_array().into_iter().flatten() {
        html.raw("<tr>")
            .cell(row["endpoint"].as_str().unwrap_or_default())
            .cell(row["outcome"].as_str().unwrap_or_default())
            .number(row["count"].as_u64().unwrap_or_default())
            .raw("</tr>");
    }
    html.raw("</tbody></table></section>");
}

fn recent_refusals(html: &mut Html, view: &View) {
    let rows = refusals::Asked::newest(ROWS).pick((view.refusals)());
    html.raw("<section id=\"refusals\" aria-labelledby=\"refusals-title\"><h2 id=\"refusals-title\">Recent refusals</h2>");
    if rows.is_empty() {
        html.raw("<p>None since the start.</p></section>");
        return;
    }
    html.raw("<table>")
        .head(&["at", "route", "status", "reason", "what to do", "request"])
        .raw("<tbody>");
    for row in &rows {
        html.raw("<tr>")
            .moment(Some(UnixMs(row.at_unix_ms)))
            .cell(&row.route)
            .number(row.status.into())
            .cell(&row.reason)
            .cell(refusals::fix(row))
            .cell(&row.request_id)
            .raw("</tr>");
    }
    html.raw("</tbody></table></section>");
}

//! `/inbox/events/{id}` for people: one entry with its headers, attempts and body.

use serde_json::json;

use super::super::View;
use super::super::answer::Answer;
use super::super::shown;
use super::markup::{Button, Html};
use super::overview::{begin, end};
use crate::webhook::inbox::{Attempt, Outcome, Shown, State, Summary};
use crate::webhook::scheme::print_rfc3339;

pub(in crate::admin) fn entry(view: &View, shown: &Shown) -> Answer {
    let (summary, event) = (&shown.summary, &shown.event);
    let id = summary.id.to_string();
    let mut html = Html::default();
    begin(&mut html, view, "one event");
    html.raw("<section id=\"entry\"><h2>")
        .text(&id)
        .raw("</h2><p>");
    let request = json!({ "ids": [id] }).to_string();
    let button = Button {
        place: "entry",
        of: &id,
        label: &id,
        request: &request,
    };
    html.button("redeliver", &button);
    html.button("discard", &button);
    html.raw("</p><table><tbody>");
    let content_type = event.content_type.as_deref().map(String::from_utf8_lossy);
    let moment = |at: Option<_>| at.map(print_rfc3339).unwrap_or_default();
    let rows: [(&'static str, String); 12] = [
        ("state", state(summary)),
        ("endpoint", event.endpoint.to_string()),
        ("provider", event.provider.to_string()),
        ("destination", event.destination.to_string()),
        ("event id", event.event_id.to_string()),
        (
            "order key",
            event.order_key.as_deref().unwrap_or_default().to_owned(),
        ),
        ("received", print_rfc3339(event.received_at)),
        ("attempts", summary.attempts.to_string()),
        ("first failed", moment(summary.first_failed_at)),
        ("redelivered", moment(summary.redelivered_at)),
        (
            "content type",
            content_type.unwrap_or_default().into_owned(),
        ),
        ("trace", event.traceparent.clone().unwrap_or_default()),
    ];
    for (name, value) in rows {
        html.raw("<tr><th scope=\"row\">").raw(name).raw("</th>");
        html.cell(&value).raw("</tr>");
    }
    html.raw("</tbody></table><h3>Attempts</h3><table>");
    html.head(&["at", "outcome", "ms"]).raw("<tbody>");
    for attempt in &summary.history {
        html.raw("<tr>").moment(Some(attempt.at));
        html.cell(&outcome(attempt)).number(attempt.took_ms.into());
        html.raw("</tr>");
    }
    html.raw("</tbody></table><h3>Headers</h3><table><tbody>");
    for (name, value) in &event.headers {
        html.raw("<tr>").cell(name).cell(value).raw("</tr>");
    }
    html.raw("</tbody></table>");
    body(&mut html, shown, &id);
    html.raw("</section>");
    end(&mut html);
    super::html(html.done())
}

fn body(html: &mut Html, shown: &Shown, id: &str) {
    let bytes = &shown.event.body;
    html.raw("<h3>Body</h3><p><a download")
        .attribute("href", &format!("/inbox/events/{id}/body"))
        .raw(">")
        .text(&format!("{} bytes", bytes.len()))
        .raw("</a></p>");
    match shown::short_text(bytes) {
        Some(text) => html.raw("<pre>").text(text).raw("</pre>"),
        None => html.raw("<p>Too long to show, or no text: download it.</p>"),
    };
}

/// State with its details, in words.
pub(super) fn state(summary: &Summary) -> String {
    match summary.state {
        State::Pending { due: Some(due) } => format!("pending, due {}", print_rfc3339(due)),
        State::Pending { due: None } => "pending, behind another of its order key".into(),
        State::Dead { reason, at } => {
            let reason = shown::dead_reason(reason).replace('_', " ");
            format!("dead ({reason}) {}", print_rfc3339(at))
        }
        State::Delivered { at } => format!("delivered {}", print_rfc3339(at)),
    }
}

pub(super) fn outcome(attempt: &Attempt) -> String {
    match &attempt.outcome {
        Outcome::Status(status) => status.to_string(),
        Outcome::NoAnswer(why) => why.clone(),
    }
}

//! What each path gives, and what it says when it does not.

use maitred::kernel::clock::UnixMs;
use maitred::webhook::Refusal;
use maitred::webhook::inbox::{Event, Standing};
use serde_json::{Value, json};

use super::{RECEIVED, Window, event};

fn ids(page: &Value) -> Vec<String> {
    let events = page["events"].as_array().unwrap();
    let id = |e: &Value| e["event_id"].as_str().unwrap().to_owned();
    events.iter().map(id).collect()
}

fn received(event_id: &str, at: i64) -> Event {
    Event {
        received_at: UnixMs(at),
        ..event("billing", event_id)
    }
}

#[tokio::test]
async fn the_figures_are_by_endpoint_and_state() {
    let window = Window::open().await;
    window.append(event("billing", "evt_1")).await;
    window.append(event("billing", "evt_2")).await;
    window.dead(event("market", "evt_3")).await;
    let stats = window.json("/inbox").await;
    assert_eq!(stats["pending"]["entries"], 2);
    assert_eq!(stats["dead"]["entries"], 1);
    let rows = stats["endpoints"].as_array().unwrap();
    let billing = rows.iter().find(|r| r["endpoint"] == "billing").unwrap();
    assert_eq!(
        (&billing["state"], &billing["entries"]),
        (&json!("pending"), &json!(2))
    );
    assert_eq!(billing["oldest"], "2023-11-14T22:13:20.000Z");
}

#[tokio::test]
async fn the_list_is_filtered_and_paged() {
    let window = Window::open().await;
    for n in 0..5 {
        window
            .append(received(&format!("evt_{n}"), RECEIVED + n * 1_000))
            .await;
    }
    window.dead(event("market", "evt_5")).await;
    let page = window.json("/inbox/events?endpoint=billing&limit=2").await;
    assert_eq!(ids(&page), ["evt_4", "evt_3"]);
    let next = page["next_cursor"].as_str().unwrap();
    let page = window
        .json(&format!(
            "/inbox/events?endpoint=billing&limit=500&cursor={next}"
        ))
        .await;
    assert_eq!(ids(&page), ["evt_2", "evt_1", "evt_0"]);
    assert_eq!(page["next_cursor"], Value::Null);
    let page = window.json("/inbox/events?state=dead").await;
    assert_eq!(ids(&page), ["evt_5"]);
    assert_eq!(page["events"][0]["dead_reason"], "refused");
    assert_eq!(page["events"][0]["history"][0]["status"], 422);
    assert_eq!(
        ids(&window.json("/inbox/events?event_id=evt_3").await),
        ["evt_3"]
    );
    let range = "from=2023-11-14T22:13:21Z&to=2023-11-14T23%3A13%3A23%2B01:00";
    let page = window.json(&format!("/inbox/events?{range}")).await;
    assert_eq!(ids(&page), ["evt_2", "evt_1"]);
}

#[tokio::test]
async fn what_is_misspelt_is_refused_with_what_to_write() {
    let window = Window::open().await;
    for (path, expected) in [
        ("/inbox/events?stat=dead", "`stat` is not a query key"),
        ("/inbox/events?state=dead&state=dead", "has `state` twice"),
        (
            "/inbox/events?state=deceased",
            "one of pending, dead, delivered",
        ),
        ("/inbox/events?from=yesterday", "RFC 3339"),
        ("/inbox/events?limit=501", "from 1 to 500"),
        ("/inbox/events?cursor=7", "16 lower-case hex digits"),
        ("/inbox/events/in_7", "16 lower-case hex digits"),
        ("/inbox/export?limit=1", "`limit` is not a query key"),
        ("/inbox?endpoint=billing", "it takes none"),
        ("/refusals?route=x", "it takes endpoint, limit"),
        ("/?limit=1", "it takes none"),
    ] {
        let response = window.get(path).await;
        assert_eq!(response.status, 400, "{path}");
        assert_eq!(
            response.header("content-type"),
            Some("application/problem+json")
        );
        let detail = response.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(expected), "{path}: {detail}");
    }
    let nothing = window.get("/inbox/events/in_00000000000000ff").await;
    assert_eq!(nothing.status, 404);
    assert_eq!(window.get("/nothing").await.status, 404);
    let put = window
        .ask(
            "PUT",
            "/refusals",
            &[("Content-Type", "application/json")],
            b"{}",
        )
        .await;
    assert_eq!((put.status, put.header("allow")), (405, Some("GET, HEAD")));
    let get = window.get("/inbox/discard").await;
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
}

#[tokio::test]
async fn one_entry_is_shown_whole_and_its_body_is_never_rendered() {
    let window = Window::open().await;
    let bytes = b"<script>\xff\0".to_vec();
    let id = window
        .append(Event {
            body: bytes.clone().into(),
            ..event("billing", "evt_1")
        })
        .await;
    let shown = window.json(&format!("/inbox/events/{id}")).await;
    assert_eq!(
        (&shown["body"], &shown["body_bytes"]),
        (&Value::Null, &json!(10))
    );
    assert_eq!(shown["headers"][1], json!(["x-signature", "(masked)"]));
    let body = window.get(&format!("/inbox/events/{id}/body")).await;
    assert_eq!(body.body, bytes);
    for (name, expected) in [
        ("content-type", "application/octet-stream"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(body.header(name), Some(expected));
    }
    let disposition = body.header("content-disposition").unwrap();
    assert!(
        disposition.starts_with("attachment; filename=\"in_"),
        "{disposition}"
    );
    let text = window.append(event("billing", "evt_2")).await;
    let shown = window.json(&format!("/inbox/events/{text}")).await;
    assert_eq!(shown["body"], "{\"amount\":5000}");
}

#[tokio::test]
async fn an_export_has_every_match_with_its_body() {
    let window = Window::open().await;
    // More than a page of the export.
    for n in 0..250 {
        window.append(event("billing", &format!("evt_{n}"))).await;
    }
    window.append(event("market", "evt_x")).await;
    let export = window.get("/inbox/export?endpoint=billing").await;
    assert_eq!(export.header("content-type"), Some("application/x-ndjson"));
    let text = export.text();
    let lines: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 250);
    assert_eq!(lines[0]["event_id"], "evt_249");
    assert_eq!(lines[0]["body_base64"], "eyJhbW91bnQiOjUwMDB9");
}

#[tokio::test]
async fn a_range_is_planned_and_then_redelivered_without_what_came_later() {
    let window = Window::open().await;
    for n in 0..3 {
        window.dead(event("billing", &format!("evt_{n}"))).await;
    }
    let ask = json!({ "filter": { "state": "dead", "endpoint": "billing" }, "rate_per_s": 2, "dry_run": true });
    let plan = window.post("/inbox/redeliver", &ask).await.json();
    assert_eq!(
        (&plan["count"], &plan["duration_s"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(window.entries(Standing::Dead).await, 3);
    // Received after the plan.
    window.dead(received("evt_later", 4_000_000_000_000)).await;
    let done = window
        .post("/inbox/redeliver", &plan["confirm"])
        .await
        .json();
    assert_eq!(
        done,
        json!({ "verb": "redeliver", "dry_run": false, "count": 3 })
    );
    let dead = window.json("/inbox/events?state=dead").await;
    assert_eq!(ids(&dead), ["evt_later"]);
    let pending = window.json("/inbox/events?state=pending").await;
    let due = |n: usize| {
        let text = pending["events"][n]["due_at"].as_str().unwrap();
        maitred::webhook::scheme::Unit::Rfc3339
            .parse(text.as_bytes())
            .unwrap()
            .0
    };
    // Newest first; two a second.
    assert_eq!((due(0) - due(1), due(1) - due(2)), (500, 500));
}

#[tokio::test]
async fn entries_are_redelivered_and_discarded_by_id() {
    let window = Window::open().await;
    let dead = window.dead(event("billing", "evt_1")).await.to_string();
    let other = window.append(event("billing", "evt_2")).await.to_string();
    let gone = "in_00000000000000ff";
    let ask = json!({ "ids": [dead, dead, gone], "dry_run": true });
    let plan = window.post("/inbox/redeliver", &ask).await.json();
    assert_eq!(
        (&plan["count"], &plan["rate_per_s"]),
        (&json!(1), &Value::Null)
    );
    let done = window
        .post("/inbox/redeliver", &json!({ "ids": [dead] }))
        .await
        .json();
    assert_eq!(done["count"], 1);
    assert_eq!(window.entries(Standing::Pending).await, 2);
    let done = window
        .post("/inbox/discard", &json!({ "ids": [dead, other] }))
        .await
        .json();
    assert_eq!(done["count"], 2);
    assert_eq!(window.entries(Standing::Pending).await, 0);
}

#[tokio::test]
async fn a_change_that_is_not_said_exactly_changes_nothing() {
    let window = Window::open().await;
    let id = window.append(event("billing", "evt_1")).await.to_string();
    for (body, expected) in [
        (json!({}), "either `ids`"),
        (json!({ "ids": [] }), "1 to 10000"),
        (
            json!({ "ids": [id], "filter": { "state": "dead" } }),
            "either `ids`",
        ),
        (json!({ "filter": {} }), "must name a `state`"),
        (
            json!({ "filter": { "endpoint": "billing" } }),
            "must name a `state`",
        ),
        (
            json!({ "filter": { "state": "pending", "endpiont": "x" } }),
            "unknown field",
        ),
        (
            json!({ "filter": { "state": "pending" }, "dryrun": true }),
            "unknown field",
        ),
        (json!({ "ids": ["1"] }), "16 lower-case hex"),
        (json!({ "ids": [id], "rate_per_s": 1 }), "redelivery alone"),
        (json!([]), "not what this path takes"),
    ] {
        let response = window.post("/inbox/discard", &body).await;
        assert_eq!(response.status, 400, "{body}");
        assert!(
            response.text().contains(expected),
            "{body}: {}",
            response.text()
        );
    }
    let zero = json!({ "ids": [id], "rate_per_s": 0 });
    assert_eq!(window.post("/inbox/redeliver", &zero).await.status, 400);
    assert_eq!(window.entries(Standing::Pending).await, 1);
}

#[tokio::test]
async fn refusals_say_what_to_do_and_are_found_by_endpoint() {
    let window = Window::open().await;
    window.refuse(Refusal::Stale { age_s: 412 }, "req-1", "/webhooks/billing");
    window.refuse(Refusal::NoMatch, "req-2", "/webhooks/market");
    let all = window.json("/refusals").await;
    assert_eq!(all.as_array().unwrap().len(), 2);
    let billing = window.json("/refusals?endpoint=billing&limit=1").await;
    let row = &billing[0];
    assert_eq!(row["request_id"], "req-1");
    assert_eq!(row["reason"], "the timestamp is 412 s old");
    assert_eq!(row["at"], "2023-11-14T22:13:20.000Z");
    assert!(row["fix"].as_str().unwrap().contains("check NTP"), "{row}");
    let fix = all[0]["fix"].as_str().unwrap();
    assert!(
        fix.contains("re-serialises") && fix.contains("secret is wrong"),
        "{fix}"
    );
}

#[tokio::test]
async fn the_root_is_a_page_for_browsers_and_a_list_for_programs() {
    let window = Window::open().await;
    window.dead(event("billing", "evt_<b>&\"1")).await;
    window.refuse(Refusal::NoMatch, "req-2", "/webhooks/market");
    for accept in ["*/*", "application/json"] {
        let list = window.ask("GET", "/", &[("Accept", accept)], b"").await;
        assert!(
            list.json()["endpoints"]
                .as_array()
                .unwrap()
                .contains(&json!("/inbox"))
        );
    }
    let html = [("Accept", "text/html,application/xhtml+xml;q=0.9")];
    let page = window.ask("GET", "/?state=dead", &html, b"").await;
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    let text = page.text();
    // Readable as it is, without a script.
    for expected in [
        "evt_&lt;b&gt;&amp;&quot;1",
        "dead (refused)",
        "re-serialises",
        "billing",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert!(!text.contains("evt_<b>"), "{text}");
    assert!(
        !text.contains("://"),
        "nothing comes from elsewhere: {text}"
    );
    for asset in ["/assets/page.css", "/assets/page.js"] {
        assert!(text.contains(asset) && window.get(asset).await.status == 200);
    }
}

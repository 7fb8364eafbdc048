//! Who may, over sockets: the token, scrapers, and pages of other sites in an operator's browser.

use std::io::Write;
use std::sync::{Arc, Mutex};

use maitred::kernel::clock::UnixMs;
use maitred::webhook::inbox::{Event, Standing};
use serde_json::json;

use super::{TOKEN, Window, event};
use crate::harness::client::Connection;
use crate::harness::edge::{Edge, Setup};
use crate::harness::keys::TokenIssuer;
use crate::harness::origin::{Origin, Script};
use crate::harness::{until, within};

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[tokio::test]
async fn off_loopback_everything_but_scraping_asks_for_the_token() {
    let window = Window::on("0.0.0.0:0", Some(TOKEN)).await;
    let id = window.append(event("billing", "evt_1")).await;
    let host = ("Host", "maitred.internal:9090");
    for path in ["/metrics", "/healthz"] {
        assert_eq!(
            window.ask("GET", path, &[host], b"").await.status,
            200,
            "{path}"
        );
    }
    let bearer = format!("Bearer {TOKEN}");
    let wrong = format!("Bearer {}x", &TOKEN[1..]);
    let (right, wrong) = (
        ("Authorization", bearer.as_str()),
        ("Authorization", wrong.as_str()),
    );
    let entry = format!("/inbox/events/{id}");
    for path in [
        "/",
        "/inbox",
        "/inbox/events",
        &entry,
        "/inbox/export",
        "/refusals",
        "/events",
        "/health/detailed",
        "/version",
        "/config",
        "/assets/page.js",
    ] {
        for headers in [&[host][..], &[host, wrong]] {
            let response = window.ask("GET", path, headers, b"").await;
            assert_eq!(response.status, 401, "{path}");
            assert!(
                response
                    .header("www-authenticate")
                    .unwrap()
                    .starts_with("Bearer")
            );
            assert!(!response.text().contains("evt_1"));
        }
        if path != "/events" {
            let response = window.ask("GET", path, &[host, right], b"").await;
            assert_eq!(response.status, 200, "{path}");
        }
    }
    let discard = json!({ "ids": [id.to_string()] }).to_string();
    for headers in [&[host, JSON][..], &[host, JSON, wrong]] {
        let response = window
            .ask("POST", "/inbox/discard", headers, discard.as_bytes())
            .await;
        assert_eq!(response.status, 401);
    }
    // A browser is asked for a password, and none of the answers tells the token.
    let html = ("Accept", "text/html");
    let response = window.ask("GET", "/", &[host, html], b"").await;
    assert!(
        response
            .header("www-authenticate")
            .unwrap()
            .starts_with("Basic")
    );
    assert!(!response.text().contains(TOKEN));
    let password = "Basic OmFuLWFkbWluLXRva2VuLW9mLTMyLWNoYXJhY3RlcnMtMA==";
    let headers = [host, html, ("Authorization", password)];
    let response = window.ask("GET", "/", &headers, b"").await;
    assert!(response.status == 200 && response.text().contains("evt_1"));
    assert_eq!(window.entries(Standing::Pending).await, 1);
}

#[tokio::test]
async fn off_loopback_without_a_token_is_shut() {
    let window = Window::on("0.0.0.0:0", None).await;
    assert_eq!(window.get("/metrics").await.status, 200);
    let response = window.get("/inbox").await;
    assert_eq!(response.status, 403);
    assert!(response.text().contains("set listeners.admin.token"));
}

#[tokio::test]
async fn a_rebound_name_reads_nothing() {
    let window = Window::open().await;
    window.append(event("billing", "evt_1")).await;
    for path in ["/", "/inbox/events", "/refusals", "/metrics", "/events"] {
        let host = ("Host", "rebound.evil.example:9090");
        let response = window
            .ask("GET", path, &[host, ("Accept", "text/html")], b"")
            .await;
        assert_eq!(response.status, 421, "{path}");
        assert!(!response.text().contains("evt_1"));
    }
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let window = Window::open().await;
    let id = window.append(event("billing", "evt_1")).await;
    let body = json!({ "ids": [id.to_string()] }).to_string();
    let host = format!("127.0.0.1:{}", window.address.port());
    let host = ("Host", host.as_str());
    let evil = ("Origin", "https://evil.example");
    for (headers, status) in [
        // A form can send these types, and no others.
        (vec![host, ("Content-Type", "text/plain")], 415),
        (
            vec![host, ("Content-Type", "application/x-www-form-urlencoded")],
            415,
        ),
        (vec![host], 415),
        (vec![host, JSON, evil], 403),
        (vec![host, JSON, ("Origin", "null")], 403),
        (vec![host, JSON, ("Origin", "http://127.0.0.1")], 403),
        (vec![host, JSON, ("Sec-Fetch-Site", "cross-site")], 403),
        (vec![host, JSON, ("Sec-Fetch-Site", "same-site")], 403),
    ] {
        let response = window
            .ask("POST", "/inbox/discard", &headers, body.as_bytes())
            .await;
        assert_eq!(response.status, status, "{headers:?}");
    }
    // The browser's question before a foreign script may send JSON is not answered with a yes.
    let preflight = [host, evil, ("Access-Control-Request-Method", "POST")];
    let response = window
        .ask("OPTIONS", "/inbox/discard", &preflight, b"")
        .await;
    assert!(response.status >= 400);
    assert_eq!(response.header("access-control-allow-origin"), None);
    assert_eq!(window.entries(Standing::Pending).await, 1);
    let own = format!("http://{}", host.1);
    let headers = [
        host,
        JSON,
        ("Origin", own.as_str()),
        ("Sec-Fetch-Site", "same-origin"),
    ];
    let response = window
        .ask("POST", "/inbox/discard", &headers, body.as_bytes())
        .await;
    assert_eq!(response.status, 200);
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn every_change_is_logged_with_who_and_how_many_and_no_token() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_writer(move || writer.clone())
        .finish();
    // With one subscriber in the process, what another test's thread logs first would be taken for
    // something that nobody wants to hear of; with two, each is asked.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    // This test's thread runs the listener too.
    let _guard = tracing::subscriber::set_default(subscriber);
    let window = Window::on("127.0.0.1:0", Some(TOKEN)).await;
    let old = Event {
        received_at: UnixMs(1_700_000_000_000),
        ..event("billing", "evt_1")
    };
    window.dead(old).await;
    let bearer = format!("Bearer {TOKEN}");
    let headers = [JSON, ("Authorization", bearer.as_str())];
    let body = br#"{"filter":{"state":"dead","endpoint":"billing\nforged line"}}"#;
    window.ask("POST", "/inbox/redeliver", &headers, body).await;
    let body = br#"{"filter":{"state":"dead"}}"#;
    window.ask("POST", "/inbox/redeliver", &headers, body).await;
    window.ask("POST", "/inbox/redeliver", &[JSON], body).await;
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let rows: Vec<serde_json::Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let changed: Vec<_> = rows
        .iter()
        .map(|row| &row["fields"])
        .filter(|f| f["admin.verb"] == "redeliver")
        .map(|f| {
            (
                f["admin.who"].as_str().unwrap(),
                f["inbox.entries"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(changed, [("token", 0), ("token", 1)], "{text}");
    assert!(
        text.contains("\"admin.problem\":\"unauthenticated\""),
        "{text}"
    );
    assert!(
        text.contains("\"admin.peer\":\"127.0.0.1:") && !text.contains(TOKEN),
        "{text}"
    );
}

#[tokio::test]
async fn a_running_edge_asks_for_its_token_and_a_reload_replaces_it() {
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let admin = "[listeners.admin]\naddress = \"127.0.0.1:0\"";
    let with = format!(
        "{admin}\ntoken = {{ secret_file = \"{}\" }}",
        file.display()
    );
    let origin = Origin::start(TokenIssuer::new().jwks(), |_| Script::status(200)).await;
    let edge = Edge::start(Setup {
        origins: vec![origin.address],
        extra: "",
        replace: vec![(admin, &with)],
    })
    .await;
    let status = async |token: &str| {
        let mut connection = Connection::plain(edge.admin).await.unwrap();
        let token = format!("Bearer {token}");
        let headers = [("Authorization", token.as_str())];
        let answer = connection.request("GET", "/refusals", &headers, b"");
        within("an answer", answer).await.unwrap().status
    };
    assert_eq!(edge.admin("/refusals").await.unwrap().status, 401);
    assert_eq!(edge.admin("/metrics").await.unwrap().status, 200);
    assert_eq!(status(TOKEN).await, 200);
    let next = "the-next-admin-token-of-32-chars-1";
    std::fs::write(&file, next).unwrap();
    until("the new token counts", || async {
        (status(next).await == 200).then_some(())
    })
    .await;
    assert_eq!(status(TOKEN).await, 401);
    // What is behind the door is the edge's own inbox.
    let mut connection = Connection::plain(edge.admin).await.unwrap();
    let token = format!("Bearer {next}");
    let headers = [("Authorization", token.as_str())];
    let answer = connection
        .request("GET", "/inbox", &headers, b"")
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

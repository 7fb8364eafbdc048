//! A new configuration or new certificates under traffic: nothing that is open notices, what comes
//! next is served by the new ones, and a bad one changes nothing.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::client::{Connection, Response, tls, tls_config};
use crate::harness::edge::{Edge, Setup};
use crate::harness::keys::TokenIssuer;
use crate::harness::load::Load;
use crate::harness::origin::{Origin, Script};
use crate::harness::stream::{Protocol, Stage};
use crate::harness::until;

const SIGHUP: i32 = 1;
const APPLIED: &str = "maitred_config_reloads_total{result=\"applied\"}";
const REFUSED: &str = "maitred_config_reloads_total{result=\"refused\"}";
/// One more route.
const NEW_ROUTE: &str = "\n[[routes]]\npath = \"/new/{*rest}\"\nauth = \"public\"\nlimits = []\n";

async fn counted(edge: &Edge, series: &str, at_least: f64) {
    until(series, || async {
        (edge.metric(series).await >= at_least).then_some(())
    })
    .await;
}

async fn digest(edge: &Edge) -> String {
    let version = edge.admin_json("/version").await;
    version["config"].as_str().unwrap().to_owned()
}

async fn get(edge: &Edge, target: &str) -> Response {
    let mut connection = edge.connect().await;
    connection.request("GET", target, &[], b"").await.unwrap()
}

fn add_route(text: &str) -> String {
    format!("{text}{NEW_ROUTE}")
}

/// The certificate that a new handshake gets for this name.
async fn leaf(edge: &Edge, name: &str) -> Vec<u8> {
    let io = tls(edge.https, name, tls_config(&edge.ca, &["http/1.1"]));
    let io = io.await.unwrap();
    io.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn a_reload_cuts_no_stream_and_reaches_what_comes_next() {
    let stage = Stage::with("").await;
    let edge = &stage.edge;
    let (mut h1, one) = stage.open(Protocol::H1, "usr_a").await;
    let (mut h2, two) = stage.open(Protocol::H2, "usr_a").await;
    let mut kept = edge.connect().await;
    assert_eq!(
        kept.request("GET", "/new/x", &[], b"")
            .await
            .unwrap()
            .status,
        404
    );
    let before = digest(edge).await;

    edge.write_config(add_route);
    counted(edge, APPLIED, 1.0).await;
    assert_ne!(digest(edge).await, before);
    assert_eq!(
        kept.request("GET", "/new/x", &[], b"")
            .await
            .unwrap()
            .status,
        200
    );

    // SIGHUP reloads even where no file changed.
    for times in 2..5 {
        edge.signal(SIGHUP);
        counted(edge, APPLIED, f64::from(times)).await;
        stage.feeds.send_all(&format!("data: {times}\n\n"));
        for events in [&mut h1, &mut h2] {
            events.expect(&format!("data: {times}\n\n")).await;
        }
    }
    // Their slots are still counted, in the state that outlives a reload.
    let token = stage.bearer("usr_a");
    let headers = [("authorization", &*token)];
    let target = "/stream/kpis?orgId=org_a";
    let third = kept.request("GET", target, &headers, b"").await.unwrap();
    assert_eq!(third.status, 429);
    stage.feeds.end(one);
    stage.feeds.end(two);
    assert!(h1.finish().await && h2.finish().await);
    assert_eq!(h1.seen, "data: 2\n\ndata: 3\n\ndata: 4\n\n");
    assert_eq!(edge.metric(REFUSED).await, 0.0);
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_explained() {
    let stage = Stage::with("").await;
    let edge = &stage.edge;
    let (mut events, index) = stage.open(Protocol::H2, "usr_a").await;
    let before = digest(edge).await;
    let good = std::fs::read_to_string(&edge.config).unwrap();
    let line = 1 + good
        .lines()
        .position(|l| l.starts_with("announce_ms"))
        .unwrap();

    edge.write_config(|text| {
        add_route(text).replace("announce_ms = 300", "announce_ms = \"soon\"")
    });
    counted(edge, REFUSED, 1.0).await;
    let status = edge.admin_json("/config").await;
    assert_eq!(status["digest"], before);
    let errors = status["last_errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{errors:?}");
    let error = errors[0].as_str().unwrap();
    assert!(error.contains(&format!("maitred.toml:{line}:")), "{error}");
    assert!(error.contains("drain.announce_ms"), "{error}");
    assert!(edge.log().contains("configuration not reloaded"));

    // All that is wrong at once, and not TOML at all.
    edge.write_config(|_| {
        good.replace("[drain]", "[drian]")
            .replace("threads = 2", "threads = -2")
    });
    counted(edge, REFUSED, 2.0).await;
    let errors = edge.admin_json("/config").await["last_errors"].clone();
    assert!(errors.as_array().unwrap().len() >= 2, "{errors}");
    edge.write_config(|_| "this is no configuration".to_owned());
    counted(edge, REFUSED, 3.0).await;

    assert_eq!(get(edge, "/new/x").await.status, 404);
    assert_eq!(get(edge, "/open/x").await.status, 200);
    stage.feeds.send(index, "data: unmoved\n\n");
    events.expect("data: unmoved\n\n").await;
    assert_eq!(edge.metric(APPLIED).await, 0.0);

    edge.write_config(|_| add_route(&good));
    counted(edge, APPLIED, 1.0).await;
    assert_eq!(get(edge, "/new/x").await.status, 200);
    let status = edge.admin_json("/config").await;
    assert_eq!(status["last_errors"].as_array().unwrap().len(), 0);
    assert_eq!(edge.metric(REFUSED).await, 3.0);
}

#[tokio::test]
async fn a_configuration_volume_is_swapped_by_its_symlink() {
    let stage = Stage::with("").await;
    let edge = &stage.edge;
    let dir = edge.dir.path();
    let good = std::fs::read_to_string(&edge.config).unwrap();
    volume(dir, "..v1", &good);
    std::os::unix::fs::symlink("..v1", dir.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/maitred.toml", dir.join("link")).unwrap();
    std::fs::rename(dir.join("link"), &edge.config).unwrap();
    assert_eq!(get(edge, "/new/x").await.status, 404);

    // As the kubelet does it: a new folder, and one rename of the link to it.
    volume(dir, "..v2", &add_route(&good));
    std::os::unix::fs::symlink("..v2", dir.join("..data_tmp")).unwrap();
    std::fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    until("the new route", || async {
        (get(edge, "/new/x").await.status == 200).then_some(())
    })
    .await;
}

fn volume(dir: &Path, name: &str, text: &str) {
    std::fs::create_dir(dir.join(name)).unwrap();
    std::fs::write(dir.join(name).join("maitred.toml"), text).unwrap();
}

#[tokio::test]
async fn new_certificates_come_with_a_file_change_and_cost_no_request() {
    let stage = Stage::with("").await;
    let edge = &stage.edge;
    let (mut events, index) = stage.open(Protocol::H2, "usr_a").await;
    let mut kept = edge.connect().await;
    // An open connection that has had no request would soon be cut for its silence.
    let first = kept.request("GET", "/open/x", &[], b"").await.unwrap();
    assert_eq!(first.status, 200);
    let load = Load::start(edge);
    load.proceed(5).await;
    let mut seen = vec![leaf(edge, "localhost").await];
    let other = leaf(edge, "other.test").await;
    for _ in 0..3 {
        edge.authority
            .issue(edge.dir.path(), "localhost", &["localhost"]);
        let old = seen.last().unwrap().clone();
        let new = until("the new certificate", || async {
            let now = leaf(edge, "localhost").await;
            (now != old).then_some(now)
        })
        .await;
        assert!(!seen.contains(&new));
        seen.push(new);
        load.proceed(5).await;
    }
    assert_eq!(
        leaf(edge, "other.test").await,
        other,
        "nobody touched this one"
    );
    assert_eq!(
        kept.request("GET", "/open/x", &[], b"")
            .await
            .unwrap()
            .status,
        200
    );
    stage.feeds.send(index, "data: unmoved\n\n");
    events.expect("data: unmoved\n\n").await;
    let tally = load.finish().await;
    assert_eq!(tally.failures(), Vec::<String>::new());
    assert_eq!(tally.unreached().len(), 0);
}

#[tokio::test]
async fn a_broken_certificate_changes_nothing_until_it_is_mended() {
    let stage = Stage::with("").await;
    let edge = &stage.edge;
    let before = leaf(edge, "localhost").await;
    let chain = edge.dir.path().join("localhost.pem");
    let broken = [
        "no certificate".to_owned(),
        // Of another key.
        std::fs::read_to_string(edge.dir.path().join("other.pem")).unwrap(),
    ];
    for (text, times) in broken.iter().zip(1_u8..) {
        std::fs::write(&chain, text).unwrap();
        if times == 1 {
            edge.write_config(add_route);
        }
        edge.signal(SIGHUP);
        counted(edge, REFUSED, f64::from(times)).await;
        assert_eq!(leaf(edge, "localhost").await, before);
        assert_eq!(get(edge, "/new/x").await.status, 404, "whole or not at all");
        let errors = edge.admin_json("/config").await["last_errors"].to_string();
        assert!(errors.contains("localhost."), "{errors}");
    }
    edge.authority
        .issue(edge.dir.path(), "localhost", &["localhost"]);
    until("the mended certificate", || async {
        (leaf(edge, "localhost").await != before).then_some(())
    })
    .await;
    until("the new route", || async {
        (get(edge, "/new/x").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_the_rest_applies() {
    let stage = Stage::with("").await;
    let edge = &stage.edge;
    edge.write_config(|text| {
        let text = text.replace("threads = 2", "threads = 3");
        let text = text.replace("announce_ms = 300", "announce_ms = 301");
        add_route(&text).replace("redirect_to_port = 443", "redirect_to_port = 444")
    });
    counted(edge, APPLIED, 1.0).await;
    let waiting = edge.admin_json("/config").await["needs_restart"].clone();
    assert_eq!(
        waiting,
        serde_json::json!(["drain.announce_ms", "server.threads"])
    );
    assert_eq!(get(edge, "/new/x").await.status, 200);
    let mut plain = Connection::plain(edge.http).await.unwrap();
    let moved = plain.request("GET", "/open/a", &[], b"").await.unwrap();
    assert_eq!(
        moved.header("location"),
        // A text in a header: nobody binds it.
        Some("https://localhost:444/open/a")
    );
}

#[tokio::test]
async fn limits_are_counted_on_over_a_reload_and_change_with_it() {
    let stage = Stage::of(
        "",
        "[plans.TRIAL]\nrequests = 3\nwindow_s = 600",
        Vec::new(),
    )
    .await;
    let edge = &stage.edge;
    let token = format!(
        "Bearer {}",
        stage.issuer.token("usr_t", &["org_a"], "TRIAL")
    );
    let headers = [("authorization", &*token)];
    let mut client = edge.connect().await;
    for _ in 0..2 {
        let answer = client.request("GET", "/closed/x", &headers, b"").await;
        assert_eq!(answer.unwrap().status, 200);
    }
    edge.write_config(add_route);
    counted(edge, APPLIED, 1.0).await;
    let third = client
        .request("GET", "/closed/x", &headers, b"")
        .await
        .unwrap();
    assert_eq!(
        (third.status, third.header("x-ratelimit-remaining")),
        (200, Some("0"))
    );
    let fourth = client
        .request("GET", "/closed/x", &headers, b"")
        .await
        .unwrap();
    assert_eq!(fourth.status, 429, "a reload is no way to a new quota");

    edge.write_config(|text| text.replace("requests = 3", "requests = 9"));
    counted(edge, APPLIED, 2.0).await;
    let fifth = client
        .request("GET", "/closed/x", &headers, b"")
        .await
        .unwrap();
    assert_eq!(
        (fifth.status, fifth.header("x-ratelimit-limit")),
        (200, Some("9"))
    );
}

#[tokio::test]
async fn upstreams_change_while_requests_are_in_flight() {
    let issuer = TokenIssuer::new();
    let count = std::sync::Arc::new(AtomicUsize::new(0));
    let inner = count.clone();
    let old = Origin::start(issuer.jwks(), move |seen| {
        inner.fetch_add(1, Ordering::Relaxed);
        match seen.target.as_str() {
            "/open/slow" => Script::Late(Duration::from_millis(1500)),
            _ => Script::json("{\"from\":\"old\"}"),
        }
    })
    .await;
    let new = Origin::start(issuer.jwks(), |_| Script::json("{\"from\":\"new\"}")).await;
    let edge = Edge::start(Setup {
        origins: vec![old.address],
        extra: "",
        replace: Vec::new(),
    })
    .await;
    let load = Load::start(&edge);
    load.proceed(5).await;
    let slow = get(&edge, "/open/slow");
    let change = async {
        until("the slow request is in flight", || async {
            let seen = old.seen();
            seen.iter().any(|s| s.target == "/open/slow").then_some(())
        })
        .await;
        let (from, to) = (old.address.to_string(), new.address.to_string());
        edge.write_config(|text| text.replace(&from, &to));
        counted(&edge, APPLIED, 1.0).await;
        until("the new origin is asked", || async {
            (get(&edge, "/open/x").await.text().contains("new")).then_some(())
        })
        .await;
    };
    let (slow, ()) = tokio::join!(slow, change);
    assert_eq!(
        (slow.status, slow.text().as_str()),
        (200, "late"),
        "finished where it was"
    );

    load.proceed(5).await;
    let asked = count.load(Ordering::Relaxed);
    load.proceed(10).await;
    assert_eq!(
        count.load(Ordering::Relaxed),
        asked,
        "the old origin is left alone"
    );
    drop(old);
    load.proceed(10).await;
    assert_eq!(load.finish().await.failures(), Vec::<String>::new());
}

#[tokio::test]
async fn a_directory_that_never_rests_does_not_hold_a_reload_up() {
    let stage = Stage::with("").await;
    let edge = &stage.edge;
    let noise = edge.dir.path().join("access.log");
    let noisy = tokio::spawn(async move {
        let mut beat = tokio::time::interval(Duration::from_millis(20));
        loop {
            beat.tick().await;
            std::fs::write(&noise, "a line\n").unwrap();
        }
    });
    edge.write_config(add_route);
    counted(edge, APPLIED, 1.0).await;
    assert_eq!(get(edge, "/new/x").await.status, 200);
    noisy.abort();
    assert_eq!(
        edge.metric(APPLIED).await,
        1.0,
        "other files are none of ours"
    );
}

#[tokio::test]
async fn a_file_that_made_a_reload_fail_is_watched_until_it_is_mended() {
    let stage = Stage::with("").await;
    let edge = &stage.edge;
    let before = leaf(edge, "localhost").await;
    let elsewhere = edge.dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    edge.write_config(|text| text.replace("/localhost.", "/elsewhere/localhost."));
    counted(edge, REFUSED, 1.0).await;
    assert_eq!(leaf(edge, "localhost").await, before);
    edge.authority
        .issue(&elsewhere, "localhost", &["localhost"]);
    counted(edge, APPLIED, 1.0).await;
    assert_ne!(leaf(edge, "localhost").await, before);
}

//! A new process takes the listeners over from a running one (SIGQUIT): nobody who is being served
//! notices, and a successor that fails costs nothing.

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use crate::harness::client::Connection;
use crate::harness::edge::{Edge, refused_start};
use crate::harness::load::Load;
use crate::harness::stream::{BOTH, Protocol, Stage};
use crate::harness::{until, within};

const SIGTERM: i32 = 15;
const SIGQUIT: i32 = 3;

/// Starts a successor and tells the old process, once the successor waits.
async fn upgrade(old: &Edge) -> Edge {
    let tell = async {
        until("the successor waits", || async {
            old.upgrade_socket().exists().then_some(())
        })
        .await;
        old.signal(SIGQUIT);
    };
    let (new, ()) = tokio::join!(old.successor(), tell);
    new
}

async fn serves(edge: &Edge) {
    for _ in 0..5 {
        let mut client = edge.connect().await;
        let answer = client.request("GET", "/open/x", &[], b"").await.unwrap();
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn an_upgrade_under_load_fails_no_request_and_no_connection() {
    let mut stage = Stage::with("").await;
    let load = Load::start(&stage.edge);
    load.proceed(20).await;
    let mut new = upgrade(&stage.edge).await;
    assert_eq!(
        (new.https, new.http, new.admin),
        (stage.edge.https, stage.edge.http, stage.edge.admin)
    );
    assert_eq!(stage.edge.exit_code().await, Some(0));
    load.proceed(20).await;

    // And once more: what was handed over can be handed on.
    let newest = upgrade(&new).await;
    assert_eq!(new.exit_code().await, Some(0));
    load.proceed(20).await;
    let tally = load.finish().await;
    assert_eq!(tally.failures(), Vec::<String>::new());
    assert_eq!(tally.unreached().len(), 0);
    serves(&newest).await;
}

#[tokio::test]
async fn old_streams_are_told_to_come_back_and_find_the_new_process() {
    let replace = vec![("streams_window_ms = 500", "streams_window_ms = 1500")];
    let mut stage = Stage::of("concurrent_per_user = 20", "", replace).await;
    let mut open = Vec::new();
    for number in 0..10 {
        open.push(stage.open(BOTH[number % 2], "usr_a").await.0);
    }
    let new = upgrade(&stage.edge).await;
    stage.feeds.send_all("data: during\n\n");
    let mut ends = tokio::task::JoinSet::new();
    for mut events in open {
        ends.spawn(async move {
            assert!(events.finish().await);
            assert!(
                events.seen.starts_with("data: during\n\n"),
                "{}",
                events.seen
            );
            assert_eq!(events.goodbye().unwrap().0, "drain");
            Instant::now()
        });
    }
    let at = within("all streams end", ends.join_all()).await;
    let spread = *at.iter().max().unwrap() - *at.iter().min().unwrap();
    assert!(
        spread > Duration::from_millis(400),
        "all at once: {spread:?}"
    );
    assert_eq!(stage.edge.exit_code().await, Some(0));

    // The stage's edge is gone; its addresses are not.
    stage.edge = new;
    for protocol in BOTH {
        let (mut events, index) = stage.open(protocol, "usr_a").await;
        stage.feeds.send(index, "data: after\n\n");
        events.expect("data: after\n\n").await;
    }
}

#[tokio::test]
async fn readiness_stays_on_during_an_upgrade() {
    let stage = Stage::with("").await;
    let watched = async {
        loop {
            let mut probe = Connection::plain(stage.edge.http).await.unwrap();
            let answer = probe.request("GET", "/readiness", &[], b"").await.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let story = async {
        let new = upgrade(&stage.edge).await;
        until("the old process leaves", || async {
            stage.edge.log().contains("leaving: done").then_some(())
        })
        .await;
        new
    };
    let new = tokio::select! {
        () = watched => unreachable!(),
        new = story => new,
    };
    serves(&new).await;
}

#[tokio::test]
async fn a_successor_that_cannot_start_leaves_the_old_one_serving() {
    let mut stage = Stage::with("").await;
    let load = Load::start(&stage.edge);
    let (mut events, index) = stage.open(Protocol::H2, "usr_a").await;
    let config = stage.edge.successor_config();
    let broken = std::fs::read_to_string(&config).unwrap();
    // Found out only after the sockets changed hands.
    let broken = broken.replace("/other.pem", "/missing.pem");
    std::fs::write(&config, broken).unwrap();
    let tell = async {
        until("the successor waits", || async {
            stage.edge.upgrade_socket().exists().then_some(())
        })
        .await;
        stage.edge.signal(SIGQUIT);
    };
    let ((code, said), ()) = tokio::join!(refused_start(&config, &["--upgrade"]), tell);
    assert!(code.is_some_and(|code| code != 0), "{code:?}");
    assert!(said.contains("missing.pem"), "{said}");
    still_serving(&mut stage, load).await;
    stage.feeds.send(index, "data: unmoved\n\n");
    events.expect("data: unmoved\n\n").await;
    assert_eq!(events.seen, "data: unmoved\n\n");
}

#[tokio::test]
async fn a_successor_that_dies_with_the_sockets_leaves_the_old_one_serving() {
    let mut stage = Stage::with("").await;
    let load = Load::start(&stage.edge);
    // What the old process sees of a successor that is killed before it serves.
    let dying = UnixListener::bind(stage.edge.upgrade_socket()).unwrap();
    dying.set_nonblocking(true).unwrap();
    let dying = tokio::net::UnixListener::from_std(dying).unwrap();
    stage.edge.signal(SIGQUIT);
    let (mut stream, _) = within("the old process comes", dying.accept())
        .await
        .unwrap();
    let mut addresses = [0; 512];
    let count = within("the sockets", stream.read(&mut addresses))
        .await
        .unwrap();
    let addresses = String::from_utf8_lossy(&addresses[..count]).into_owned();
    assert_eq!(addresses.lines().count(), 3, "{addresses}");
    drop(stream);
    drop(dying);
    std::fs::remove_file(stage.edge.upgrade_socket()).unwrap();
    still_serving(&mut stage, load).await;

    // The next one gets them all the same.
    let new = upgrade(&stage.edge).await;
    assert_eq!(stage.edge.exit_code().await, Some(0));
    serves(&new).await;
}

#[tokio::test]
async fn killing_a_successor_that_waits_leaves_the_old_one_serving() {
    let stage = Stage::with("").await;
    let config = stage.edge.successor_config();
    let waiting = tokio::time::timeout(
        Duration::from_secs(2),
        refused_start(&config, &["--upgrade"]),
    );
    // Killed when it is dropped; its socket stays behind.
    assert!(waiting.await.is_err(), "it waits for its predecessor");
    assert!(stage.edge.upgrade_socket().exists());
    serves(&stage.edge).await;
    let new = upgrade(&stage.edge).await;
    serves(&new).await;
}

#[tokio::test]
async fn an_upgrade_without_successor_can_be_given_up() {
    let mut stage = Stage::with("").await;
    stage.edge.signal(SIGQUIT);
    until("it looks for a successor", || async {
        stage
            .edge
            .log()
            .contains("handing the listeners over")
            .then_some(())
    })
    .await;
    serves(&stage.edge).await;
    // Termination does not wait for the successor that never came.
    let start = Instant::now();
    stage.edge.signal(SIGTERM);
    assert_eq!(stage.edge.exit_code().await, Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

/// The upgrade was given up, nobody noticed, and nothing is left of it.
async fn still_serving(stage: &mut Stage, load: Load) {
    until("the upgrade is given up", || async {
        stage.edge.log().contains("no upgrade").then_some(())
    })
    .await;
    load.proceed(20).await;
    assert!(stage.edge.is_running());
    let tally = load.finish().await;
    assert_eq!(tally.failures(), Vec::<String>::new());
    assert_eq!(tally.unreached().len(), 0);
    let phase = stage.edge.admin_json("/health/detailed").await["phase"].clone();
    assert_eq!(phase, "serving");
}

//! The issuer's keys: how often they are fetched, how they change, and what happens when the issuer is
//! away.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::harness::edge::{Edge, Setup};
use crate::harness::either::{Client, Speaks};
use crate::harness::keys::{TokenIssuer, claims};
use crate::harness::origin::{Origin, Script};
use crate::harness::until;

/// An issuer with a service of its own, whose key set tests change; `None` = it fails.
struct Published {
    origin: Origin,
    keys: Arc<Mutex<Option<Value>>>,
}

impl Published {
    async fn new(issuer: &TokenIssuer) -> Self {
        let keys = Arc::new(Mutex::new(Some(issuer.jwks())));
        let shown = keys.clone();
        let origin = Origin::start(json!({"keys": []}), move |_| {
            match &*shown.lock().unwrap() {
                Some(keys) => Script::json(&keys.to_string()),
                None => Script::status(500),
            }
        })
        .await;
        Self { origin, keys }
    }

    fn publish(&self, keys: Option<Value>) {
        *self.keys.lock().unwrap() = keys;
    }

    /// An edge that asks this issuer for keys, as often as it may.
    async fn edge(&self, api: &Origin) -> Edge {
        let extra = format!(
            "[upstreams.issuer]\nendpoints = [\"{}\"]\n[upstreams.issuer.breaker]\nfailures = 100000\n",
            self.origin.address
        );
        Edge::start(Setup {
            origins: vec![api.address],
            extra: &extra,
            replace: vec![(
                "jwks_upstream = \"api\"",
                "jwks_upstream = \"issuer\"\njwks_path = \"/keys\"\nkeys_ttl_s = 1\nkeys_cooldown_s = 1",
            )],
        })
        .await
    }
}

async fn api() -> Origin {
    Origin::start(json!({"keys": []}), |_| Script::json("{}")).await
}

async fn status(edge: &Edge, issuer: &TokenIssuer) -> u16 {
    let token = issuer.encode(&claims("usr_a", &["org_a"], "ENT", 900));
    let bearer = format!("Bearer {token}");
    let mut client = Client::open(edge, Speaks::Http2).await;
    client
        .get("/closed/x", &[("authorization", &bearer)])
        .await
        .status
}

#[tokio::test]
async fn a_flood_of_unknown_keys_is_a_trickle_at_the_issuer() {
    let issuer = TokenIssuer::new();
    let origin = Origin::start(issuer.jwks(), |_| Script::json("{}")).await;
    let edge = Edge::before(&origin).await;
    let connection = edge.connect_h2().await;
    let mut stranger = TokenIssuer::new();
    let mut answers = Vec::new();
    for n in 0..200 {
        stranger.kid = format!("unknown-{n}");
        let token = stranger.encode(&claims("usr_a", &["org_a"], "ENT", 900));
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", &*bearer)];
        let answer = connection.start("GET", "/closed/x", &headers, true).await;
        answers.push(answer.unwrap().0);
        if n % 50 == 0 {
            assert_eq!(
                status(&edge, &issuer).await,
                200,
                "the honest are served meanwhile"
            );
        }
    }
    for answer in answers {
        assert_eq!(answer.await.unwrap().status().as_u16(), 401);
    }
    // One at the start, one for the first unknown name, and one more per ten seconds.
    assert!(origin.key_fetches() <= 4, "{}", origin.key_fetches());
}

#[tokio::test]
async fn while_the_issuer_is_away_its_last_keys_are_good() {
    let issuer = TokenIssuer::new();
    let published = Published::new(&issuer).await;
    let api = api().await;
    let edge = published.edge(&api).await;
    until("the first keys", || async {
        (status(&edge, &issuer).await == 200).then_some(())
    })
    .await;
    for broken in [None, Some(json!({"keys": []})), Some(json!("nonsense"))] {
        published.publish(broken.clone());
        let before = published.origin.seen().len();
        until("it was asked in vain twice", || async {
            assert_eq!(status(&edge, &issuer).await, 200, "{broken:?}");
            (published.origin.seen().len() >= before + 2).then_some(())
        })
        .await;
        assert_eq!(status(&edge, &issuer).await, 200, "{broken:?}");
    }
    drop(published);
    for _ in 0..5 {
        assert_eq!(
            status(&edge, &issuer).await,
            200,
            "with nobody there at all"
        );
    }
}

#[tokio::test]
async fn new_keys_come_in_and_old_ones_go_without_a_restart() {
    let old = TokenIssuer::new();
    let mut new = TokenIssuer::new();
    new.kid = "test-2".into();
    let published = Published::new(&old).await;
    let api = api().await;
    let edge = published.edge(&api).await;
    until("the first keys", || async {
        (status(&edge, &old).await == 200).then_some(())
    })
    .await;
    assert_eq!(status(&edge, &new).await, 401);

    let mut both = old.jwks();
    both["keys"]
        .as_array_mut()
        .unwrap()
        .push(new.jwks()["keys"][0].clone());
    published.publish(Some(both));
    until("the new key", || async {
        (status(&edge, &new).await == 200).then_some(())
    })
    .await;
    assert_eq!(status(&edge, &old).await, 200);

    // The same token again and again: remembered ones go with their key.
    let token = old.encode(&claims("usr_a", &["org_a"], "ENT", 900));
    let bearer = format!("Bearer {token}");
    published.publish(Some(new.jwks()));
    until("the old key is gone", || async {
        let mut client = Client::open(&edge, Speaks::Http1).await;
        let answer = client.get("/closed/x", &[("authorization", &bearer)]).await;
        (answer.status == 401).then_some(())
    })
    .await;
    assert_eq!(status(&edge, &new).await, 200);
}

#[tokio::test]
async fn without_any_keys_nobody_passes_and_nothing_breaks() {
    let issuer = TokenIssuer::new();
    let published = Published::new(&issuer).await;
    published.publish(None);
    let api = api().await;
    let edge = published.edge(&api).await;
    let refused = status(&edge, &issuer).await;
    assert!([401, 503].contains(&refused), "{refused}");
    assert_eq!(api.byte_count(), 0);
    published.publish(Some(issuer.jwks()));
    until("the issuer is back", || async {
        (status(&edge, &issuer).await == 200).then_some(())
    })
    .await;
}

//! The inbox on Redis: the suite of every engine, and what only several nodes can show.

use std::collections::HashSet;
use std::time::Duration;

use maitred::kernel::clock::{Clock, UnixMs};
use maitred::webhook::inbox::redis::Settings;
use maitred::webhook::inbox::{
    Attempt, Claimed, DeadReason, EntryId, Event, Health, Inbox, Memory, MemoryOf, Outcome, Policy,
    Selection, Settlement, Spread, Standing, State, Unwritable,
};
use maitred::webhook::replay::{self, ReplayKey, Store};
use maitred::webhook::scheme::OnReplay;
use maitred::webhook::verify::{EventId, Verified};
use maitred::webhook::{Arrival, Refusal};

use crate::harness::redis::{Node, RedisServer};
use crate::harness::{until, within};

#[path = "../../../src/webhook/inbox/conformance.rs"]
mod conformance;

use conformance::{Harness, event};

/// Long enough that a busy machine never loses a claim by accident.
const LONG_LEASE: Duration = Duration::from_secs(60);
/// Short enough to be waited out.
const SHORT_LEASE: Duration = Duration::from_millis(600);

fn open(node: &Node, prefix: &str, policy: Policy, lease: Duration) -> Inbox {
    Inbox::on_redis(Settings {
        redis: node.redis.clone(),
        prefix: prefix.into(),
        policy,
        clock: Clock::system(),
        lease,
    })
}

struct OnRedis {
    node: Node,
    places: u32,
    _server: RedisServer,
}

impl OnRedis {
    fn open(&self, policy: Policy) -> Inbox {
        open(
            &self.node,
            &format!("place{}", self.places),
            policy,
            LONG_LEASE,
        )
    }
}

impl Harness for OnRedis {
    async fn fresh(&mut self, policy: Policy) -> Inbox {
        self.places += 1;
        self.open(policy)
    }

    async fn again(&mut self, inbox: Inbox, policy: Policy) -> (Inbox, Vec<Memory>) {
        inbox.release().await;
        drop(inbox);
        (self.open(policy), Vec::new())
    }
}

#[tokio::test]
async fn the_engine_on_redis_conforms() {
    let server = RedisServer::start(&[]).await;
    let mut engine = OnRedis {
        node: server.node().await,
        places: 0,
        _server: server,
    };
    conformance::all_but_memories(&mut engine).await;
}

fn ordered(event_id: &str, order_key: &str) -> Event {
    Event {
        order_key: Some(order_key.into()),
        ..event("billing", event_id, b"{}")
    }
}

fn delivered() -> Settlement {
    Settlement::Delivered(Attempt {
        at: UnixMs(2_000),
        took_ms: 7,
        outcome: Outcome::Status(200),
    })
}

const NOW: UnixMs = UnixMs(2_000);

async fn claim(inbox: &Inbox) -> Vec<Claimed> {
    inbox.claim("api", 100, NOW).await
}

async fn claim_at_last(inbox: &Inbox, what: &str) -> Vec<EntryId> {
    let ids = async || {
        let ids: Vec<_> = claim(inbox).await.iter().map(|c| c.id).collect();
        (!ids.is_empty()).then_some(ids)
    };
    until(what, ids).await
}

#[tokio::test]
async fn what_a_killed_node_held_goes_to_another_in_order() {
    let server = RedisServer::start(&[]).await;
    let (first, second) = (server.node().await, server.node().await);
    let (here, there) = (
        open(&first, "test", Policy::default(), SHORT_LEASE),
        open(&second, "test", Policy::default(), SHORT_LEASE),
    );
    let a1 = here.append(ordered("a1", "a"), Vec::new()).await.unwrap();
    let a2 = there.append(ordered("a2", "a"), Vec::new()).await.unwrap();
    let retried = here
        .append(event("billing", "b1", b"{}"), Vec::new())
        .await
        .unwrap();
    let retry = Settlement::Retry {
        attempt: Attempt {
            at: NOW,
            took_ms: 1,
            outcome: Outcome::NoAnswer("reset".into()),
        },
        due: UnixMs(1_500),
        yield_order: false,
    };
    assert_eq!(claim(&here).await.len(), 2, "a2 waits behind a1");
    here.settle(vec![(retried, retry)], NOW).await.unwrap();
    assert_eq!(claim(&here).await[0].id, retried, "leased as a retry");
    assert!(claim(&there).await.is_empty());

    // Killed: no release, no renewal, no word.
    drop(here);
    drop(first);
    let mut back = HashSet::new();
    while back.len() < 2 {
        back.extend(claim_at_last(&there, "a dead node's claims come back").await);
    }
    assert_eq!(back, HashSet::from([a1, retried]));
    assert!(claim(&there).await.is_empty(), "a2 still waits");
    there.settle(vec![(a1, delivered())], NOW).await.unwrap();
    assert_eq!(claim_at_last(&there, "a2 follows").await, [a2]);
}

#[tokio::test]
async fn a_living_node_keeps_what_it_has_claimed() {
    let server = RedisServer::start(&[]).await;
    let (first, second) = (server.node().await, server.node().await);
    let here = open(&first, "test", Policy::default(), SHORT_LEASE);
    let there = open(&second, "test", Policy::default(), SHORT_LEASE);
    let slow = here
        .append(event("billing", "slow", b"{}"), Vec::new())
        .await
        .unwrap();
    assert_eq!(claim(&here).await[0].id, slow);
    // For several leases the other asks all the time and gets nothing.
    let end = tokio::time::Instant::now() + SHORT_LEASE * 4;
    while tokio::time::Instant::now() < end {
        assert!(claim(&there).await.is_empty());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    here.settle(vec![(slow, delivered())], NOW).await.unwrap();
    assert!(claim(&there).await.is_empty());
}

#[tokio::test]
async fn what_is_appended_at_one_node_wakes_the_other() {
    let server = RedisServer::start(&[]).await;
    let (first, second) = (server.node().await, server.node().await);
    let here = open(&first, "test", Policy::default(), LONG_LEASE);
    let there = open(&second, "test", Policy::default(), LONG_LEASE);
    let mut changes = there.subscribe();
    let id = here
        .append(event("billing", "evt", b"{}"), Vec::new())
        .await
        .unwrap();
    let woken = async {
        loop {
            changes.changed().await.unwrap();
            if let Some(found) = claim(&there).await.first() {
                return found.id;
            }
        }
    };
    assert_eq!(within("it is woken", woken).await, id);
}

/// Every event of two nodes' appends is claimed once, whoever claims.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_claim_at_once_never_get_the_same() {
    const EVENTS: usize = 400;
    let server = RedisServer::start(&[]).await;
    let nodes = [server.node().await, server.node().await];
    let inboxes = [0, 1].map(|n| open(&nodes[n], "test", Policy::default(), LONG_LEASE));
    for n in 0..EVENTS {
        let event = event("billing", &format!("evt_{n}"), b"{}");
        inboxes[n % 2].append(event, Vec::new()).await.unwrap();
    }
    let takers = (0..8).map(|taker: usize| {
        let inbox = inboxes[taker % 2].clone();
        tokio::spawn(async move {
            let mut taken = Vec::new();
            loop {
                let some = inbox.claim("api", 7, NOW).await;
                if some.is_empty() {
                    return taken;
                }
                let ids: Vec<_> = some.iter().map(|c| c.id).collect();
                let done = ids.iter().map(|id| (*id, delivered())).collect();
                inbox.settle(done, NOW).await.unwrap();
                taken.extend(ids);
            }
        })
    });
    let mut all = Vec::new();
    for taker in takers.collect::<Vec<_>>() {
        all.extend(taker.await.unwrap());
    }
    assert_eq!(all.len(), EVENTS, "each once");
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), EVENTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_redis_is_killed() {
    let mut server = RedisServer::start(&[]).await;
    let node = server.node().await;
    let inbox = open(&node, "test", Policy::default(), LONG_LEASE);
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let writers = (0..8).map(|writer| {
            let inbox = inbox.clone();
            tokio::spawn(async move {
                let mut kept = Vec::new();
                for n in 0.. {
                    let name = format!("evt_{round}_{writer}_{n}");
                    let event = event("billing", &name, &[b'x'; 500]);
                    match inbox.append(event, Vec::new()).await {
                        Ok(id) => kept.push((id, name)),
                        Err(Unwritable::Failed(_)) => return kept,
                        Err(other) => panic!("{other}"),
                    }
                }
                kept
            })
        });
        let writers: Vec<_> = writers.collect();
        until("some are kept", async || {
            let stats = inbox.stats().await.ok()?;
            (stats.total(Standing::Pending).entries > 300 * (round + 1)).then_some(())
        })
        .await;
        server.kill();
        for writer in writers {
            acknowledged.extend(writer.await.unwrap());
        }
        server.restart().await;
        within("connected again", node.redis.connected()).await;
    }
    assert!(acknowledged.len() > 300, "{}", acknowledged.len());
    for (id, name) in &acknowledged {
        let shown = inbox.show(*id).await.unwrap();
        assert_eq!(*shown.expect(name).event.event_id, **name);
    }
    // Counted as they are, and all of them to be had.
    let pending = inbox.stats().await.unwrap().total(Standing::Pending);
    assert!(pending.entries >= u64::try_from(acknowledged.len()).unwrap());
    let mut claimed = HashSet::new();
    loop {
        let some = claim(&inbox).await;
        if some.is_empty() {
            break;
        }
        claimed.extend(some.iter().map(|c| c.id));
    }
    assert_eq!(u64::try_from(claimed.len()).unwrap(), pending.entries);
    assert!(acknowledged.iter().all(|(id, _)| claimed.contains(id)));
}

#[tokio::test]
async fn an_event_and_its_memory_are_kept_in_one_step() {
    let mut server = RedisServer::start(&[]).await;
    let (node, other) = (server.node().await, server.node().await);
    let inbox = open(&node, "test", Policy::default(), LONG_LEASE);
    let policy = replay::Policy::default();
    let store = Store::redis(policy, node.redis.clone(), "test");
    let now = Clock::system().unix();
    let message = Verified {
        covers: maitred::webhook::Covers::Body,
        replay_key: ReplayKey([7; 32]),
        signed_at: Some(now),
        expires_at: Some(UnixMs(now.0 + 305_000)),
        event_id: EventId::Signed("evt_1".into()),
        claimed_id: None,
        secret_name: "current".into(),
    };
    let reserve = async |store: &Store| {
        store
            .reserve("billing", &message, OnReplay::Reject, now)
            .await
    };
    let Ok(Arrival::Fresh(reservation)) = reserve(&store).await else {
        panic!("the first is fresh");
    };
    let rows = reservation.memory(now);
    assert_eq!(
        rows.iter().map(|r| r.of).collect::<Vec<_>>(),
        [MemoryOf::Message, MemoryOf::Event]
    );
    inbox
        .append(event("billing", "evt_1", b"{}"), rows)
        .await
        .unwrap();
    // The node dies before it commits; Redis is killed on top.
    std::mem::forget(reservation);
    server.kill();
    server.restart().await;
    let store = Store::redis(policy, other.redis.clone(), "test");
    let again = until("an answer", async || match reserve(&store).await {
        Err(Refusal::StoreAway) => None,
        other => Some(other),
    });
    assert_eq!(again.await.unwrap_err(), Refusal::Replay);
}

#[tokio::test]
async fn health_follows_redis_and_release_gives_claims_back() {
    let mut server = RedisServer::start(&[]).await;
    let (first, second) = (server.node().await, server.node().await);
    let here = open(&first, "test", Policy::default(), LONG_LEASE);
    let there = open(&second, "test", Policy::default(), LONG_LEASE);
    let id = here
        .append(event("billing", "evt", b"{}"), Vec::new())
        .await
        .unwrap();
    assert_eq!(claim(&here).await.len(), 1);
    here.release().await;
    assert_eq!(*here.health().borrow(), Health::Released);
    let refused = here.append(event("billing", "evt", b"{}"), Vec::new());
    assert!(refused.await.is_err());
    assert_eq!(claim(&there).await[0].id, id);

    let mut health = there.health();
    server.kill();
    let away = health.wait_for(|h| matches!(h, Health::Unwritable(_)));
    within("it is told", away).await.unwrap();
    assert!(claim(&there).await.is_empty());
    let lost = there.append(event("billing", "evt", b"{}"), Vec::new());
    assert!(matches!(lost.await, Err(Unwritable::Failed(_))));
    server.restart().await;
    let back = health.wait_for(|h| *h == Health::Ready);
    within("it is told again", back).await.unwrap();
    there.settle(vec![(id, delivered())], NOW).await.unwrap();
}

#[tokio::test]
async fn without_memory_an_event_is_refused_whole() {
    let server = RedisServer::start(&[]).await;
    let node = server.node().await;
    let inbox = open(&node, "test", Policy::default(), LONG_LEASE);
    let limit = async |bytes: &str| {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg("maxmemory").arg(bytes);
        let _: () = node.redis.call(&command).await.unwrap();
    };
    limit("1").await;
    let refused = inbox.append(event("billing", "evt", b"{}"), Vec::new());
    let full = Unwritable::Full {
        limit: "maxmemory of Redis",
    };
    assert_eq!(refused.await, Err(full));
    limit("0").await;
    assert_eq!(inbox.stats().await.unwrap().endpoints, []);
    inbox
        .append(event("billing", "evt", b"{}"), Vec::new())
        .await
        .unwrap();
}

#[tokio::test]
async fn an_idle_inbox_writes_nothing() {
    let server = RedisServer::start(&[]).await;
    let node = server.node().await;
    let inbox = open(&node, "test", Policy::default(), SHORT_LEASE);
    let written = async || -> u64 {
        let info: String = node.redis.call(&redis::cmd("INFO")).await.unwrap();
        let line = info
            .lines()
            .find_map(|l| l.strip_prefix("aof_current_size:"));
        line.unwrap().trim().parse().unwrap()
    };
    let empty = written().await;
    inbox
        .append(event("billing", "evt", b"{}"), Vec::new())
        .await
        .unwrap();
    let claimed = claim(&inbox).await;
    inbox
        .settle(vec![(claimed[0].id, delivered())], NOW)
        .await
        .unwrap();
    assert!(claim(&inbox).await.is_empty());
    let before = written().await;
    assert!(before > empty);
    for _ in 0..50 {
        assert!(claim(&inbox).await.is_empty());
        assert_eq!(inbox.next_due("api").await, None);
        inbox.expire(NOW).await.unwrap();
    }
    assert_eq!(written().await, before);
}

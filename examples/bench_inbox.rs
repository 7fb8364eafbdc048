//! Measures the inbox alone, without network and signatures: how many events a second are on disk
//! when they are confirmed, how a start with a backlog goes, how fast the backlog drains, and what
//! the folder takes afterwards. See bench/README.md.
//!
//! ```text
//! cargo run --release --example bench_inbox -- FOLDER [BACKLOG] [SECONDS]
//! ```

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::too_many_lines,
    reason = "it prints figures, and stops where something is wrong"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use maitred::kernel::clock::{Clock, UnixMs};
use maitred::webhook::inbox::{
    Attempt, EntryId, Event, Inbox, Memory, MemoryOf, Opened, Outcome, Policy, Settings,
    Settlement, Standing,
};
use maitred::webhook::replay::ReplayKey;

const BODY: &[u8] = &[b'x'; 1024];
const DAY_MS: i64 = 86_400_000;
/// Delivered at a time.
const CLAIM_MAX: usize = 256;

#[derive(Default)]
struct Commits {
    all: AtomicU64,
    durable: AtomicU64,
    commands: AtomicU64,
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().expect("a folder on the disk to measure"));
    let backlog: u64 = args
        .next()
        .map_or(1_000_000, |n| n.parse().expect("a number"));
    let seconds: u64 = args.next().map_or(5, |n| n.parse().expect("a number"));
    let clock = Clock::system();
    for clients in [1, 16, 64, 256] {
        accept(
            &folder.join(format!("accept-{clients}")),
            clients,
            seconds,
            &clock,
        )
        .await;
    }
    start_with_a_backlog(&folder.join("backlog"), backlog, &clock).await;
}

async fn accept(folder: &Path, clients: usize, seconds: u64, clock: &Clock) {
    let (opened, commits) = open(folder, clock).await;
    let until = clock.instant() + Duration::from_secs(seconds);
    let tasks = (0..clients).map(|_| {
        let (inbox, clock) = (opened.inbox.clone(), clock.clone());
        tokio::spawn(async move {
            let mut took = Vec::new();
            while clock.instant() < until {
                let before = clock.instant();
                append(&inbox, clock.unix()).await;
                took.push(clock.instant() - before);
            }
            took
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.expect("a client"));
    }
    took.sort_unstable();
    let at = |share: usize| took[(took.len() - 1) * share / 1000].as_secs_f64() * 1000.0;
    println!(
        "accept, {clients:>3} clients: {:>6} events/s; ms p50 {:.2} p99 {:.2} p99.9 {:.2} max {:.1}; \
         {:.1} events per fsync; {} MiB resident",
        took.len() as u64 / seconds,
        at(500),
        at(990),
        at(999),
        at(1000),
        commits.commands.load(Ordering::Relaxed) as f64
            / commits.durable.load(Ordering::Relaxed) as f64,
        resident_mib(),
    );
}

async fn start_with_a_backlog(folder: &Path, backlog: u64, clock: &Clock) {
    let (opened, _) = open(folder, clock).await;
    let (before, cpu) = (clock.instant(), cpu_s());
    let next = Arc::new(AtomicU64::new(0));
    let tasks = (0..256).map(|_| {
        let (inbox, clock, next) = (opened.inbox.clone(), clock.clone(), next.clone());
        tokio::spawn(async move {
            while next.fetch_add(1, Ordering::Relaxed) < backlog {
                append(&inbox, clock.unix()).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("a client");
    }
    let took = (clock.instant() - before).as_secs_f64();
    println!(
        "filled with {backlog} in {took:.1} s ({:.0} events/s), {:.1} s of CPU; {}; {} MiB resident",
        backlog as f64 / took,
        cpu_s() - cpu,
        on_disk(&opened.inbox).await,
        resident_mib()
    );
    drop(opened);

    let (before, cpu) = (clock.instant(), cpu_s());
    let (opened, commits) = open(folder, clock).await;
    println!(
        "started with {backlog} pending and {} memories in {:.2} s, {:.2} s of CPU; {} MiB resident",
        opened.memories.len(),
        (clock.instant() - before).as_secs_f64(),
        cpu_s() - cpu,
        resident_mib()
    );
    let inbox = opened.inbox;
    drop(opened.memories);
    let before = clock.instant();
    let first = inbox.claim("api", 1, clock.unix()).await;
    println!(
        "first claim after {:.1} ms",
        (clock.instant() - before).as_secs_f64() * 1000.0
    );
    settle(&inbox, first.iter().map(|c| c.id), clock.unix()).await;

    let (before, cpu) = (clock.instant(), cpu_s());
    let mut drained = 1;
    loop {
        let now = clock.unix();
        let claimed = inbox.claim("api", CLAIM_MAX, now).await;
        if claimed.is_empty() {
            break;
        }
        drained += claimed.len() as u64;
        settle(&inbox, claimed.iter().map(|c| c.id), now).await;
    }
    let took = (clock.instant() - before).as_secs_f64();
    println!(
        "drained {drained} in {took:.1} s ({:.0} events/s), {:.1} s of CPU; {} commits, {} fsyncs; {}; {} MiB resident",
        drained as f64 / took,
        cpu_s() - cpu,
        commits.all.load(Ordering::Relaxed),
        commits.durable.load(Ordering::Relaxed),
        on_disk(&inbox).await,
        resident_mib()
    );

    let (before, cpu) = (clock.instant(), cpu_s());
    let later = UnixMs(clock.unix().0 + 2 * DAY_MS);
    inbox.expire(later).await.expect("expiry");
    println!(
        "delivered entries expired in {:.1} s, {:.1} s of CPU; {}; {} MiB resident",
        (clock.instant() - before).as_secs_f64(),
        cpu_s() - cpu,
        on_disk(&inbox).await,
        resident_mib()
    );
    inbox.release().await;
}

async fn open(folder: &Path, clock: &Clock) -> (Opened, Arc<Commits>) {
    let commits = Arc::new(Commits::default());
    let seen = commits.clone();
    let policy = Policy {
        delivered_bytes_max: 4 << 30,
        ..Policy::default()
    };
    let settings = Settings {
        lock_wait: Duration::from_secs(60),
        observer: Arc::new(move |commit| {
            seen.all.fetch_add(1, Ordering::Relaxed);
            seen.durable
                .fetch_add(u64::from(commit.durable), Ordering::Relaxed);
            seen.commands
                .fetch_add(commit.commands as u64, Ordering::Relaxed);
        }),
        ..Settings::new(folder.to_owned(), policy, clock.clone())
    };
    (Inbox::open(settings).await.expect("an inbox"), commits)
}

async fn append(inbox: &Inbox, now: UnixMs) -> EntryId {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&number.to_le_bytes());
    let memory = |of| Memory {
        of,
        key: ReplayKey(digest),
        until: UnixMs(now.0 + DAY_MS),
    };
    let event = Event {
        endpoint: "billing".into(),
        provider: "stripe".into(),
        destination: "api".into(),
        event_id: format!("evt_{number}").into(),
        received_at: now,
        content_type: Some(Bytes::from_static(b"application/json")),
        headers: Vec::new(),
        traceparent: None,
        order_key: None,
        body: Bytes::from_static(BODY),
    };
    let memories = vec![memory(MemoryOf::Message), memory(MemoryOf::Event)];
    inbox.append(event, memories).await.expect("room")
}

async fn settle(inbox: &Inbox, ids: impl Iterator<Item = EntryId>, now: UnixMs) {
    let delivered = |id| {
        let attempt = Attempt {
            at: now,
            took_ms: 1,
            outcome: Outcome::Status(200),
        };
        (id, Settlement::Delivered(attempt))
    };
    let settled = ids.map(delivered).collect();
    inbox.settle(settled, now).await.expect("settled");
}

async fn on_disk(inbox: &Inbox) -> String {
    let stats = inbox.stats().await.expect("figures");
    format!(
        "{} pending, {} delivered, {} MiB on disk",
        stats.total(Standing::Pending).entries,
        stats.total(Standing::Delivered).entries,
        stats.disk_bytes >> 20
    )
}

/// Of all threads so far, in seconds: what a busy machine does not distort. 0 where the system does
/// not tell.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    ticks.filter_map(|n| n.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// 0 where the system does not tell.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) >> 10
}

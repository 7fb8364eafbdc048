//! The dispatcher's own loop over the inbox's own state machine, in virtual time, against a world that
//! fails: outages, refusals, throttling, lost answers, crashes that lose what was not synced, stops in
//! mid-flight. A seed decides everything; `SIM_SEED=n` runs one, `SIM_SEEDS=n` that many.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::super::{Dispatch, EndpointPolicy, Policy, Settings, Stop, run};
use super::NOW;
use super::world::{Disk, Fate, FlakyApi, Shared, Weather, verdicts};
use crate::kernel::clock::Clock;
use crate::kernel::id::Random;
use crate::telemetry::metrics::Metrics;
use crate::webhook::inbox::{self, DeadReason, Inbox};

/// Run in plain `cargo test`.
const SEEDS: u64 = 2_000;
/// Virtual time after which an event that is neither delivered nor dead is taken for lost.
const LOST_AFTER: Duration = Duration::from_secs(3_600);

/// How a life of the process ends, and after how long.
#[derive(Clone, Copy, Debug)]
enum End {
    Killed { after_ms: u64 },
    Stopped { after_ms: u64, drain_ms: u64 },
}

#[test]
fn whatever_fails_nothing_is_lost_and_no_key_is_out_of_order() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(SEEDS),
    };
    let metrics = Arc::new(Metrics::new().unwrap());
    let left = Mutex::new(seeds.clone());
    let totals = Mutex::new([0; 3]);
    std::thread::scope(|threads| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            threads.spawn(|| {
                while let Some(seed) = { left.lock().unwrap().next() } {
                    let figures = simulate(seed, &metrics);
                    let mut totals = totals.lock().unwrap();
                    totals
                        .iter_mut()
                        .zip(figures)
                        .for_each(|(total, figure)| *total += figure);
                }
            });
        }
    });
    let [requests, delivered, dead] = totals.into_inner().unwrap();
    println!("{seeds:?}: {requests} requests, {delivered} delivered, {dead} dead");
    // A world in which nothing goes wrong, or nothing right, would prove little.
    let ran = seeds.end - seeds.start;
    assert!(ran < 100 || (delivered > ran * 10 && dead > ran && requests > delivered));
}

fn simulate(seed: u64, metrics: &Arc<Metrics>) -> [u64; 3] {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let world = runtime.block_on(live(seed, metrics));
    let world = world.look();
    if !world.breaches.is_empty() {
        panic!(
            "SIM_SEED={seed}: {:#?}\n{:#?}",
            world.breaches, world.weather
        );
    }
    let delivered = world
        .known
        .iter()
        .filter(|known| known.told.is_delivered)
        .count();
    let dead = world
        .known
        .iter()
        .filter(|known| known.told.dead.is_some())
        .count();
    let count = |number: usize| u64::try_from(number).unwrap();
    [world.requests, count(delivered), count(dead)]
}

fn weather(rng: &mut StdRng) -> Weather {
    let order_timeout_s = rng.random_range(0..8_u32).try_into().ok();
    let policy = Policy {
        attempts_max: rng.random_range(2..7),
        kept_max_s: 1_000_000,
        age_max_s: rng.random_range(20..200),
        backoff_base_ms: rng.random_range(10..1_000),
        backoff_cap_ms: 20_000,
        concurrency_max: rng.random_range(1..9),
        rate_max: rng.random_range(5..200),
        attempt_timeout_ms: 500,
        endpoints: [("billing".into(), EndpointPolicy { order_timeout_s })].into(),
    };
    let outages = (0..rng.random_range(0..3)).map(|_| {
        let from = rng.random_range(0..10_000);
        (from, from + rng.random_range(100..20_000))
    });
    Weather {
        outages: outages.collect(),
        events: rng.random_range(10..40),
        keys: rng.random_range(1..5),
        gap_ms: rng.random_range(1..200),
        failing: rng.random_range(0..25),
        throttling: rng.random_range(0..10),
        lost: rng.random_range(0..10),
        slow: rng.random_range(0..5),
        latency_ms_max: rng.random_range(2..300),
        disk_failing: rng.random_range(0..5),
        kills: false,
        policy,
    }
}

fn ends(rng: &mut StdRng) -> Vec<End> {
    let count = rng.random_range(0..4);
    let mut end = || {
        let after_ms = rng.random_range(0..4_000);
        match rng.random_bool(0.5) {
            true => End::Killed { after_ms },
            false => End::Stopped {
                after_ms,
                drain_ms: rng.random_range(0..400),
            },
        }
    };
    (0..count).map(|_| end()).collect()
}

/// One world from its first event to the last one's end.
async fn live(seed: u64, metrics: &Arc<Metrics>) -> Shared {
    let mut rng = StdRng::seed_from_u64(seed);
    let ends = ends(&mut rng);
    let mut weather = weather(&mut rng);
    weather.kills = ends.iter().any(|end| matches!(end, End::Killed { .. }));
    let shared = Shared::new(weather, Clock::simulated(NOW), seed);
    let lives = u32::try_from(ends.len()).unwrap() + 1;
    let inbox = Inbox::in_memory(inbox::Policy::default());
    let disks = watch::Sender::new(Arc::new(Disk::new(inbox, shared.clone())));
    let provider = tokio::spawn(provide(shared.clone(), disks.subscribe(), seed));
    for end in ends {
        let disk = disks.borrow().clone();
        shared.new_life();
        let process = Process::start(&disk, rng.random(), metrics);
        let inbox = match end {
            End::Killed { after_ms } => {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                process.kill().await;
                disk.killed()
            }
            End::Stopped { after_ms, drain_ms } => {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                process.stop(Duration::from_millis(drain_ms), &disk).await;
                disk.inbox
                    .reopened(inbox::Policy::default(), shared.clock.unix())
            }
        };
        disks.send_replace(Arc::new(Disk::new(inbox, shared.clone())));
    }
    let disk = disks.borrow().clone();
    shared.new_life();
    let process = Process::start(&disk, rng.random(), metrics);
    provider.await.unwrap();
    settled(&disk).await;
    check_end(&disk, lives).await;
    process.stop(Duration::ZERO, &disk).await;
    shared
}

/// Gives events to whichever process is there.
async fn provide(shared: Shared, disks: watch::Receiver<Arc<Disk>>, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed ^ 0xe7e7);
    let (events, gap_ms) = {
        let world = shared.look();
        (world.weather.events, world.weather.gap_ms)
    };
    for number in 0..events {
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..=2 * gap_ms))).await;
        let disk = disks.borrow().clone();
        disk.append(number).await;
    }
}

/// Waits until nothing is left to deliver.
async fn settled(disk: &Disk) {
    let wait = async {
        while disk
            .shared
            .look()
            .known
            .iter()
            .any(|known| !known.told.is_over())
        {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    };
    if tokio::time::timeout(LOST_AFTER, wait).await.is_err() {
        let mut world = disk.shared.look();
        let left = world
            .known
            .iter()
            .enumerate()
            .filter(|(_, known)| !known.told.is_over());
        let left: Vec<_> = left
            .map(|(number, known)| format!("{number}: {known:?}"))
            .collect();
        world
            .breaches
            .push(format!("neither delivered nor dead: {left:#?}"));
    }
}

/// The rules that show at the end.
async fn check_end(disk: &Disk, lives: u32) {
    let states = verdicts(&disk.inbox).await;
    let mut world = disk.shared.look();
    let mut breaches = Vec::new();
    if world.ids.len() != world.known.len() || states.len() != world.known.len() {
        breaches.push(format!(
            "{} entries for {} events",
            states.len(),
            world.known.len()
        ));
    }
    for (id, number) in &world.ids {
        let known = &world.known[usize::try_from(*number).unwrap()];
        let mut expect = |rule: &str, holds: bool| {
            if !holds {
                breaches.push(format!(
                    "event {number}: {rule}: {known:?}, {:?}",
                    states.get(id)
                ));
            }
        };
        let (delivered, dead) = match states.get(id) {
            Some(inbox::State::Delivered { .. }) => (true, None),
            Some(inbox::State::Dead { reason, .. }) => (false, Some(*reason)),
            Some(inbox::State::Pending { .. }) | None => (false, None),
        };
        expect(
            "the inbox keeps what it was told",
            delivered == known.told.is_delivered,
        );
        expect("a dead letter has its reason", dead == known.told.dead);
        expect("it is one of the two", delivered != dead.is_some());
        expect(
            "delivered means it had its effect",
            !delivered || known.effects > 0,
        );
        expect(
            "what is refused is dead",
            known.fate == Fate::Fine || !delivered,
        );
        let refused = dead == Some(DeadReason::Refused);
        expect(
            "only what is refused is dead so",
            !refused || known.fate == Fate::Refused,
        );
        // An attempt that the end of a life cut off was not counted.
        let most = world.weather.policy.attempts_max + lives - 1 + known.forgotten;
        expect("attempts are bounded", known.requests <= most);
        let counted = known.told.attempts;
        expect("only what was sent counts", counted <= known.requests);
        let exhausted = dead == Some(DeadReason::AttemptsExhausted);
        let all = world.weather.policy.attempts_max;
        expect("no attempt is left out", !exhausted || counted == all);
    }
    world.breaches.extend(breaches);
}

/// One life of the dispatcher.
struct Process {
    task: JoinHandle<()>,
    stop: watch::Sender<Stop>,
    _settings: watch::Sender<Settings>,
}

impl Process {
    fn start(disk: &Arc<Disk>, seed: u64, metrics: &Arc<Metrics>) -> Self {
        let policy = Arc::new(disk.shared.look().weather.policy.clone());
        let destinations = ["api".into()].into();
        let (settings, settings_seen) = watch::channel(Settings {
            policy,
            destinations,
        });
        let (stop, stop_seen) = watch::channel(Stop::Running);
        let dispatch = Dispatch {
            backlog: disk.clone(),
            deliver: Arc::new(FlakyApi(disk.shared.clone())),
            clock: disk.shared.clock.clone(),
            random: Arc::new(Random::seeded(seed)),
            metrics: metrics.clone(),
            settings: settings_seen,
            stop: stop_seen,
        };
        Self {
            task: tokio::spawn(run(dispatch)),
            stop,
            _settings: settings,
        }
    }

    async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    async fn stop(self, drain: Duration, disk: &Disk) {
        let until = disk.shared.clock.instant() + drain;
        self.stop.send_replace(Stop::DrainUntil(until));
        let slack = Duration::from_millis(100);
        let in_time = tokio::time::timeout(drain + slack, self.task).await;
        let claimed = disk.inbox.stats().await.unwrap().claimed;
        let mut world = disk.shared.look();
        if in_time.is_err() {
            world.breaches.push("it does not stop in time".into());
        }
        if claimed > 0 {
            world
                .breaches
                .push(format!("{claimed} claims are left after a stop"));
        }
    }
}

//! A pool at run time: its endpoints with their health, breaker and load, and the lease that a
//! request holds while it uses one. Survives a reload as long as the pool keeps its name.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::breaker::{Breaker, Outcome, State, Verdict};
use super::health::Health;
use super::retry::Budget;
use super::{Address, HealthPolicy, Policy, balance};
use crate::egress::Client;
use crate::kernel::clock::UnixMs;
use crate::kernel::reject::{Code, Reject};

/// One pool.
#[derive(Debug)]
pub struct Pool {
    policy: ArcSwap<Policy>,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    in_flight: AtomicU32,
    budget: Mutex<Budget>,
}

/// One address of a pool.
#[derive(Debug)]
pub struct Endpoint {
    address: Address,
    client: Client,
    in_flight: AtomicU32,
    health: Mutex<Health>,
    breaker: Mutex<Breaker>,
    /// When health last changed, in Unix milliseconds.
    since: AtomicI64,
}

/// Why no endpoint could be had.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PickError {
    #[error("the pool has its limit of requests in flight")]
    Full,
    #[error("no endpoint is healthy")]
    NoneHealthy,
    #[error("the circuit breakers are open for {for_s} s more")]
    Open { for_s: u32 },
}

impl From<PickError> for Reject {
    fn from(error: PickError) -> Self {
        match error {
            PickError::Full => {
                Self::new(Code::Overloaded, "bulkhead", error.to_string()).retry_after(1)
            }
            PickError::NoneHealthy => {
                Self::new(Code::Unavailable, "unhealthy", error.to_string()).retry_after(5)
            }
            PickError::Open { for_s } => {
                Self::new(Code::Unavailable, "breaker", error.to_string()).retry_after(for_s.max(1))
            }
        }
    }
}

impl Pool {
    /// A pool whose endpoints are all taken for healthy.
    #[must_use]
    pub fn new(policy: Policy, now: Instant) -> Arc<Self> {
        let endpoints = policy
            .endpoints
            .iter()
            .map(|a| Endpoint::new(a, &policy))
            .collect();
        Arc::new(Self {
            policy: ArcSwap::from_pointee(policy),
            endpoints: ArcSwap::from_pointee(endpoints),
            in_flight: AtomicU32::new(0),
            budget: Mutex::new(Budget::new(now)),
        })
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// All endpoints, usable or not.
    #[must_use]
    pub fn endpoints(&self) -> Arc<Vec<Arc<Endpoint>>> {
        self.endpoints.load_full()
    }

    /// Takes a new policy over; endpoints that stay keep their health, breaker and connections.
    pub fn reconfigure(&self, policy: Policy) {
        let old = self.endpoints.load();
        let same_dial = self.policy.load().connect_timeout_ms == policy.connect_timeout_ms;
        let endpoints = policy
            .endpoints
            .iter()
            .map(|address| {
                let known = old.iter().find(|e| same_dial && e.address == *address);
                known
                    .cloned()
                    .unwrap_or_else(|| Endpoint::new(address, &policy))
            })
            .collect();
        self.endpoints.store(Arc::new(endpoints));
        self.policy.store(Arc::new(policy));
    }

    /// Leases the endpoint for one request. `avoid` is one that has just failed this request.
    pub fn pick(
        self: &Arc<Self>,
        avoid: Option<&Address>,
        random: u64,
        now: Instant,
    ) -> Result<Lease, PickError> {
        let policy = self.policy.load();
        let endpoints = self.endpoints.load();
        let place = Place::take(self, policy.in_flight_max).ok_or(PickError::Full)?;
        let mut usable: Vec<&Arc<Endpoint>> = endpoints
            .iter()
            .filter(|e| e.is_usable(&policy, now))
            .collect();
        if usable.len() > 1 {
            usable.retain(|e| Some(&e.address) != avoid);
        }
        let load: Vec<u32> = usable
            .iter()
            .map(|e| e.in_flight.load(Ordering::Relaxed))
            .collect();
        let Some(endpoint) = balance::pick(&load, random).and_then(|i| usable.get(i)) else {
            return Err(self.refusal(&policy, now));
        };
        match lock(&endpoint.breaker).admit(policy.breaker, now) {
            Verdict::Pass | Verdict::Probe => {}
            Verdict::Refuse { for_ } => {
                return Err(PickError::Open {
                    for_s: seconds_up(for_),
                });
            }
        }
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Ok(Lease {
            place,
            endpoint: Arc::clone(endpoint),
            reported: None,
        })
    }

    /// Counts a first attempt towards the retry budget.
    pub fn count_request(&self, now: Instant) {
        lock(&self.budget).request(now);
    }

    /// Whether one more retry fits the budget; takes it if so.
    pub fn may_retry(&self, now: Instant) -> bool {
        lock(&self.budget).take(self.policy.load().retry, now)
    }

    /// Whether at least one endpoint would be asked now.
    #[must_use]
    pub fn is_available(&self, now: Instant) -> bool {
        let policy = self.policy.load();
        self.endpoints
            .load()
            .iter()
            .any(|e| e.is_usable(&policy, now))
    }

    /// Whether at least one endpoint that would be asked now said that it is well when its health was
    /// last asked.
    #[must_use]
    pub fn is_confirmed(&self, now: Instant) -> bool {
        let policy = self.policy.load();
        let endpoints = self.endpoints.load();
        let mut usable = endpoints.iter().filter(|e| e.is_usable(&policy, now));
        usable.any(|e| lock(&e.health).is_confirmed())
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn refusal(&self, policy: &Policy, now: Instant) -> PickError {
        let soonest = self
            .endpoints
            .load()
            .iter()
            .filter(|e| e.is_healthy())
            .filter_map(|e| match lock(&e.breaker).peek(policy.breaker, now) {
                Verdict::Refuse { for_ } => Some(for_),
                Verdict::Pass | Verdict::Probe => None,
            })
            .min();
        soonest.map_or(PickError::NoneHealthy, |for_| PickError::Open {
            for_s: seconds_up(for_),
        })
    }
}

impl Endpoint {
    fn new(address: &Address, policy: &Policy) -> Arc<Self> {
        let connect_timeout = Duration::from_millis(policy.connect_timeout_ms);
        Arc::new(Self {
            address: address.clone(),
            client: Client::new(address.clone(), connect_timeout),
            in_flight: AtomicU32::new(0),
            health: Mutex::new(Health::default()),
            breaker: Mutex::new(Breaker::new()),
            since: AtomicI64::new(0),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The client for requests that the edge makes itself.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether active checks find it healthy.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        lock(&self.health).is_healthy()
    }

    /// Requests in flight to this endpoint.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The breaker's state for display.
    #[must_use]
    pub fn breaker_state(&self, policy: &Policy, now: Instant) -> State {
        lock(&self.breaker).state(policy.breaker, now)
    }

    /// When health last changed; zero = never.
    #[must_use]
    pub fn health_since(&self) -> UnixMs {
        UnixMs(self.since.load(Ordering::Relaxed))
    }

    /// Takes note of an active check; `Some(healthy)` where that changed the state.
    pub fn checked(&self, good: bool, policy: &HealthPolicy, now: UnixMs) -> Option<bool> {
        let mut health = lock(&self.health);
        let before = health.is_healthy();
        *health = health.after(good, policy);
        let after = health.is_healthy();
        if after == before {
            return None;
        }
        self.since.store(now.0, Ordering::Relaxed);
        Some(after)
    }

    fn is_usable(&self, policy: &Policy, now: Instant) -> bool {
        let refused = matches!(
            lock(&self.breaker).peek(policy.breaker, now),
            Verdict::Refuse { .. }
        );
        self.is_healthy() && !refused
    }
}

/// The right to send one request to one endpoint; gives its places back when dropped.
#[derive(Debug)]
pub struct Lease {
    place: Place,
    endpoint: Arc<Endpoint>,
    /// The first report.
    reported: Option<Outcome>,
}

impl Lease {
    /// The endpoint to use.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The pool it belongs to.
    #[must_use]
    pub fn pool(&self) -> &Arc<Pool> {
        &self.place.0
    }

    /// How it went, as far as is known.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.reported
    }

    /// Tells the breaker how it went; the first report counts.
    pub fn report(&mut self, outcome: Outcome, now: Instant) {
        if self.reported.is_none() {
            self.reported = Some(outcome);
            let policy = self.place.0.policy.load();
            lock(&self.endpoint.breaker).report(policy.breaker, outcome, now);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One of the pool's places in flight.
#[derive(Debug)]
struct Place(Arc<Pool>);

impl Place {
    fn take(pool: &Arc<Pool>, max: u32) -> Option<Self> {
        let taken = pool.in_flight.fetch_add(1, Ordering::AcqRel);
        let place = Self(pool.clone());
        (taken < max).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

fn seconds_up(span: Duration) -> u32 {
    u32::try_from(span.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Outcome, PickError, Pool};
    use crate::kernel::clock::{Clock, UnixMs};
    use crate::upstream::{Address, BreakerPolicy, HealthPolicy, Policy, RetryPolicy};

    fn policy(endpoints: &[&str]) -> Policy {
        Policy {
            name: "api".into(),
            endpoints: endpoints
                .iter()
                .map(|e| Address::Tcp((*e).into()))
                .collect(),
            connect_timeout_ms: 100,
            first_byte_timeout_ms: 100,
            write_timeout_ms: 100,
            in_flight_max: 2,
            health: HealthPolicy {
                path: "/ready".into(),
                interval_ms: 1000,
                timeout_ms: 100,
                healthy_after: 1,
                unhealthy_after: 1,
            },
            breaker: BreakerPolicy {
                failures: 1,
                window_s: 900,
                open_s: 10,
            },
            retry: RetryPolicy {
                attempts_max: 3,
                backoff_base_ms: 10,
                backoff_cap_ms: 100,
                budget_percent: 20,
            },
        }
    }

    fn now() -> Instant {
        Clock::manual(UnixMs(0)).0.instant()
    }

    #[test]
    fn the_pool_refuses_what_is_over_its_limit_and_gives_places_back() {
        let pool = Pool::new(policy(&["a:1"]), now());
        let first = pool.pick(None, 1, now()).unwrap();
        let _second = pool.pick(None, 1, now()).unwrap();
        assert_eq!(pool.pick(None, 1, now()).unwrap_err(), PickError::Full);
        drop(first);
        assert!(pool.pick(None, 1, now()).is_ok());
    }

    #[test]
    fn refused_picks_hold_no_place() {
        let pool = Pool::new(policy(&["a:1"]), now());
        let t = now();
        pool.pick(None, 1, t).unwrap().report(Outcome::Failure, t);
        for _ in 0..10 {
            assert!(matches!(
                pool.pick(None, 1, t),
                Err(PickError::Open { for_s: 10 })
            ));
        }
        assert_eq!(pool.in_flight(), 0);
        assert!(
            pool.pick(None, 1, t + Duration::from_secs(10)).is_ok(),
            "a probe goes through"
        );
    }

    #[test]
    fn an_endpoint_that_just_failed_is_avoided() {
        let pool = Pool::new(policy(&["a:1", "b:1"]), now());
        let failed = Address::Tcp("a:1".into());
        for random in 0..50u64 {
            let lease = pool
                .pick(Some(&failed), random << 31 | random, now())
                .unwrap();
            assert_eq!(lease.endpoint().address(), &Address::Tcp("b:1".into()));
        }
    }

    #[test]
    fn an_unhealthy_endpoint_gets_nothing() {
        let pool = Pool::new(policy(&["a:1"]), now());
        let health = pool.policy().health.clone();
        assert_eq!(
            pool.endpoints()[0].checked(false, &health, UnixMs(5)),
            Some(false)
        );
        assert_eq!(
            pool.pick(None, 1, now()).unwrap_err(),
            PickError::NoneHealthy
        );
    }

    #[test]
    fn a_reload_keeps_what_is_known_of_an_endpoint() {
        let pool = Pool::new(policy(&["a:1", "b:1"]), now());
        let health = pool.policy().health.clone();
        pool.endpoints()[0].checked(false, &health, UnixMs(5));
        pool.reconfigure(policy(&["a:1", "c:1"]));
        assert!(!pool.endpoints()[0].is_healthy());
        assert!(pool.endpoints()[1].is_healthy());
    }
}

//! Active health: asks every endpoint at intervals and counts answers in a row. The count is a pure
//! state machine; the loop that asks is [`keep`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use super::HealthPolicy;
use super::pool::Pool;
use crate::kernel::clock::Clock;

/// Answers in a row; starts healthy so that a fresh process serves at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Health {
    healthy: bool,
    /// Answers in a row that speak against the present state.
    against: u32,
    /// The last answer; `None` = not asked yet.
    last: Option<bool>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            healthy: true,
            against: 0,
            last: None,
        }
    }
}

impl Health {
    /// Whether the endpoint is asked.
    #[must_use]
    pub fn is_healthy(self) -> bool {
        self.healthy
    }

    /// Whether the endpoint said so itself when it was last asked.
    #[must_use]
    pub fn is_confirmed(self) -> bool {
        self.last == Some(true)
    }

    /// The state after one more answer.
    #[must_use]
    pub fn after(self, good: bool, policy: &HealthPolicy) -> Self {
        let last = Some(good);
        if good == self.healthy {
            return Self {
                against: 0,
                last,
                ..self
            };
        }
        let needed = if good {
            policy.healthy_after
        } else {
            policy.unhealthy_after
        };
        let against = self.against + 1;
        if against >= needed.max(1) {
            return Self {
                healthy: good,
                against: 0,
                last,
            };
        }
        Self {
            against,
            last,
            ..self
        }
    }
}

/// Keeps one checking task per pool, whatever pools a reload brings or takes away. `pools` is asked
/// every second.
pub async fn keep(pools: impl Fn() -> Vec<Arc<Pool>>, clock: Clock) {
    let mut tasks: Vec<(Arc<Pool>, AbortOnDrop)> = Vec::new();
    loop {
        let wanted = pools();
        tasks.retain(|(pool, _)| wanted.iter().any(|w| Arc::ptr_eq(w, pool)));
        for pool in wanted {
            if !tasks.iter().any(|(known, _)| Arc::ptr_eq(known, &pool)) {
                let task = tokio::spawn(check_forever(pool.clone(), clock.clone()));
                tasks.push((pool, AbortOnDrop(task)));
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn check_forever(pool: Arc<Pool>, clock: Clock) {
    loop {
        let policy = pool.policy();
        for endpoint in pool.endpoints().iter() {
            let good = check(endpoint.client(), &policy.health).await;
            let Some(healthy) = endpoint.checked(good, &policy.health, clock.unix()) else {
                continue;
            };
            let (pool, endpoint) = (policy.name.as_ref(), endpoint.address().to_string());
            if healthy {
                tracing::info!(
                    upstream.pool = pool,
                    upstream.endpoint = endpoint,
                    "healthy again"
                );
            } else {
                tracing::warn!(
                    upstream.pool = pool,
                    upstream.endpoint = endpoint,
                    "unhealthy"
                );
            }
        }
        tokio::time::sleep(Duration::from_millis(policy.health.interval_ms.max(10))).await;
    }
}

async fn check(client: &crate::egress::Client, policy: &HealthPolicy) -> bool {
    let Ok(request) = Request::get(policy.path.as_str()).body(Full::<Bytes>::default()) else {
        return false;
    };
    let within = Duration::from_millis(policy.timeout_ms);
    match client.send(request, within).await {
        Ok(response) => response.status().is_success(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::Health;
    use crate::upstream::HealthPolicy;

    #[test]
    fn it_takes_answers_in_a_row_to_change_the_state() {
        let policy = HealthPolicy {
            path: "/ready".into(),
            interval_ms: 1,
            timeout_ms: 1,
            healthy_after: 2,
            unhealthy_after: 3,
        };
        let say = |health: Health, answers: &[bool]| {
            answers
                .iter()
                .fold(health, |h, good| h.after(*good, &policy))
        };
        let fresh = Health::default();
        assert!(fresh.is_healthy() && !fresh.is_confirmed());
        assert!(say(fresh, &[true]).is_confirmed());
        assert!(say(fresh, &[true, false]).is_healthy());
        assert!(!say(fresh, &[true, false]).is_confirmed());
        assert!(say(fresh, &[false, false, true, false, false]).is_healthy());
        let down = say(fresh, &[false, false, false]);
        assert!(!down.is_healthy());
        assert!(!say(down, &[true, false, true]).is_healthy());
        assert!(say(down, &[true, true]).is_healthy());
    }
}

//! THE ORDER. Every check that a request passes before a byte of its body is read or an upstream hears
//! of it, cheapest and least trusting first. Routes choose policies; nobody chooses the order.

use std::sync::Arc;

use http::request::Parts;

use super::cors;
use super::ctx::{Admitted, Seen};
use super::shared::{Live, Shared};
use crate::auth::{self, AuthRefusal, Need, credential};
use crate::kernel::facts::Facts;
use crate::kernel::principal::Principal;
use crate::kernel::reject::{Code, Reject};
use crate::kernel::reply::Reply;
use crate::limit::{self, AfterAuth, Decision, KeyBy};
use crate::plan::Plan;
use crate::route::table::NoRoute;

/// What a well-formed request gets.
pub enum Verdict {
    Admitted(Admitted),
    /// Answered here and now: a CORS preflight.
    Answered(Reply),
}

/// Whether limits are taken. A cache refresh in the background was paid for by the request that
/// caused it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Charge {
    Take,
    Waive,
}

/// Runs the checks in order. `seen` receives what they find on the way, also when one refuses.
pub async fn admit(
    shared: &Shared,
    live: &Live,
    parts: &Parts,
    facts: Arc<Facts>,
    charge: Charge,
    seen: &mut Seen,
) -> Result<Verdict, Reject> {
    if cors::is_preflight(&facts.method, &parts.headers) {
        return preflight(live, parts, &facts).map(Verdict::Answered);
    }
    let plan = route(live, &facts)?;
    seen.route = Some(plan.name.clone());
    let decision = &mut seen.limit;
    super::body::check_declared(facts.content_length, plan.body_bytes_max)?;
    before_auth(shared, &plan, &facts, charge, decision)?;
    let caller = authenticate(shared, live, &plan, parts).await?;
    let org = authorise(&plan, caller.as_deref(), &facts)?;
    after_auth(shared, live, &plan, caller.as_deref(), charge, decision)?;
    Ok(Verdict::Admitted(Admitted {
        facts,
        plan,
        caller,
        org,
    }))
}

fn preflight(live: &Live, parts: &Parts, facts: &Facts) -> Result<Reply, Reject> {
    let allow = live.routes.methods(&facts.path).ok_or_else(no_path)?;
    Ok(cors::preflight(&live.config.cors, &parts.headers, &allow))
}

fn route(live: &Live, facts: &Facts) -> Result<Arc<Plan>, Reject> {
    match live.routes.find(&facts.method, &facts.path) {
        Ok(plan) => Ok(plan.clone()),
        Err(NoRoute::Path) => Err(no_path()),
        Err(NoRoute::Method { allow }) => Err(Reject::method_not_allowed(allow)),
    }
}

fn no_path() -> Reject {
    Reject::new(Code::NotFound, "path", "no route for this path")
}

fn before_auth(
    shared: &Shared,
    plan: &Plan,
    facts: &Facts,
    charge: Charge,
    decision: &mut Option<Decision>,
) -> Result<(), Reject> {
    let Some(class) = &plan.limit.before_auth else {
        return Ok(());
    };
    let key = limit::key::Key::ip(facts.client_ip);
    take(shared, &class.name, class.quota, &key, charge, decision)
}

async fn authenticate(
    shared: &Shared,
    live: &Live,
    plan: &Plan,
    parts: &Parts,
) -> Result<Option<Arc<Principal>>, Reject> {
    match plan.auth.need {
        Need::Public => Ok(None),
        Need::Required => {
            let verdict = verified(shared, live, parts).await;
            let outcome = verdict
                .as_ref()
                .map_or_else(|refusal| refusal.label(), |_| "accepted");
            shared.metrics.auth.with_label_values(&[outcome]).inc();
            Ok(Some(verdict?))
        }
    }
}

async fn verified(
    shared: &Shared,
    live: &Live,
    parts: &Parts,
) -> Result<Arc<Principal>, AuthRefusal> {
    let token = credential::bearer(&parts.headers)?.ok_or(AuthRefusal::Missing)?;
    live.verifier.verify(token, shared.clock.unix()).await
}

fn authorise(
    plan: &Plan,
    caller: Option<&Principal>,
    facts: &Facts,
) -> Result<Option<String>, Reject> {
    let Some(caller) = caller else {
        return Ok(None);
    };
    auth::policy::authorise(&plan.auth, caller, facts.query.as_deref())
}

fn after_auth(
    shared: &Shared,
    live: &Live,
    plan: &Plan,
    caller: Option<&Principal>,
    charge: Charge,
    decision: &mut Option<Decision>,
) -> Result<(), Reject> {
    let Some(caller) = caller else { return Ok(()) };
    let (name, quota, key) = match &plan.limit.after_auth {
        AfterAuth::None => return Ok(()),
        AfterAuth::Plan => {
            let unknown = || {
                let reason = format!("no limit is configured for plan {:?}", caller.plan);
                Reject::new(Code::Forbidden, "plan", reason)
            };
            let quota = live.config.plans.get(&caller.plan).ok_or_else(unknown)?;
            (
                format!("plan-{}", caller.plan.to_ascii_lowercase()).into(),
                *quota,
                KeyBy::Principal,
            )
        }
        AfterAuth::Class(class) => (class.name.clone(), class.quota, class.key),
    };
    debug_assert_eq!(
        key,
        KeyBy::Principal,
        "an address limit belongs before authentication"
    );
    let key = limit::key::Key::subject(&caller.subject);
    take(shared, &name, quota, &key, charge, decision)
}

fn take(
    shared: &Shared,
    name: &Arc<str>,
    quota: limit::Quota,
    key: &limit::key::Key,
    charge: Charge,
    decision: &mut Option<Decision>,
) -> Result<(), Reject> {
    if charge == Charge::Waive {
        return Ok(());
    }
    let taken = shared.limiter.take(name, quota, key);
    let verdict = if taken.retry_after_s.is_some() {
        "refused"
    } else {
        "allowed"
    };
    shared
        .metrics
        .limit_decisions
        .with_label_values(&[name, verdict])
        .inc();
    let refused = taken.retry_after_s;
    *decision = Some(taken);
    match refused {
        None => Ok(()),
        Some(seconds) => {
            let reason = format!("limit {name} reached");
            Err(Reject::new(Code::RateLimited, "limit", reason).retry_after(seconds))
        }
    }
}

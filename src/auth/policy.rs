//! Decides whether a proven caller may do what a route offers: the organisation named by the request
//! must be one of theirs, in a role that the route accepts.

use super::{OrgFrom, Policy};
use crate::kernel::principal::Principal;
use crate::kernel::reject::{Code, Reject};

/// The organisation that the request is about, where the route has one.
///
/// # Errors
/// 400 where the organisation is not named exactly once, 403 where it is not the caller's or the
/// caller's role in it is not enough.
pub fn authorise(
    policy: &Policy,
    principal: &Principal,
    query: Option<&str>,
) -> Result<Option<String>, Reject> {
    let Some(OrgFrom::Query(name)) = &policy.org else {
        return match policy.roles.is_empty() || principal.orgs.values().any(|r| policy.accepts(r)) {
            true => Ok(None),
            false => Err(forbidden(
                "role",
                "the caller has none of the roles in any organisation",
            )),
        };
    };
    let org = parameter(query.unwrap_or_default(), name)?;
    let Some(role) = principal.orgs.get(&org) else {
        return Err(forbidden(
            "org",
            "the organisation is not one of the caller's",
        ));
    };
    if !policy.accepts(role) {
        return Err(forbidden(
            "role",
            "the caller's role in the organisation is not enough",
        ));
    }
    Ok(Some(org))
}

impl Policy {
    fn accepts(&self, role: &str) -> bool {
        self.roles.is_empty() || self.roles.iter().any(|accepted| accepted == role)
    }
}

/// The one value of a query parameter. Names are compared decoded, because the API compares them so:
/// `org%49d` would otherwise be a second organisation that only the API sees.
fn parameter(query: &str, name: &str) -> Result<String, Reject> {
    let mut found = None;
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = decode(key).ok_or_else(|| bad_request("query_escape", "a bad escape"))?;
        if key != name {
            continue;
        }
        if found.is_some() {
            return Err(bad_request(
                "org_duplicate",
                "the organisation is named more than once",
            ));
        }
        found = Some(decode(value).ok_or_else(|| bad_request("query_escape", "a bad escape"))?);
    }
    let missing = || bad_request("org_missing", "the organisation is not named");
    found.filter(|org| !org.is_empty()).ok_or_else(missing)
}

/// `application/x-www-form-urlencoded`, strictly.
fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => out.extend(hex::decode([bytes.next()?, bytes.next()?]).ok()?),
            b'+' => out.push(b' '),
            plain => out.push(plain),
        }
    }
    String::from_utf8(out).ok()
}

fn bad_request(label: &'static str, reason: &'static str) -> Reject {
    Reject::new(Code::BadRequest, label, reason)
}

fn forbidden(label: &'static str, reason: &'static str) -> Reject {
    Reject::new(Code::Forbidden, label, reason)
}

#[cfg(test)]
mod tests {
    use super::authorise;
    use crate::auth::{Need, OrgFrom, Policy};
    use crate::kernel::clock::UnixMs;
    use crate::kernel::principal::Principal;

    fn principal() -> Principal {
        let orgs = [("org_a", "owner"), ("org_b", "waiter")];
        Principal {
            subject: "usr_1".into(),
            token_id: "tok_1".into(),
            orgs: orgs.map(|(org, role)| (org.into(), role.into())).into(),
            plan: "PRO".into(),
            scopes: Vec::new(),
            expires_at: UnixMs(0),
        }
    }

    fn policy(org: Option<&str>, roles: &[&str]) -> Policy {
        Policy {
            need: Need::Required,
            org: org.map(|name| OrgFrom::Query(name.into())),
            roles: roles.iter().map(|role| (*role).into()).collect(),
        }
    }

    fn status(policy: &Policy, query: Option<&str>) -> Result<Option<String>, u16> {
        authorise(policy, &principal(), query).map_err(|reject| reject.status().as_u16())
    }

    #[test]
    fn the_organisation_must_be_the_callers_and_named_once() {
        let policy = policy(Some("orgId"), &[]);
        assert_eq!(
            status(&policy, Some("orgId=org_a&range=today")),
            Ok(Some("org_a".into()))
        );
        assert_eq!(
            status(&policy, Some("range=x&orgId=org%5Fb")),
            Ok(Some("org_b".into()))
        );
        for (query, expected) in [
            (None, 400),
            (Some(""), 400),
            (Some("orgId="), 400),
            (Some("orgId"), 400),
            (Some("orgid=org_a"), 400),
            (Some("orgId=org_a&orgId=org_a"), 400),
            (Some("orgId=org_a&org%49d=org_z"), 400),
            (Some("orgId=org_a&x=1&orgId=org_z"), 400),
            (Some("orgId=%zz"), 400),
            (Some("orgId=%ff"), 400),
            (Some("orgId=org_z"), 403),
            (Some("orgId=ORG_A"), 403),
            (Some("orgId=org_a%00"), 403),
        ] {
            assert_eq!(status(&policy, query), Err(expected), "{query:?}");
        }
    }

    #[test]
    fn a_role_counts_in_the_organisation_it_was_given_for() {
        let owners = policy(Some("orgId"), &["owner", "manager"]);
        assert!(status(&owners, Some("orgId=org_a")).is_ok());
        assert_eq!(status(&owners, Some("orgId=org_b")), Err(403));
        assert_eq!(status(&policy(None, &[]), None), Ok(None));
        assert_eq!(status(&policy(None, &["waiter"]), None), Ok(None));
        assert_eq!(status(&policy(None, &["chef"]), None), Err(403));
    }
}

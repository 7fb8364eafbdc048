//! Decides whose entry a response is. The one place where a caller becomes part of a key: what it
//! returns was proven by `auth`, never merely claimed by the request.

use std::sync::Arc;

use crate::kernel::principal::Principal;

use super::{Bypass, Scope};

/// Who may be given a stored response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Owner {
    /// Everybody.
    Public,
    /// Members of one organisation.
    Org(Arc<str>),
    /// One subject. Its organisations are not part of the key; they are here so that an invalidation
    /// for any of them finds the entry.
    User {
        subject: Arc<str>,
        orgs: Arc<[Arc<str>]>,
    },
}

impl Owner {
    /// Who owns what this caller is about to be answered. Without a named organisation the caller's
    /// only one is meant; with several, nothing is.
    ///
    /// # Errors
    /// Why the answer must not be shared.
    pub fn find(
        scope: Scope,
        principal: Option<&Principal>,
        named: Option<&str>,
    ) -> Result<Self, Bypass> {
        match scope {
            Scope::Public => Ok(Self::Public),
            Scope::Org => {
                let principal = principal.ok_or(Bypass::Anonymous)?;
                let org = match named {
                    Some(org) => {
                        principal
                            .orgs
                            .get_key_value(org)
                            .ok_or(Bypass::NotMember)?
                            .0
                    }
                    None if principal.orgs.len() == 1 => {
                        principal.orgs.keys().next().ok_or(Bypass::NoOrg)?
                    }
                    None => return Err(Bypass::NoOrg),
                };
                Ok(Self::Org(org.as_str().into()))
            }
            Scope::User => {
                let principal = principal.ok_or(Bypass::Anonymous)?;
                Ok(Self::User {
                    subject: principal.subject.as_str().into(),
                    orgs: principal.orgs.keys().map(|o| o.as_str().into()).collect(),
                })
            }
        }
    }

    /// The organisations whose invalidations concern the entry.
    #[must_use]
    pub fn orgs(&self) -> &[Arc<str>] {
        match self {
            Self::Public => &[],
            Self::Org(org) => std::slice::from_ref(org),
            Self::User { orgs, .. } => orgs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Owner;
    use crate::cache::{Bypass, Scope};
    use crate::kernel::clock::UnixMs;
    use crate::kernel::principal::Principal;

    fn member_of(orgs: &[&str]) -> Principal {
        Principal {
            subject: "usr_1".into(),
            token_id: "t".into(),
            orgs: orgs
                .iter()
                .map(|o| ((*o).into(), "member".into()))
                .collect(),
            plan: "PRO".into(),
            scopes: Vec::new(),
            expires_at: UnixMs(0),
        }
    }

    #[test]
    fn a_stranger_owns_nothing_of_an_organisation() {
        let caller = member_of(&["org_a"]);
        assert_eq!(
            Owner::find(Scope::Org, Some(&caller), Some("org_b")),
            Err(Bypass::NotMember)
        );
        assert_eq!(
            Owner::find(Scope::Org, None, Some("org_a")),
            Err(Bypass::Anonymous)
        );
    }

    #[test]
    fn only_a_single_membership_needs_no_naming() {
        let one = Owner::find(Scope::Org, Some(&member_of(&["org_a"])), None);
        assert_eq!(one, Ok(Owner::Org("org_a".into())));
        let two = Owner::find(Scope::Org, Some(&member_of(&["org_a", "org_b"])), None);
        assert_eq!(two, Err(Bypass::NoOrg));
    }

    #[test]
    fn a_users_entry_is_found_by_each_of_their_organisations() {
        let owner = Owner::find(Scope::User, Some(&member_of(&["a", "b"])), None).unwrap();
        assert_eq!(owner.orgs(), ["a", "b"].map(std::sync::Arc::<str>::from));
    }
}

//! Decides which stored responses an invalidation concerns (RFC 9875, scoped by organisation as ADR 1
//! says) and reads the two header fields that speak of it. Removing is [`super::storage`]'s part;
//! keeping late arrivals out is [`fence`]'s.

pub mod fence;

use std::convert::Infallible;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use sfv::visitor::{
    EntryVisitor, Ignored, InnerListVisitor, ItemVisitor, ListVisitor, ParameterVisitor,
};
use sfv::{BareItemFromInput, KeyRef, Parser};

use crate::kernel::header::{CACHE_GROUP_INVALIDATION, CACHE_GROUPS};

/// Most groups in one field, and most characters in one group. RFC 9875 asks for fewer.
pub const GROUPS_MAX: usize = 128;
pub const GROUP_CHARS_MAX: usize = 256;

/// What an entry can be found by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Label {
    /// Organisations whose invalidations concern it; none for a public entry.
    pub orgs: Arc<[Arc<str>]>,
    /// The policy's name, and the groups that the origin declared.
    pub groups: Arc<[Arc<str>]>,
    /// Host and path.
    pub target: Arc<str>,
}

/// Whose entries are meant.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Whose {
    Anyone,
    /// Those that belong to no organisation.
    NoOrg,
    Org(String),
}

/// Which of them.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Which {
    Everything,
    /// Members of at least one of these groups.
    Groups(Vec<String>),
    /// Those of one resource, by [`super::key::target`].
    Target(String),
}

/// A set of stored responses.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Selector {
    pub whose: Whose,
    pub which: Which,
}

impl Selector {
    /// Whether an entry with this label is in the set.
    #[must_use]
    pub fn matches(&self, label: &Label) -> bool {
        let owned = match &self.whose {
            Whose::Anyone => true,
            Whose::NoOrg => label.orgs.is_empty(),
            Whose::Org(org) => label.orgs.iter().any(|o| **o == **org),
        };
        owned
            && match &self.which {
                Which::Everything => true,
                Which::Groups(groups) => groups
                    .iter()
                    .any(|g| label.groups.iter().any(|held| **held == **g)),
                Which::Target(target) => *label.target == **target,
            }
    }

    /// What the log says of its removal.
    #[must_use]
    pub fn log_line(&self, removed: usize) -> String {
        let org = match &self.whose {
            Whose::Anyone => "*".to_owned(),
            Whose::NoOrg => "-".to_owned(),
            Whose::Org(org) => org.escape_debug().to_string(),
        };
        let which = match &self.which {
            Which::Everything => "prefixes=*".to_owned(),
            Which::Groups(groups) => format!("prefixes={}", json(groups)),
            Which::Target(target) => format!("target={}", json(target)),
        };
        format!("Invalidating org={org} {which} removed={removed}")
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A field that is not what RFC 9875 says it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0} is no list of strings within limits")]
pub struct Malformed(pub &'static str);

/// The groups that a response declares.
///
/// # Errors
/// Where the field cannot be read. Such a response must not be stored: it could not be forgotten.
pub fn declared(response: &HeaderMap) -> Result<Vec<Arc<str>>, Malformed> {
    let members = members(response, &CACHE_GROUPS).ok_or(Malformed("Cache-Groups"))?;
    Ok(members.into_iter().map(|m| m.group.into()).collect())
}

/// What a response to an unsafe request asks to forget, one selector per organisation in the order
/// of their first naming. A group without `org` means everybody's entries.
///
/// # Errors
/// Where the field cannot be read.
pub fn invalidated(response: &HeaderMap) -> Result<Vec<Selector>, Malformed> {
    let malformed = Malformed("Cache-Group-Invalidation");
    let mut found: Vec<Selector> = Vec::new();
    for member in members(response, &CACHE_GROUP_INVALIDATION).ok_or(malformed)? {
        let whose = match member.org {
            Org::Absent => Whose::Anyone,
            Org::Named(org) => Whose::Org(org),
            Org::Malformed => return Err(malformed),
        };
        let held = found.iter_mut().find(|s| s.whose == whose);
        match held.map(|s| &mut s.which) {
            Some(Which::Groups(groups)) => groups.push(member.group),
            Some(Which::Everything | Which::Target(_)) | None => found.push(Selector {
                whose,
                which: Which::Groups(vec![member.group]),
            }),
        }
    }
    Ok(found)
}

/// One member of either list.
struct Member {
    group: String,
    org: Org,
}

/// The parameter that is ours (ADR 1).
enum Org {
    Absent,
    Named(String),
    /// There, and no string: taking it for absent would be a guess.
    Malformed,
}

/// All lines of the field as one list of strings; empty where there is none.
fn members(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<Member>> {
    let mut members = Members::default();
    for line in headers.get_all(name) {
        members = Parser::new(line.as_bytes())
            .parse_list_with_visitor(members)
            .ok()?;
    }
    let short = |m: &Member| m.group.len() <= GROUP_CHARS_MAX;
    let sound = !members.foreign && members.found.len() <= GROUPS_MAX;
    (sound && members.found.iter().all(short)).then_some(members.found)
}

#[derive(Default)]
struct Members {
    found: Vec<Member>,
    /// Something that is no string was among them.
    foreign: bool,
}

impl<'de> ListVisitor<'de> for Members {
    type Out = Self;
    type Error = Infallible;

    fn entry(&mut self) -> Result<impl EntryVisitor<'de>, Infallible> {
        Ok(self)
    }

    fn finish(self) -> Result<Self, Infallible> {
        Ok(self)
    }
}

impl<'de> EntryVisitor<'de> for &mut Members {
    type Error = Infallible;

    fn item(self) -> Result<impl ItemVisitor<'de>, Infallible> {
        Ok(self)
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'de>, Infallible> {
        self.foreign = true;
        Ok(Ignored)
    }
}

impl<'de> ItemVisitor<'de> for &mut Members {
    type Out = ();
    type Error = Infallible;

    fn bare_item(
        self,
        item: BareItemFromInput<'de>,
    ) -> Result<impl ParameterVisitor<'de, Out = ()>, Infallible> {
        match item.as_string() {
            Some(group) => self.found.push(Member {
                group: group.as_str().to_owned(),
                org: Org::Absent,
            }),
            None => self.foreign = true,
        }
        Ok(self)
    }
}

impl<'de> ParameterVisitor<'de> for &mut Members {
    type Out = ();
    type Error = Infallible;

    fn parameter(
        &mut self,
        key: &'de KeyRef,
        value: BareItemFromInput<'de>,
    ) -> Result<(), Infallible> {
        if key.as_str() == "org"
            && let Some(member) = self.found.last_mut()
        {
            member.org = match value.as_string() {
                Some(org) => Org::Named(org.as_str().to_owned()),
                None => Org::Malformed,
            };
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Infallible> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderMap, HeaderName};
    use proptest::prelude::*;

    use super::{Label, Selector, Which, Whose, declared, invalidated};
    use crate::kernel::header::{CACHE_GROUP_INVALIDATION, CACHE_GROUPS};

    fn headers(name: HeaderName, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(&name, line.parse().unwrap());
        }
        headers
    }

    fn groups(lines: &[&str]) -> Option<Vec<Arc<str>>> {
        declared(&headers(CACHE_GROUPS, lines)).ok()
    }

    fn label(orgs: &[&str], groups: &[&str], target: &str) -> Label {
        let all = |names: &[&str]| names.iter().map(|n| (*n).into()).collect();
        Label {
            orgs: all(orgs),
            groups: all(groups),
            target: target.into(),
        }
    }

    #[test]
    fn rfc9875_2_groups_are_a_list_of_strings() {
        assert_eq!(groups(&[]), Some(vec![]));
        let both = Some(vec!["overview".into(), "rank,ings".into()]);
        assert_eq!(groups(&[r#""overview", "rank,ings""#]), both);
        assert_eq!(groups(&[r#""overview""#, r#""rank,ings""#]), both);
        assert_eq!(groups(&[r#""overview";priority=1, "rank,ings""#]), both);
    }

    #[test]
    fn rfc9875_2_anything_else_is_refused() {
        for bad in ["overview", r#""a", 1"#, r#"("a")"#, r#""a" "b""#, r#""a"#] {
            assert_eq!(groups(&[bad]), None, "{bad}");
        }
        let long = format!("\"{}\"", "x".repeat(257));
        assert_eq!(groups(&[&long]), None);
        let many = vec![r#""x""#; 129].join(",");
        assert_eq!(groups(&[&many]), None);
    }

    #[test]
    fn rfc9875_3_invalidations_are_gathered_by_organisation() {
        let line =
            r#""overview";org="org_x", "all", "rankings";org="org_x", "overview";org="org_y""#;
        let found = invalidated(&headers(CACHE_GROUP_INVALIDATION, &[line])).unwrap();
        let selector = |whose, groups: &[&str]| Selector {
            whose,
            which: Which::Groups(groups.iter().map(|g| (*g).into()).collect()),
        };
        assert_eq!(
            found,
            [
                selector(Whose::Org("org_x".into()), &["overview", "rankings"]),
                selector(Whose::Anyone, &["all"]),
                selector(Whose::Org("org_y".into()), &["overview"]),
            ]
        );
    }

    #[test]
    fn an_organisation_that_is_no_string_is_not_guessed() {
        let bad = headers(CACHE_GROUP_INVALIDATION, &[r#""overview";org=org_x"#]);
        assert!(invalidated(&bad).is_err());
    }

    #[test]
    fn an_invalidation_stays_with_its_organisation() {
        let selector = Selector {
            whose: Whose::Org("a".into()),
            which: Which::Groups(vec!["overview".into(), "rankings".into()]),
        };
        assert!(selector.matches(&label(&["a"], &["rankings"], "/")));
        assert!(selector.matches(&label(&["b", "a"], &["overview"], "/")));
        assert!(!selector.matches(&label(&["b"], &["rankings"], "/")));
        assert!(!selector.matches(&label(&[], &["rankings"], "/")));
        assert!(!selector.matches(&label(&["a"], &["budgets"], "/")));
        let public = Selector {
            whose: Whose::NoOrg,
            which: Which::Target("h/x".into()),
        };
        assert!(public.matches(&label(&[], &[], "h/x")));
        assert!(!public.matches(&label(&["a"], &[], "h/x")));
    }

    #[test]
    fn the_log_line_is_the_contracts() {
        let selector = Selector {
            whose: Whose::Org("ORG_ABC".into()),
            which: Which::Groups(vec!["overview".into(), "rankings".into()]),
        };
        assert_eq!(
            selector.log_line(3),
            r#"Invalidating org=ORG_ABC prefixes=["overview","rankings"] removed=3"#
        );
    }

    #[test]
    fn a_log_line_stays_one_line() {
        let selector = Selector {
            whose: Whose::Org("a\nfake".into()),
            which: Which::Groups(vec!["b\n".into()]),
        };
        assert!(!selector.log_line(0).contains('\n'));
    }

    proptest! {
        #[test]
        fn any_field_is_survived(line in "[ -~]{0,60}") {
            let _ = groups(&[&line]);
            let _ = invalidated(&headers(CACHE_GROUP_INVALIDATION, &[&line]));
        }

        #[test]
        fn any_list_of_strings_is_read_back(names in prop::collection::vec("[ -~]{1,20}", 0..9)) {
            let quoted = |n: &String| format!("\"{}\"", n.replace('\\', r"\\").replace('"', "\\\""));
            let line = names.iter().map(quoted).collect::<Vec<_>>().join(", ");
            let read = groups(&[&line]).unwrap();
            prop_assert!(read.iter().map(|g| g.to_string()).eq(names));
        }
    }
}

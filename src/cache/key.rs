//! Decides under which key a response is stored and what query goes upstream. Both come from one
//! normalisation, so that nothing outside the key can reach the origin through the query.
//!
//! Invariant: two keys are equal only if prefix, policy, owner, scheme, host, path and forwarded
//! query are equal; every part is prefixed with its length, so that no two can run into each other.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::kernel::facts::{Facts, Scheme};

use super::Policy;
use super::owner::Owner;

/// Where a response is stored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Key {
    bytes: Vec<u8>,
    query: Option<String>,
    target: Arc<str>,
}

impl Key {
    /// The exact key.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The query to send upstream in place of the client's.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// Host and path, by which a change of the resource finds all its entries.
    #[must_use]
    pub fn target(&self) -> &Arc<str> {
        &self.target
    }

    /// `{CACHE_PREFIX}:{name}:{owner}:scheme://host/path?query`, for people. Not unique.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut parts = Parts(&self.bytes).map(String::from_utf8_lossy);
        let mut part = || parts.next().unwrap_or_default();
        let (prefix, name, scope, id) = (part(), part(), part(), part());
        let (scheme, host, path) = (part(), part(), part());
        let owner: Cow<'_, str> = match &*scope {
            "org" => id,
            "user" => format!("user={id}").into(),
            _ => "public".into(),
        };
        let mut text = format!("{prefix}:{name}:{owner}:{scheme}://{host}{path}");
        if let Some(query) = self.query() {
            let _ = write!(text, "?{query}");
        }
        text
    }
}

/// The key of this request under `policy`, for `owner`.
#[must_use]
pub fn build(prefix: &str, policy: &Policy, owner: &Owner, facts: &Facts) -> Key {
    let query = normalise(facts.query.as_deref(), policy.query.as_deref());
    let (scope, id) = match owner {
        Owner::Public => ("public", ""),
        Owner::Org(org) => ("org", &**org),
        Owner::User { subject, .. } => ("user", &**subject),
    };
    let scheme = match facts.scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let parts = [
        prefix,
        &policy.name,
        scope,
        id,
        scheme,
        &facts.host,
        &facts.path,
        // A part that is there only if the query is: `/x` differs from `/x?`-with-nothing anyway,
        // since an empty query normalises to none.
        query.as_deref().unwrap_or_default(),
    ];
    let mut bytes = Vec::with_capacity(parts.iter().map(|p| p.len() + LENGTH_BYTES).sum());
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    Key {
        bytes,
        query,
        target: target(&facts.host, &facts.path).into(),
    }
}

/// The name by which entries of one resource are found, whatever their query and owner.
#[must_use]
pub fn target(host: &str, path: &str) -> String {
    format!("{host}{path}")
}

/// Pairs that are allowed, each in one spelling, sorted by name; pairs of one name keep their order,
/// because origins differ in which of them they read.
fn normalise(query: Option<&str>, allowed: Option<&[String]>) -> Option<String> {
    let mut pairs: Vec<(Vec<u8>, String)> = query?
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| (decoded_name(pair), respelled(pair)))
        .filter(|(name, _)| {
            allowed.is_none_or(|allowed| allowed.iter().any(|a| a.as_bytes() == name))
        })
        .collect();
    pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
    let spelled: Vec<String> = pairs.into_iter().map(|(_, pair)| pair).collect();
    (!spelled.is_empty()).then(|| spelled.join("&"))
}

/// The parameter's name as an origin reads it: up to the first `=`, decoded as a form.
fn decoded_name(pair: &str) -> Vec<u8> {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name);
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let (byte, after) = match (first, escape(rest)) {
            (_, Some(byte)) => (byte, &rest[ESCAPE_BYTES..]),
            (b'+', None) => (b' ', tail),
            (other, None) => (other, tail),
        };
        out.push(byte);
        rest = after;
    }
    out
}

/// The pair with escapes in one spelling (RFC 3986, 6.2.2): unreserved characters bare, the others
/// in upper case. A `%` that escapes nothing is itself escaped, lest it meet what follows and become
/// an escape that was not there: `%%361` reads as `%61`, which must not go out as such.
fn respelled(pair: &str) -> String {
    if !pair.contains('%') {
        return pair.to_owned();
    }
    let mut out = String::with_capacity(pair.len());
    let mut chars = pair.char_indices();
    while let Some((at, char)) = chars.next() {
        match escape(&pair.as_bytes()[at..]) {
            None if char == '%' => out.push_str("%25"),
            None => out.push(char),
            Some(byte) => {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    out.push(char::from(byte));
                } else {
                    let _ = write!(out, "%{byte:02X}");
                }
                chars.nth(1);
            }
        }
    }
    out
}

/// The byte that an escape at the start of `text` stands for.
fn escape(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else {
        return None;
    };
    let digit = |b: &u8| char::from(*b).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// Walks over the parts of a key.
struct Parts<'a>(&'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<LENGTH_BYTES>()?;
        let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
        let (part, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(part)
    }
}

const LENGTH_BYTES: usize = 8;
const ESCAPE_BYTES: usize = "%41".len();

#[cfg(test)]
mod tests;

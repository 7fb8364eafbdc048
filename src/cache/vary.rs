//! Decides which requests may share a response that has a `Vary` (RFC 9111, 4.1): names the fields
//! and brings their values into one spelling, so that requests that mean the same share one entry.
//! Does not hash.

use std::borrow::Cow;

use http::header::{ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE, VARY};
use http::{HeaderMap, HeaderName};

/// More fields than this are not told apart; such a response is not stored.
pub const NAMES_MAX: usize = 16;

/// The fields named by `Vary`, sorted, each once. `None` where no later request can be known to
/// match: `*`, a name that is none, or too many.
#[must_use]
pub fn names(response: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for line in response.get_all(VARY) {
        for name in line.to_str().ok()?.split(',').map(str::trim) {
            if !name.is_empty() {
                names.push(name.parse::<HeaderName>().ok().filter(|n| n != "*")?);
            }
        }
    }
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    (names.len() <= NAMES_MAX).then_some(names)
}

/// What a request says in one of these fields, in one spelling. An absent field differs from an
/// empty one.
#[must_use]
pub fn value(request: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    let mut lines = request.get_all(name).iter().peekable();
    if lines.peek().is_none() {
        return b"absent".to_vec();
    }
    let joined = lines.fold(Vec::new(), |mut joined, line| {
        if !joined.is_empty() {
            joined.extend_from_slice(b", ");
        }
        joined.extend_from_slice(line.as_bytes());
        joined
    });
    let spelled: Cow<'_, [u8]> = match std::str::from_utf8(&joined) {
        Ok(text) if *name == ACCEPT_ENCODING => encodings(text).into_bytes().into(),
        Ok(text) if NEGOTIATION.contains(name) => spaced(text).into_bytes().into(),
        Ok(_) | Err(_) => joined.as_slice().into(),
    };
    [b"=".as_slice(), &spelled].concat()
}

/// The codings that are acceptable, sorted. Weights are dropped: whoever takes `br` and `gzip` can
/// read either. What is refused matters only for `identity`, which is acceptable unless refused.
fn encodings(text: &str) -> String {
    let mut codings: Vec<String> = text
        .split(',')
        .filter_map(|member| {
            let mut parts = member.split(';').map(str::trim);
            let coding = parts.next()?.to_ascii_lowercase();
            let refused = parts.any(is_zero_weight);
            match (coding.as_str(), refused) {
                ("", _) | ("identity", false) => None,
                ("identity" | "*", true) => Some(format!("!{coding}")),
                (_, true) => None,
                // The old name of the same coding (RFC 9110, 8.4.1.3).
                ("x-gzip", false) => Some("gzip".to_owned()),
                (_, false) => Some(coding),
            }
        })
        .collect();
    codings.sort();
    codings.dedup();
    codings.join(",")
}

/// `q=0`, `q=0.0`, …
fn is_zero_weight(parameter: &str) -> bool {
    let Some((name, weight)) = parameter.split_once('=') else {
        return false;
    };
    let weight = weight.trim();
    let zero = weight.starts_with('0') && weight.bytes().all(|b| matches!(b, b'0' | b'.'));
    name.trim().eq_ignore_ascii_case("q") && zero
}

/// Lower case, no blanks around separators; the order is kept, since it can matter.
fn spaced(text: &str) -> String {
    let members = text.split(',').map(|member| {
        let parts = member.split(';').map(str::trim);
        parts.collect::<Vec<_>>().join(";").to_ascii_lowercase()
    });
    members
        .filter(|m| !m.is_empty())
        .collect::<Vec<_>>()
        .join(",")
}

/// Fields of content negotiation, where case and blanks mean nothing.
const NEGOTIATION: [HeaderName; 3] = [ACCEPT, ACCEPT_CHARSET, ACCEPT_LANGUAGE];

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, COOKIE, VARY};
    use http::{HeaderMap, HeaderName};

    use super::{names, value};

    fn headers(name: HeaderName, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(&name, line.parse().unwrap());
        }
        headers
    }

    #[test]
    fn rfc9111_4_1_a_star_matches_nothing() {
        assert_eq!(names(&headers(VARY, &["Accept, *"])), None);
        assert_eq!(names(&headers(VARY, &["Accept", "*"])), None);
        let many: Vec<String> = (0..17).map(|i| format!("x-{i}")).collect();
        assert_eq!(names(&headers(VARY, &[&many.join(",")])), None);
    }

    #[test]
    fn names_are_sorted_and_single() {
        let found = names(&headers(VARY, &["Origin, accept-encoding", "ORIGIN,"])).unwrap();
        assert_eq!(found, ["accept-encoding", "origin"]);
    }

    #[test]
    fn the_same_codings_in_another_order_share_an_entry() {
        let spelled = |text: &str| value(&headers(ACCEPT_ENCODING, &[text]), &ACCEPT_ENCODING);
        assert_eq!(
            spelled("gzip, deflate, br"),
            spelled("BR;q=1,gzip;q=0.5,deflate")
        );
        assert_eq!(spelled("gzip, identity"), spelled("x-gzip, br;q=0.00"));
        assert_ne!(spelled("gzip"), spelled("gzip, identity;q=0"));
        assert_ne!(spelled("gzip"), spelled("br"));
    }

    #[test]
    fn absent_differs_from_empty() {
        let absent = value(&HeaderMap::new(), &ACCEPT_ENCODING);
        let empty = value(&headers(ACCEPT_ENCODING, &[""]), &ACCEPT_ENCODING);
        assert_ne!(absent, empty);
        assert_ne!(absent, value(&headers(COOKIE, &["absent"]), &COOKIE));
    }

    #[test]
    fn order_matters_where_it_can_and_values_stay_exact_where_they_must() {
        let spelled = |text: &str| value(&headers(ACCEPT_LANGUAGE, &[text]), &ACCEPT_LANGUAGE);
        assert_eq!(spelled("de-DE , en; q=0.5"), spelled("de-de,EN;q=0.5"));
        assert_ne!(spelled("de,en"), spelled("en,de"));
        let cookie = |text: &str| value(&headers(COOKIE, &[text]), &COOKIE);
        assert_ne!(cookie("a=B"), cookie("a=b"));
    }
}

//! What a client may write into a query: known keys only, each once. A misspelt filter would
//! otherwise match everything.

use std::collections::BTreeMap;

use super::answer::Problem;

/// A query's keys and values, decoded.
#[derive(Debug)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// Refuses what is not among `known`.
    pub(super) fn parse(raw: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut found = BTreeMap::new();
        for pair in raw.unwrap_or("").split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(key), Some(value)) = (decoded(key), decoded(value)) else {
                return Err(Problem::bad(
                    "the query is not percent-encoded UTF-8; encode `%`, `&`, `+` and `#`",
                ));
            };
            if !known.contains(&key.as_str()) {
                let known = match known.is_empty() {
                    true => "none".to_owned(),
                    false => known.join(", "),
                };
                return Err(Problem::bad(format!(
                    "`{key}` is not a query key of this path; it takes {known}"
                )));
            }
            if found.insert(key.clone(), value).is_some() {
                return Err(Problem::bad(format!("the query has `{key}` twice")));
            }
        }
        // A form sends its empty fields too.
        found.retain(|_, value| !value.is_empty());
        Ok(Self(found))
    }

    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        self.0.remove(key)
    }

    /// A whole number between two bounds.
    pub(super) fn take_number(
        &mut self,
        key: &str,
        bounds: std::ops::RangeInclusive<usize>,
        default: usize,
    ) -> Result<usize, Problem> {
        let Some(text) = self.take(key) else {
            return Ok(default);
        };
        let number = text.parse().ok().filter(|n| bounds.contains(n));
        number.ok_or_else(|| {
            Problem::bad(format!(
                "`{key}` is a whole number from {} to {}",
                bounds.start(),
                bounds.end()
            ))
        })
    }
}

/// `+` is a space, as forms write it.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |b: u8| char::from(b).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::Query;

    #[test]
    fn known_keys_are_decoded() {
        let mut query = Query::parse(Some("a=x%2By+z&b="), &["a", "b"]).unwrap();
        assert_eq!(query.take("a").as_deref(), Some("x+y z"));
        assert_eq!(query.take("b"), None);
    }

    #[test]
    fn what_is_unknown_twice_or_no_text_is_refused() {
        for (raw, expected) in [
            ("stat=dead", "`stat` is not a query key of this path"),
            ("a=1&a=2", "has `a` twice"),
            ("a=%4", "percent-encoded"),
            ("a=%zz", "percent-encoded"),
            ("a=%ff", "percent-encoded"),
        ] {
            let problem = Query::parse(Some(raw), &["a"]).unwrap_err();
            assert!(problem.detail.contains(expected), "{raw}: {problem:?}");
        }
    }

    #[test]
    fn numbers_have_bounds() {
        let number = |raw| {
            Query::parse(Some(raw), &["limit"])
                .unwrap()
                .take_number("limit", 1..=500, 100)
        };
        assert_eq!(number("").unwrap(), 100);
        assert_eq!(number("limit=500").unwrap(), 500);
        for raw in ["limit=0", "limit=501", "limit=-1", "limit=x"] {
            assert!(number(raw).is_err(), "{raw}");
        }
    }
}

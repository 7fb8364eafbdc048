//! Reads `Cache-Control` (RFC 9111, section 5.2), leniently in form and strictly in effect: whatever
//! cannot be read makes a response less cacheable, never more. Draws no conclusions.

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue};

/// The directives of one message. Seconds are capped at 2^31 (RFC 9111, 1.2.2); a number that is
/// none, or two that differ, count as the smaller, i.e. as 0.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Directives {
    pub no_store: bool,
    /// Also where it names fields only: a whole-response reading is the safe one.
    pub no_cache: bool,
    /// Also where it names fields only.
    pub private: bool,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub only_if_cached: bool,
    pub max_age_s: Option<u32>,
    pub s_maxage_s: Option<u32>,
    pub min_fresh_s: Option<u32>,
    pub stale_while_revalidate_s: Option<u32>,
    pub stale_if_error_s: Option<u32>,
    /// Some of the field is not text.
    pub unreadable: bool,
}

/// Longest lifetime that is told apart from "for ever" (RFC 9111, 1.2.2).
pub const SECONDS_MAX: u32 = 1 << 31;

impl Directives {
    /// All `Cache-Control` lines together.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for line in headers.get_all(CACHE_CONTROL) {
            found.line(line);
        }
        found
    }

    fn line(&mut self, line: &HeaderValue) {
        let Ok(line) = line.to_str() else {
            self.unreadable = true;
            return;
        };
        for directive in split_unquoted(line) {
            let (name, argument) = match directive.split_once('=') {
                Some((name, argument)) => (name.trim(), Some(argument.trim())),
                None => (directive.trim(), None),
            };
            self.directive(&name.to_ascii_lowercase(), argument);
        }
    }

    fn directive(&mut self, name: &str, argument: Option<&str>) {
        match name {
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache = true,
            "private" => self.private = true,
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "only-if-cached" => self.only_if_cached = true,
            "max-age" => lower(&mut self.max_age_s, argument),
            "s-maxage" => lower(&mut self.s_maxage_s, argument),
            "min-fresh" => lower(&mut self.min_fresh_s, argument),
            "stale-while-revalidate" => lower(&mut self.stale_while_revalidate_s, argument),
            "stale-if-error" => lower(&mut self.stale_if_error_s, argument),
            // RFC 9111, 5.2.3: unknown ones are ignored.
            _ => {}
        }
    }
}

fn lower(slot: &mut Option<u32>, argument: Option<&str>) {
    let value = seconds(argument.unwrap_or_default()).unwrap_or(0);
    *slot = Some(slot.map_or(value, |held| held.min(value)));
}

/// Delta seconds, quoted or not; too many are as many as there can be.
#[must_use]
pub fn seconds(text: &str) -> Option<u32> {
    let bare = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    let digits = bare.unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let many = digits.parse::<u32>().unwrap_or(SECONDS_MAX);
    Some(many.min(SECONDS_MAX))
}

/// Splits at commas that are not inside a quoted string.
fn split_unquoted(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    text.split(move |char: char| {
        match char {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' => return !quoted,
            _ => {}
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::CACHE_CONTROL;

    use super::{Directives, SECONDS_MAX};

    fn read(lines: &[&str]) -> Directives {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, line.parse().unwrap());
        }
        Directives::read(&headers)
    }

    #[test]
    fn rfc9111_5_2_names_ignore_case_and_lines_add_up() {
        let found = read(&["Max-Age=60, PUBLIC", "s-maxage=\"10\""]);
        assert_eq!(found.max_age_s, Some(60));
        assert_eq!(found.s_maxage_s, Some(10));
        assert!(found.public);
    }

    #[test]
    fn rfc9111_4_2_1_conflicting_or_broken_lifetimes_are_the_smaller() {
        assert_eq!(read(&["max-age=60, max-age=5"]).max_age_s, Some(5));
        assert_eq!(read(&["max-age=soon"]).max_age_s, Some(0));
        assert_eq!(read(&["max-age=-1"]).max_age_s, Some(0));
        assert_eq!(read(&["max-age"]).max_age_s, Some(0));
        assert_eq!(read(&["max-age=99999999999"]).max_age_s, Some(SECONDS_MAX));
    }

    #[test]
    fn rfc9111_5_2_2_4_field_names_do_not_hide_what_follows() {
        let found = read(&[r#"no-cache="set-cookie, x-secret", max-age=9"#]);
        assert!(found.no_cache);
        assert_eq!(found.max_age_s, Some(9));
        let escaped = read(&[r#"x="a\", no-store", max-age=9"#]);
        assert!(!escaped.no_store, "inside a quoted string");
        assert_eq!(escaped.max_age_s, Some(9));
    }

    #[test]
    fn what_is_no_text_is_reported() {
        let mut headers = HeaderMap::new();
        headers.append(
            CACHE_CONTROL,
            http::HeaderValue::from_bytes(b"max-age=9\xff").unwrap(),
        );
        assert!(Directives::read(&headers).unreadable);
    }
}

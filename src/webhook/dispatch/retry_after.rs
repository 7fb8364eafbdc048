//! Reads `Retry-After` (RFC 9110, section 10.2.3): how long an API asks to be left alone.

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;
use http::header::RETRY_AFTER;

use crate::kernel::clock::UnixMs;

/// Longest wait that an API may ask for; more is taken for this much, so that a wrong date does not
/// put an event off for ever.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// What the header asks for, counted from `now`; `None` where it is missing, unreadable or there twice.
#[must_use]
pub fn read(headers: &HeaderMap, now: UnixMs) -> Option<Duration> {
    let mut lines = headers.get_all(RETRY_AFTER).iter();
    let text = lines.next()?.to_str().ok()?.trim();
    if lines.next().is_some() {
        return None;
    }
    let asked = match text.parse::<u32>() {
        Ok(seconds) if text.bytes().all(|b| b.is_ascii_digit()) => {
            Duration::from_secs(seconds.into())
        }
        Ok(_) | Err(_) => until(text, now)?,
    };
    Some(asked.min(RETRY_AFTER_MAX))
}

/// Time left until an HTTP date, in any of its three forms; none for one that is past.
fn until(date: &str, now: UnixMs) -> Option<Duration> {
    let at = httpdate::parse_http_date(date).ok()?;
    let at = at.duration_since(UNIX_EPOCH).ok()?;
    let now = Duration::from_millis(u64::try_from(now.0).ok()?);
    Some(at.saturating_sub(now))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderMap;
    use http::header::RETRY_AFTER;

    use super::{RETRY_AFTER_MAX, read};
    use crate::kernel::clock::UnixMs;

    /// Sun, 06 Nov 1994 08:49:37 GMT
    const NOW: UnixMs = UnixMs(784_111_777_000);

    fn of(lines: &[&str]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(RETRY_AFTER, line.parse().unwrap());
        }
        read(&headers, NOW)
    }

    #[test]
    fn seconds_and_dates_are_read() {
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(of(&["0"]), seconds(0));
        assert_eq!(of(&[" 120 "]), seconds(120));
        assert_eq!(of(&["Sun, 06 Nov 1994 08:50:37 GMT"]), seconds(60));
        assert_eq!(of(&["Sunday, 06-Nov-94 08:50:37 GMT"]), seconds(60));
        assert_eq!(of(&["Sun Nov  6 08:50:37 1994"]), seconds(60));
        assert_eq!(of(&["Sun, 06 Nov 1994 08:00:00 GMT"]), seconds(0), "past");
    }

    #[test]
    fn what_is_absurd_is_capped_and_what_is_unreadable_asks_for_nothing() {
        assert_eq!(of(&["4294967295"]), Some(RETRY_AFTER_MAX));
        assert_eq!(
            of(&["Fri, 01 Jan 2100 00:00:00 GMT"]),
            Some(RETRY_AFTER_MAX)
        );
        for bad in ["", "-1", "+5", "1.5", "soon", "99999999999"] {
            assert_eq!(of(&[bad]), None, "{bad}");
        }
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["1", "2"]), None);
    }
}

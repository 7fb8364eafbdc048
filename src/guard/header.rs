//! Decides whether a request's header is small enough to be carried on. The parser's own limits are
//! far higher; these are the configured ones.

use http::HeaderMap;
use http::request::Parts;

use super::Policy;
use crate::kernel::reject::{Code, Reject};

/// Checks the target's length, and number and bytes of the header fields.
///
/// # Errors
/// 414 for the target, 431 for the fields.
pub fn check(parts: &Parts, policy: &Policy) -> Result<(), Reject> {
    let target = parts
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if target > policy.target_bytes_max {
        let reason = format!(
            "target of {target} bytes, limit {}",
            policy.target_bytes_max
        );
        return Err(Reject::new(Code::UriTooLong, "target_bytes", reason));
    }
    let count = parts.headers.len();
    if count > policy.header_count_max {
        let reason = format!("{count} header fields, limit {}", policy.header_count_max);
        return Err(Reject::new(Code::HeadersTooLarge, "header_count", reason));
    }
    let bytes = header_bytes(&parts.headers);
    if bytes > policy.header_bytes_max {
        let reason = format!("{bytes} header bytes, limit {}", policy.header_bytes_max);
        return Err(Reject::new(Code::HeadersTooLarge, "header_bytes", reason));
    }
    Ok(())
}

fn header_bytes(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::check;
    use crate::guard::Policy;

    #[test]
    fn each_limit_has_its_status() {
        let policy = Policy {
            target_bytes_max: 10,
            header_bytes_max: 20,
            header_count_max: 2,
            trusted_hops: Vec::new(),
        };
        let status = |uri: &str, headers: &[(&str, &str)]| {
            let mut request = Request::builder().uri(uri);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let parts = request.body(()).unwrap().into_parts().0;
            check(&parts, &policy)
                .err()
                .map(|reject| reject.status().as_u16())
        };
        assert_eq!(status("/23456789?", &[("a", "b"), ("a", "c")]), None);
        assert_eq!(status("/234567890?", &[]), Some(414));
        assert_eq!(
            status("/", &[("a", "1"), ("b", "2"), ("c", "3")]),
            Some(431)
        );
        assert_eq!(status("/", &[("a", "12345678901234567890")]), Some(431));
        assert_eq!(status("/", &[("a", "1234567890123456789")]), None);
    }
}

//! Finds the credential in a request. Does not judge it.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::refusal::AuthRefusal;

/// Longest token that is looked at.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// The bearer token; `None` where the request has no `Authorization`.
///
/// # Errors
/// Anything but one `Authorization: Bearer` with one token of known characters.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>, AuthRefusal> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let value = match (lines.next(), lines.next()) {
        (None, _) => return Ok(None),
        (Some(only), None) => only.as_bytes(),
        (Some(_), Some(_)) => return Err(AuthRefusal::Duplicate),
    };
    let (scheme, token) = value.split_at_checked(7).ok_or(AuthRefusal::NotBearer)?;
    if !scheme.eq_ignore_ascii_case(b"Bearer ") {
        return Err(AuthRefusal::NotBearer);
    }
    if token.len() > TOKEN_BYTES_MAX {
        return Err(AuthRefusal::TooLarge {
            max: TOKEN_BYTES_MAX,
        });
    }
    // RFC 6750: b64token.
    let known = |b: &u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(b);
    if token.is_empty() || !token.iter().all(known) {
        return Err(AuthRefusal::NotBearer);
    }
    std::str::from_utf8(token)
        .map(Some)
        .map_err(|_| AuthRefusal::NotBearer)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::{AuthRefusal, TOKEN_BYTES_MAX, bearer};

    fn run(lines: &[&str]) -> Result<Option<String>, AuthRefusal> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("authorization", line.parse().unwrap());
        }
        bearer(&headers).map(|token| token.map(str::to_owned))
    }

    #[test]
    fn one_bearer_token_is_found() {
        assert_eq!(run(&[]), Ok(None));
        assert_eq!(run(&["Bearer a.b-_.c="]), Ok(Some("a.b-_.c=".into())));
        assert_eq!(run(&["bEARER abc"]), Ok(Some("abc".into())));
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(run(&["Bearer a", "Bearer a"]), Err(AuthRefusal::Duplicate));
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer  a",
            "Basic abc",
            "Bearer a b",
            "Bearer a,b",
        ] {
            assert_eq!(run(&[bad]), Err(AuthRefusal::NotBearer), "{bad}");
        }
        let long = format!("Bearer {}", "a".repeat(TOKEN_BYTES_MAX + 1));
        assert_eq!(
            run(&[&long]),
            Err(AuthRefusal::TooLarge {
                max: TOKEN_BYTES_MAX
            })
        );
    }
}

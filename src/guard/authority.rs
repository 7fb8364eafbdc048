//! Decides which host a request is for: one lower-case name, said the same way by target, `Host` and
//! TLS handshake. Does not know which hosts are served.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::header::HOST;
use http::request::Parts;

use crate::kernel::reject::{Code, Reject};

/// Longest name in DNS.
const HOST_BYTES_MAX: usize = 253;

/// The host that `parts` names, lower-case and without port. `same_certificate(sni, host)` says
/// whether a connection opened for one name may carry requests for another, as browsers do when one
/// certificate covers both.
///
/// # Errors
/// 400 for a missing, malformed or contradicting name; 421 when the connection was opened for another.
pub fn host(
    parts: &Parts,
    sni: Option<&str>,
    same_certificate: impl Fn(&str, &str) -> bool,
) -> Result<String, Reject> {
    if !matches!(parts.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(refuse("target_scheme", "the scheme is not ours"));
    }
    let mut lines = parts.headers.get_all(HOST).iter();
    let field = match (lines.next(), lines.next()) {
        (Some(_), Some(_)) => return Err(refuse("host_count", "more than one Host")),
        (field, _) => field.map(|value| value.as_bytes()),
    };
    let field = field.map(|bytes| std::str::from_utf8(bytes).unwrap_or_default());
    let target = parts.uri.authority().map(http::uri::Authority::as_str);
    let host = match (target, field) {
        (None, None) => return Err(refuse("host_missing", "no host is named")),
        (Some(only), None) | (None, Some(only)) => parse(only)?.0,
        (Some(target), Some(field)) => {
            let (target, field) = (parse(target)?, parse(field)?);
            if target != field {
                return Err(refuse(
                    "host_conflict",
                    "target and Host name different hosts",
                ));
            }
            target.0
        }
    };
    match sni.map(canonical) {
        Some(sni) if sni != host && !same_certificate(&sni, &host) => {
            let reason = "the host is not the one of the TLS handshake";
            Err(Reject::new(Code::Misdirected, "host_sni", reason))
        }
        Some(_) | None => Ok(host),
    }
}

/// Host and port of `authority`.
fn parse(authority: &str) -> Result<(String, Option<u16>), Reject> {
    let bad = || refuse("host_malformed", "the host is malformed");
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or_else(bad)?;
            let address: Ipv6Addr = address.parse().map_err(|_| bad())?;
            let port = match port {
                "" => None,
                other => Some(other.strip_prefix(':').ok_or_else(bad)?),
            };
            (format!("[{address}]"), port)
        }
        None => {
            let (name, port) = match authority.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (authority, None),
            };
            (canonical(name), port)
        }
    };
    let valid = host.starts_with('[') || is_name(&host);
    let port = port
        .map(|text| parse_port(text).ok_or_else(bad))
        .transpose()?;
    if valid { Ok((host, port)) } else { Err(bad()) }
}

fn parse_port(text: &str) -> Option<u16> {
    // `u16::from_str` would take a plus sign.
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// Lower-case and without the dot of a fully qualified name.
fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn is_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    // `0x7f.1` and `127.1` are addresses for some and names for others.
    let numeric = host
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x"));
    host.len() <= HOST_BYTES_MAX
        && host.split('.').all(label)
        && (!numeric || host.parse::<Ipv4Addr>().is_ok())
}

fn refuse(label: &'static str, reason: &'static str) -> Reject {
    Reject::new(Code::BadRequest, label, reason)
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::{host, parse};
    use crate::kernel::reject::Reject;

    fn run(uri: &str, field: Option<&str>, sni: Option<&str>) -> Result<String, Reject> {
        let mut request = Request::builder().uri(uri);
        if let Some(field) = field {
            request = request.header("host", field);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        host(&parts, sni, |sni, host| {
            sni == "a.example" && host == "b.example"
        })
    }

    #[test]
    fn one_name_however_it_is_said() {
        for (uri, field) in [
            ("/", Some("API.Example")),
            ("/", Some("api.example:8443")),
            ("/", Some("api.example.")),
            ("https://api.example/x", None),
            ("https://api.example/x", Some("API.example")),
        ] {
            assert_eq!(
                run(uri, field, None).unwrap(),
                "api.example",
                "{uri} {field:?}"
            );
        }
        assert_eq!(
            run("/", Some("[2001:DB8::0:1]:443"), None).unwrap(),
            "[2001:db8::1]"
        );
        assert_eq!(run("/", Some("127.0.0.1:8443"), None).unwrap(), "127.0.0.1");
    }

    #[test]
    fn a_host_that_is_unclear_is_refused() {
        for bad in [
            "",
            "a b",
            "user@api.example",
            "api.example:",
            "api.example:+1",
            "api.example:99999",
            "api..example",
            "-a.example",
            "a.example/x",
            "[::1",
            "[::1]x",
            "[1.2.3.4]",
            "127.1",
            "0x7f.0x1",
            "999.1.1.1",
            "a,b",
            "*.example",
            "caf\u{e9}.example",
            ".",
            "a..",
        ] {
            assert!(run("/", Some(bad), None).is_err(), "{bad:?}");
        }
        assert!(run("/", None, None).is_err());
        assert!(run("https://a.example/", Some("b.example"), None).is_err());
        assert!(run("ftp://a.example/", Some("a.example"), None).is_err());
        assert!(run("https://a.example:1/", Some("a.example:2"), None).is_err());
        assert!(parse(&"a".repeat(300)).is_err());
    }

    #[test]
    fn the_handshake_must_have_named_the_same_host() {
        assert!(run("/", Some("a.example"), Some("A.example")).is_ok());
        assert!(run("/", Some("b.example"), Some("a.example")).is_ok());
        assert_eq!(
            run("/", Some("c.example"), Some("a.example"))
                .unwrap_err()
                .status(),
            421
        );
        assert_eq!(
            run("/", Some("a.example"), Some("b.example"))
                .unwrap_err()
                .status(),
            421
        );
    }

    proptest! {
        #[test]
        fn a_host_is_canonical(text in "[ -~]{0,30}") {
            if let Ok((host, _)) = parse(&text) {
                prop_assert_eq!(parse(&host).unwrap().0, host.clone());
                prop_assert!(!host.is_empty());
                prop_assert_eq!(host.to_ascii_lowercase(), host);
            }
        }
    }
}

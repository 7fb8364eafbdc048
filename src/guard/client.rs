//! Decides whose address a request came from. `Forwarded` and `X-Forwarded-For` are read from the
//! right, and only as far as configured hops vouch for them; anybody can write the rest.

use std::net::{IpAddr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use crate::kernel::header::X_FORWARDED_FOR;

/// Entries read from the right; more hops than this in front of an edge is nobody's network.
const HOPS_MAX: usize = 16;

/// The address of the client behind `peer`. Where both headers are there and disagree, a hop that
/// writes one has passed on the client's own version of the other, so neither is believed.
#[must_use]
pub fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let forwarded = elements(headers, &FORWARDED).map(|lines| {
        walk(
            peer,
            lines.iter().rev().map(|element| forwarded_for(element)),
            trusted,
        )
    });
    let x_forwarded = elements(headers, &X_FORWARDED_FOR).map(|lines| {
        walk(
            peer,
            lines.iter().rev().map(|element| node(element)),
            trusted,
        )
    });
    match (forwarded, x_forwarded) {
        (None, None) => peer,
        (Some(only), None) | (None, Some(only)) => only,
        (Some(one), Some(other)) if one == other => one,
        (Some(_), Some(_)) => peer,
    }
}

/// Goes back hop by hop while the last address may vouch for the one before it.
fn walk(peer: IpAddr, hops: impl Iterator<Item = Option<IpAddr>>, trusted: &[IpNet]) -> IpAddr {
    let mut last = peer;
    for hop in hops.take(HOPS_MAX) {
        match hop {
            Some(address) if is_trusted(address, trusted) => last = address,
            Some(address) => return address,
            None => return last,
        }
    }
    last
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// The comma-separated elements of all lines of a header, in order. Commas in quotes do not count.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Vec<&'a [u8]>> {
    if !headers.contains_key(name) {
        return None;
    }
    let lines = headers.get_all(name).iter();
    Some(
        lines
            .flat_map(|line| split_unquoted(line.as_bytes(), b','))
            .collect(),
    )
}

fn split_unquoted(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    text.split(move |byte| {
        quoted ^= *byte == b'"';
        *byte == separator && !quoted
    })
}

/// The `for` of one `Forwarded` element (RFC 7239).
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    for pair in split_unquoted(element, b';') {
        let pair = pair.trim_ascii();
        let Some((name, value)) = pair.split_at_checked(4) else {
            continue;
        };
        if !name.eq_ignore_ascii_case(b"for=") {
            continue;
        }
        if found.is_some() {
            return None;
        }
        let unquoted = value
            .strip_prefix(b"\"")
            .and_then(|rest| rest.strip_suffix(b"\""));
        found = Some(node(unquoted.unwrap_or(value)));
    }
    found.flatten()
}

/// An address with or without port, IPv6 with or without brackets.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    let bracketed = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = bracketed.unwrap_or(text).parse::<IpAddr>();
    let address = address.or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http::HeaderMap;
    use http::header::HeaderName;
    use proptest::prelude::*;

    use super::address;

    fn run(peer: &str, lines: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    const XFF: &str = "x-forwarded-for";

    #[test]
    fn a_stranger_is_believed_about_nothing() {
        assert_eq!(run("192.0.2.1", &[(XFF, "198.51.100.7")]), "192.0.2.1");
        assert_eq!(
            run("192.0.2.1", &[("forwarded", "for=198.51.100.7")]),
            "192.0.2.1"
        );
    }

    #[test]
    fn trusted_hops_are_peeled_from_the_right() {
        assert_eq!(run("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(run("10.0.0.1", &[(XFF, "198.51.100.7")]), "198.51.100.7");
        assert_eq!(
            run("10.0.0.1", &[(XFF, "1.1.1.1, 198.51.100.7, 10.0.0.2")]),
            "198.51.100.7"
        );
        assert_eq!(
            run("10.0.0.1", &[(XFF, "1.1.1.1"), (XFF, "198.51.100.7")]),
            "198.51.100.7"
        );
        assert_eq!(run("10.0.0.1", &[(XFF, "10.0.0.3, 10.0.0.2")]), "10.0.0.3");
        assert_eq!(
            run("::ffff:10.0.0.1", &[(XFF, "198.51.100.7:4711")]),
            "198.51.100.7"
        );
    }

    #[test]
    fn forwarded_is_read_with_quotes_and_ports() {
        for value in [
            "for=198.51.100.7",
            "For=\"198.51.100.7:80\";proto=https",
            "for=1.1.1.1, by=10.0.0.9;for=198.51.100.7",
            "for=\"a,b;c\", for=198.51.100.7",
        ] {
            assert_eq!(
                run("10.0.0.1", &[("forwarded", value)]),
                "198.51.100.7",
                "{value}"
            );
        }
        let six = [("forwarded", "for=\"[2001:db8::1]:80\"")];
        assert_eq!(run("fd00::1", &six), "2001:db8::1");
    }

    #[test]
    fn junk_ends_the_walk_at_the_last_good_hop() {
        for junk in [
            "unknown",
            "_hidden",
            "",
            "1.2.3",
            "1.1.1.1 2.2.2.2",
            "for=1.1.1.1",
        ] {
            let value = format!("1.1.1.1, {junk}, 10.0.0.2");
            assert_eq!(run("10.0.0.1", &[(XFF, &value)]), "10.0.0.2", "{junk}");
        }
        for junk in [
            "for=unknown",
            "by=1.1.1.1",
            "for=1.1.1.1;for=2.2.2.2",
            "for=\"1.1.1.1",
        ] {
            assert_eq!(
                run("10.0.0.1", &[("forwarded", junk)]),
                "10.0.0.1",
                "{junk}"
            );
        }
    }

    #[test]
    fn headers_that_disagree_are_both_ignored() {
        let spoofed = [("forwarded", "for=1.1.1.1"), (XFF, "198.51.100.7")];
        assert_eq!(run("10.0.0.1", &spoofed), "10.0.0.1");
        let same = [("forwarded", "for=198.51.100.7"), (XFF, "198.51.100.7")];
        assert_eq!(run("10.0.0.1", &same), "198.51.100.7");
    }

    proptest! {
        #[test]
        fn no_header_panics(value in proptest::collection::vec(0x20u8..0x7f, 0..80)) {
            let value = String::from_utf8(value).unwrap();
            for name in [XFF, "forwarded"] {
                let found = run("10.0.0.1", &[(name, &value)]);
                prop_assert!(found.parse::<IpAddr>().is_ok());
            }
        }
    }
}

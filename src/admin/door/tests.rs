//! Who may, and each way in that must stay shut.

use http::Request;
use http::request::Parts;

use super::{Door, Kind, Who, enter};
use crate::kernel::secret::Secret;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn request(method: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri("/inbox");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

/// Who enters, or the refusal's name.
fn at(
    bound: &str,
    token: Option<&str>,
    kind: Kind,
    method: &str,
    headers: &[(&str, &str)],
) -> Result<Who, &'static str> {
    let token = token.map(Secret::new);
    let door = Door {
        bound: bound.parse().unwrap(),
        token: token.as_ref(),
    };
    enter(&request(method, headers), kind, &door).map_err(|problem| problem.slug)
}

fn local(kind: Kind, method: &str, headers: &[(&str, &str)]) -> Result<Who, &'static str> {
    at("127.0.0.1:9090", None, kind, method, headers)
}

#[test]
fn loopback_needs_no_token_but_a_known_host() {
    for host in [
        "localhost:9090",
        "127.0.0.1:9090",
        "[::1]:9090",
        "LOCALHOST",
        "127.0.0.1:19090",
    ] {
        assert_eq!(
            local(Kind::Read, "GET", &[("host", host)]),
            Ok(Who::Loopback),
            "{host}"
        );
    }
    for host in [
        "evil.example:9090",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1:9090",
        "",
        "a@localhost/b",
    ] {
        for kind in [Kind::Read, Kind::Open] {
            assert_eq!(local(kind, "GET", &[("host", host)]), Err("host"), "{host}");
        }
    }
    let twice = [("host", "localhost"), ("host", "evil.example")];
    assert_eq!(local(Kind::Read, "GET", &twice), Err("host"));
    assert_eq!(local(Kind::Read, "GET", &[]), Err("host"));
}

#[test]
fn elsewhere_a_token_is_needed_for_all_but_scrapers() {
    let exposed = |token, kind, headers: &[_]| at("0.0.0.0:9090", token, kind, "GET", headers);
    let host = ("host", "maitred.internal:9090");
    assert_eq!(exposed(None, Kind::Read, &[host]), Err("closed"));
    assert_eq!(exposed(None, Kind::Open, &[host]), Ok(Who::Anyone));
    assert_eq!(exposed(Some(TOKEN), Kind::Open, &[host]), Ok(Who::Anyone));
    assert_eq!(
        exposed(Some(TOKEN), Kind::Read, &[host]),
        Err("unauthenticated")
    );
    let bearer = format!("Bearer {TOKEN}");
    let right = [host, ("authorization", bearer.as_str())];
    assert_eq!(exposed(Some(TOKEN), Kind::Read, &right), Ok(Who::Token));
    // operator:TOKEN, as a browser sends it.
    let basic = "Basic b3BlcmF0b3I6MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    let right = [host, ("authorization", basic)];
    assert_eq!(exposed(Some(TOKEN), Kind::Read, &right), Ok(Who::Token));
}

#[test]
fn a_wrong_token_opens_nothing_not_even_on_loopback() {
    let shorter = format!("Bearer {}", &TOKEN[1..]);
    for wrong in [
        shorter.as_str(),
        "Bearer ",
        "Bearer",
        "Basic",
        "Basic !!",
        "Basic bm9jb2xvbg==",
        TOKEN,
        "Digest 0123456789abcdef0123456789abcdef",
    ] {
        for bound in ["127.0.0.1:9090", "0.0.0.0:9090"] {
            let headers = [("host", "127.0.0.1"), ("authorization", wrong)];
            let entered = at(bound, Some(TOKEN), Kind::Read, "GET", &headers);
            assert_eq!(entered, Err("unauthenticated"), "{wrong}");
        }
    }
    let bearer = format!("Bearer {TOKEN}");
    let twice = [
        ("host", "127.0.0.1"),
        ("authorization", bearer.as_str()),
        ("authorization", bearer.as_str()),
    ];
    assert_eq!(
        at("127.0.0.1:1", Some(TOKEN), Kind::Read, "GET", &twice),
        Err("unauthenticated")
    );
}

const HOST: (&str, &str) = ("host", "127.0.0.1:9090");
const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

#[test]
fn a_change_is_json_of_our_own_origin() {
    let change = |headers: &[_]| local(Kind::Change, "POST", headers);
    assert_eq!(change(&[HOST, JSON]), Ok(Who::Loopback));
    let own = ("origin", "http://127.0.0.1:9090");
    assert_eq!(change(&[HOST, JSON, own]), Ok(Who::Loopback));
    for origin in [
        "null",
        "http://evil.example",
        "http://127.0.0.1:3000",
        "http://127.0.0.1:9090.evil.example",
        "file://127.0.0.1:9090",
        "",
    ] {
        assert_eq!(
            change(&[HOST, JSON, ("origin", origin)]),
            Err("origin"),
            "{origin}"
        );
    }
    for form in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/jsonx",
        "text/plain; application/json",
    ] {
        let headers = [HOST, ("content-type", form)];
        assert_eq!(change(&headers), Err("content-type"), "{form}");
    }
    assert_eq!(change(&[HOST]), Err("content-type"));
}

#[test]
fn another_site_gets_nothing_but_a_link() {
    for site in ["cross-site", "same-site", "anything"] {
        let site = ("sec-fetch-site", site);
        assert_eq!(local(Kind::Read, "GET", &[HOST, site]), Err("cross-site"));
        assert_eq!(
            local(Kind::Change, "POST", &[HOST, JSON, site]),
            Err("cross-site")
        );
        let link = [
            HOST,
            site,
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert_eq!(local(Kind::Read, "GET", &link), Ok(Who::Loopback));
        assert_eq!(local(Kind::Change, "POST", &link), Err("cross-site"));
        let frame = [
            HOST,
            site,
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "iframe"),
        ];
        assert_eq!(local(Kind::Read, "GET", &frame), Err("cross-site"));
    }
    for site in ["same-origin", "none"] {
        let site = ("sec-fetch-site", site);
        assert_eq!(
            local(Kind::Change, "POST", &[HOST, JSON, site]),
            Ok(Who::Loopback)
        );
    }
}

#[test]
fn a_target_with_an_authority_has_two_hosts() {
    let uri = "http://127.0.0.1:9090/inbox";
    let request = Request::get(uri).header("host", "evil.example");
    let parts = request.body(()).unwrap().into_parts().0;
    let door = Door {
        bound: "127.0.0.1:9090".parse().unwrap(),
        token: None,
    };
    let refused = enter(&parts, Kind::Read, &door).unwrap_err();
    assert_eq!(refused.slug, "bad-request");
}

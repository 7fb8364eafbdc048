//! Which resource and host a request names: methods, versions, targets, paths, authorities.

use super::Expect::{Normalised, Refused};
use super::{Case, Expect, case, run, served};
use crate::harness::client::Connection;
use crate::harness::edge::Edge;

fn get(name: &'static str, target: &str, expect: Expect) -> Case {
    case(
        name,
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        expect,
    )
}

const PATHS: &[(&str, &str, Expect)] = &[
    (
        "an escaped step up into the open",
        "/closed/%2e%2e/open/{m}",
        Normalised("/open/{m}", ""),
    ),
    (
        "an escaped step up into the closed",
        "/open/%2e%2e/closed/{m}",
        Refused(401),
    ),
    ("half escaped", "/open/.%2E/closed/{m}", Refused(401)),
    ("a step up", "/open/x/../../closed/{m}", Refused(401)),
    (
        "a step up and down",
        "/open/../open/./a//b/../{m}",
        Normalised("/open/a/{m}", ""),
    ),
    ("steps above the root", "/../../closed/{m}", Refused(400)),
    (
        "steps above the root, escaped",
        "/open/%2e%2e/%2e%2e/closed/{m}",
        Refused(400),
    ),
    ("two slashes", "//closed/{m}", Refused(401)),
    (
        "two slashes and a host",
        "//localhost/open/{m}",
        Refused(404),
    ),
    ("slashes inside", "/open///{m}", Normalised("/open/{m}", "")),
    ("a dot", "/./closed/{m}", Refused(401)),
    ("an escaped slash", "/open/..%2fclosed/{m}", Refused(400)),
    (
        "an escaped slash in capitals",
        "/open%2Fclosed/{m}",
        Refused(400),
    ),
    (
        "an escaped backslash",
        "/open/..%5cclosed/{m}",
        Refused(400),
    ),
    ("a backslash", "/open/..\\closed/{m}", Refused(400)),
    ("an escaped NUL", "/open/{m}%00", Refused(400)),
    ("an escaped line", "/open/{m}%0d%0aX-A:%20b", Refused(400)),
    (
        "a parameter on a step up",
        "/open/..;x/closed/{m}",
        Refused(400),
    ),
    (
        "an escaped parameter on a step up",
        "/open/..%3bx/closed/{m}",
        Normalised("/open/..%3Bx/closed/{m}", ""),
    ),
    (
        "a parameter",
        "/open/{m};x=1",
        Normalised("/open/{m};x=1", ""),
    ),
    (
        "escaped twice",
        "/open/%252e%252e/closed/{m}",
        Normalised("/open/%252e%252e/closed/{m}", ""),
    ),
    ("escaped letters", "/%63losed/{m}", Refused(401)),
    (
        "escaped letters in the open",
        "/%6fpen/{m}",
        Normalised("/open/{m}", ""),
    ),
    ("capitals", "/Open/{m}", Refused(404)),
    ("half an escape", "/open/{m}%2", Refused(400)),
    ("not an escape", "/open/{m}%zz", Refused(400)),
    (
        "an overlong dot",
        "/open/%c0%ae%c0%ae/{m}",
        Normalised("/open/%C0%AE%C0%AE/{m}", ""),
    ),
    (
        "an escaped question mark",
        "/open/{m}%3fx",
        Normalised("/open/{m}%3Fx", ""),
    ),
    (
        "a query with a path in it",
        "/open/{m}?/../closed",
        Normalised("/open/{m}?/../closed", ""),
    ),
    (
        "two question marks",
        "/open/{m}?a?b",
        Normalised("/open/{m}?a?b", ""),
    ),
];

/// `/closed/` asks for a token and `/open/` does not: whoever reads a path in another way than the
/// edge gets past that.
#[tokio::test]
async fn a_path_has_one_spelling() {
    run(PATHS
        .iter()
        .map(|(name, path, expect)| get(name, path, *expect))
        .collect())
    .await;
}

/// Request lines.
const LINES: &[(&str, &str, Expect)] = &[
    (
        "a blank in the target",
        "GET /open/{m} b HTTP/1.1",
        Normalised("/open/{m}%20b", ""),
    ),
    (
        "a version in the target",
        "GET /open/{m} HTTP/1.1 HTTP/1.1",
        Refused(400),
    ),
    (
        "a tab in the target",
        "GET /open/{m}\tb HTTP/1.1",
        Refused(400),
    ),
    (
        "NUL in the target",
        "GET /open/{m}\0 HTTP/1.1",
        Refused(400),
    ),
    (
        "a bare CR in the target",
        "GET /open/{m}\rX HTTP/1.1",
        Refused(400),
    ),
    (
        "DEL in the target",
        "GET /open/{m}\x7f HTTP/1.1",
        Refused(400),
    ),
    ("a fragment", "GET /open/{m}#x HTTP/1.1", Refused(400)),
    ("no slash", "GET open/{m} HTTP/1.1", Refused(400)),
    (
        "an asterisk",
        "OPTIONS * HTTP/1.1\r\nX-Marker: {m}",
        Refused(400),
    ),
    (
        "the same host in the target",
        "GET https://localhost/open/{m} HTTP/1.1",
        Normalised("/open/{m}", ""),
    ),
    (
        "the same host in capitals",
        "GET HTTP://LOCALHOST/open/{m} HTTP/1.1",
        Refused(400),
    ),
    (
        "another host in the target",
        "GET https://other.test/open/{m} HTTP/1.1",
        Refused(400),
    ),
    (
        "another port in the target",
        // A name in a request, never bound.
        "GET https://localhost:1/open/{m} HTTP/1.1",
        Refused(400),
    ),
    (
        "a user in the target",
        "GET https://user@localhost/open/{m} HTTP/1.1",
        Refused(400),
    ),
    (
        "a user that looks like a host",
        "GET https://localhost@other.test/open/{m} HTTP/1.1",
        Refused(400),
    ),
    (
        "another scheme",
        "GET ftp://localhost/open/{m} HTTP/1.1",
        Refused(400),
    ),
    (
        "CONNECT",
        // The same.
        "CONNECT localhost:443 HTTP/1.1\r\nX-Marker: {m}",
        Refused(405),
    ),
    (
        "CONNECT to a path",
        "CONNECT /open/{m} HTTP/1.1",
        Refused(405),
    ),
    ("TRACE", "TRACE /open/{m} HTTP/1.1", Refused(405)),
    (
        "a method that is none",
        "GE(T /open/{m} HTTP/1.1",
        Refused(400),
    ),
    ("HTTP/0.9", "GET /open/{m} HTTP/0.9", Refused(400)),
    ("HTTP/1.2", "GET /open/{m} HTTP/1.2", Refused(400)),
    ("HTTP/2.0", "GET /open/{m} HTTP/2.0", Refused(400)),
    (
        "http in small letters",
        "GET /open/{m} http/1.1",
        Refused(400),
    ),
    ("no version", "GET /open/{m}", Refused(400)),
];

#[tokio::test]
async fn a_target_has_one_reading() {
    let line = |name: &'static str, line: &str, expect| {
        case(name, format!("{line}\r\nHost: localhost\r\n\r\n"), expect)
    };
    let mut cases: Vec<Case> = LINES
        .iter()
        .map(|(name, text, expect)| line(name, text, *expect))
        .collect();
    cases.extend([
        line(
            "a target that is too long",
            &format!("GET /open/{{m}}{} HTTP/1.1", "a".repeat(1100)),
            Refused(414),
        ),
        line(
            "a query that is too long",
            &format!("GET /open/{{m}}?{} HTTP/1.1", "a".repeat(1100)),
            Refused(414),
        ),
        case(
            "the preface of HTTP/2",
            "PRI * HTTP/2.0\r\nX-Marker: {m}\r\n\r\nSM\r\n\r\n",
            Refused(400),
        ),
        case("no Host", "GET /open/{m} HTTP/1.1\r\n\r\n", Refused(400)),
        case(
            "no Host in HTTP/1.0",
            "GET /open/{m} HTTP/1.0\r\n\r\n",
            Refused(400),
        ),
    ]);
    run(cases).await;
}

#[tokio::test]
async fn a_request_is_for_one_host() {
    let hosts = |name: &'static str, lines: &str, expect| {
        case(
            name,
            format!("GET /open/{{m}} HTTP/1.1\r\n{lines}\r\n\r\n"),
            expect,
        )
    };
    run(vec![
        hosts(
            "two Hosts",
            "Host: localhost\r\nHost: other.test",
            Refused(400),
        ),
        hosts(
            "the same Host twice",
            "Host: localhost\r\nHost: localhost",
            Refused(400),
        ),
        hosts("an empty Host", "Host: ", Refused(400)),
        hosts("a list", "Host: localhost, other.test", Refused(400)),
        hosts("a user", "Host: user@localhost", Refused(400)),
        hosts("a path", "Host: localhost/x", Refused(400)),
        hosts("a bad port", "Host: localhost:x", Refused(400)),
        hosts("a signed port", "Host: localhost:+443", Refused(400)),
        hosts("an empty port", "Host: localhost:", Refused(400)),
        hosts("a blank", "Host: local host", Refused(400)),
        hosts("a number for an address", "Host: 0x7f.1", Refused(400)),
        hosts("not ASCII", "Host: caf\u{e9}.test", Refused(400)),
        hosts(
            "capitals and a port",
            "Host: LOCALHOST:8443",
            Normalised("/open/{m}", ""),
        ),
        hosts(
            "a final dot",
            "Host: localhost.",
            Normalised("/open/{m}", ""),
        ),
    ])
    .await;
}

async fn over_h1(edge: &Edge, sni: &str, host: &str) -> u16 {
    let mut client = Connection::secure(edge.https, sni, &edge.ca).await.unwrap();
    let answer = client
        .request("GET", "/open/x", &[("Host", host)], b"")
        .await;
    answer.unwrap().status
}

#[tokio::test]
async fn a_connection_carries_only_hosts_of_the_certificate_it_was_opened_with() {
    let (origin, edge) = served().await;
    let cases = [
        ("localhost", "localhost", 200),
        ("localhost", "api.localhost", 200),
        ("api.localhost", "localhost", 200),
        ("other.test", "other.test", 200),
        ("localhost", "other.test", 421),
        ("other.test", "localhost", 421),
        ("localhost", "unknown.test", 421),
        ("localhost", "127.0.0.1", 421),
    ];
    let mut wrong = Vec::new();
    for (sni, host, wanted) in cases {
        let got = over_h1(&edge, sni, host).await;
        if got != wanted {
            wrong.push((sni, host, wanted, got));
        }
    }
    assert!(wrong.is_empty(), "(SNI, Host, wanted, got): {wrong:?}");
    assert_eq!(origin.seen().len(), 4);

    // A connection that coalesced wrongly is good for its own host still.
    let mut client = edge.connect().await;
    for (host, status) in [("other.test", 421), ("localhost", 200)] {
        let answer = client
            .request("GET", "/open/x", &[("Host", host)], b"")
            .await;
        assert_eq!(answer.unwrap().status, status, "{host}");
    }
    // Over HTTP/2 the same, with `:authority` from the client: it names localhost.
    let other = crate::harness::h2c::Connection::open(edge.https, "other.test", &edge.ca).await;
    assert_eq!(
        other
            .request("GET", "/open/x", &[], b"")
            .await
            .unwrap()
            .status,
        421
    );
}

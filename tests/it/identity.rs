//! Who is believed, what a page of another origin may read, and the shape of every refusal.

mod cors;
mod keys;
mod refusals;
mod tokens;

use crate::harness::client::Response;

/// Fields that every answer over TLS carries, once each.
const ALWAYS: [(&str, &str); 5] = [
    (
        "strict-transport-security",
        "max-age=31536000; includeSubDomains",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    (
        "content-security-policy",
        "default-src 'none'; frame-ancestors 'none'",
    ),
];

fn assert_hardened(answer: &Response, what: &str) {
    for (name, value) in ALWAYS {
        let named = answer.headers.iter().filter(|(n, _)| n == name);
        let values: Vec<&str> = named.map(|(_, v)| v.as_str()).collect();
        assert_eq!(values, [value], "{what}: {name}");
    }
    assert!(answer.header("x-request-id").is_some(), "{what}");
    for name in ["server", "x-powered-by"] {
        assert_eq!(answer.header(name), None, "{what}");
    }
}

/// A refusal of the edge: its code, after a look at everything that all refusals share.
fn assert_refused(answer: &Response, what: &str) -> String {
    let kind = answer.header("content-type");
    assert_eq!(kind, Some("application/problem+json"), "{what}: {answer:?}");
    let body = answer.json();
    let mut keys: Vec<&str> = body
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        ["detail", "request_id", "status", "title", "type"],
        "{what}"
    );
    assert_eq!(body["status"], answer.status, "{what}");
    assert_eq!(
        body["request_id"].as_str(),
        answer.header("x-request-id"),
        "{what}"
    );
    let length = answer.body.len().to_string();
    assert_eq!(answer.header("content-length"), Some(&*length), "{what}");
    let code = body["type"].as_str().unwrap();
    code.strip_prefix("urn:maitred:refusal:")
        .unwrap()
        .to_owned()
}

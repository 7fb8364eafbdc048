//! Requests that two servers could read in two ways, sent byte by byte over TLS and in clear. Each
//! is refused before the origin sees a byte of it, or arrives as the one request that was checked.

mod framing;
mod http2;
mod spoofing;
mod targets;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::harness::client::Connection;
use crate::harness::edge::{Edge, Setup};
use crate::harness::keys::TokenIssuer;
use crate::harness::origin::{Origin, Script, Seen};
use crate::harness::within;

/// What has to become of a payload.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// This status (0 = the connection ends without an answer), and nothing reaches the origin.
    Refused(u16),
    /// The fault shows only after the header was passed on: this status, and no whole request.
    BrokenOff(u16),
    /// 200, and one request with this target and body.
    Normalised(&'static str, &'static str),
}

/// One attack. `{m}` in bytes, target and body is a marker of the case's own.
pub struct Case {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub expect: Expect,
}

pub fn case(name: &'static str, bytes: impl AsRef<[u8]>, expect: Expect) -> Case {
    let bytes = bytes.as_ref().to_vec();
    Case {
        name,
        bytes,
        expect,
    }
}

#[derive(Clone)]
enum Way {
    Tls(SocketAddr, String),
    Clear(SocketAddr),
}

impl Way {
    async fn connect(&self) -> Connection {
        match self {
            Self::Tls(address, ca) => Connection::secure(*address, "localhost", ca).await,
            Self::Clear(address) => Connection::plain(*address).await,
        }
        .unwrap()
    }
}

/// An origin that answers everything, and an edge that serves its routes on both listeners.
pub async fn served() -> (Origin, Edge) {
    let origin = Origin::start(TokenIssuer::new().jwks(), |_| Script::json("{}")).await;
    let edge = Edge::start(Setup {
        origins: vec![origin.address],
        extra: "[guard]\nheader_bytes_max = 8192\nheader_count_max = 50\ntarget_bytes_max = 1024",
        replace: vec![(
            "redirect_to_port = 443",
            "danger_serve_in_clear = true\nheader_timeout_ms = 1500",
        )],
    })
    .await;
    (origin, edge)
}

/// Sends every case over both listeners and reports all that went wrong together.
pub async fn run(cases: Vec<Case>) {
    let (origin, edge) = served().await;
    let ways = [Way::Tls(edge.https, edge.ca.clone()), Way::Clear(edge.http)];
    let few = Arc::new(Semaphore::new(6));
    let mut sent = JoinSet::new();
    for (at, case) in cases.iter().enumerate() {
        for (way_at, way) in ways.iter().enumerate() {
            let marker = format!("m{at}x{way_at}y");
            let (way, few) = (way.clone(), few.clone());
            let bytes = filled(&case.bytes, &marker);
            sent.spawn(async move {
                let _one = few.acquire().await.unwrap();
                let status = within("the end of a case", deliver(&way, &bytes)).await;
                (at, marker, status)
            });
        }
    }
    let mut report = String::new();
    for (at, marker, status) in sent.join_all().await {
        let case = &cases[at];
        if let Some(wrong) = judge(case, &marker, status, &origin) {
            let way = if marker.ends_with("0y") {
                "TLS"
            } else {
                "clear"
            };
            let _ = writeln!(report, "{} over {way}: {wrong}", case.name);
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

fn filled(bytes: &[u8], marker: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(3).position(|w| w == b"{m}") {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(marker.as_bytes());
        rest = &rest[at + 3..];
    }
    out.extend_from_slice(rest);
    out
}

/// Sends a payload; the status of the first answer. Whatever is still in the edge's buffers then is
/// followed by a request that ends the connection, so that all of it was handled when this returns.
async fn deliver(way: &Way, bytes: &[u8]) -> u16 {
    let mut client = way.connect().await;
    let _ = client.send(bytes).await;
    let status = client.response(false).await.map_or(0, |a| a.status);
    let last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let _ = client.send(last).await;
    client.rest().await;
    status
}

fn judge(case: &Case, marker: &str, status: u16, origin: &Origin) -> Option<String> {
    let about: Vec<Seen> = origin
        .seen()
        .into_iter()
        .filter(|s| format!("{s:?}").contains(marker))
        .collect();
    let told: Vec<_> = about
        .iter()
        .map(|s| {
            format!(
                "{} {} {:?}",
                s.method,
                s.target,
                String::from_utf8_lossy(&s.body)
            )
        })
        .collect();
    match case.expect {
        Expect::Refused(wanted) if status != wanted || origin.received(marker.as_bytes()) => Some(
            format!("status {status} instead of {wanted}; the origin saw {told:?}"),
        ),
        Expect::BrokenOff(wanted) if status != wanted || !about.is_empty() => Some(format!(
            "status {status} instead of {wanted}; the origin saw {told:?}"
        )),
        Expect::Normalised(target, body) => {
            let (target, body) = (target.replace("{m}", marker), body.replace("{m}", marker));
            let one = match about.as_slice() {
                [one] => one.target == target && one.body == body.as_bytes() && framed_once(one),
                _ => false,
            };
            (status != 200 || !one).then(|| {
                format!("status {status}; {target} with {body:?} should have arrived, not {told:?}")
            })
        }
        Expect::Refused(_) | Expect::BrokenOff(_) => None,
    }
}

/// At most one statement of where the body ends, in a form that has one reading; one host.
fn framed_once(seen: &Seen) -> bool {
    let of = |name: &str| {
        seen.headers
            .iter()
            .filter(|(n, _)| n == name)
            .collect::<Vec<_>>()
    };
    let (lengths, codings) = (of("content-length"), of("transfer-encoding"));
    let plain = lengths
        .iter()
        .all(|(_, v)| v.bytes().all(|b| b.is_ascii_digit()));
    let chunked = codings.iter().all(|(_, v)| v == "chunked");
    lengths.len() + codings.len() <= 1 && plain && chunked && of("host").len() == 1
}

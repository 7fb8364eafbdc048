//! Turns a request header and its connection into [`Facts`], and refuses what is malformed. The only
//! reader of the raw request line; everything later uses the facts.

use std::net::{IpAddr, Ipv4Addr};

use http::request::Parts;
use pingora::http::RequestHeader;

use crate::guard::{self, Policy};
use crate::kernel::facts::{Facts, Protocol, Scheme};
use crate::kernel::id::RequestId;
use crate::kernel::reject::Reject;

/// What is known of the connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The peer, or the source that a trusted PROXY header named.
    pub peer: Option<IpAddr>,
    pub protocol: Protocol,
    pub scheme: Scheme,
    pub sni: Option<String>,
}

/// Every check on the shape of a request, cheapest first.
pub fn read(
    parts: &Parts,
    connection: Connection,
    request_id: RequestId,
    policy: &Policy,
    same_certificate: impl Fn(&str, &str) -> bool,
) -> Result<Facts, Reject> {
    guard::header::check(parts, policy)?;
    let framing = guard::framing::check(parts, connection.protocol)?;
    let host = guard::authority::host(parts, connection.sni.as_deref(), same_certificate)?;
    let path = guard::path::normalise(parts.uri.path())?;
    let peer = connection.peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    Ok(Facts {
        request_id,
        method: parts.method.clone(),
        scheme: connection.scheme,
        protocol: connection.protocol,
        host,
        path,
        query: parts.uri.query().map(str::to_owned),
        client_ip: guard::client::address(peer, &parts.headers, &policy.trusted_hops),
        sni: connection.sni,
        content_length: framing.content_length,
    })
}

/// Pingora's background subrequests re-read the request line with a parser that knows no HTTP/2, so
/// from here on the header says 1.1; the real protocol is in the context.
pub(super) fn h2_as_h1(header: &mut RequestHeader) -> pingora::Result<()> {
    if !header.headers.contains_key(http::header::HOST)
        && let Some(authority) = header.uri.authority().map(ToString::to_string)
    {
        header.insert_header(http::header::HOST, authority)?;
    }
    header.set_version(http::Version::HTTP_11);
    Ok(())
}

//! An endpoint as Pingora's peer: address and every timeout set, since all of Pingora's default to
//! none.

use std::net::SocketAddr;
use std::time::Duration;

use pingora::upstreams::peer::HttpPeer;

use super::{Address, Policy};

/// The peer for one attempt. A host name is looked up here, off the calling thread. `body_time` is
/// what the client may take for its body: Pingora begins to wait for the answer while the body is
/// still on its way.
pub async fn peer(
    address: &Address,
    policy: &Policy,
    body_time: Duration,
) -> std::io::Result<HttpPeer> {
    let connect = Duration::from_millis(policy.connect_timeout_ms);
    let mut peer = match address {
        Address::Tcp(host_port) => {
            HttpPeer::new(resolve(host_port, connect).await?, false, String::new())
        }
        Address::Unix(path) => {
            let path = path.to_str().ok_or(std::io::ErrorKind::InvalidInput)?;
            HttpPeer::new_uds(path, false, String::new()).map_err(std::io::Error::other)?
        }
    };
    let options = &mut peer.options;
    options.connection_timeout = Some(connect);
    options.total_connection_timeout = Some(connect);
    // Pingora applies one read timeout to the header and to every later read.
    options.read_timeout = Some(Duration::from_millis(policy.first_byte_timeout_ms) + body_time);
    options.write_timeout = Some(Duration::from_millis(policy.write_timeout_ms));
    options.idle_timeout = Some(Duration::from_secs(30));
    Ok(peer)
}

async fn resolve(host_port: &str, within: Duration) -> std::io::Result<SocketAddr> {
    if let Ok(address) = host_port.parse() {
        return Ok(address);
    }
    tokio::time::timeout(within, tokio::net::lookup_host(host_port))
        .await
        .map_err(|_| std::io::ErrorKind::TimedOut)??
        .next()
        .ok_or(std::io::ErrorKind::NotFound.into())
}

//! Caps and the PROXY protocol.

use tokio::io::AsyncWriteExt;

use super::{Running, ended, policy, request, start};
use crate::listener::Policy;
use crate::listener::event::Refusal;

fn from_balancer(extra: impl FnOnce(&mut Policy)) -> Running {
    let mut policy = policy();
    policy.proxy_protocol_from = vec!["127.0.0.0/8".parse().unwrap()];
    extra(&mut policy);
    start(policy, None)
}

async fn proxied(edge: &Running, header: &[u8]) -> tokio::net::TcpStream {
    let mut stream = edge.connect().await;
    stream.write_all(header).await.unwrap();
    stream
}

#[tokio::test]
async fn at_the_total_cap_a_connection_is_closed_and_a_freed_place_is_given_again() {
    let mut policy = policy();
    policy.connections_max = 2;
    let edge = start(policy, None);
    let mut first = edge.connect().await;
    let mut second = edge.connect().await;
    request(&mut first).await;
    request(&mut second).await;

    assert!(ended(&mut edge.connect().await).await.is_empty());
    edge.refused(Refusal::ConnectionsMax).await;
    request(&mut first).await;

    drop(second);
    assert!(super::settled(super::PATIENCE, || edge.clients.open() == 1).await);
    request(&mut edge.connect().await).await;
    drop(first);
    edge.is_empty_again().await;
}

#[tokio::test]
async fn caps_change_while_the_listener_runs() {
    let edge = start(policy(), None);
    request(&mut edge.connect().await).await;
    let mut tight = policy();
    tight.connections_max = 0;
    edge.policy.store(std::sync::Arc::new(tight));
    assert!(ended(&mut edge.connect().await).await.is_empty());
    edge.refused(Refusal::ConnectionsMax).await;
}

#[tokio::test]
async fn the_cap_per_address_counts_clients_and_not_the_balancer() {
    let edge = from_balancer(|policy| policy.connections_per_ip_max = 1);
    let mut one = proxied(&edge, b"PROXY TCP4 203.0.113.1 10.0.0.1 1000 443\r\n").await;
    request(&mut one).await;
    let mut again = proxied(&edge, b"PROXY TCP4 203.0.113.1 10.0.0.1 1001 443\r\n").await;
    assert!(ended(&mut again).await.is_empty());
    edge.refused(Refusal::PerIpMax).await;
    let mut other = proxied(&edge, b"PROXY TCP4 203.0.113.2 10.0.0.1 1000 443\r\n").await;
    request(&mut other).await;
    drop((one, other));
    edge.is_empty_again().await;
}

#[tokio::test]
async fn the_client_of_a_proxy_header_is_the_requests_client() {
    let edge = from_balancer(|_| {});
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x09\x0a\0\0\x01\x15\xb3\x01\xbb";
    let v1 = b"PROXY TCP4 203.0.113.9 10.0.0.1 5555 443\r\n";
    for header in [&v1[..], v2] {
        let mut stream = proxied(&edge, header).await;
        for _ in 0..2 {
            let body = request(&mut stream).await;
            assert!(body.contains("client=203.0.113.9:5555 "), "{body}");
            assert!(body.contains("agrees=true"), "{body}");
        }
    }
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let body = request(&mut proxied(&edge, local).await).await;
    assert!(body.contains("client=127.0.0.1:"), "{body}");
    assert_eq!(edge.refusals(), 0);
}

#[tokio::test]
async fn a_balancer_without_a_good_header_is_turned_away() {
    let edge = from_balancer(|_| {});
    for bad in [
        &b"GET / HTTP/1.1\r\nhost: test\r\n\r\n"[..],
        b"PROXY TCP4 nonsense\r\nGET / HTTP/1.1\r\nhost: test\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
    ] {
        let mut stream = proxied(&edge, bad).await;
        assert!(ended(&mut stream).await.is_empty(), "{bad:?}");
    }
    edge.refused(Refusal::ProxyHeader).await;
    assert_eq!(edge.refusals(), 3);
    edge.is_empty_again().await;
}

#[tokio::test]
async fn nobody_else_can_claim_an_address() {
    let edge = start(policy(), None);
    let mut stream = proxied(&edge, b"PROXY TCP4 203.0.113.9 10.0.0.1 5555 443\r\n").await;
    let claimed = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";
    stream.write_all(claimed).await.unwrap();
    let answer = String::from_utf8(ended(&mut stream).await).unwrap();
    assert!(
        !answer.contains(" 200 ") && !answer.contains("203.0.113.9"),
        "{answer}"
    );
}

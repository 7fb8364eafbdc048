//! Reads the PROXY header (versions 1 and 2) that a balancer in front puts before everything else.
//! Decides where a header ends and that it is well formed; whom to believe is `accept`'s decision.
//!
//! Invariant: not one byte after the header is consumed. The reads here are exact, whatever is
//! buffered under them.

use std::io;
use std::net::SocketAddr;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// First bytes of version 2.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, command, family and length.
const V2_FIXED_BYTES: usize = 16;
/// Addresses and TLVs together. Balancers send well under a kilobyte.
const V2_REST_BYTES_MAX: u16 = 2048;
/// The whole line of version 1, line end included (specification, section 2.1).
const V1_LINE_BYTES_MAX: usize = 107;

/// The peer had to send a PROXY header and did not send a good one.
#[derive(Debug, thiserror::Error)]
pub enum ProxyProtocolError {
    #[error("the connection does not start with a PROXY header")]
    Missing,
    #[error("the PROXY header is malformed")]
    Malformed,
    #[error("the PROXY header is longer than the listener takes")]
    TooLong,
    #[error("the connection broke within the PROXY header: {0}")]
    Io(#[from] io::Error),
}

/// Reads one header. `None`: the balancer speaks for itself (a health check) or does not know the
/// client (`LOCAL`, `UNKNOWN`, Unix sockets), so the peer's own address stands.
pub async fn read<R: AsyncRead + Unpin>(
    from: &mut R,
) -> Result<Option<SocketAddr>, ProxyProtocolError> {
    let header = match from.read_u8().await? {
        b'P' => read_v1(from).await?,
        b'\r' => read_v2(from).await?,
        _ => return Err(ProxyProtocolError::Missing),
    };
    match ProxyHeader::parse(&header, ParseConfig::default()) {
        Ok((parsed, length)) if length == header.len() => {
            Ok(parsed.proxied_address().map(|address| address.source))
        }
        Ok(_) | Err(_) => Err(ProxyProtocolError::Malformed),
    }
}

async fn read_v1<R: AsyncRead + Unpin>(from: &mut R) -> Result<Vec<u8>, ProxyProtocolError> {
    const START: &[u8] = b"PROXY ";
    let mut line = vec![b'P'];
    while line.last() != Some(&b'\n') {
        if line.len() >= V1_LINE_BYTES_MAX {
            return Err(ProxyProtocolError::TooLong);
        }
        line.push(from.read_u8().await?);
        // Told apart early, so that a client that speaks HTTP here is not waited for.
        if line.len() <= START.len() && !START.starts_with(&line) {
            return Err(ProxyProtocolError::Missing);
        }
    }
    Ok(line)
}

async fn read_v2<R: AsyncRead + Unpin>(from: &mut R) -> Result<Vec<u8>, ProxyProtocolError> {
    let mut header = vec![0; V2_FIXED_BYTES];
    header[0] = b'\r';
    from.read_exact(&mut header[1..]).await?;
    if !header.starts_with(V2_SIGNATURE) {
        return Err(ProxyProtocolError::Missing);
    }
    let rest = u16::from_be_bytes([header[14], header[15]]);
    if rest > V2_REST_BYTES_MAX {
        return Err(ProxyProtocolError::TooLong);
    }
    header.resize(V2_FIXED_BYTES + usize::from(rest), 0);
    from.read_exact(&mut header[V2_FIXED_BYTES..]).await?;
    Ok(header)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::{ProxyProtocolError, V2_SIGNATURE, read};

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[command, family][..], &length, rest].concat()
    }

    /// The address, and what is left of the input.
    async fn parse(mut input: &[u8]) -> Result<(Option<String>, Vec<u8>), ProxyProtocolError> {
        let address = read(&mut input).await?;
        Ok((address.map(|a| a.to_string()), input.to_vec()))
    }

    #[tokio::test]
    async fn both_versions_give_the_client_and_leave_what_follows() {
        let v4 = [
            &[203, 0, 113, 9, 10, 0, 0, 1][..],
            &5555u16.to_be_bytes(),
            &443u16.to_be_bytes(),
        ]
        .concat();
        let with_tlv = [&v4[..], &[0x03, 0, 4, 1, 2, 3, 4]].concat();
        for header in [
            b"PROXY TCP4 203.0.113.9 10.0.0.1 5555 443\r\n".to_vec(),
            v2(0x21, 0x11, &v4),
            v2(0x21, 0x11, &with_tlv),
        ] {
            let (address, rest) = parse(&[&header[..], b"\x16\x03\x01"].concat())
                .await
                .unwrap();
            assert_eq!(address.as_deref(), Some("203.0.113.9:5555"));
            assert_eq!(rest, b"\x16\x03\x01");
        }
        let v6 = b"PROXY TCP6 2001:db8::1 2001:db8::2 5555 443\r\n";
        let (address, _) = parse(v6).await.unwrap();
        assert_eq!(address.as_deref(), Some("[2001:db8::1]:5555"));
    }

    #[tokio::test]
    async fn a_balancer_that_speaks_for_itself_gives_no_address() {
        let local = v2(0x20, 0x00, &[]);
        let local_with_address = v2(0x20, 0x11, &[1; 12]);
        for header in [&b"PROXY UNKNOWN\r\n"[..], &local, &local_with_address] {
            let (address, rest) = parse(&[header, b"GET"].concat()).await.unwrap();
            assert_eq!((address, rest), (None, b"GET".to_vec()));
        }
    }

    #[tokio::test]
    async fn what_is_no_header_or_a_bad_one_is_an_error() {
        let bad_version = v2(0x11, 0x11, &[1; 12]);
        let short_addresses = v2(0x21, 0x11, &[1; 5]);
        let unix_with_ip_length = v2(0x21, 0x31, &[1; 12]);
        let too_long = v2(0x20, 0x00, &vec![0; 4000]);
        let endless = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat();
        let inputs: [&[u8]; 11] = [
            b"GET / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x00",
            b"PROXY TCP4 203.0.113.999 10.0.0.1 5555 443\r\n",
            b"PROXY TCP4 203.0.113.9 10.0.0.1 5555 443\n",
            b"PROXY TCP4 203.0.113.9 10.0.0.1 5555 99999\r\n",
            &endless,
            &bad_version,
            &short_addresses,
            &unix_with_ip_length,
            &too_long,
        ];
        for input in inputs {
            assert!(parse(input).await.is_err(), "{input:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_without_panic_and_never_beyond_the_bound(
            start in prop_oneof![
                Just(b"PROXY TCP4 ".to_vec()),
                Just(b"PROXY UNKNOWN".to_vec()),
                Just([V2_SIGNATURE, &[0x21, 0x11][..]].concat()),
                Just(Vec::new()),
            ],
            rest in proptest::collection::vec(any::<u8>(), 0..4096),
        ) {
            let input = [start, rest].concat();
            let mut left = &input[..];
            let _ = read(&mut left).now_or_never().expect("a slice never waits");
            let bound = super::V2_FIXED_BYTES + usize::from(super::V2_REST_BYTES_MAX);
            prop_assert!(input.len() - left.len() <= bound);
        }

        #[test]
        fn a_good_header_is_taken_off_and_nothing_else(
            a in any::<[u8; 4]>(), port in any::<u16>(), tail in any::<Vec<u8>>(),
        ) {
            let [b1, b2] = port.to_be_bytes();
            let rest = [&a[..], &[10, 0, 0, 1, b1, b2, 1, 187]].concat();
            let v1 = format!("PROXY TCP4 {} 10.0.0.1 {port} 443\r\n", std::net::Ipv4Addr::from(a));
            for header in [v1.into_bytes(), v2(0x21, 0x11, &rest)] {
                let input = [&header[..], &tail].concat();
                let mut left = &input[..];
                let source = read(&mut left).now_or_never().expect("a slice never waits").unwrap();
                prop_assert_eq!(source, Some((a, port).into()));
                prop_assert_eq!(left, &tail[..]);
            }
        }
    }
}

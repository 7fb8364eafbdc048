//! Decides whose requests are counted together. Keys have a fixed size whatever a client sends.

use std::net::IpAddr;

use sha2::{Digest, Sha256};

/// Somebody who is counted.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Key {
    V4(u32),
    /// The upper half: one customer has the whole of a /64.
    V6Net(u64),
    /// A digest of a name, e.g. a subject.
    Name([u8; 16]),
    /// Where newcomers are counted while the table of known keys is full.
    Overflow(u8),
}

impl Key {
    /// The client's address; IPv6 by /64.
    #[must_use]
    pub fn ip(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            IpAddr::V6(v6) => Self::V6Net(u64::try_from(v6.to_bits() >> 64).unwrap_or_default()),
        }
    }

    /// An authenticated subject.
    #[must_use]
    pub fn subject(subject: &str) -> Self {
        Self::names(&[subject])
    }

    /// Several names that are counted as one, e.g. address and account.
    #[must_use]
    pub fn names(names: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for name in names {
            hash.update(u64::try_from(name.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(name.as_bytes());
        }
        let digest: [u8; 32] = hash.finalize().into();
        Self::Name(std::array::from_fn(|at| digest[at]))
    }
}

#[cfg(test)]
mod tests {
    use super::Key;

    fn ip(text: &str) -> Key {
        Key::ip(text.parse().unwrap())
    }

    #[test]
    fn a_customer_is_one_key() {
        assert_eq!(
            ip("2001:db8:1:2::1"),
            ip("2001:db8:1:2:ffff:ffff:ffff:ffff")
        );
        assert_ne!(ip("2001:db8:1:2::1"), ip("2001:db8:1:3::1"));
        assert_eq!(ip("2001:db8:1:2::1"), Key::V6Net(0x2001_0db8_0001_0002));
        assert_ne!(ip("192.0.2.1"), ip("192.0.2.2"));
        assert_eq!(ip("::ffff:192.0.2.1"), ip("192.0.2.1"));
        assert_ne!(Key::names(&["ab", "c"]), Key::names(&["a", "bc"]));
        assert_eq!(Key::names(&["usr_1"]), Key::subject("usr_1"));
    }
}

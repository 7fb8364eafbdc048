//! Counts open connections, in all and per client address, and says whether one more is allowed.
//! Invariant: an address without connections has no entry, so memory follows what is open now.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

/// Open connections of one listener.
#[derive(Debug, Default)]
pub struct Clients {
    open: AtomicUsize,
    by_address: DashMap<IpAddr, usize>,
}

impl Clients {
    /// Counts one more connection in, or refuses it at `max`.
    pub fn enter(self: &Arc<Self>, max: usize) -> Option<Seat> {
        let seat = Seat(self.clone());
        // Counted first and given back by the guard, so that two at once cannot both be the last.
        (self.open.fetch_add(1, Ordering::Relaxed) < max).then_some(seat)
    }

    /// Counts one more connection of this client in, or refuses it at `max`.
    pub fn enter_address(self: &Arc<Self>, client: IpAddr, max: usize) -> Option<AddressSeat> {
        let key = network_of(client);
        let mut count = self.by_address.entry(key).or_insert(0);
        let allowed = *count < max;
        if allowed {
            *count += 1;
        }
        let vacant = *count == 0;
        drop(count);
        if vacant {
            self.by_address.remove_if(&key, |_, count| *count == 0);
        }
        allowed.then(|| AddressSeat {
            clients: self.clone(),
            key,
        })
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Addresses with at least one open connection.
    #[must_use]
    pub fn addresses(&self) -> usize {
        self.by_address.len()
    }
}

/// A place under the total cap; given back when dropped.
#[derive(Debug)]
pub struct Seat(Arc<Clients>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place under an address's cap; given back when dropped.
#[derive(Debug)]
pub struct AddressSeat {
    clients: Arc<Clients>,
    key: IpAddr,
}

impl Drop for AddressSeat {
    fn drop(&mut self) {
        if let Some(mut count) = self.clients.by_address.get_mut(&self.key) {
            *count = count.saturating_sub(1);
        }
        self.clients
            .by_address
            .remove_if(&self.key, |_, count| *count == 0);
    }
}

/// What counts as one client: an IPv4 address, or the /64 that one IPv6 customer usually has whole.
fn network_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Clients;

    #[test]
    fn a_refused_connection_leaves_no_trace() {
        let clients = Arc::new(Clients::default());
        let one = clients.enter(1);
        assert!(one.is_some() && clients.enter(1).is_none());
        assert_eq!(clients.open(), 1);
        drop(one);
        assert_eq!(clients.open(), 0);

        assert!(
            clients
                .enter_address("192.0.2.1".parse().unwrap(), 0)
                .is_none()
        );
        assert_eq!(clients.addresses(), 0);
    }

    #[test]
    fn an_ipv6_customer_is_one_client_and_a_mapped_address_is_its_ipv4() {
        let clients = Arc::new(Clients::default());
        let seat = |ip: &str| clients.enter_address(ip.parse().unwrap(), 1);
        let v6 = seat("2001:db8:1:2::1");
        assert!(v6.is_some());
        assert!(seat("2001:db8:1:2:ffff::9").is_none());
        assert!(seat("2001:db8:1:3::1").is_some());
        let v4 = seat("192.0.2.7");
        assert!(v4.is_some());
        assert!(seat("::ffff:192.0.2.7").is_none());
        assert_eq!(clients.addresses(), 2);
        drop((v4, v6));
        assert_eq!(clients.addresses(), 0);
    }
}

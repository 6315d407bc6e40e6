//! The learning bridge: which port a frame goes to.
//!
//! It learns the port behind each source address and forgets it after [`LIFETIME`]. The table is bounded, and a port may hold only so many
//! addresses, so a domain that makes up addresses pushes out its own first.

use alloc::collections::BTreeMap;

/// How long an address is remembered after its last frame, in nanoseconds (IEEE 802.1D: 300 s).
pub const LIFETIME: u64 = 300 * 1_000_000_000;
/// Addresses that are remembered behind one port.
pub const ADDRESSES_PER_PORT: usize = 256;

/// An Ethernet address.
pub type Address = [u8; 6];

/// A port of the bridge: a card, a domain's interface, or netdom's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port(pub u64);

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To one port.
    Port(Port),
    /// To every port but the one it came from.
    Flood,
    /// Nowhere: its receiver is behind the port that it came from, or its source is no address of a station.
    Nowhere,
}

struct Station {
    port: Port,
    seen: u64,
}

/// The bridge's memory.
#[derive(Default)]
pub struct Switch {
    stations: BTreeMap<Address, Station>,
}

impl Switch {
    /// Decides on a frame from `source` by its Ethernet addresses, and learns. `now` is in nanoseconds and does not go back.
    pub fn forward(&mut self, from: Port, destination: Address, source: Address, now: u64) -> Destination {
        if is_group(source) || source == [0; 6] {
            return Destination::Nowhere;
        }
        self.learn(from, source, now);
        if is_group(destination) {
            return Destination::Flood;
        }
        match self.stations.get(&destination) {
            Some(station) if now.saturating_sub(station.seen) > LIFETIME => Destination::Flood,
            Some(station) if station.port == from => Destination::Nowhere,
            Some(station) => Destination::Port(station.port),
            None => Destination::Flood,
        }
    }

    /// Forgets everything behind a port that is gone.
    pub fn remove(&mut self, port: Port) {
        self.stations.retain(|_, station| station.port != port);
    }

    fn learn(&mut self, port: Port, address: Address, now: u64) {
        if let Some(station) = self.stations.get_mut(&address) {
            *station = Station { port, seen: now };
            return;
        }
        let behind = self.stations.iter().filter(|(_, station)| station.port == port);
        if behind.clone().count() >= ADDRESSES_PER_PORT
            && let Some((&oldest, _)) = behind.min_by_key(|(_, station)| station.seen)
        {
            self.stations.remove(&oldest);
        }
        self.stations.insert(address, Station { port, seen: now });
    }
}

/// Whether an address means several stations: multicast or broadcast.
pub fn is_group(address: Address) -> bool {
    address[0] & 1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Address = [2, 0, 0, 0, 0, 1];
    const B: Address = [2, 0, 0, 0, 0, 2];
    const ALL: Address = [0xff; 6];

    #[test]
    fn learns_where_stations_are() {
        let mut switch = Switch::default();
        assert_eq!(switch.forward(Port(1), B, A, 0), Destination::Flood);
        assert_eq!(switch.forward(Port(2), A, B, 1), Destination::Port(Port(1)));
        assert_eq!(switch.forward(Port(1), B, A, 2), Destination::Port(Port(2)));
        assert_eq!(switch.forward(Port(1), ALL, A, 3), Destination::Flood);
        assert_eq!(
            switch.forward(Port(2), B, A, 4),
            Destination::Nowhere,
            "A moved behind B's port"
        );
    }

    #[test]
    fn forgets() {
        let mut switch = Switch::default();
        switch.forward(Port(1), B, A, 0);
        assert_eq!(switch.forward(Port(2), A, B, LIFETIME + 1), Destination::Flood);
        switch.remove(Port(2));
        assert_eq!(switch.forward(Port(3), B, A, LIFETIME + 2), Destination::Flood);
    }

    #[test]
    fn a_source_that_is_no_station_goes_nowhere() {
        let mut switch = Switch::default();
        assert_eq!(switch.forward(Port(1), A, ALL, 0), Destination::Nowhere);
        assert_eq!(switch.forward(Port(1), A, [0; 6], 0), Destination::Nowhere);
    }

    #[test]
    fn made_up_addresses_push_out_their_own() {
        let mut switch = Switch::default();
        switch.forward(Port(2), ALL, B, 0);
        for number in 0..10_000u32 {
            let [a, b, c, d] = number.to_be_bytes();
            switch.forward(Port(1), ALL, [2, 1, a, b, c, d], u64::from(number));
        }
        assert!(switch.stations.len() <= ADDRESSES_PER_PORT + 1);
        assert_eq!(switch.forward(Port(1), B, A, 10_000), Destination::Port(Port(2)));
    }
}

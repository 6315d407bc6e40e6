//! netdom's own place on the network, by smoltcp: it takes an address by DHCP or has a fixed one, and answers to ping.

use alloc::{collections::VecDeque, vec, vec::Vec};
use core::str::FromStr;

use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::dhcpv4,
    time::Instant,
    wire::{EthernetAddress, IpCidr, Ipv4Cidr},
};
use thiserror::Error;

use crate::switch::Address;

/// Frames that wait for the stack; more are dropped.
const WAITING: usize = 32;
/// Of its own frames, with their Ethernet header.
const MTU: usize = 1514;

/// Where the address comes from: the option `address` of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// `dhcp`
    Dhcp,
    /// `10.0.2.20/24`
    Fixed(Ipv4Cidr),
}

/// An option that is none of these.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the option address is neither dhcp nor an address like 10.0.2.20/24")]
pub struct BadAddress;

impl FromStr for Addressing {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        match text {
            "dhcp" => Ok(Self::Dhcp),
            text => text.parse().map(Self::Fixed).map_err(|_| BadAddress),
        }
    }
}

/// Frames between the fabric and the stack.
#[derive(Default)]
struct Queues {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

/// The stack.
pub struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    dhcp: Option<SocketHandle>,
    queues: Queues,
}

impl Stack {
    /// A station with the Ethernet address of the card.
    pub fn new(address: Address, addressing: Addressing, now: u64) -> Self {
        let mut queues = Queues::default();
        let config = Config::new(EthernetAddress(address).into());
        let mut interface = Interface::new(config, &mut queues, instant(now));
        let mut sockets = SocketSet::new(vec![]);
        let dhcp = match addressing {
            Addressing::Dhcp => Some(sockets.add(dhcpv4::Socket::new())),
            Addressing::Fixed(address) => {
                set_address(&mut interface, Some(address));
                None
            }
        };
        Self {
            interface,
            sockets,
            dhcp,
            queues,
        }
    }

    /// Gives it a frame.
    pub fn deliver(&mut self, bytes: Vec<u8>) {
        if self.queues.incoming.len() < WAITING {
            self.queues.incoming.push_back(bytes);
        }
    }

    /// Lets it work on what came and on its timers; calls `sent` with each frame that it sends.
    pub fn poll(&mut self, now: u64, mut sent: impl FnMut(Vec<u8>)) {
        self.interface
            .poll(instant(now), &mut self.queues, &mut self.sockets);
        if let Some(handle) = self.dhcp {
            match self.sockets.get_mut::<dhcpv4::Socket>(handle).poll() {
                Some(dhcpv4::Event::Configured(lease)) => {
                    log::info!("address {} by DHCP", lease.address);
                    set_address(&mut self.interface, Some(lease.address));
                    if let Some(router) = lease.router {
                        // The table holds one default route; setting it again replaces it.
                        let _ = self.interface.routes_mut().add_default_ipv4_route(router);
                    }
                }
                Some(dhcpv4::Event::Deconfigured) => {
                    set_address(&mut self.interface, None);
                    self.interface.routes_mut().remove_default_ipv4_route();
                }
                None => {}
            }
        }
        self.queues.outgoing.drain(..).for_each(&mut sent);
    }

    /// When it wants to be polled next, in nanoseconds.
    pub fn deadline(&mut self, now: u64) -> Option<u64> {
        let at = self.interface.poll_at(instant(now), &self.sockets)?;
        Some(
            u64::try_from(at.total_micros())
                .unwrap_or(0)
                .saturating_mul(1000)
                .max(now),
        )
    }
}

fn instant(nanoseconds: u64) -> Instant {
    Instant::from_micros((nanoseconds / 1000) as i64)
}

fn set_address(interface: &mut Interface, address: Option<Ipv4Cidr>) {
    interface.update_ip_addrs(|addresses| {
        addresses.clear();
        if let Some(address) = address {
            // Just cleared, so there is room.
            let _ = addresses.push(IpCidr::Ipv4(address));
        }
    });
}

impl Device for Queues {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _timestamp: Instant) -> Option<(Received, Sending<'_>)> {
        let frame = self.incoming.pop_front()?;
        Some((Received(frame), Sending(&mut self.outgoing)))
    }

    fn transmit(&mut self, _timestamp: Instant) -> Option<Sending<'_>> {
        (self.outgoing.len() < WAITING).then_some(Sending(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

/// A frame for the stack.
pub struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// Room for a frame of the stack.
pub struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_option() {
        assert_eq!("dhcp".parse(), Ok(Addressing::Dhcp));
        assert_eq!(
            "10.0.2.20/24".parse(),
            Ok(Addressing::Fixed("10.0.2.20/24".parse().unwrap()))
        );
        assert_eq!("ten".parse::<Addressing>(), Err(BadAddress));
    }

    #[test]
    fn asks_for_a_lease() {
        let mut stack = Stack::new([2, 0, 0, 0, 0, 1], Addressing::Dhcp, 0);
        let mut frames = Vec::new();
        stack.poll(1_000_000, |frame| frames.push(frame));
        let discover = frames.first().expect("a frame");
        assert_eq!(discover[..6], [0xff; 6]);
        assert_eq!(discover[36..38], [0, 67], "to the port of DHCP servers");
        assert!(stack.deadline(2_000_000).is_some());
    }

    #[test]
    fn answers_to_ping() {
        let fixed = Addressing::Fixed("10.0.2.20/24".parse().unwrap());
        let mut stack = Stack::new([2, 0, 0, 0, 0, 1], fixed, 0);
        let mut arp = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 9, 8, 6];
        arp.extend([
            0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 10, 0, 2, 2, 0, 0, 0, 0, 0, 0, 10, 0, 2, 20,
        ]);
        stack.deliver(arp);
        let mut frames = Vec::new();
        stack.poll(0, |frame| frames.push(frame));
        assert_eq!(frames[0][20..22], [0, 2], "an ARP reply");
    }
}

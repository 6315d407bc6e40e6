//! What the switch needs of a network card.

use thiserror::Error;

use crate::{frame::Frame, pool::Pool};

/// The longest frame, without its check sequence, of a network that was told nothing else: an MTU of 1500, and a VLAN tag.
pub const LONGEST: usize = 1518;

/// Work on frames that a card, or whoever else has a port, does by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// The longest frame that it takes, apart from those that it cuts.
    pub longest: usize,
    /// Completes transport checksums of TCP and UDP over IPv4 and IPv6.
    pub checksum: bool,
    /// Cuts large TCP frames over IPv4.
    pub segment_ipv4: bool,
    /// Cuts large TCP frames over IPv6.
    pub segment_ipv6: bool,
}

impl Default for Offloads {
    /// None.
    fn default() -> Self {
        Self {
            longest: LONGEST,
            checksum: false,
            segment_ipv4: false,
            segment_ipv6: false,
        }
    }
}

/// Why a card cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// It does not do what its manual says, in the time that its manual gives.
    #[error("the card does not answer: {0} did not happen")]
    Silent(&'static str),
    /// There is no memory for its rings.
    #[error("no memory for the rings of the card; give the domain more")]
    Memory,
    /// It has no usable Ethernet address.
    #[error("the card has no Ethernet address of its own")]
    NoAddress,
}

/// A network card in use. Methods never wait.
pub trait Nic {
    /// Its Ethernet address.
    fn address(&self) -> [u8; 6];
    /// Whether the cable is in.
    fn link_up(&mut self) -> bool;
    /// What it does by itself.
    fn offloads(&self) -> Offloads;
    /// Queues a frame, whose pages it keeps until it is sent. A full card gives the frame back. The frame owes no work beyond
    /// [`Nic::offloads`].
    fn transmit(&mut self, frame: Frame, pool: &mut Pool) -> Result<(), Frame>;
    /// Tells the card of the frames queued since the last call: once per turn, not once per frame.
    fn kick(&mut self);
    /// Gives the pages of sent frames back to the pool.
    fn reclaim(&mut self, pool: &mut Pool);
    /// The next received frame.
    fn receive(&mut self, pool: &mut Pool) -> Option<Frame>;
    /// Gives the card fresh pages to receive into.
    fn refill(&mut self, pool: &mut Pool);
    /// Lets the card interrupt again. What arrived before is not announced: look once more.
    fn rearm(&mut self);
}

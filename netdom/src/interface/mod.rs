//! The network interface of one domain (netif.h): its two rings, and the frames on their way to it.
//!
//! Bytes cross by the hypervisor's grant copy, many fragments a hypercall: a frontend's pages are never mapped here, and nothing that it changes after
//! the copy matters. Both rings are answered in order, so a successor of this domain can go on from the shared indices; a frame that was on its
//! way is lost then, as on a wire.

mod answers;
mod backend;
pub mod packet;

pub use answers::{Place, Places};
pub use backend::{Interfaces, PortNumbers};

use alloc::{collections::VecDeque, vec::Vec};

use unikernel_rt::{
    DomainId,
    event::Channel,
    grant::{CopyEnd, CopyOperation, GrantError, GrantRef, Grants},
    memory::PAGE_SIZE,
    ring::BackRing,
    xenbus::Numbers,
};
use xen_abi::io::netif::{
    NETIF_RSP_ERROR, NETIF_RSP_NULL, NETIF_RSP_OKAY, NETRXF_csum_blank, NETRXF_data_validated,
    NETRXF_extra_info, NETRXF_more_data, NetifExtraGso, NetifExtraInfo, NetifRxRequest, NetifRxResponse,
    NetifTxResponse, XEN_NETIF_GSO_TYPE_TCPV4, XEN_NETIF_GSO_TYPE_TCPV6,
};

use crate::{
    frame::{Frame, MOST_PIECES, Offload, Piece},
    nic::Offloads,
    pool::Pool,
    switch::Port,
};
use packet::{Packet, TransmitRing};

/// Frames that wait for a domain which gives no pages to receive into, and pages that they hold; more are dropped, oldest last.
const WAITING: usize = 256;
const MOST_HELD: usize = 256;
/// Pages that frames for a domain may hold even when others have left few.
const GUARANTEED: usize = 32;
/// Packets taken off a ring in one turn, so that no domain holds up the others.
const BUDGET: usize = 64;
/// What does not fit a structure of either kind.
type ReceiveSlot = [u8; size_of::<NetifRxResponse>()];

/// What the frontend can take besides plain frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Frames of several slots.
    pub scatter: bool,
    /// Work that it does by itself; for segments, frames that it takes uncut.
    pub offloads: Offloads,
}

/// The network interface of a domain.
pub struct Interface {
    port: Port,
    domain: DomainId,
    channel: Channel,
    transmit: TransmitRing,
    receive: BackRing<NetifRxRequest, ReceiveSlot>,
    place: Place,
    features: Features,
    waiting: VecDeque<Frame>,
    /// Pages of the frames that wait.
    held: usize,
    /// The domain is to be notified at the end of the turn.
    must_notify: bool,
    /// What its domain did, see [`Interface::counts`].
    counts: Numbers,
}

/// What is left of an interface whose frontend is gone, for those who have the switch and the pool.
pub struct Departed {
    /// The port that it had at the switch.
    pub port: Port,
    /// The frames that waited for its domain.
    pub frames: VecDeque<Frame>,
    /// Where its answers were kept.
    pub place: Place,
}

impl Interface {
    /// Its port at the switch.
    pub fn port(&self) -> Port {
        self.port
    }

    /// Frames that its domain sent and their bytes, frames that it received and their bytes, frames for it that were dropped because it gave no pages
    /// or bad ones.
    pub fn counts(&self) -> Numbers {
        self.counts
    }

    /// What its frontend can take.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Takes packets that the domain sent: each is copied, answered, and handed to `sent`. An error is the frontend's fault and ends the connection.
    pub fn collect(
        &mut self,
        grants: &dyn Grants,
        pool: &mut Pool,
        mut sent: impl FnMut(Frame),
    ) -> Result<bool, packet::Error> {
        let mut packets = Vec::new();
        for _ in 0..BUDGET {
            // Room for the largest packet must be there before one is taken: what is taken is answered.
            if !has_room(pool, packets.len()) {
                break;
            }
            match packet::next(&mut self.transmit)? {
                Some(packet) => packets.push(packet),
                None => break,
            }
        }
        if packets.is_empty() {
            return Ok(false);
        }
        let frames: Vec<Option<Frame>> = packets.iter().map(|packet| allocate(packet, pool)).collect();
        let mut operations = Vec::new();
        let mut owners = Vec::new();
        for (index, (packet, frame)) in packets.iter().zip(&frames).enumerate() {
            if let Some(frame) = frame {
                copy_from(self.domain, packet, frame, pool, &mut operations);
                owners.resize(operations.len(), index);
            }
        }
        let mut results = Vec::new();
        grants.copy(&operations, &mut results);
        let mut failed = alloc::vec![false; packets.len()];
        for (&owner, result) in owners.iter().zip(&results) {
            if let Err(error) = result {
                failed[owner] |= report(self.domain, error);
            }
        }
        drop(operations);
        let mut answers = Vec::new();
        for ((packet, frame), failed) in packets.iter().zip(frames).zip(failed) {
            let good = frame.is_some() && !failed;
            answer(
                packet,
                if good { NETIF_RSP_OKAY } else { NETIF_RSP_ERROR },
                &mut answers,
            );
            match frame {
                Some(frame) if good => {
                    self.counts[0] += 1;
                    self.counts[1] += frame.length() as u64;
                    sent(frame);
                }
                Some(frame) => frame.release(pool),
                None => {}
            }
        }
        self.must_notify |= self.place.transmit.put(&mut self.transmit, &answers)?;
        Ok(true)
    }

    /// Queues a frame for the domain. It owes no work beyond [`Features::offloads`].
    pub fn deliver(&mut self, frame: Frame, pool: &mut Pool) {
        // The pool is for everyone: a domain that does not read may hold no more than a part of it, and cannot take from the others
        // what each needs to go on.
        let limit = if pool.available() < pool.size() / 4 {
            GUARANTEED
        } else {
            MOST_HELD
        };
        let held = self.held + frame.pieces.len();
        if self.waiting.len() >= WAITING || held > limit {
            self.counts[4] += 1;
            frame.release(pool);
        } else {
            self.held = held;
            self.waiting.push_back(frame);
        }
    }

    /// Copies waiting frames into the pages that the domain gave. Answers whether any went.
    pub fn flush(&mut self, grants: &dyn Grants, pool: &mut Pool) -> Result<bool, packet::Error> {
        let mut going: Vec<(Frame, Vec<NetifRxRequest>)> = Vec::new();
        while let Some(frame) = self.waiting.front() {
            let slots = receive_slots(frame);
            if (self.receive.available()? as usize) < slots || going.len() >= BUDGET {
                break;
            }
            let mut requests = Vec::with_capacity(slots);
            for _ in 0..slots {
                requests.extend(self.receive.pop()?);
            }
            if let Some(frame) = self.waiting.pop_front() {
                self.held -= frame.pieces.len();
                going.push((frame, requests));
            }
        }
        if going.is_empty() {
            return Ok(false);
        }
        let mut operations = Vec::new();
        let mut owners = Vec::new();
        for (index, (frame, requests)) in going.iter().enumerate() {
            copy_to(self.domain, frame, requests, pool, &mut operations);
            owners.resize(operations.len(), index);
        }
        let mut results = Vec::new();
        grants.copy(&operations, &mut results);
        let mut failed = alloc::vec![false; going.len()];
        for (&owner, result) in owners.iter().zip(&results) {
            if let Err(error) = result {
                failed[owner] |= report(self.domain, error);
            }
        }
        drop(operations);
        let mut answers = Vec::new();
        for ((frame, requests), failed) in going.into_iter().zip(failed) {
            announce(&frame, &requests, failed, &mut answers);
            if failed {
                self.counts[4] += 1;
            } else {
                self.counts[2] += 1;
                self.counts[3] += frame.length() as u64;
            }
            frame.release(pool);
        }
        self.must_notify |= self.place.receive.put(&mut self.receive, &answers)?;
        Ok(true)
    }

    /// At the end of a turn: has the domain look at its rings, once for all that was put there.
    pub fn notify(&mut self) {
        if core::mem::take(&mut self.must_notify) {
            self.channel.notify();
        }
    }

    /// Before a wait: asks to be notified, and answers whether there is work that can be done already.
    pub fn final_check(&mut self, pool: &Pool) -> Result<bool, packet::Error> {
        // Without pages nothing can be taken; whoever gives pages back (a card that has sent, a domain that reads) wakes us.
        let sent = self.transmit.final_check()? && has_room(pool, 0);
        // Fresh pages matter only to frames that wait for them.
        let given = match self.waiting.front() {
            Some(frame) => self.receive.final_check_for(receive_slots(frame) as u32)?,
            None => false,
        };
        Ok(sent || given)
    }

    /// Ends it: its rings are unmapped and its event channel is closed when this returns.
    fn end(self) -> Departed {
        Departed {
            port: self.port,
            frames: self.waiting,
            place: self.place,
        }
    }
}

/// Whether the pool has room for the largest packet behind as many others that were taken.
fn has_room(pool: &Pool, taken: usize) -> bool {
    pool.available() >= (taken + 1) * MOST_PIECES
}

/// Slots that a frame takes in a receive ring.
fn receive_slots(frame: &Frame) -> usize {
    frame.length().div_ceil(PAGE_SIZE) + usize::from(frame.offload.segment.is_some())
}

/// A frame with pages for a packet's bytes, packed from the start; `None` for a faulty packet.
fn allocate(packet: &Packet, pool: &mut Pool) -> Option<Frame> {
    if packet.fault.is_some() {
        return None;
    }
    let mut frame = Frame {
        offload: packet.offload,
        ..Default::default()
    };
    let mut rest = usize::from(packet.length);
    while rest > 0 {
        let length = rest.min(PAGE_SIZE);
        let pushed = pool.allocate().map(|page| {
            frame.pieces.push(Piece {
                page,
                offset: 0,
                length: length as u16,
            })
        });
        match pushed {
            Some(Ok(())) => rest -= length,
            Some(Err(piece)) => {
                pool.free(piece.page);
                frame.release(pool);
                return None;
            }
            None => {
                frame.release(pool);
                return None;
            }
        }
    }
    Some(frame)
}

/// The copies that bring a packet's fragments into a frame, one after the other.
fn copy_from<'a>(
    domain: DomainId,
    packet: &Packet,
    frame: &Frame,
    pool: &'a Pool,
    operations: &mut Vec<CopyOperation<'a>>,
) {
    let mut at = 0;
    for slot in &packet.slots {
        let mut done = 0;
        while done < slot.size {
            let Some(piece) = frame.pieces.get(at / PAGE_SIZE) else {
                return;
            };
            let length = (slot.size - done).min((PAGE_SIZE - at % PAGE_SIZE) as u16);
            operations.push(CopyOperation {
                source: CopyEnd::Granted {
                    domain,
                    reference: GrantRef(slot.gref),
                    offset: slot.offset + done,
                },
                target: CopyEnd::Local {
                    memory: pool.memory(),
                    offset: pool.offset(&piece.page) + at % PAGE_SIZE,
                },
                length,
            });
            done += length;
            at += usize::from(length);
        }
    }
}

/// The copies that bring a frame's bytes into the pages that a domain gave, each filled from its start.
fn copy_to<'a>(
    domain: DomainId,
    frame: &Frame,
    requests: &[NetifRxRequest],
    pool: &'a Pool,
    operations: &mut Vec<CopyOperation<'a>>,
) {
    let extra = usize::from(frame.offload.segment.is_some());
    let mut at = 0;
    for piece in &frame.pieces {
        let mut done = 0;
        while done < piece.length {
            let page = at / PAGE_SIZE;
            // The extra slot comes second.
            let Some(request) = requests.get(if page == 0 { 0 } else { page + extra }) else {
                return;
            };
            let length = (piece.length - done).min((PAGE_SIZE - at % PAGE_SIZE) as u16);
            operations.push(CopyOperation {
                source: CopyEnd::Local {
                    memory: pool.memory(),
                    offset: pool.offset(&piece.page) + usize::from(piece.offset + done),
                },
                target: CopyEnd::Granted {
                    domain,
                    reference: GrantRef(request.gref),
                    offset: (at % PAGE_SIZE) as u16,
                },
                length,
            });
            done += length;
            at += usize::from(length);
        }
    }
}

/// One response a slot, and an empty one for each extra slot.
fn answer(packet: &Packet, status: i16, answers: &mut Vec<NetifTxResponse>) {
    let nothing = NetifTxResponse {
        id: 0,
        status: NETIF_RSP_NULL,
    };
    for (index, slot) in packet.slots.iter().enumerate() {
        answers.push(NetifTxResponse { id: slot.id, status });
        answers.extend((0..if index == 0 { packet.extras } else { 0 }).map(|_| nothing));
    }
}

/// Responses for one frame, in the order of its slots: the first fragment, the extra slot, the other fragments.
fn announce(frame: &Frame, requests: &[NetifRxRequest], failed: bool, answers: &mut Vec<ReceiveSlot>) {
    let segment = frame.offload.segment;
    let extra_at = segment.map(|_| 1);
    let mut rest = frame.length();
    for (index, request) in requests.iter().enumerate() {
        if let (Some(segment), true) = (segment, Some(index) == extra_at) {
            let kind = if segment.ipv6 {
                XEN_NETIF_GSO_TYPE_TCPV6
            } else {
                XEN_NETIF_GSO_TYPE_TCPV4
            };
            let gso = NetifExtraGso {
                size: segment.size,
                r#type: kind,
                ..Default::default()
            };
            answers.push(zerocopy::transmute!(NetifExtraInfo::of_gso(gso)));
            continue;
        }
        let length = rest.min(PAGE_SIZE);
        rest -= length;
        let mut flags = if rest > 0 { NETRXF_more_data } else { 0 };
        if index == 0 {
            let Offload {
                checksum_blank,
                checksum_validated,
                segment,
            } = frame.offload;
            flags |= if checksum_blank {
                NETRXF_csum_blank | NETRXF_data_validated
            } else {
                0
            };
            flags |= if checksum_validated {
                NETRXF_data_validated
            } else {
                0
            };
            flags |= if segment.is_some() { NETRXF_extra_info } else { 0 };
        }
        let status = if failed { NETIF_RSP_ERROR } else { length as i16 };
        let response = NetifRxResponse {
            id: request.id,
            offset: 0,
            flags,
            status,
        };
        answers.push(zerocopy::transmute!(response));
    }
}

/// Says that a grant of a domain could not be used; always true.
fn report(domain: DomainId, error: &GrantError) -> bool {
    log::debug!("{domain}: a grant of its network interface cannot be used: {error}");
    true
}

#[cfg(test)]
mod tests;

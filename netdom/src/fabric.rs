//! The fabric: takes frames from every port, asks the switch, finishes what a receiver cannot do itself, and delivers.

use alloc::{boxed::Box, vec::Vec};

use unikernel_rt::memory::PAGE_SIZE;

use crate::{
    frame::{Frame, Piece},
    nic::{Nic, Offloads},
    offload,
    pool::Pool,
    switch::{Address, Destination, Port, Switch},
};

/// Frames taken from a card in one turn.
const BUDGET: usize = 64;

/// Who takes frames besides the cards: domains' interfaces, and netdom's own stack.
pub trait Endpoints {
    /// The ports that there are.
    fn ports(&mut self) -> Vec<Port>;
    /// What the port's owner does by itself; `None` if there is no such port any more.
    fn offloads(&mut self, port: Port) -> Option<Offloads>;
    /// Takes a frame.
    fn deliver(&mut self, port: Port, frame: Frame, pool: &mut Pool);
}

/// The cards and the switch.
pub struct Fabric {
    cards: Vec<(Port, Box<dyn Nic>)>,
    switch: Switch,
    /// Pages of all frames.
    pub pool: Pool,
}

impl Fabric {
    /// Without cards yet.
    pub fn new(pool: Pool) -> Self {
        Self {
            cards: Vec::new(),
            switch: Switch::default(),
            pool,
        }
    }

    /// Adds a card.
    pub fn add(&mut self, port: Port, card: Box<dyn Nic>) {
        self.cards.push((port, card));
    }

    /// The first card's address, if there is a card.
    pub fn address(&self) -> Option<Address> {
        self.cards.first().map(|(_, card)| card.address())
    }

    /// Forgets a port that is gone.
    pub fn remove(&mut self, port: Port) {
        self.switch.remove(port);
    }

    /// Moves what the cards have received. Answers whether there was anything.
    pub fn receive(&mut self, endpoints: &mut impl Endpoints, now: u64) -> bool {
        let mut received = Vec::new();
        for (port, card) in &mut self.cards {
            card.reclaim(&mut self.pool);
            let frames = core::iter::from_fn(|| card.receive(&mut self.pool)).take(BUDGET);
            received.extend(frames.map(|frame| (*port, frame)));
        }
        let any = !received.is_empty();
        for (port, frame) in received {
            self.forward(port, frame, endpoints, now);
        }
        any
    }

    /// Sends a frame where it belongs.
    pub fn forward(&mut self, from: Port, frame: Frame, endpoints: &mut impl Endpoints, now: u64) {
        let mut header = [0; 12];
        if frame.copy_out(&self.pool, &mut header) < header.len() {
            return frame.release(&mut self.pool);
        }
        let [a, b, c, d, e, f, g, h, i, j, k, l] = header;
        match self
            .switch
            .forward(from, [a, b, c, d, e, f], [g, h, i, j, k, l], now)
        {
            Destination::Nowhere => frame.release(&mut self.pool),
            Destination::Port(port) => self.deliver(port, frame, endpoints),
            Destination::Flood => {
                let cards = self.cards.iter().map(|&(port, _)| port);
                let ports: Vec<Port> = cards
                    .chain(endpoints.ports())
                    .filter(|&port| port != from)
                    .collect();
                for &port in ports.iter().skip(1) {
                    if let Some(copy) = copy(&frame, &mut self.pool) {
                        self.deliver(port, copy, endpoints);
                    }
                }
                match ports.first() {
                    Some(&port) => self.deliver(port, frame, endpoints),
                    None => frame.release(&mut self.pool),
                }
            }
        }
    }

    fn deliver(&mut self, port: Port, frame: Frame, endpoints: &mut impl Endpoints) {
        let card = self.cards.iter().position(|&(at, _)| at == port);
        let offloads = match card {
            Some(index) => Some(self.cards[index].1.offloads()),
            None => endpoints.offloads(port),
        };
        let Some(offloads) = offloads else {
            return frame.release(&mut self.pool);
        };
        let whole = match frame.offload.segment {
            Some(segment) if segment.ipv6 => offloads.segment_ipv6,
            Some(_) => offloads.segment_ipv4,
            None => true,
        };
        // A domain's word is good enough for another domain, but a card that is told nonsense may hang.
        let whole = whole && (card.is_none() || offload::is_sound(&frame, &self.pool, offloads.longest));
        let frames = if whole {
            Vec::from([frame])
        } else {
            offload::segment(frame, &mut self.pool)
        };
        for mut frame in frames {
            // A frame that stays whole to be cut gets its checksums when it is cut.
            if frame.offload.segment.is_none() {
                if frame.length() > offloads.longest {
                    frame.release(&mut self.pool);
                    continue;
                }
                if !offloads.checksum {
                    offload::complete_checksum(&mut frame, &self.pool);
                }
            }
            match card {
                // A full card drops: what it drops is sent again by those who care.
                Some(index) => {
                    if let Err(frame) = self.cards[index].1.transmit(frame, &mut self.pool) {
                        frame.release(&mut self.pool);
                    }
                }
                None => endpoints.deliver(port, frame, &mut self.pool),
            }
        }
    }

    /// Ends a turn: tells the cards what was queued, and gives them fresh pages.
    pub fn finish(&mut self) {
        for (_, card) in &mut self.cards {
            card.kick();
            card.refill(&mut self.pool);
        }
    }

    /// Lets the cards interrupt again, before a wait.
    pub fn rearm(&mut self) {
        self.cards.iter_mut().for_each(|(_, card)| card.rearm());
    }
}

/// A frame of the same bytes on pages of its own; `None` when the pool is empty.
fn copy(frame: &Frame, pool: &mut Pool) -> Option<Frame> {
    let mut copy = Frame {
        offload: frame.offload,
        ..Default::default()
    };
    let mut bytes = [0; PAGE_SIZE];
    for piece in &frame.pieces {
        let bytes = &mut bytes[..usize::from(piece.length)];
        pool.read(&piece.page, piece.offset.into(), bytes);
        let Some(page) = pool.allocate() else {
            copy.release(pool);
            return None;
        };
        pool.write(&page, 0, bytes);
        // As many pieces as the original has always fit.
        let _ = copy.pieces.push(Piece {
            page,
            offset: 0,
            length: piece.length,
        });
    }
    Some(copy)
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::VecDeque, rc::Rc};

    use unikernel_rt::memory::SharedMemory;

    use super::*;
    use crate::{
        frame::{Offload, Segmentation},
        headers::tests::tcp_frame,
    };

    #[derive(Default)]
    struct Wire {
        received: VecDeque<Frame>,
        sent: Vec<Vec<u8>>,
        offloads: Offloads,
    }

    #[derive(Clone, Default)]
    struct Card(Rc<RefCell<Wire>>);

    impl Nic for Card {
        fn address(&self) -> Address {
            [2; 6]
        }
        fn link_up(&mut self) -> bool {
            true
        }
        fn offloads(&self) -> Offloads {
            self.0.borrow().offloads
        }
        fn transmit(&mut self, frame: Frame, pool: &mut Pool) -> Result<(), Frame> {
            self.0.borrow_mut().sent.push(bytes(&frame, pool));
            frame.release(pool);
            Ok(())
        }
        fn kick(&mut self) {}
        fn reclaim(&mut self, _: &mut Pool) {}
        fn receive(&mut self, _: &mut Pool) -> Option<Frame> {
            self.0.borrow_mut().received.pop_front()
        }
        fn refill(&mut self, _: &mut Pool) {}
        fn rearm(&mut self) {}
    }

    #[derive(Default)]
    struct Domains(Vec<(Port, Vec<u8>)>);

    impl Endpoints for Domains {
        fn ports(&mut self) -> Vec<Port> {
            vec![Port(10), Port(11)]
        }
        fn offloads(&mut self, port: Port) -> Option<Offloads> {
            (port.0 < 12).then_some(Offloads {
                checksum: true,
                segment_ipv4: true,
                segment_ipv6: true,
                longest: 1 << 16,
            })
        }
        fn deliver(&mut self, port: Port, frame: Frame, pool: &mut Pool) {
            self.0.push((port, bytes(&frame, pool)));
            frame.release(pool);
        }
    }

    fn bytes(frame: &Frame, pool: &Pool) -> Vec<u8> {
        let mut bytes = vec![0; frame.length()];
        frame.copy_out(pool, &mut bytes);
        bytes
    }

    fn frame(pool: &mut Pool, bytes: &[u8]) -> Frame {
        let mut frame = Frame::default();
        for chunk in bytes.chunks(PAGE_SIZE) {
            let page = pool.allocate().unwrap();
            pool.write(&page, 0, chunk);
            frame
                .pieces
                .push(Piece {
                    page,
                    offset: 0,
                    length: chunk.len() as u16,
                })
                .unwrap();
        }
        frame
    }

    fn bench() -> (Fabric, Card, Domains) {
        let card = Card::default();
        let mut fabric = Fabric::new(Pool::new(SharedMemory::allocate(64).unwrap(), 0));
        fabric.add(Port(1), Box::new(card.clone()));
        (fabric, card, Domains::default())
    }

    fn ethernet(to: u8, from: u8) -> Vec<u8> {
        let mut bytes = vec![0; 60];
        bytes[..6].fill(to);
        bytes[6..12].fill(from);
        bytes
    }

    #[test]
    fn floods_to_everyone_else_and_then_knows() {
        let (mut fabric, card, mut domains) = bench();
        let broadcast = frame(&mut fabric.pool, &ethernet(0xff, 0x0a));
        fabric.forward(Port(10), broadcast, &mut domains, 0);
        assert_eq!(domains.0, [(Port(11), ethernet(0xff, 0x0a))]);
        assert_eq!(card.0.borrow().sent, [ethernet(0xff, 0x0a)]);
        let answer = frame(&mut fabric.pool, &ethernet(0x0a, 0x0c));
        card.0.borrow_mut().received.push_back(answer);
        assert!(fabric.receive(&mut domains, 1));
        assert_eq!(domains.0[1..], [(Port(10), ethernet(0x0a, 0x0c))]);
        assert_eq!(fabric.pool.available(), 64);
    }

    #[test]
    fn a_card_without_offloads_gets_finished_frames() {
        let (mut fabric, card, mut domains) = bench();
        let mut large = frame(&mut fabric.pool, &tcp_frame(&[9; 4000]));
        large.offload = Offload {
            checksum_blank: true,
            segment: Some(Segmentation {
                size: 1448,
                ipv6: false,
            }),
            ..Default::default()
        };
        fabric.forward(Port(10), large, &mut domains, 0);
        let sent = card.0.borrow().sent.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sent, [1502, 1502, 1158]);
        assert_eq!(domains.0[0].1.len(), 4054, "the other domain takes it whole");
        assert_eq!(fabric.pool.available(), 64);
    }

    #[test]
    fn a_card_gets_no_frame_that_it_cannot_take() {
        let (mut fabric, card, mut domains) = bench();
        let everything = Offloads {
            checksum: true,
            segment_ipv4: true,
            segment_ipv6: true,
            ..Offloads::default()
        };
        card.0.borrow_mut().offloads = everything;
        let gso = |size| Offload {
            checksum_blank: true,
            segment: Some(Segmentation { size, ipv6: false }),
            ..Default::default()
        };
        let mut unknown = ethernet(0x0b, 0x0a);
        unknown.resize(4000, 0);
        let large = tcp_frame(&[9; 4000]);
        let cases: [(Vec<u8>, Offload, &[usize]); 5] = [
            // Longer than the network's frames, and nobody may cut it.
            (large.clone(), Offload::default(), &[]),
            // Nobody knows how to cut it.
            (unknown, gso(1448), &[]),
            // As it should be: the card cuts it.
            (large.clone(), gso(1448), &[4054]),
            // Its segments are too long, or its payload is none.
            (large, gso(3000), &[1054]),
            (tcp_frame(&[]), gso(1448), &[54]),
        ];
        for (bytes, offload, expected) in cases {
            card.0.borrow_mut().sent.clear();
            let mut sending = frame(&mut fabric.pool, &bytes);
            sending.offload = offload;
            fabric.deliver(Port(1), sending, &mut domains);
            let sent: Vec<usize> = card.0.borrow().sent.iter().map(Vec::len).collect();
            assert_eq!(sent, expected);
            assert_eq!(fabric.pool.available(), 64);
        }
    }
}

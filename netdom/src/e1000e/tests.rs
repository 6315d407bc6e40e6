//! The driver against a card of memory: it follows the descriptors as the datasheet says, and no further.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use unikernel_rt::memory::{PAGE_SIZE, SharedMemory};

use super::{
    descriptor::{self, Receive, Transmit},
    registers as register, *,
};
use crate::frame::{Offload, Piece, Segmentation};

const POOL_BUS: u64 = 0x10_0000;
const RECEIVE_BUS: u64 = 0x8000;
const TRANSMIT_BUS: u64 = 0x9000;

struct Card {
    registers: RefCell<BTreeMap<u32, u32>>,
    receive: SharedMemory,
    transmit: SharedMemory,
    pool: SharedMemory,
}

#[derive(Clone)]
struct Window(Rc<Card>);

impl Registers for Window {
    fn read(&self, offset: u32) -> u32 {
        self.0.registers.borrow().get(&offset).copied().unwrap_or(0)
    }

    fn write(&self, offset: u32, value: u32) {
        let value = if offset == register::CTRL {
            value & !register::CTRL_RESET
        } else {
            value
        };
        self.0.registers.borrow_mut().insert(offset, value);
    }
}

impl Card {
    fn register(&self, offset: u32) -> usize {
        self.registers.borrow().get(&offset).copied().unwrap_or(0) as usize
    }

    /// Puts a frame into the next buffer.
    fn receives(&self, frame: &[u8], status: u8, errors: u8) {
        let head = self.register(register::RDH);
        assert_ne!(head, self.register(register::RDT), "no buffer");
        let at = head * descriptor::SIZE;
        let mut entry: Receive = self.receive.read(at).unwrap();
        self.pool
            .copy_in((entry.address - POOL_BUS) as usize, frame)
            .unwrap();
        entry.length = frame.len() as u16;
        entry.status = status;
        entry.errors = errors;
        self.receive.write(at, &entry).unwrap();
        self.registers
            .borrow_mut()
            .insert(register::RDH, ((head + 1) % RING) as u32);
    }

    /// Sends everything up to the tail: the descriptors, and the bytes of the data ones.
    fn sends(&self) -> (Vec<Transmit>, Vec<u8>) {
        let (mut head, tail) = (self.register(register::TDH), self.register(register::TDT));
        let (mut descriptors, mut bytes) = (Vec::new(), Vec::new());
        while head != tail {
            let at = head * descriptor::SIZE;
            let mut entry: Transmit = self.transmit.read(at).unwrap();
            descriptors.push(entry);
            if entry.second >> 20 & 0xf == 1 {
                let mut piece = vec![0; (entry.second & 0xf_ffff) as usize];
                self.pool
                    .copy_out((entry.first - POOL_BUS) as usize, &mut piece)
                    .unwrap();
                bytes.extend(piece);
                entry.second |= descriptor::TRANSMITTED;
                self.transmit.write(at, &entry).unwrap();
            }
            head = (head + 1) % RING;
        }
        self.registers.borrow_mut().insert(register::TDH, head as u32);
        (descriptors, bytes)
    }
}

fn bench() -> (Rc<Card>, E1000e<Window>, Pool) {
    bench_with(Settings::default())
}

fn bench_with(settings: Settings) -> (Rc<Card>, E1000e<Window>, Pool) {
    let card = Rc::new(Card {
        registers: RefCell::default(),
        receive: SharedMemory::allocate(1).unwrap(),
        transmit: SharedMemory::allocate(1).unwrap(),
        pool: SharedMemory::allocate(1024).unwrap(),
    });
    card.registers.borrow_mut().insert(register::RAL, 0x1200_5452);
    card.registers
        .borrow_mut()
        .insert(register::RAH, register::RAH_VALID | 0x5634);
    let mut pool = Pool::new(card.pool.clone(), POOL_BUS);
    let driver = E1000e::start(
        Window(card.clone()),
        settings,
        RingMemory {
            memory: card.transmit.clone(),
            bus: TRANSMIT_BUS,
        },
        RingMemory {
            memory: card.receive.clone(),
            bus: RECEIVE_BUS,
        },
        &mut pool,
        || false,
        || (),
    )
    .unwrap();
    (card, driver, pool)
}

fn frame(pool: &mut Pool, pieces: &[&[u8]], offload: Offload) -> Frame {
    let mut frame = Frame {
        offload,
        ..Default::default()
    };
    for bytes in pieces {
        let page = pool.allocate().unwrap();
        pool.write(&page, 64, bytes);
        frame
            .pieces
            .push(Piece {
                page,
                offset: 64,
                length: bytes.len() as u16,
            })
            .unwrap();
    }
    frame
}

#[test]
fn starts_with_buffers_and_its_address() {
    let (card, driver, pool) = bench();
    assert_eq!(driver.address(), [0x52, 0x54, 0x00, 0x12, 0x34, 0x56]);
    assert_eq!(card.register(register::RDT), RING - 1);
    assert_eq!(pool.available(), 1024 - (RING - 1));
}

#[test]
fn a_silent_card_is_given_up() {
    struct Stuck;
    impl Registers for Stuck {
        fn read(&self, _: u32) -> u32 {
            u32::MAX
        }
        fn write(&self, _: u32, _: u32) {}
    }
    let memory = || RingMemory {
        memory: SharedMemory::allocate(1).unwrap(),
        bus: 0,
    };
    let mut pool = Pool::new(SharedMemory::allocate(1).unwrap(), 0);
    let started = E1000e::start(
        Stuck,
        Settings::default(),
        memory(),
        memory(),
        &mut pool,
        || false,
        || panic!("it was not reset"),
    );
    assert_eq!(started.err(), Some(Error::Silent("the end of its reset")));
}

#[test]
fn sends_frames_in_pieces_and_frees_them() {
    let (card, mut driver, mut pool) = bench();
    let before = pool.available();
    for _ in 0..3 * RING {
        let frame = frame(&mut pool, &[&[1; 14], &[2; 100], &[3; 1000]], Offload::default());
        driver.transmit(frame, &mut pool).unwrap();
        driver.kick();
        let (descriptors, bytes) = card.sends();
        assert_eq!(descriptors.len(), 3);
        assert_eq!(bytes, [vec![1; 14], vec![2; 100], vec![3; 1000]].concat());
    }
    driver.reclaim(&mut pool);
    assert_eq!(pool.available(), before);
}

#[test]
fn a_full_ring_gives_the_frame_back() {
    let (_card, mut driver, mut pool) = bench();
    for _ in 0..RING - 2 {
        let frame = frame(&mut pool, &[&[1; 60]], Offload::default());
        driver.transmit(frame, &mut pool).unwrap();
    }
    let frame = frame(&mut pool, &[&[1; 60]], Offload::default());
    let back = driver.transmit(frame, &mut pool).unwrap_err();
    back.release(&mut pool);
}

#[test]
fn asks_the_card_to_cut_large_frames() {
    let (card, mut driver, mut pool) = bench();
    let mut headers = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    headers.extend([
        0x45, 0, 0x10, 0, 0, 1, 0x40, 0, 64, 6, 0xaa, 0xbb, 10, 0, 2, 15, 10, 0, 2, 2,
    ]);
    headers.extend([
        0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0xcc, 0xdd, 0, 0,
    ]);
    let segment = Some(Segmentation {
        size: 1448,
        ipv6: false,
    });
    let offload = Offload {
        checksum_blank: true,
        segment,
        ..Default::default()
    };
    let frame = frame(&mut pool, &[&headers, &[7; 4000]], offload);
    driver.transmit(frame, &mut pool).unwrap();
    driver.kick();
    let (descriptors, bytes) = card.sends();
    let context = descriptors[0];
    assert_eq!(context.second & 0xf_ffff, 4000, "payload");
    assert_eq!(context.second >> 40 & 0xff, 54, "headers");
    assert_eq!(context.second >> 48, 1448, "segment");
    assert_eq!(context.first, 14 | 24 << 8 | 33 << 16 | 34 << 32 | 50 << 40);
    assert!(descriptors[1].second & 1 << 26 != 0 && descriptors[1].second >> 40 == 3);
    assert_eq!(bytes[16..18], [0, 0], "total length");
    assert_eq!(bytes[24..26], [0, 0], "header checksum");
    // The addresses and the protocol, without the length: 0a00 + 020f + 0a00 + 0202 + 0006.
    assert_eq!(bytes[50..52], [0x18, 0x17]);
}

#[test]
fn receives_good_frames_only() {
    let (card, mut driver, mut pool) = bench();
    card.receives(&[5; 100], 0x23, 0);
    card.receives(&[6; 100], 0x23, 0x20);
    card.receives(&[7; 100], 0x03, 0x01);
    card.receives(&[8; 1000], 0x01, 0);
    card.receives(&[8; 100], 0x03, 0);
    card.receives(&[9; 60], 0x07, 0);
    let mut frames = Vec::new();
    while let Some(frame) = driver.receive(&mut pool) {
        let mut bytes = vec![0; frame.length()];
        frame.copy_out(&pool, &mut bytes);
        frames.push((bytes[0], bytes.len(), frame.offload.checksum_validated));
        frame.release(&mut pool);
    }
    assert_eq!(frames, [(5, 100, true), (6, 100, false), (9, 60, false)]);
    driver.refill(&mut pool);
    assert_eq!(pool.available(), 1024 - (RING - 1));
}

#[test]
fn a_length_beyond_the_buffer_drops_the_frame() {
    let (card, mut driver, mut pool) = bench();
    card.receives(&[5; PAGE_SIZE], 0x03, 0);
    card.receives(&[6; 60], 0x03, 0);
    let frame = driver.receive(&mut pool).unwrap();
    assert_eq!(frame.length(), 60);
    frame.release(&mut pool);
}

#[test]
fn sent_frames_are_announced_only_when_they_hold_many_pages() {
    let (card, mut driver, mut pool) = bench();
    let armed = |driver: &mut E1000e<Window>| {
        driver.rearm();
        card.register(register::IMS) as u32 & register::INTERRUPT_TRANSMIT != 0
    };
    for _ in 0..SILENT {
        let frame = frame(&mut pool, &[&[1; 60]], Offload::default());
        driver.transmit(frame, &mut pool).unwrap();
    }
    assert!(!armed(&mut driver));
    let one_more = frame(&mut pool, &[&[1; 60]], Offload::default());
    driver.transmit(one_more, &mut pool).unwrap();
    assert!(armed(&mut driver));
    driver.kick();
    card.sends();
    driver.reclaim(&mut pool);
    assert!(!armed(&mut driver));
}

#[test]
fn a_prompt_card_announces_each_sent_frame_at_once() {
    let (card, mut driver, mut pool) = bench_with(Settings {
        interrupts: Interrupts::Prompt,
        loopback: true,
    });
    assert_eq!(card.register(register::EITR), 0);
    assert_ne!(card.register(register::RCTL) as u32 & register::RCTL_LOOPBACK, 0);
    let one = frame(&mut pool, &[&[1; 60]], Offload::default());
    driver.transmit(one, &mut pool).unwrap();
    driver.rearm();
    assert_ne!(
        card.register(register::IMS) as u32 & register::INTERRUPT_TRANSMIT,
        0
    );
    let (card, _, _) = bench();
    assert_eq!(card.register(register::EITR) as u32, register::EITR_RUN);
    assert_eq!(card.register(register::RCTL) as u32 & register::RCTL_LOOPBACK, 0);
}

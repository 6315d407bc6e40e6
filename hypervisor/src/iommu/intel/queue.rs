//! The invalidation queue (Architecture Specification, 6.5.2): commands that a unit carries out one after the other, and the words by which it says that it has.

use core::sync::atomic::Ordering;

use super::{
    super::{
        UnitError,
        unit::{Patience, Registers},
    },
    registers::{FAULT_STATUS, QUEUE_ERROR, QUEUE_TAIL},
};
use crate::memory::{DirectMap, Frame, MachineAddress, PAGE_SIZE};

const DESCRIPTOR: u64 = 16;
/// What fits into a page.
const DESCRIPTORS: u64 = PAGE_SIZE / DESCRIPTOR;

const CONTEXT_CACHE: u64 = 1;
const TRANSLATIONS: u64 = 2;
const INTERRUPT_ENTRIES: u64 = 4;
const WAIT: u64 = 5;

const GLOBAL: u64 = 1 << 4;
const OF_DOMAIN: u64 = 2 << 4;
const OF_DEVICE: u64 = 3 << 4;
const OF_PAGES: u64 = 3 << 4;
const WAIT_WRITES: u64 = 1 << 5;
const WAIT_FENCE: u64 = 1 << 6;

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor(pub(super) u64, pub(super) u64);

impl Descriptor {
    /// Forget the contexts of all devices.
    pub(super) const ALL_CONTEXTS: Self = Self(CONTEXT_CACHE | GLOBAL, 0);
    /// Forget all interrupt entries.
    pub(super) const ALL_INTERRUPTS: Self = Self(INTERRUPT_ENTRIES, 0);
    /// Forget the context of a device that was attached to a domain.
    pub(super) const fn context(requester: u16, tag: u16) -> Self {
        Self(
            CONTEXT_CACHE | OF_DEVICE | (tag as u64) << 16 | (requester as u64) << 32,
            0,
        )
    }

    /// Forget all translations.
    pub(super) const fn all_translations(drains: u64) -> Self {
        Self(TRANSLATIONS | GLOBAL | drains, 0)
    }

    /// Forget a domain's translations.
    pub(super) const fn domain(tag: u16, drains: u64) -> Self {
        Self(TRANSLATIONS | OF_DOMAIN | drains | (tag as u64) << 16, 0)
    }

    /// Forget a domain's translations of `1 << order` pages from an address that is a multiple of them.
    pub(super) const fn pages(tag: u16, drains: u64, address: u64, order: u32) -> Self {
        Self(
            TRANSLATIONS | OF_PAGES | drains | (tag as u64) << 16,
            address | order as u64,
        )
    }

    /// Forget an interrupt entry.
    pub(super) const fn interrupt(index: u16) -> Self {
        Self(INTERRUPT_ENTRIES | GLOBAL | (index as u64) << 32, 0)
    }

    /// Write a word when everything before is over.
    const fn tell(at: MachineAddress, word: u32) -> Self {
        Self(WAIT | WAIT_WRITES | WAIT_FENCE | (word as u64) << 32, at.0)
    }
}

/// The queue of a unit.
pub(super) struct Queue {
    memory: DirectMap,
    frame: Frame,
    /// The word that the unit writes.
    status: MachineAddress,
    tail: u64,
    /// Commands since the unit was last waited for; it has carried out all others.
    waiting: u64,
    /// The number of the last wait.
    turn: u32,
    broken: bool,
}

impl Queue {
    /// A queue in one page, with its status at the beginning of another; the unit knows the page and starts at its beginning.
    pub(super) fn new(memory: DirectMap, frame: Frame, status: Frame) -> Self {
        Self {
            memory,
            frame,
            status: status.address(),
            tail: 0,
            waiting: 0,
            turn: 0,
            broken: false,
        }
    }

    /// Queues a command. Where the queue is full the unit is waited for.
    pub(super) fn push(&mut self, registers: &dyn Registers, descriptor: Descriptor) {
        // One place stays free, and one is for the wait.
        if self.waiting + 2 >= DESCRIPTORS {
            let _ = self.complete(registers);
        }
        self.put(descriptor);
    }

    /// What comes behind begins when everything before is over.
    pub(super) fn fence(&mut self, registers: &dyn Registers) {
        // Some units want each wait to say something; nobody reads this word.
        self.push(registers, Descriptor::tell(MachineAddress(self.status.0 + 8), 0));
    }

    fn put(&mut self, descriptor: Descriptor) {
        let at = self.frame.address().0 + self.tail * DESCRIPTOR;
        for (offset, word) in [(0, descriptor.0), (8, descriptor.1)] {
            self.memory
                .atomic_u64(MachineAddress(at + offset))
                .store(word, Ordering::Release);
        }
        self.tail = (self.tail + 1) % DESCRIPTORS;
        self.waiting += 1;
    }

    /// Waits until every command has been carried out.
    pub(super) fn complete(&mut self, registers: &dyn Registers) -> Result<(), UnitError> {
        if self.broken {
            return Err(UnitError::NoAnswer);
        }
        if self.waiting == 0 {
            return Ok(());
        }
        self.turn = self.turn.wrapping_add(1).max(1);
        self.put(Descriptor::tell(self.status, self.turn));
        registers.write64(QUEUE_TAIL, self.tail * DESCRIPTOR);
        let answer = self.memory.atomic_u32(self.status);
        let mut patience = Patience::new();
        while answer.load(Ordering::Acquire) != self.turn {
            let refused = registers.read32(FAULT_STATUS) & QUEUE_ERROR != 0;
            if refused || patience.is_over() {
                self.broken = true;
                return Err(UnitError::NoAnswer);
            }
        }
        self.waiting = 0;
        Ok(())
    }
}

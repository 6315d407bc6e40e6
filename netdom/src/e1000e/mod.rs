//! The Intel 82574L, as servers and QEMU (`e1000e`) have it, and its relatives with the same registers.
//!
//! One receive and one transmit queue, one interrupt for everything. Frames are sent from and received into pages of the pool; the card completes
//! checksums and cuts large TCP frames. What the card writes into descriptors is checked: a length beyond the buffer drops the frame.

mod descriptor;
#[cfg(target_os = "none")]
mod function;
mod queues;
pub mod registers;

use crate::{
    frame::Frame,
    nic::{Error, LONGEST, Nic, Offloads},
    pool::Pool,
};
#[cfg(target_os = "none")]
pub use function::{Window, drives, open};
use queues::{ReceiveQueue, TransmitQueue};
use registers::{self as register, Registers};

/// Descriptors in a ring that one page holds.
pub const RING: usize = 256;

/// Descriptors that frames which were perhaps sent may hold while nobody is told.
const SILENT: usize = RING / 8;

/// Memory for a ring: one page, and where the card finds it.
pub struct RingMemory {
    /// The page, zeroed.
    pub memory: unikernel_rt::memory::SharedMemory,
    /// Its bus address.
    pub bus: u64,
}

/// When the card interrupts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interrupts {
    /// Seldom, for throughput: at most once in 100 microseconds, and for sent frames only when they hold many pages.
    #[default]
    Gathered,
    /// At once, for each received and each sent frame.
    Prompt,
}

/// How a card is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// When it interrupts.
    pub interrupts: Interrupts,
    /// What is sent is received by the card itself, and leaves it by no cable.
    pub loopback: bool,
}

/// A card in use.
pub struct E1000e<R> {
    registers: R,
    settings: Settings,
    address: [u8; 6],
    transmit: TransmitQueue,
    receive: ReceiveQueue,
}

impl<R: Registers> E1000e<R> {
    /// Resets the card and starts it. `pause` is called between looks at a register that takes its time, and says when to give up.
    /// `allow_memory` is called once the card has forgotten whatever it was told before, and lets it reach memory.
    pub fn start(
        registers: R,
        settings: Settings,
        transmit: RingMemory,
        receive: RingMemory,
        pool: &mut Pool,
        mut pause: impl FnMut() -> bool,
        allow_memory: impl FnOnce(),
    ) -> Result<Self, Error> {
        let mut wait = |what, done: &dyn Fn() -> bool| {
            while !done() {
                if !pause() {
                    return Err(Error::Silent(what));
                }
            }
            Ok(())
        };
        registers.write(register::IMC, u32::MAX);
        let control = registers.read(register::CTRL);
        registers.write(register::CTRL, control | register::CTRL_MASTER_DISABLE);
        // A card that keeps the bus is reset all the same; the reset ends what it does.
        let _ = wait("the end of bus mastering", &|| {
            registers.read(register::STATUS) & register::STATUS_MASTER_ENABLED == 0
        });
        registers.write(register::RCTL, 0);
        registers.write(register::TCTL, 1 << 3);
        registers.write(register::CTRL, control | register::CTRL_RESET);
        wait("the end of its reset", &|| {
            registers.read(register::CTRL) & register::CTRL_RESET == 0
        })?;
        // Not before: the rings of a predecessor may lie in memory that is ours by now.
        allow_memory();
        registers.write(register::IMC, u32::MAX);
        registers.read(register::ICR);
        let address = address(&registers).ok_or(Error::NoAddress)?;

        let control = registers.read(register::CTRL) & !register::CTRL_MASTER_DISABLE;
        registers.write(register::CTRL, control | register::CTRL_SET_LINK_UP);
        let extended = register::CTRL_EXT_PBA_CLEAR | register::CTRL_EXT_DRIVER_LOADED;
        registers.write(register::CTRL_EXT, registers.read(register::CTRL_EXT) | extended);
        for entry in 0..128 {
            registers.write(register::MTA + 4 * entry, 0);
        }
        let length = (RING * descriptor::SIZE) as u32;
        for (base_low, base_high, length_at, bus) in [
            (register::RDBAL, register::RDBAH, register::RDLEN, receive.bus),
            (register::TDBAL, register::TDBAH, register::TDLEN, transmit.bus),
        ] {
            registers.write(base_low, bus as u32);
            registers.write(base_high, (bus >> 32) as u32);
            registers.write(length_at, length);
        }
        for index in [register::RDH, register::RDT, register::TDH, register::TDT] {
            registers.write(index, 0);
        }
        registers.write(register::TXDCTL, register::TXDCTL_RUN);
        registers.write(register::TIPG, register::TIPG_RUN);
        registers.write(register::RXCSUM, register::RXCSUM_RUN);
        registers.write(register::IVAR, register::IVAR_ALL_TO_VECTOR_0);
        let pause_between_interrupts = match settings.interrupts {
            Interrupts::Gathered => register::EITR_RUN,
            Interrupts::Prompt => 0,
        };
        registers.write(register::EITR, pause_between_interrupts);
        // A cause that was announced is cleared and masked by that, until `rearm`.
        registers.write(
            register::EIAC,
            register::INTERRUPT_RECEIVE | register::INTERRUPT_TRANSMIT,
        );
        registers.write(register::TCTL, register::TCTL_RUN);
        let loopback = if settings.loopback {
            register::RCTL_LOOPBACK
        } else {
            0
        };
        registers.write(register::RCTL, register::RCTL_RUN | loopback);

        let mut card = Self {
            registers,
            settings,
            address,
            transmit: TransmitQueue::new(transmit.memory),
            receive: ReceiveQueue::new(receive.memory),
        };
        card.refill(pool);
        card.rearm();
        Ok(card)
    }
}

/// The address that the card loaded from its memory at reset.
fn address(registers: &impl Registers) -> Option<[u8; 6]> {
    let low = registers.read(register::RAL).to_le_bytes();
    let high = registers.read(register::RAH);
    let [a, b, ..] = high.to_le_bytes();
    let address = [low[0], low[1], low[2], low[3], a, b];
    let usable = high & register::RAH_VALID != 0 && !crate::switch::is_group(address) && address != [0; 6];
    usable.then_some(address)
}

impl<R: Registers> Nic for E1000e<R> {
    fn address(&self) -> [u8; 6] {
        self.address
    }

    fn link_up(&mut self) -> bool {
        self.registers.read(register::STATUS) & register::STATUS_LINK_UP != 0
    }

    fn offloads(&self) -> Offloads {
        Offloads {
            longest: LONGEST,
            checksum: true,
            segment_ipv4: true,
            segment_ipv6: true,
        }
    }

    fn transmit(&mut self, frame: Frame, pool: &mut Pool) -> Result<(), Frame> {
        if !self.transmit.has_room(&frame) {
            self.reclaim(pool);
        }
        self.transmit.push(frame, pool)
    }

    fn kick(&mut self) {
        if let Some(tail) = self.transmit.take_tail() {
            self.registers.write(register::TDT, tail);
        }
    }

    fn reclaim(&mut self, pool: &mut Pool) {
        self.transmit.reclaim(pool);
    }

    fn receive(&mut self, pool: &mut Pool) -> Option<Frame> {
        self.receive.pop(pool)
    }

    fn refill(&mut self, pool: &mut Pool) {
        if let Some(tail) = self.receive.refill(pool) {
            self.registers.write(register::RDT, tail);
        }
    }

    fn rearm(&mut self) {
        // No cause but these two: one that nobody clears (a change of the link) would be announced again by each of these writes.
        let both = register::INTERRUPT_RECEIVE | register::INTERRUPT_TRANSMIT;
        // What came while interrupts were masked would be announced at once. Who calls looks once more, and finds it.
        self.registers.write(register::ICR, both);
        // Sent frames are reclaimed by the next turn, and worth an interrupt only if they hold many pages.
        let prompt = self.settings.interrupts == Interrupts::Prompt;
        let causes = if prompt || self.transmit.held() > SILENT {
            both
        } else {
            register::INTERRUPT_RECEIVE
        };
        self.registers.write(register::IMS, causes);
    }
}

#[cfg(test)]
mod tests;

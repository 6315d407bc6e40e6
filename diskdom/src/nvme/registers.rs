//! The controller's registers: offsets, fields, and what they say about it.

use core::time::Duration;

use unikernel_rt::pci::Registers;

/// Controller capabilities, 64 bits.
pub const CAPABILITIES: usize = 0x00;
/// Version.
pub const VERSION: usize = 0x08;
/// Controller configuration.
pub const CONFIGURATION: usize = 0x14;
/// Controller status.
pub const STATUS: usize = 0x1c;
/// Admin queue attributes.
pub const ADMIN_ATTRIBUTES: usize = 0x24;
/// Admin submission queue base, 64 bits.
pub const ADMIN_SUBMISSION: usize = 0x28;
/// Admin completion queue base, 64 bits.
pub const ADMIN_COMPLETION: usize = 0x30;
/// The first doorbell.
pub const DOORBELLS: usize = 0x1000;

/// [`CONFIGURATION`]: enable.
pub const ENABLE: u32 = 1;
/// [`CONFIGURATION`] of this driver: the NVM command set, pages of 4 KiB, round robin, entries of 64 and 16 bytes.
pub const ENTRY_SIZES: u32 = 6 << 16 | 4 << 20;
/// [`STATUS`]: ready.
pub const READY: u32 = 1;
/// [`STATUS`]: fatal.
pub const FATAL: u32 = 1 << 1;
/// Any register of a controller that is not there any more.
pub const ABSENT: u32 = u32::MAX;

/// What the capabilities register says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Most entries of an I/O queue.
    pub max_entries: u32,
    /// How long enabling or disabling may take.
    pub timeout: Duration,
    /// Bytes from one doorbell to the next.
    pub doorbell_stride: usize,
    /// Whether it has the NVM command set.
    pub nvm_commands: bool,
    /// Bytes of the smallest page that it works with.
    pub min_page: u64,
}

impl Capabilities {
    /// Reads the register, by halves: not every bus carries eight bytes at once.
    pub fn read(registers: &impl Registers) -> Option<Self> {
        let low = registers.read32(CAPABILITIES);
        let high = registers.read32(CAPABILITIES + 4);
        if low == ABSENT && high == ABSENT {
            return None;
        }
        let raw = u64::from(high) << 32 | u64::from(low);
        Some(Self {
            max_entries: (raw & 0xffff) as u32 + 1,
            // In units of 500 ms; 0 is out of order, and still deserves a moment.
            timeout: Duration::from_millis(500 * (raw >> 24 & 0xff).max(1)),
            doorbell_stride: 4 << (raw >> 32 & 0xf),
            nvm_commands: raw >> 37 & 1 != 0,
            min_page: 4096 << (raw >> 48 & 0xf),
        })
    }

    /// Where a queue's doorbells are: of the submission queue's tail, and of the completion queue's head.
    pub fn doorbells(&self, queue: u16) -> (usize, usize) {
        let tail = DOORBELLS + 2 * usize::from(queue) * self.doorbell_stride;
        (tail, tail + self.doorbell_stride)
    }
}

/// Writes a register of 64 bits, by halves.
pub fn write64(registers: &impl Registers, offset: usize, value: u64) {
    registers.write32(offset, value as u32);
    registers.write32(offset + 4, (value >> 32) as u32);
}

//! Registers and structures of VT-d that the driver uses (Architecture Specification, chapters 9 and 11), as offsets, bits and fields.

pub(super) const VERSION: usize = 0x00;
pub(super) const CAPABILITY: usize = 0x08;
pub(super) const EXTENDED_CAPABILITY: usize = 0x10;
pub(super) const COMMAND: usize = 0x18;
pub(super) const STATUS: usize = 0x1c;
pub(super) const ROOT_TABLE: usize = 0x20;
pub(super) const FAULT_STATUS: usize = 0x34;
pub(super) const FAULT_CONTROL: usize = 0x38;
pub(super) const FAULT_DATA: usize = 0x3c;
pub(super) const FAULT_ADDRESS: usize = 0x40;
pub(super) const FAULT_UPPER_ADDRESS: usize = 0x44;
pub(super) const PROTECTED_MEMORY: usize = 0x64;
pub(super) const QUEUE_TAIL: usize = 0x88;
pub(super) const QUEUE_ADDRESS: usize = 0x90;
pub(super) const INTERRUPT_TABLE: usize = 0xb8;

/// Of the command and status registers.
pub(super) const TRANSLATION: u32 = 1 << 31;
pub(super) const SET_ROOT: u32 = 1 << 30;
pub(super) const FLUSH_WRITES: u32 = 1 << 27;
pub(super) const QUEUE: u32 = 1 << 26;
pub(super) const REMAPPING: u32 = 1 << 25;
pub(super) const SET_INTERRUPT_TABLE: u32 = 1 << 24;
/// Interrupt messages of the old form come through.
pub(super) const COMPATIBLE_MESSAGES: u32 = 1 << 23;
/// What stays as it is until the next command: the others happen once.
pub(super) const LASTING: u32 = TRANSLATION | QUEUE | REMAPPING | 1 << 28 | COMPATIBLE_MESSAGES;

/// Of the fault-status register.
pub(super) const FAULT_OVERFLOW: u32 = 1 << 0;
pub(super) const FAULT_PENDING: u32 = 1 << 1;
pub(super) const QUEUE_ERROR: u32 = 1 << 4;
pub(super) const COMPLETION_ERRORS: u32 = 1 << 5 | 1 << 6;
/// What is cleared by writing ones.
pub(super) const FAULT_CLEAR: u32 = 0x7d;
pub(super) const FAULT_MASKED: u32 = 1 << 31;

/// Of the protected-memory register.
pub(super) const PROTECTION: u32 = 1 << 31;
pub(super) const PROTECTION_STATUS: u32 = 1 << 0;

/// Of the interrupt-table register: messages name 32 bits of a destination.
pub(super) const WIDE_DESTINATIONS: u64 = 1 << 11;

/// Of a fault record's upper half.
pub(super) const RECORD_FULL: u64 = 1 << 63;
pub(super) const RECORD_READ: u64 = 1 << 62;

/// What a unit can do: both capability registers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capabilities {
    pub(super) basic: u64,
    pub(super) extended: u64,
}

impl Capabilities {
    const fn basic(self, shift: u32, bits: u32) -> u64 {
        self.basic >> shift & ((1 << bits) - 1)
    }

    const fn extended(self, bit: u32) -> bool {
        self.extended >> bit & 1 != 0
    }

    /// Domains that it tells apart.
    pub(super) const fn domains(self) -> u32 {
        let bits = 4 + 2 * self.basic(0, 3);
        if bits > 16 { 1 << 16 } else { 1 << bits }
    }

    pub(super) const fn buffers_writes(self) -> bool {
        self.basic(4, 1) != 0
    }

    pub(super) const fn protects_memory(self) -> bool {
        self.basic(5, 2) != 0
    }

    pub(super) const fn remembers_absence(self) -> bool {
        self.basic(7, 1) != 0
    }

    /// Whether tables of 3 and of 4 levels can be walked.
    pub(super) const fn levels(self) -> (bool, bool) {
        (self.basic(9, 1) != 0, self.basic(10, 1) != 0)
    }

    /// Where the fault records are, and how many.
    pub(super) const fn records(self) -> (usize, usize) {
        (self.basic(24, 10) as usize * 16, self.basic(40, 8) as usize + 1)
    }

    /// Pages of 2 MiB and of 1 GiB.
    pub(super) const fn large_pages(self) -> (bool, bool) {
        (self.basic(34, 1) != 0, self.basic(35, 1) != 0)
    }

    /// The most pages, as a power of two, that one invalidation by address is for, if it knows that kind.
    pub(super) const fn page_invalidation(self) -> Option<u32> {
        if self.basic(39, 1) != 0 {
            Some(self.basic(48, 6) as u32)
        } else {
            None
        }
    }

    /// Bits of an invalidation that wait for accesses under way: writes and reads.
    pub(super) const fn drains(self) -> u64 {
        self.basic(54, 1) << 6 | self.basic(55, 1) << 7
    }

    pub(super) const fn coherent(self) -> bool {
        self.extended(0)
    }

    pub(super) const fn has_queue(self) -> bool {
        self.extended(1)
    }

    pub(super) const fn remaps_interrupts(self) -> bool {
        self.extended(3)
    }

    pub(super) const fn wide_destinations(self) -> bool {
        self.extended(4)
    }
}

/// What a fault's number means.
pub(super) const fn reason(code: u8) -> &'static str {
    match code {
        1 | 2 => "the device belongs to nobody",
        3 | 0xb => "its context is invalid",
        4 => "the address is beyond the tables",
        5 => "no write permission",
        6 => "no read permission",
        7 => "a table cannot be read",
        8 | 9 => "the table of devices cannot be read",
        0xa | 0xc => "an entry has reserved bits",
        0xd => "such requests are not allowed",
        0x20 => "the interrupt message has reserved bits",
        0x21 => "there is no such interrupt entry",
        0x22 => "the interrupt entry is free",
        0x23 => "the interrupt table cannot be read",
        0x24 => "the interrupt entry has reserved bits",
        0x25 => "an interrupt message of the old form",
        0x26 => "the interrupt entry is another device's",
        _ => "another reason",
    }
}

/// From here on reasons are about interrupts.
pub(super) const FIRST_INTERRUPT_REASON: u8 = 0x20;
/// Behind the last reason that is about interrupts.
pub(super) const INTERRUPT_REASONS_END: u8 = 0x30;

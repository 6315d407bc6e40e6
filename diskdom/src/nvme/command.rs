//! Commands and completions, as they lie in the queues.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Opcodes of admin commands.
pub mod admin {
    /// Create I/O Submission Queue.
    pub const CREATE_SUBMISSION_QUEUE: u8 = 0x01;
    /// Create I/O Completion Queue.
    pub const CREATE_COMPLETION_QUEUE: u8 = 0x05;
    /// Identify.
    pub const IDENTIFY: u8 = 0x06;
    /// Set Features.
    pub const SET_FEATURES: u8 = 0x09;
}

/// Opcodes of the NVM command set.
pub mod nvm {
    /// Flush.
    pub const FLUSH: u8 = 0x00;
    /// Write.
    pub const WRITE: u8 = 0x01;
    /// Read.
    pub const READ: u8 = 0x02;
    /// Dataset Management.
    pub const DATASET_MANAGEMENT: u8 = 0x09;
}

/// What Identify returns (CNS).
pub mod cns {
    /// A namespace.
    pub const NAMESPACE: u32 = 0;
    /// The controller.
    pub const CONTROLLER: u32 = 1;
    /// The numbers of the active namespaces.
    pub const ACTIVE_NAMESPACES: u32 = 2;
}

/// The feature "number of queues".
pub const FEATURE_QUEUES: u32 = 7;
/// Bit of command dword 11 of Dataset Management: deallocate.
pub const DEALLOCATE: u32 = 1 << 2;
/// Bits of command dword 11 of Create I/O Completion Queue: physically contiguous, interrupts enabled.
pub const CONTIGUOUS_WITH_INTERRUPT: u32 = 0b11;
/// Bit of command dword 11 of Create I/O Submission Queue: physically contiguous.
pub const CONTIGUOUS: u32 = 1;

/// A submission queue entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Command {
    /// The opcode.
    pub opcode: u8,
    /// Fused operation and the kind of data pointer: 0 for page lists.
    pub flags: u8,
    /// The identifier that comes back with the completion.
    pub identifier: u16,
    /// The namespace.
    pub namespace: u32,
    /// Command dwords 2 and 3.
    pub reserved: [u32; 2],
    /// The metadata pointer.
    pub metadata: u64,
    /// The first page, or part of one.
    pub prp1: u64,
    /// The second page, or the list of all further ones.
    pub prp2: u64,
    /// Command dwords 10 to 15.
    pub dwords: [u32; 6],
}

impl Command {
    /// A command with its opcode and namespace.
    pub fn new(opcode: u8, namespace: u32) -> Self {
        Self {
            opcode,
            namespace,
            ..Self::default()
        }
    }

    /// The command with a value in one of the dwords 10 to 15.
    pub fn dword(mut self, number: usize, value: u32) -> Self {
        if let Some(dword) = number
            .checked_sub(10)
            .and_then(|index| self.dwords.get_mut(index))
        {
            *dword = value;
        }
        self
    }

    /// The command with its range of blocks: dwords 10 to 12 of reads and writes. `blocks` is from 1 to 65536.
    pub fn blocks(self, first: u64, blocks: u32) -> Self {
        self.dword(10, first as u32)
            .dword(11, (first >> 32) as u32)
            .dword(12, blocks.wrapping_sub(1) & 0xffff)
    }

    /// The command with its memory.
    pub fn memory(mut self, prp1: u64, prp2: u64) -> Self {
        (self.prp1, self.prp2) = (prp1, prp2);
        self
    }
}

/// A completion queue entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Completion {
    /// Depends on the command.
    pub result: u32,
    /// Reserved.
    pub reserved: u32,
    /// How far the controller has read the submission queue.
    pub submission_head: u16,
    /// Which submission queue.
    pub submission_queue: u16,
    /// The command's identifier.
    pub identifier: u16,
    /// Bit 0 is the phase, the others are the status.
    pub status: u16,
}

/// A range of Dataset Management.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DatasetRange {
    /// Attributes, for hints.
    pub attributes: u32,
    /// How many blocks.
    pub blocks: u32,
    /// The first block.
    pub first: u64,
}

const _: () =
    assert!(size_of::<Command>() == 64 && size_of::<Completion>() == 16 && size_of::<DatasetRange>() == 16);

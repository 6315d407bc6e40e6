//! A type for each kind of address, so that a guest's cannot be taken for the machine's.

/// Bytes in a page, of the machine and of every guest.
pub const PAGE_SIZE: u64 = 4096;

/// An address of machine memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MachineAddress(pub u64);

/// A guest-physical address: an offset into what a domain believes is its memory. Proves nothing until its p2m translates it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuestAddress(pub u64);

/// A guest-virtual address, as hypercalls pass them. Proves nothing until the guest's page tables and its p2m translate it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuestVirtual(pub u64);

/// The number of a frame of machine memory: its address divided by [`PAGE_SIZE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frame(pub u64);

impl Frame {
    /// The frame that holds `address`.
    pub const fn containing(address: MachineAddress) -> Self {
        Self(address.0 / PAGE_SIZE)
    }

    /// Address of its first byte.
    pub const fn address(self) -> MachineAddress {
        MachineAddress(self.0 * PAGE_SIZE)
    }
}

impl GuestAddress {
    /// The number of the guest frame that holds it.
    pub const fn frame_number(self) -> u64 {
        self.0 / PAGE_SIZE
    }

    /// The first address of a guest frame.
    pub const fn of_frame(number: u64) -> Self {
        Self(number.wrapping_mul(PAGE_SIZE))
    }

    /// Offset in its page.
    pub const fn page_offset(self) -> u64 {
        self.0 % PAGE_SIZE
    }
}

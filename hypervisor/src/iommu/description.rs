//! The IOMMUs of a machine as its ACPI tables describe them: which unit answers for which functions, what memory must stay reachable for which
//! function whatever happens, and which ids interrupt controllers have as senders of interrupts.
//!
//! The tables are firmware's, and not believed: an entry whose lengths do not fit is left out, with everything behind it that cannot be found any more.

mod dmar;
mod ivrs;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use super::Kind;
use crate::{memory::MachineAddress, platform::acpi::Tables};

/// Every IOMMU of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Whose they are.
    pub kind: Kind,
    /// The units, in the table's order.
    pub units: Vec<Unit>,
    /// Memory that functions must go on reaching.
    pub reserved: Vec<Reserved>,
    /// Whether interrupts can be remapped as far as firmware is concerned.
    pub interrupt_remapping: bool,
}

/// One IOMMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its registers.
    pub registers: MachineAddress,
    /// The segment group of its functions.
    pub segment: u16,
    /// Its own place as a PCI function, on AMD: bus, device and function as in a [`Requester`].
    pub function: Option<u16>,
    /// What it answers for.
    pub scopes: Vec<Scope>,
    /// Interrupt controllers and timers whose messages it remaps, and the ids by which they send.
    pub senders: Vec<Sender>,
}

/// Functions that an entry of a table names. Of several that name a function, the last one counts on AMD; on Intel there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything in the segment that no other unit names.
    Rest,
    /// A range of requesters, both ends included; they reach the IOMMU as themselves.
    Requesters(Requester, Requester),
    /// A range of requesters that reach the IOMMU under the id of another one.
    Aliased(Requester, Requester, Requester),
    /// What is found by going from a bus along a path of devices and functions; a bridge at its end stands for all that is behind it.
    Path(Path),
}

/// A requester id (PCI Express Base Specification, 2.2.6.2): bus in bits 8 to 15, device in bits 3 to 7, function in bits 0 to 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requester(pub u16);

/// A way through bridges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Where it begins.
    pub bus: u8,
    /// Device and function of each bridge, and of the last function; at least one.
    pub steps: Vec<(u8, u8)>,
    /// The last one is a bridge, and what is behind it is meant as well.
    pub hierarchy: bool,
}

/// Who sends interrupts without being a PCI function of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// What it is.
    pub kind: SenderKind,
    /// The id by which its messages arrive, or the way to it.
    pub requester: SenderId,
}

/// What sends interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderKind {
    /// The I/O APIC with this id in the MADT.
    IoApic(u8),
    /// The HPET with this number.
    Hpet(u8),
}

/// How a sender is known to the IOMMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderId {
    /// By this id.
    Requester(Requester),
    /// By the id of what is at the end of the path.
    Path(Path),
}

/// Memory that firmware or a device uses behind the operating system's back: it has to be mapped where it is for those functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// The segment group of the functions.
    pub segment: u16,
    /// First address, of a page.
    pub start: MachineAddress,
    /// Bytes, of whole pages.
    pub length: u64,
    /// May be read.
    pub readable: bool,
    /// May be written.
    pub writable: bool,
    /// For whom.
    pub scopes: Vec<Scope>,
}

impl Description {
    /// Reads the tables; `None` where firmware describes no IOMMU.
    pub fn read(tables: &Tables) -> Option<Self> {
        tables
            .get(b"DMAR")
            .map(dmar::parse)
            .or_else(|| tables.get(b"IVRS").map(ivrs::parse))
    }

    /// Reads one table by its content, without knowing that its checksum is right.
    pub fn read_table(kind: Kind, table: &[u8]) -> Self {
        match kind {
            Kind::Intel => dmar::parse(table),
            Kind::Amd => ivrs::parse(table),
        }
    }
}

/// Whole pages that hold `start..=last`; `None` for what is no range of addresses.
fn pages(start: u64, last: u64) -> Option<(MachineAddress, u64)> {
    const PAGE: u64 = crate::memory::PAGE_SIZE;
    /// Machine addresses have at most 52 bits.
    const END: u64 = 1 << 52;
    (start <= last && last < END).then(|| {
        let first = start & !(PAGE - 1);
        (MachineAddress(first), (last | (PAGE - 1)) + 1 - first)
    })
}

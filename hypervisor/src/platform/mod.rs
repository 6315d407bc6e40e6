//! The bare machine: what was found, and the few devices that the hypervisor drives itself.

pub mod cpu;
pub mod pci;

/// What was found at boot.
#[derive(Default)]
pub struct Machine {}

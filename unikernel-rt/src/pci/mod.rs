//! PCI: the functions that this domain was given, their registers and their interrupts.
//!
//! Configuration space is reached through a [`ConfigRegionAccess`] of the crate `pci_types`: the machine's is
//! `ConfigPorts`, tests bring their own. The hypervisor answers for assigned functions only, keeps base
//! addresses and MSI-X tables to itself, and lets the command register's harmless bits pass.

mod bar;
mod function;
#[cfg(target_os = "none")]
mod ports;
mod registers;

pub use bar::Bar;
pub use function::{Command, Function, enumerate};
pub use pci_types::{ConfigRegionAccess, PciAddress};
#[cfg(target_os = "none")]
pub use ports::ConfigPorts;
pub use registers::{MmioRegion, Registers};

use alloc::rc::Rc;

/// A shared handle to configuration space.
pub type Config = Rc<dyn ConfigRegionAccess>;

#[cfg(test)]
mod tests;

//! Functions: finding them, and what drivers do with them.
#![allow(unsafe_code)] // Configuration accesses are unsafe to call in `pci_types`.

use alloc::vec::Vec;
use core::fmt;

use bitflags::bitflags;
use pci_types::PciAddress;

use super::{Bar, Config, bar};
use crate::atoll::Control;
use crate::event::{Events, Interrupt, InterruptSource};
use crate::hypercall::Errno;

bitflags! {
    /// The bits of the command register that a domain may set.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Command: u16 {
        /// Answer to memory accesses.
        const MEMORY = 1 << 1;
        /// Do DMA.
        const BUS_MASTER = 1 << 2;
        /// Do not assert the interrupt line.
        const INTERRUPT_DISABLE = 1 << 10;
    }
}

/// A PCI function that this domain was given.
#[derive(Clone)]
pub struct Function {
    config: Config,
    address: PciAddress,
    /// The vendor's id.
    pub vendor: u16,
    /// The device's id.
    pub device: u16,
    /// Class, subclass and programming interface.
    pub class: (u8, u8, u8),
    /// The revision.
    pub revision: u8,
}

impl Function {
    /// Looks at an address; `None` if this domain has no function there.
    pub fn at(config: &Config, address: PciAddress) -> Option<Self> {
        let id = read(config, address, 0);
        if id as u16 == 0xffff {
            return None;
        }
        let class = read(config, address, 8);
        Some(Self {
            config: config.clone(),
            address,
            vendor: id as u16,
            device: (id >> 16) as u16,
            class: ((class >> 24) as u8, (class >> 16) as u8, (class >> 8) as u8),
            revision: class as u8,
        })
    }

    /// Where it is.
    pub fn address(&self) -> PciAddress {
        self.address
    }

    /// The configuration space that it is in.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Reads four bytes of its configuration space; the offset is rounded down to a multiple of four.
    pub fn read32(&self, offset: u16) -> u32 {
        read(&self.config, self.address, offset & 0xfc)
    }

    /// A base address register. A 64-bit one takes two slots; the second answers nothing useful.
    pub fn bar(&self, slot: u8) -> Option<Bar> {
        bar::read(&self.config, self.address, slot)
    }

    /// Maps a memory BAR, uncached.
    #[cfg(target_os = "none")]
    pub fn map_bar(&self, slot: u8) -> Option<super::MmioRegion> {
        let Some(Bar::Memory { address, size }) = self.bar(slot) else {
            return None;
        };
        crate::boot::map_device(address, size)
    }

    /// Sets bits of the command register.
    pub fn enable(&self, bits: Command) {
        self.set_command(self.command() | bits.bits());
    }

    /// Clears bits of the command register.
    pub fn disable(&self, bits: Command) {
        self.set_command(self.command() & !bits.bits());
    }

    /// The capabilities: id and offset of each, in the order of the list.
    pub fn capabilities(&self) -> Vec<(u8, u8)> {
        let mut found = Vec::new();
        // The status register says whether there is a list.
        if self.read32(4) & 1 << 20 == 0 {
            return found;
        }
        let mut next = self.read32(0x34) as u8 & !3;
        // A broken list may run in a circle; no list is longer than the space has room for.
        while next >= 0x40 && found.len() < 48 {
            let head = self.read32(next.into());
            found.push((head as u8, next));
            next = (head >> 8) as u8 & !3;
        }
        found
    }

    /// The number of entries in its MSI-X table; 0 without one.
    pub fn msix_entries(&self) -> u16 {
        const MSIX: u8 = 0x11;
        let capability = self.capabilities().into_iter().find(|&(id, _)| id == MSIX);
        capability.map_or(0, |(_, offset)| {
            (self.read32(offset.into()) >> 16 & 0x7ff) as u16 + 1
        })
    }

    /// Binds an entry of its MSI-X table (or, with entry 0, its MSI) to a new port. The hypervisor programs and enables it.
    pub fn bind_interrupt(&self, events: &Events, entry: u16) -> Result<Interrupt, Errno> {
        Interrupt::bind(
            events,
            InterruptSource::Msi {
                function: self.address,
                entry,
            },
        )
    }

    fn command(&self) -> u16 {
        self.read32(4) as u16
    }

    fn set_command(&self, command: u16) {
        // SAFETY: the command register of a function of ours. The upper half is the status register, whose bits are cleared by
        // ones: zeros leave it alone.
        unsafe { self.config.write(self.address, 4, command.into()) }
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} [{:04x}:{:04x}]",
            self.address, self.vendor, self.device
        )
    }
}

/// Every function that this domain was given, in the order of the addresses, as the hypervisor lists them.
pub fn enumerate(control: &dyn Control, config: &Config) -> Vec<Function> {
    (0..)
        .map_while(|index| control.pci_function(index).ok())
        .filter_map(|address| Function::at(config, address))
        .collect()
}

fn read(config: &Config, address: PciAddress, offset: u16) -> u32 {
    // SAFETY: reading the configuration space of any address has no effect on memory; the hypervisor answers ones for
    // functions that are not ours.
    unsafe { config.read(address, offset) }
}

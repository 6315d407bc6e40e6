//! Configuration space through the two ports.
#![allow(unsafe_code)] // `ConfigRegionAccess` has unsafe methods.

use pci_types::{ConfigRegionAccess, PciAddress};

use crate::port;

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;

/// The configuration mechanism of ports 0xCF8 and 0xCFC, which the hypervisor mediates. It reaches the first 256
/// bytes of functions of segment 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConfigPorts;

impl ConfigPorts {
    fn select(address: PciAddress, offset: u16) {
        let function = u32::from(address.bus()) << 16
            | u32::from(address.device()) << 11
            | u32::from(address.function()) << 8;
        port::write32(ADDRESS, 1 << 31 | function | u32::from(offset & 0xfc));
    }
}

impl ConfigRegionAccess for ConfigPorts {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        Self::select(address, offset);
        port::read32(DATA)
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        Self::select(address, offset);
        port::write32(DATA, value);
    }
}

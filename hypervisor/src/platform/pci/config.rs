//! Access to configuration space: in memory where the MCFG says so, by ports 0xCF8 and 0xCFC elsewhere (which reach 256 bytes of segment 0).

use alloc::vec::Vec;

use spin::Mutex;

use super::PciAddress;
use crate::{
    memory::MachineAddress,
    platform::{
        acpi::mcfg::EcamRegion,
        mmio::{self, Mmio},
        port,
    },
};

/// Configuration space of many functions.
pub trait ConfigSpace {
    /// Reads `size` bytes at a multiple of `size`; all ones where there is nothing.
    fn read(&self, address: PciAddress, offset: u16, size: u8) -> u32;
    /// Writes `size` bytes at a multiple of `size`.
    fn write(&self, address: PciAddress, offset: u16, size: u8, value: u32);
}

/// That of the machine.
pub struct MachineConfig {
    mapped: Vec<(EcamRegion, Mmio)>,
    ports: Mutex<()>,
}

impl MachineConfig {
    const ADDRESS_PORT: u16 = 0xcf8;
    const DATA_PORT: u16 = 0xcfc;

    /// Maps the regions; one that cannot be mapped is reported and left out.
    pub fn new(regions: &[EcamRegion]) -> Self {
        let map = |region: &EcamRegion| {
            let buses = u64::from(region.last_bus - region.first_bus) + 1;
            let start = MachineAddress(region.base.0 + (u64::from(region.first_bus) << 20));
            match mmio::map(start, (buses << 20) as usize) {
                Ok(registers) => Some((*region, registers)),
                Err(error) => {
                    log::warn!("PCI configuration space at {:#x} is left out: {error}", start.0);
                    None
                }
            }
        };
        Self {
            mapped: regions.iter().filter_map(map).collect(),
            ports: Mutex::new(()),
        }
    }

    /// Segments with their first and last bus.
    pub fn buses(&self) -> Vec<(u16, u8, u8)> {
        if self.mapped.is_empty() {
            return alloc::vec![(0, 0, 255)];
        }
        self.mapped
            .iter()
            .map(|(region, _)| (region.segment, region.first_bus, region.last_bus))
            .collect()
    }

    fn find(&self, address: PciAddress, offset: u16) -> Option<(&Mmio, usize)> {
        let (region, registers) = self.mapped.iter().find(|(region, _)| {
            region.segment == address.segment && (region.first_bus..=region.last_bus).contains(&address.bus)
        })?;
        let bus = usize::from(address.bus - region.first_bus);
        let function = usize::from(address.device) << 3 | usize::from(address.function);
        Some((registers, bus << 20 | function << 12 | usize::from(offset)))
    }

    /// Selects a register for the ports; `None` if they do not reach it.
    fn select(address: PciAddress, offset: u16) -> Option<u16> {
        if address.segment != 0 || offset >= 256 {
            return None;
        }
        let function = u32::from(address.device) << 3 | u32::from(address.function);
        let register = u32::from(offset) & !3;
        port::write_u32(
            Self::ADDRESS_PORT,
            1 << 31 | u32::from(address.bus) << 16 | function << 8 | register,
        );
        Some(Self::DATA_PORT + (offset & 3))
    }
}

/// What reads as nothing.
pub const fn ones(size: u8) -> u32 {
    match size {
        1 => 0xff,
        2 => 0xffff,
        _ => u32::MAX,
    }
}

fn sound(address: PciAddress, offset: u16, size: u8) -> bool {
    address.device < 32
        && address.function < 8
        && offset < 4096
        && matches!(size, 1 | 2 | 4)
        && offset.is_multiple_of(size.into())
}

impl ConfigSpace for MachineConfig {
    fn read(&self, address: PciAddress, offset: u16, size: u8) -> u32 {
        if !sound(address, offset, size) {
            return ones(size);
        }
        if let Some((registers, at)) = self.find(address, offset) {
            return match size {
                1 => registers.read::<u8>(at).into(),
                2 => registers.read::<u16>(at).into(),
                _ => registers.read(at),
            };
        }
        let _selection = self.ports.lock();
        match (Self::select(address, offset), size) {
            (None, _) => ones(size),
            (Some(port), 1) => port::read_u8(port).into(),
            (Some(port), 2) => port::read_u16(port).into(),
            (Some(port), _) => port::read_u32(port),
        }
    }

    fn write(&self, address: PciAddress, offset: u16, size: u8, value: u32) {
        if !sound(address, offset, size) {
            return;
        }
        if let Some((registers, at)) = self.find(address, offset) {
            return match size {
                1 => registers.write(at, value as u8),
                2 => registers.write(at, value as u16),
                _ => registers.write(at, value),
            };
        }
        let _selection = self.ports.lock();
        match (Self::select(address, offset), size) {
            (None, _) => {}
            (Some(port), 1) => port::write_u8(port, value as u8),
            (Some(port), 2) => port::write_u16(port, value as u16),
            (Some(port), _) => port::write_u32(port, value),
        }
    }
}

/// Configuration space made up for tests: 4 KiB a function, with a mask of the bits that can be written.
#[cfg(test)]
#[derive(Default)]
pub struct FakeConfig {
    pub functions: core::cell::RefCell<alloc::collections::BTreeMap<PciAddress, FakeFunction>>,
}

/// A function made up for tests.
#[cfg(test)]
pub struct FakeFunction {
    pub bytes: Vec<u8>,
    pub writable: Vec<u8>,
}

#[cfg(test)]
impl FakeFunction {
    /// With nothing but ids.
    pub fn new(vendor: u16, device: u16) -> Self {
        let mut function = Self {
            bytes: alloc::vec![0; 4096],
            writable: alloc::vec![0; 4096],
        };
        function.put(0, &(u32::from(device) << 16 | u32::from(vendor)).to_le_bytes());
        function.writable[4..6].fill(0xff);
        function
    }

    /// Sets bytes.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..][..bytes.len()].copy_from_slice(bytes);
    }

    /// Makes a base address register of this size (a power of two), with these low bits, at this address.
    pub fn put_bar(&mut self, index: usize, address: u32, size: u32, low: u32) {
        let at = 0x10 + 4 * index;
        self.put(at, &(address | low).to_le_bytes());
        self.writable[at..at + 4].copy_from_slice(&(!(size - 1)).to_le_bytes());
    }
}

#[cfg(test)]
impl ConfigSpace for FakeConfig {
    fn read(&self, address: PciAddress, offset: u16, size: u8) -> u32 {
        let functions = self.functions.borrow();
        let Some(function) = functions.get(&address).filter(|_| sound(address, offset, size)) else {
            return ones(size);
        };
        let bytes = &function.bytes[offset.into()..][..size.into()];
        bytes
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u32::from(byte))
    }

    fn write(&self, address: PciAddress, offset: u16, size: u8, value: u32) {
        let mut functions = self.functions.borrow_mut();
        let Some(function) = functions
            .get_mut(&address)
            .filter(|_| sound(address, offset, size))
        else {
            return;
        };
        for (at, byte) in value.to_le_bytes().into_iter().take(size.into()).enumerate() {
            let at = usize::from(offset) + at;
            let writable = function.writable[at];
            function.bytes[at] = function.bytes[at] & !writable | byte & writable;
        }
    }
}

//! PCI: configuration space of the machine, the functions in it, their MSI-X interrupts, and quieting them. The hypervisor drives none of them.

mod config;
mod msix;
mod reset;
mod scan;

use alloc::vec::Vec;
use core::fmt;

use spin::Once;

use super::acpi::mcfg::EcamRegion;
use crate::{boot::memory_map::Region, memory::MachineAddress};
use config::{MachineConfig, ones};

pub use config::ConfigSpace;
pub use msix::{MsixError, msix_enable, msix_program, msix_set_masked, msix_silence};
pub use reset::{ResetError, SavedConfig, begin_reset, finish_reset, quiesce};
pub use scan::scan;

/// Place of a PCI function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PciAddress {
    /// Segment group.
    pub segment: u16,
    /// Bus.
    pub bus: u8,
    /// Device, below 32.
    pub device: u8,
    /// Function, below 8.
    pub function: u8,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:04x}:{:02x}:{:02x}.{}",
            self.segment, self.bus, self.device, self.function
        )
    }
}

/// What a base address register decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Port,
    /// Memory; `wide` takes the next register as well.
    Memory {
        /// 64 bits.
        wide: bool,
        /// Reads have no effects.
        prefetchable: bool,
    },
}

/// A base address register that decodes something, as firmware has set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Which of the six.
    pub index: u8,
    /// What.
    pub kind: BarKind,
    /// First address (of ports: below 64 Ki); 0 where firmware gave none.
    pub address: u64,
    /// Bytes or ports, a power of two.
    pub size: u64,
}

impl Bar {
    /// The machine memory that it decodes, if it does and firmware placed it.
    pub fn memory(&self) -> Option<Region> {
        let is_memory = matches!(self.kind, BarKind::Memory { .. }) && self.address != 0;
        is_memory.then(|| Region::new(MachineAddress(self.address), self.size))
    }
}

/// Where a function's MSI-X structures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixCapability {
    /// Offset of the capability in configuration space.
    pub offset: u16,
    /// Entries, 1 to 2048.
    pub entries: u16,
    /// Base address register of the table.
    pub table_bar: u8,
    /// Offset of the table in it.
    pub table_offset: u32,
    /// Base address register of the pending bits.
    pub pending_bar: u8,
    /// Offset of the pending bits in it.
    pub pending_offset: u32,
}

/// A function as it was found at boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciFunction {
    /// Where.
    pub address: PciAddress,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Base class.
    pub class: u8,
    /// Subclass.
    pub subclass: u8,
    /// Programming interface.
    pub interface: u8,
    /// It is a bridge between buses (header type 1).
    pub is_bridge: bool,
    /// Its base address registers.
    pub bars: Vec<Bar>,
    /// MSI-X, if it has it.
    pub msix: Option<MsixCapability>,
    /// Offset of the MSI capability.
    pub msi: Option<u16>,
    /// Offset of the PCI Express capability.
    pub express: Option<u16>,
    /// Offset of the advanced features capability.
    pub advanced_features: Option<u16>,
}

impl PciFunction {
    /// The register of that number, if it decodes something.
    pub fn bar(&self, index: u8) -> Option<&Bar> {
        self.bars.iter().find(|bar| bar.index == index)
    }

    /// The pages of machine memory that hold its MSI-X table, which no domain may write.
    pub fn msix_table(&self) -> Option<Region> {
        let msix = self.msix?;
        let bar = self.bar(msix.table_bar)?.memory()?;
        let table = Region::new(
            MachineAddress(bar.start.0.checked_add(msix.table_offset.into())?),
            u64::from(msix.entries) * 16,
        );
        table.is_within(&bar).then(|| table.outer_pages())
    }
}

pub(crate) const COMMAND: u16 = 4;
pub(crate) const COMMAND_MEMORY: u32 = 1 << 1;
pub(crate) const COMMAND_MASTER: u32 = 1 << 2;
pub(crate) const COMMAND_NO_LINE: u32 = 1 << 10;

static CONFIG: Once<MachineConfig> = Once::new();

/// Finds all functions. Those that are no bridges can no longer reach memory by themselves: what firmware started must not write into memory that
/// gets another use.
pub(super) fn initialize(regions: &[EcamRegion]) -> Vec<PciFunction> {
    let config = CONFIG.call_once(|| MachineConfig::new(regions));
    let functions = scan::scan(config, &config.buses());
    for function in functions.iter().filter(|function| !function.is_bridge) {
        let command = config.read(function.address, COMMAND, 2);
        config.write(function.address, COMMAND, 2, command & !COMMAND_MASTER);
    }
    functions
}

/// The machine's configuration space as a value.
struct Present;

impl ConfigSpace for Present {
    fn read(&self, address: PciAddress, offset: u16, size: u8) -> u32 {
        read(address, offset, size)
    }

    fn write(&self, address: PciAddress, offset: u16, size: u8, value: u32) {
        write(address, offset, size, value);
    }
}

/// Reads `size` (1, 2 or 4) bytes of configuration space, at a multiple of `size`; all ones where there is nothing, or before the machine's functions were found.
pub fn read(address: PciAddress, offset: u16, size: u8) -> u32 {
    CONFIG
        .get()
        .map_or(ones(size), |config| config.read(address, offset, size))
}

/// Writes `size` (1, 2 or 4) bytes of configuration space, at a multiple of `size`. What the function then does is up to the caller.
pub fn write(address: PciAddress, offset: u16, size: u8, value: u32) {
    if let Some(config) = CONFIG.get() {
        config.write(address, offset, size, value);
    }
}

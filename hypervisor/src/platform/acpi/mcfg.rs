//! The MCFG: where PCI configuration space is in memory (PCI Firmware Specification 3.3, 4.1.2).

use alloc::vec::Vec;

use super::HEADER;
use crate::{memory::MachineAddress, platform::physical::Fields};

/// A range of buses with configuration space in memory, 1 MiB a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EcamRegion {
    /// Where bus 0 would be.
    pub base: MachineAddress,
    /// Segment group.
    pub segment: u16,
    /// First bus.
    pub first_bus: u8,
    /// Last bus.
    pub last_bus: u8,
}

/// Reads the table; entries that make no sense are left out.
pub fn parse(table: &[u8]) -> Vec<EcamRegion> {
    let region = |entry: &[u8]| {
        let region = EcamRegion {
            base: MachineAddress(entry.u64_at(0)?),
            segment: entry.u16_at(8)?,
            first_bus: entry.u8_at(10)?,
            last_bus: entry.u8_at(11)?,
        };
        let sound = region.base.0 != 0
            && region.base.0.is_multiple_of(1 << 20)
            && region.base.0 < 1 << 52
            && region.first_bus <= region.last_bus;
        sound.then_some(region)
    };
    table
        .get(HEADER + 8..)
        .unwrap_or_default()
        .chunks_exact(16)
        .filter_map(region)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::tests::table, *};

    #[test]
    fn reads_regions_and_leaves_out_nonsense() {
        let mut content = alloc::vec![0; 8];
        content.extend([0, 0, 0, 0xb0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0, 0, 0, 0]);
        content.extend([0, 0, 0, 0xb0, 0, 0, 0, 0, 1, 0, 9, 3, 0, 0, 0, 0]);
        content.extend([1; 7]);
        let regions = parse(&table(b"MCFG", &content));
        let base = MachineAddress(0xb000_0000);
        assert_eq!(
            regions,
            [EcamRegion {
                base,
                segment: 0,
                first_bus: 0,
                last_bus: 255
            }]
        );
        assert_eq!(parse(&[]), []);
    }
}

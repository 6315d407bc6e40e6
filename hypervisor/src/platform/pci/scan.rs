//! Finding functions: ids, base address registers with their sizes, capabilities (PCI Local Bus Specification 3.0, chapter 6).

use alloc::vec::Vec;

use super::{Bar, BarKind, COMMAND, MsixCapability, PciAddress, PciFunction, config::ConfigSpace};

const STATUS: u16 = 6;
const REVISION: u16 = 8;
const HEADER_TYPE: u16 = 0x0e;
const FIRST_BAR: u16 = 0x10;
const CAPABILITIES: u16 = 0x34;
const STATUS_CAPABILITIES: u32 = 1 << 4;
/// Ports and memory.
const COMMAND_DECODE: u32 = 3;
const NOBODY: u32 = 0xffff;
/// More capabilities do not fit; a longer list goes in circles.
const MOST_CAPABILITIES: usize = 48;

/// All functions of these segments and buses, in the order of their addresses. Each bus is looked at by itself, since firmware need not have connected
/// them by bridges.
pub fn scan(config: &impl ConfigSpace, buses: &[(u16, u8, u8)]) -> Vec<PciFunction> {
    let mut functions = Vec::new();
    for &(segment, first, last) in buses {
        for (bus, device) in (first..=last).flat_map(|bus| (0..32).map(move |device| (bus, device))) {
            let at = |function| PciAddress {
                segment,
                bus,
                device,
                function,
            };
            if config.read(at(0), 0, 2) == NOBODY {
                continue;
            }
            let several = config.read(at(0), HEADER_TYPE, 1) & 0x80 != 0;
            let present = (0..if several { 8 } else { 1 }).map(at);
            functions.extend(
                present
                    .filter(|&at| config.read(at, 0, 2) != NOBODY)
                    .map(|at| read_function(config, at)),
            );
        }
    }
    functions
}

fn read_function(config: &impl ConfigSpace, address: PciAddress) -> PciFunction {
    let ids = config.read(address, 0, 4);
    let class = config.read(address, REVISION, 4);
    let header = config.read(address, HEADER_TYPE, 1) & 0x7f;
    let mut function = PciFunction {
        address,
        vendor: ids as u16,
        device: (ids >> 16) as u16,
        revision: class as u8,
        class: (class >> 24) as u8,
        subclass: (class >> 16) as u8,
        interface: (class >> 8) as u8,
        is_bridge: header == 1,
        bars: read_bars(
            config,
            address,
            match header {
                0 => 6,
                1 => 2,
                _ => 0,
            },
        ),
        msix: None,
        msi: None,
        express: None,
        advanced_features: None,
    };
    for (id, offset) in capabilities(config, address) {
        match id {
            0x05 => function.msi = Some(offset),
            0x10 => function.express = Some(offset),
            0x11 => function.msix = read_msix(config, address, offset),
            0x13 => function.advanced_features = Some(offset),
            _ => {}
        }
    }
    function
}

/// Sizes are found by writing ones, while the function decodes nothing; afterwards all is as it was.
fn read_bars(config: &impl ConfigSpace, address: PciAddress, count: u8) -> Vec<Bar> {
    let command = config.read(address, COMMAND, 2);
    config.write(address, COMMAND, 2, command & !COMMAND_DECODE);
    let mut bars = Vec::new();
    let mut index = 0;
    while index < count {
        let (low, low_mask) = probe(config, address, index);
        let mut bar = Bar {
            index,
            kind: BarKind::Port,
            address: 0,
            size: 0,
        };
        if low & 1 != 0 {
            let mask = low_mask & 0xfffc;
            bar.address = (low & 0xfffc).into();
            bar.size = (u64::from(mask.wrapping_neg()) & 0xffff) * u64::from(mask != 0);
        } else {
            let wide = low >> 1 & 3 == 2 && index + 1 < count;
            let (high, high_mask) = if wide {
                probe(config, address, index + 1)
            } else {
                (0, u32::MAX)
            };
            let mask = u64::from(high_mask) << 32 | u64::from(low_mask & !15);
            bar.kind = BarKind::Memory {
                wide,
                prefetchable: low & 8 != 0,
            };
            bar.address = u64::from(high) << 32 | u64::from(low & !15);
            bar.size = if low_mask & !15 == 0 && (!wide || high_mask == 0) {
                0
            } else {
                mask.wrapping_neg()
            };
        }
        if bar.size.is_power_of_two() {
            bars.push(bar);
        }
        index += if matches!(bar.kind, BarKind::Memory { wide: true, .. }) {
            2
        } else {
            1
        };
    }
    config.write(address, COMMAND, 2, command);
    bars
}

/// A base address register's value, and what it reads as after ones were written to it.
fn probe(config: &impl ConfigSpace, address: PciAddress, index: u8) -> (u32, u32) {
    let register = FIRST_BAR + 4 * u16::from(index);
    let value = config.read(address, register, 4);
    config.write(address, register, 4, u32::MAX);
    let mask = config.read(address, register, 4);
    config.write(address, register, 4, value);
    (value, mask)
}

/// Ids and offsets of a function's capabilities.
fn capabilities(config: &impl ConfigSpace, address: PciAddress) -> impl Iterator<Item = (u8, u16)> {
    let listed = config.read(address, STATUS, 2) & STATUS_CAPABILITIES != 0;
    let pointer = move |at| config.read(address, at, 1) as u16 & 0xfc;
    let mut next = if listed { pointer(CAPABILITIES) } else { 0 };
    core::iter::from_fn(move || {
        let here = next;
        (here >= 0x40).then(|| {
            next = pointer(here + 1);
            (config.read(address, here, 1) as u8, here)
        })
    })
    .take(MOST_CAPABILITIES)
}

fn read_msix(config: &impl ConfigSpace, address: PciAddress, offset: u16) -> Option<MsixCapability> {
    if offset > 256 - 12 {
        return None;
    }
    let table = config.read(address, offset + 4, 4);
    let pending = config.read(address, offset + 8, 4);
    Some(MsixCapability {
        offset,
        entries: (config.read(address, offset + 2, 2) as u16 & 0x7ff) + 1,
        table_bar: table as u8 & 7,
        table_offset: table & !7,
        pending_bar: pending as u8 & 7,
        pending_offset: pending & !7,
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::config::{FakeConfig, FakeFunction},
        *,
    };
    use crate::memory::MachineAddress;
    use proptest::prelude::*;

    fn at(bus: u8, device: u8, function: u8) -> PciAddress {
        PciAddress {
            segment: 0,
            bus,
            device,
            function,
        }
    }

    fn nvme() -> FakeFunction {
        let mut function = FakeFunction::new(0x1b36, 0x10);
        function.put(COMMAND.into(), &[7, 0, 0x10, 0]);
        function.put(8, &[2, 2, 8, 1]);
        function.put_bar(0, 0xfebf_0000, 0x4000, 4);
        function.writable[0x14..0x18].fill(0xff);
        function.put(0x14, &[1, 0, 0, 0]);
        function.put_bar(2, 0xc040, 0x20, 1);
        function.put(0x34, &[0x40]);
        function.put(0x40, &[0x11, 0x80, 0x40, 0, 0, 0x20, 0, 0, 0, 0x30, 0, 0]);
        function.put(0x80, &[0x10, 0x60]);
        function.put(0x60, &[0x01, 0]);
        function
    }

    #[test]
    fn finds_functions_with_sized_registers_and_capabilities() {
        let config = FakeConfig::default();
        let mut bridge = FakeFunction::new(0x8086, 0x2918);
        bridge.put(HEADER_TYPE.into(), &[0x80]);
        config.functions.borrow_mut().extend([
            (at(0, 31, 0), bridge),
            (at(0, 31, 2), FakeFunction::new(0x8086, 0x2922)),
            (at(3, 0, 0), nvme()),
            (at(3, 0, 1), FakeFunction::new(1, 1)), // hidden: function 0 says that it is alone
        ]);
        let before = config.functions.borrow()[&at(3, 0, 0)].bytes.clone();
        let found = scan(&config, &[(0, 0, 255)]);
        assert_eq!(
            found.iter().map(|function| function.address).collect::<Vec<_>>(),
            [at(0, 31, 0), at(0, 31, 2), at(3, 0, 0)]
        );
        assert_eq!(
            config.functions.borrow()[&at(3, 0, 0)].bytes,
            before,
            "probing leaves no trace"
        );
        let nvme = &found[2];
        assert_eq!((nvme.class, nvme.subclass, nvme.interface), (1, 8, 2));
        assert_eq!(
            nvme.bars,
            [
                Bar {
                    index: 0,
                    kind: BarKind::Memory {
                        wide: true,
                        prefetchable: false
                    },
                    address: 0x1_febf_0000,
                    size: 0x4000
                },
                Bar {
                    index: 2,
                    kind: BarKind::Port,
                    address: 0xc040,
                    size: 0x20
                },
            ]
        );
        let msix = nvme.msix.unwrap();
        assert_eq!(
            (
                msix.entries,
                msix.table_bar,
                msix.table_offset,
                msix.pending_offset
            ),
            (0x41, 0, 0x2000, 0x3000)
        );
        assert_eq!(nvme.express, Some(0x80));
        assert_eq!(nvme.msix_table().unwrap().start, MachineAddress(0x1_febf_2000));
        assert_eq!(nvme.address.to_string(), "0000:03:00.0");
    }

    proptest! {
        #[test]
        fn foreign_functions_never_panic(bytes in proptest::collection::vec(any::<u8>(), 256), writable in proptest::collection::vec(any::<u8>(), 64)) {
            let mut function = FakeFunction::new(1, 1);
            function.put(4, &bytes[4..]);
            function.writable[..64].copy_from_slice(&writable);
            let config = FakeConfig::default();
            config.functions.borrow_mut().insert(at(0, 0, 0), function);
            for function in scan(&config, &[(0, 0, 0)]) {
                let _ = function.msix_table();
                for bar in &function.bars {
                    prop_assert!(bar.size.is_power_of_two());
                }
            }
        }
    }
}

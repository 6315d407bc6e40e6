//! A domain with two functions on a machine with three.

use alloc::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The machine: configuration space as bytes, and what was written to it.
#[derive(Default)]
struct Machine {
    functions: BTreeMap<PciAddress, Vec<u8>>,
    writes: Vec<(PciAddress, u16, u8, u32)>,
}

impl ConfigurationSpace for Machine {
    fn read(&mut self, function: PciAddress, offset: u16, size: u8) -> u32 {
        assert!(offset.is_multiple_of(size.into()));
        let bytes = &self.functions[&function][usize::from(offset)..][..size.into()];
        bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u32::from(*byte))
    }

    fn write(&mut self, function: PciAddress, offset: u16, size: u8, value: u32) {
        assert!(offset.is_multiple_of(size.into()));
        self.writes.push((function, offset, size, value));
        let bytes = value.to_le_bytes();
        self.functions.get_mut(&function).unwrap()[usize::from(offset)..][..size.into()]
            .copy_from_slice(&bytes[..size.into()]);
    }
}

const MINE: PciAddress = PciAddress {
    segment: 0,
    bus: 0,
    device: 3,
    function: 0,
};
const SECOND: PciAddress = PciAddress {
    segment: 0,
    bus: 5,
    device: 0x1f,
    function: 7,
};
const FOREIGN: PciAddress = PciAddress {
    segment: 0,
    bus: 0,
    device: 2,
    function: 0,
};

fn fixture() -> (Machine, PciView) {
    let mut machine = Machine::default();
    for (function, id) in [
        (MINE, 0x1111_8086u32),
        (SECOND, 0x2222_1af4),
        (FOREIGN, 0x3333_10ec),
    ] {
        let mut bytes = vec![0; 256];
        bytes[..4].copy_from_slice(&id.to_le_bytes());
        bytes[4..8].copy_from_slice(&0x0010_0007u32.to_le_bytes());
        bytes[0x10..0x14].copy_from_slice(&0xfebf_0004u32.to_le_bytes());
        bytes[0x14..0x18].copy_from_slice(&0x0000_0008u32.to_le_bytes());
        bytes[0x18..0x1c].copy_from_slice(&0xc041u32.to_le_bytes());
        bytes[0x1c..0x20].copy_from_slice(&0xfea0_0000u32.to_le_bytes());
        bytes[0x30..0x34].copy_from_slice(&0xfe00_0001u32.to_le_bytes());
        bytes[0x34] = 0x40;
        bytes[0x40..0x44].copy_from_slice(&0x8005_0011u32.to_le_bytes());
        machine.functions.insert(function, bytes);
    }
    let bars = vec![
        Bar {
            index: 0,
            kind: BarKind::Memory64,
            flags: 4,
            address: 0x8_febf_0000,
            size: 0x4000,
        },
        Bar {
            index: 2,
            kind: BarKind::Io,
            flags: 1,
            address: 0xc040,
            size: 0x40,
        },
        Bar {
            index: 3,
            kind: BarKind::Memory32,
            flags: 0,
            address: 0xfea0_0000,
            size: 0x100,
        },
    ];
    let msix = MsiX {
        capability: 0x40,
        entries: 6,
        table: (0, 0x2000),
        pending: (0, 0x3000),
    };
    let functions = vec![
        Function {
            address: MINE,
            bars: bars.clone(),
            msix: Some(msix),
            withheld: Vec::new(),
        },
        Function {
            address: SECOND,
            bars,
            msix: None,
            withheld: Vec::new(),
        },
    ];
    (machine, PciView::new(functions))
}

fn select(view: &mut PciView, machine: &mut Machine, function: PciAddress, offset: u8) {
    let latch = 1 << 31
        | u32::from(function.bus) << 16
        | u32::from(function.device) << 11
        | u32::from(function.function) << 8;
    view.write(machine, 0xcf8, 4, latch | u32::from(offset));
}

fn read(view: &mut PciView, machine: &mut Machine, function: PciAddress, offset: u8) -> u32 {
    select(view, machine, function, offset);
    view.read(machine, 0xcfc, 4)
}

fn write(view: &mut PciView, machine: &mut Machine, function: PciAddress, offset: u8, value: u32) {
    select(view, machine, function, offset);
    view.write(machine, 0xcfc, 4, value);
}

#[test]
fn only_its_own_functions_are_there() {
    let (mut machine, mut view) = fixture();
    assert_eq!(read(&mut view, &mut machine, MINE, 0), 0x1111_8086);
    assert_eq!(read(&mut view, &mut machine, SECOND, 0), 0x2222_1af4);
    assert_eq!(read(&mut view, &mut machine, FOREIGN, 0), u32::MAX);
    write(&mut view, &mut machine, FOREIGN, 4, 0);
    assert!(machine.writes.is_empty());
}

#[test]
fn parts_of_registers_can_be_read() {
    let (mut machine, mut view) = fixture();
    select(&mut view, &mut machine, MINE, 0);
    assert_eq!(view.read(&mut machine, 0xcfe, 2), 0x1111);
    assert_eq!(view.read(&mut machine, 0xcfd, 1), 0x80);
    assert_eq!(view.read(&mut machine, 0xcfd, 2), 0x1180);
    assert_eq!(view.read(&mut machine, 0xcff, 2), 0xffff, "beyond the register");
    assert_eq!(view.read(&mut machine, 0xcf8, 4), 0x8000_1800);
    assert_eq!(view.read(&mut machine, 0xcf9, 1), 0xff);
    view.write(&mut machine, 0xcf9, 1, 6);
    assert_eq!(
        view.read(&mut machine, 0xcf8, 4),
        0x8000_1800,
        "the reset register is none of it"
    );
    view.write(&mut machine, 0xcf8, 4, 0x1800);
    assert_eq!(view.read(&mut machine, 0xcfc, 4), u32::MAX, "not enabled");
}

#[test]
fn bars_can_be_sized_but_not_moved() {
    let (mut machine, mut view) = fixture();
    for (offset, address, size) in [
        (0x10, 0xfebf_0004, 0xffff_c004),
        (0x14, 8, u32::MAX),
        (0x18, 0xc041, 0xffff_ffc1),
        (0x1c, 0xfea0_0000, 0xffff_ff00),
        (0x20, 0, 0),
    ] {
        assert_eq!(read(&mut view, &mut machine, MINE, offset), address);
        write(&mut view, &mut machine, MINE, offset, u32::MAX);
        assert_eq!(read(&mut view, &mut machine, MINE, offset), size, "{offset:#x}");
        write(&mut view, &mut machine, MINE, offset, address);
        assert_eq!(read(&mut view, &mut machine, MINE, offset), address);
    }
    assert_eq!(read(&mut view, &mut machine, MINE, 0x30), 0, "no expansion ROM");
    write(&mut view, &mut machine, MINE, 0x30, 0xffff_f800);
    assert_eq!(read(&mut view, &mut machine, MINE, 0x30), 0);
    assert!(machine.writes.is_empty());
}

#[test]
fn the_command_register_takes_three_bits() {
    let (mut machine, mut view) = fixture();
    write(&mut view, &mut machine, MINE, 4, 0);
    assert_eq!(machine.writes, [(MINE, 4, 2, 1)]);
    write(&mut view, &mut machine, MINE, 4, 0xffff_ffff);
    assert_eq!(machine.writes[1..], [(MINE, 4, 2, 0x407), (MINE, 6, 2, 0xf900)]);
    select(&mut view, &mut machine, MINE, 4);
    view.write(&mut machine, 0xcfd, 1, 0);
    assert_eq!(machine.writes[3..], [(MINE, 4, 2, 0x007)], "only the second byte");
}

#[test]
fn capabilities_are_read_only() {
    let (mut machine, mut view) = fixture();
    assert_eq!(read(&mut view, &mut machine, MINE, 0x40), 0x8005_0011);
    for offset in (0x08..0xfc).step_by(4) {
        write(&mut view, &mut machine, MINE, offset, 0x5a5a_5a5a);
    }
    assert!(machine.writes.is_empty());
}

#[test]
fn the_msix_table_is_cut_out() {
    let (_, view) = fixture();
    let range = |address, length| DeviceRange { address, length };
    assert_eq!(
        view.functions[0].function.memory(),
        [
            range(0x8_febf_0000, 0x2000),
            range(0x8_febf_3000, 0x1000),
            range(0xfea0_0000, 0x1000)
        ]
    );
    assert_eq!(
        view.functions[1].function.memory(),
        [range(0x8_febf_0000, 0x4000), range(0xfea0_0000, 0x1000)]
    );
    let withheld = [range(0x8_febf_0000, 0x1000), range(0x8_febf_1000, 0x3000)].into();
    let rest = Function {
        withheld,
        ..view.functions[1].function.clone()
    };
    assert_eq!(rest.memory(), [range(0xfea0_0000, 0x1000)]);
    assert_eq!(view.functions[0].function.ports(), [(0xc040, 0x40)]);
    assert_eq!(
        view.functions[0].function.msix_table(),
        Some(range(0x8_febf_2000, 0x1000))
    );
}

proptest! {
    /// Whatever a domain does, nothing reaches others' functions, and of its own only the command and status registers.
    #[test]
    fn writes_are_confined(accesses in prop::collection::vec((0xcf0u16..0xd08, 0u8..6, any::<u32>(), any::<bool>()), 0..300)) {
        let (mut machine, mut view) = fixture();
        for (port, size, value, mine) in accesses {
            if mine {
                select(&mut view, &mut machine, MINE, value as u8);
            }
            view.write(&mut machine, port, size, value);
            view.read(&mut machine, port, size);
        }
        for (function, offset, size, value) in machine.writes {
            prop_assert!(function != FOREIGN);
            prop_assert!((offset, size) == (4, 2) && value & 1 == 1 || (offset, size) == (6, 2));
        }
    }

    #[test]
    fn odd_bars_never_panic(bars in prop::collection::vec((0u8..6, 0usize..3, any::<u64>(), any::<u64>()), 0..6), table: (u8, u32), entries: u16) {
        let kinds = [BarKind::Io, BarKind::Memory32, BarKind::Memory64];
        let bars = bars.into_iter().map(|(index, kind, address, size)| Bar { index, kind: kinds[kind], flags: 0, address, size }).collect();
        let function = Function { address: MINE, bars, msix: Some(MsiX { capability: 0x40, entries, table, pending: table }), withheld: Vec::new() };
        for range in function.memory() {
            prop_assert!(range.address.is_multiple_of(4096) && range.length.is_multiple_of(4096) && range.length > 0);
            let table = function.msix_table();
            prop_assert!(table.is_none_or(|table| range.end() <= table.address || table.end() <= range.address));
        }
        function.ports();
    }
}

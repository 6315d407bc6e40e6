use super::*;
use crate::platform::acpi::HEADER;
use alloc::vec;
use proptest::prelude::*;

/// A table with this behind its header.
fn table(content: &[u8]) -> Vec<u8> {
    let mut table = vec![0; HEADER];
    table.extend(content);
    table
}

/// Integers of any width, one after the other.
macro_rules! bytes {
    ($($value:expr),* $(,)?) => {{
        let mut bytes: Vec<u8> = Vec::new();
        $(bytes.extend($value.to_le_bytes());)*
        bytes
    }};
}

/// As QEMU describes its Intel IOMMU: one unit for everything, which also remaps the I/O APIC.
fn dmar() -> Vec<u8> {
    let mut content = bytes![38_u8, 1_u8, 0_u64, 0_u16];
    content.extend(bytes![0_u16, 24_u16, 1_u8, 0_u8, 0_u16, 0xfed9_0000_u64]);
    content.extend(bytes![3_u8, 8_u8, 0_u16, 0_u8, 0xff_u8, 0_u8, 0_u8]);
    content.extend(bytes![
        1_u16,
        34_u16,
        0_u16,
        0_u16,
        0x7f00_0000_u64,
        0x7f00_17ff_u64
    ]);
    content.extend(bytes![2_u8, 10_u8, 0_u16, 0_u8, 0_u8, 0x1c_u8, 0_u8, 2_u8, 1_u8]);
    content.extend(bytes![2_u16, 8_u16, 1_u8, 0_u8, 0_u16]);
    table(&content)
}

#[test]
fn reads_what_intel_firmware_writes() {
    let description = Description::read_table(Kind::Intel, &dmar());
    let path = |bus, steps: &[(u8, u8)], hierarchy| Path {
        bus,
        steps: steps.to_vec(),
        hierarchy,
    };
    assert!(description.interrupt_remapping);
    assert_eq!(
        description.units,
        [Unit {
            registers: MachineAddress(0xfed9_0000),
            segment: 0,
            function: None,
            scopes: vec![Scope::Rest],
            senders: vec![Sender {
                kind: SenderKind::IoApic(0),
                requester: SenderId::Path(path(0xff, &[(0, 0)], false)),
            }],
        }]
    );
    assert_eq!(
        description.reserved,
        [Reserved {
            segment: 0,
            start: MachineAddress(0x7f00_0000),
            length: 0x2000,
            readable: true,
            writable: true,
            scopes: vec![Scope::Path(path(0, &[(0x1c, 0), (2, 1)], true))],
        }]
    );
}

/// A unit in both forms, with an alias and a range, and memory of one function.
fn ivrs() -> Vec<u8> {
    let entries = bytes![
        3_u8, 8_u16, 0_u8, 4_u8, 0x1f_u16, 0_u8, 0x42_u8, 0x100_u16, 0_u8, 0_u8, 0x20_u16, 0_u8, 0x48_u8,
        0_u16, 0_u8, 2_u8, 0xa0_u16, 1_u8,
    ];
    let mut content = bytes![0_u32, 0_u64];
    for (kind, features) in [(0x10_u8, 0), (0x11, 16)] {
        let length = (24 + features + entries.len()) as u16;
        content.extend(bytes![kind, 0_u8, length, 0x10_u16, 0x40_u16, 0xfeb8_0000_u64]);
        content.extend(bytes![0_u16, 0_u16, 0_u32]);
        content.extend(vec![0; features]);
        content.extend(if kind == 0x10 {
            vec![0; entries.len()]
        } else {
            entries.clone()
        });
    }
    content.extend(bytes![0x21_u8, 3_u8, 32_u16, 0x30_u16, 0_u16, 0_u64]);
    content.extend(bytes![0x1000_u64, 0x800_u64]);
    table(&content)
}

#[test]
fn reads_what_amd_firmware_writes() {
    let description = Description::read_table(Kind::Amd, &ivrs());
    assert_eq!(
        description.units,
        [Unit {
            registers: MachineAddress(0xfeb8_0000),
            segment: 0,
            function: Some(0x10),
            scopes: vec![
                Scope::Requesters(Requester(8), Requester(0x1f)),
                Scope::Aliased(Requester(0x100), Requester(0x100), Requester(0x20)),
            ],
            senders: vec![Sender {
                kind: SenderKind::IoApic(2),
                requester: SenderId::Requester(Requester(0xa0)),
            }],
        }]
    );
    assert_eq!(
        description.reserved,
        [Reserved {
            segment: 0,
            start: MachineAddress(0x1000),
            length: 0x1000,
            readable: true,
            writable: false,
            scopes: vec![Scope::Requesters(Requester(0x30), Requester(0x30))],
        }]
    );
}

#[test]
fn nonsense_is_left_out() {
    let mut table = dmar();
    // A unit whose registers lie in the middle of a page.
    table[HEADER + 12 + 8] = 1;
    let description = Description::read_table(Kind::Intel, &table);
    assert_eq!((description.units.len(), description.reserved.len()), (0, 1));
    // A structure without a length ends the table.
    table[HEADER + 12 + 2] = 0;
    assert!(Description::read_table(Kind::Intel, &table).reserved.is_empty());
    assert_eq!(
        (pages(0x1800, 0x27ff), pages(1, 0), pages(0, u64::MAX)),
        (Some((MachineAddress(0x1000), 0x2000)), None, None)
    );
}

proptest! {
    #[test]
    fn any_table_is_survived(intel: bool, at in 0usize..160, value: u8, length in 0usize..200) {
        let (kind, mut table) = if intel { (Kind::Intel, dmar()) } else { (Kind::Amd, ivrs()) };
        let place = at % table.len();
        table[place] = value;
        table.truncate(length);
        Description::read_table(kind, &table);
    }
}

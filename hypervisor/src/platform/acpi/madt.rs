//! The MADT: processors, I/O APICs, and how ISA interrupts reach them (ACPI 6.5, 5.2.12).

use alloc::vec::Vec;

use super::HEADER;
use crate::platform::physical::Fields;

/// A processor that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Id of its local APIC.
    pub apic_id: u32,
    /// Runs or can be started; otherwise it may be added while the machine runs.
    pub enabled: bool,
}

/// An I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApicEntry {
    /// Its id.
    pub id: u8,
    /// Where its registers are.
    pub address: u32,
    /// GSI of its first input.
    pub first_gsi: u32,
}

/// An ISA interrupt that is wired otherwise than usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// The line of the ISA bus.
    pub line: u8,
    /// Its GSI.
    pub gsi: u32,
    /// Polarity and trigger mode, as the table has them.
    pub flags: u16,
}

impl Override {
    /// 0: as the bus, 1: active high, 3: active low.
    pub const fn polarity(&self) -> u16 {
        self.flags & 3
    }

    /// 0: as the bus, 1: edges, 3: levels.
    pub const fn trigger(&self) -> u16 {
        self.flags >> 2 & 3
    }
}

/// What the table says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Madt {
    /// The processors, in the table's order.
    pub processors: Vec<Processor>,
    /// The I/O APICs.
    pub io_apics: Vec<IoApicEntry>,
    /// The overrides.
    pub overrides: Vec<Override>,
}

/// Reads the table; an entry that is cut short ends it.
pub fn parse(table: &[u8]) -> Madt {
    let mut madt = Madt::default();
    let mut rest = table.get(HEADER + 8..).unwrap_or_default();
    while let [kind, length, ..] = *rest {
        let length = usize::from(length);
        let Some(entry) = rest.get(..length).filter(|_| length >= 2) else {
            break;
        };
        read_entry(kind, entry, &mut madt);
        rest = &rest[length..];
    }
    madt
}

fn read_entry(kind: u8, entry: &[u8], madt: &mut Madt) -> Option<()> {
    let processor = |apic_id, flags: u32| Processor {
        apic_id,
        enabled: flags & 1 != 0,
    };
    match kind {
        0 => madt
            .processors
            .push(processor(entry.u8_at(3)?.into(), entry.u32_at(4)?)),
        9 => madt
            .processors
            .push(processor(entry.u32_at(4)?, entry.u32_at(8)?)),
        1 => madt.io_apics.push(IoApicEntry {
            id: entry.u8_at(2)?,
            address: entry.u32_at(4)?,
            first_gsi: entry.u32_at(8)?,
        }),
        2 => madt.overrides.push(Override {
            line: entry.u8_at(3)?,
            gsi: entry.u32_at(4)?,
            flags: entry.u16_at(8)?,
        }),
        _ => {}
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::{super::tests::table, *};
    use proptest::prelude::*;

    #[test]
    fn reads_a_pc() {
        let mut content = alloc::vec![0, 0, 0xe0, 0xfe, 1, 0, 0, 0];
        content.extend([0, 8, 0, 0, 1, 0, 0, 0]); // processor 0
        content.extend([0, 8, 1, 1, 0, 0, 0, 0]); // processor 1, absent
        content.extend([1, 12, 2, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]); // I/O APIC
        content.extend([2, 10, 0, 0, 2, 0, 0, 0, 0, 0]); // line 0 is GSI 2
        content.extend([2, 10, 0, 9, 9, 0, 0, 0, 13, 0]); // line 9: high level
        content.extend([4, 6, 0xff, 0, 0, 1]); // NMI
        content.extend([9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0]); // x2APIC id 256
        let madt = parse(&table(b"APIC", &content));
        let processor = |apic_id, enabled| Processor { apic_id, enabled };
        assert_eq!(
            madt.processors,
            [processor(0, true), processor(1, false), processor(256, true)]
        );
        assert_eq!(
            madt.io_apics,
            [IoApicEntry {
                id: 2,
                address: 0xfec0_0000,
                first_gsi: 0
            }]
        );
        assert_eq!(
            madt.overrides[0],
            Override {
                line: 0,
                gsi: 2,
                flags: 0
            }
        );
        assert_eq!(
            (madt.overrides[1].polarity(), madt.overrides[1].trigger()),
            (1, 3)
        );
    }

    proptest! {
        #[test]
        fn foreign_entries_never_panic(content in proptest::collection::vec(0u8..20, 0..100)) {
            let _ = parse(&table(b"APIC", &content));
            let _ = parse(&content);
        }
    }
}

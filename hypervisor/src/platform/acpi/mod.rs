//! ACPI tables, as far as the hypervisor needs them: found, checked, copied out, read. Methods are never run: the one thing that is wanted from
//! the DSDT, the value that powers off, is found by looking for its package.
//!
//! Firmware is not trusted to be right: every table's length and checksum are checked, and what is wrong is reported and passed over. (The common crate
//! for this maps tables and lets references into them live; copying them makes the reader pure and small.)

pub mod fadt;
pub mod madt;
pub mod mcfg;

use alloc::{string::String, vec::Vec};

use super::physical::{Fields, PhysicalMemory};
use crate::{boot::Rsdp, memory::MachineAddress};

/// Length of the header that all tables share.
pub const HEADER: usize = 36;
/// A longer table is not believed.
const LONGEST_TABLE: usize = 4 << 20;
/// More tables are not believed.
const MOST_TABLES: usize = 256;

/// Why the tables cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcpiError {
    /// None in the usual places either.
    #[error("the machine has no ACPI root pointer")]
    NoRootPointer,
    /// The table that lists the others.
    #[error("the ACPI root table cannot be read")]
    NoRootTable,
}

/// The tables of the machine, by their copies.
pub struct Tables {
    /// In the order of the root table; the DSDT last.
    pub all: Vec<Table>,
}

/// A table, checked and copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name of four characters.
    pub signature: [u8; 4],
    /// All of it, the header of [`HEADER`] bytes included.
    pub bytes: Vec<u8>,
}

impl Tables {
    /// Finds and copies every table. `root` is what the loader said; without it the places where BIOSes put the pointer are searched.
    pub fn find(memory: &impl PhysicalMemory, root: Option<&Rsdp>) -> Result<Self, AcpiError> {
        let pointer = match root {
            Some(Rsdp::Copy(bytes)) => RootPointer::parse(bytes),
            Some(Rsdp::At(at)) => RootPointer::read(memory, *at),
            None => None,
        };
        let pointer = pointer
            .or_else(|| RootPointer::search(memory))
            .ok_or(AcpiError::NoRootPointer)?;
        let mut tables = Self { all: Vec::new() };
        for address in pointer.tables(memory).ok_or(AcpiError::NoRootTable)? {
            match read_table(memory, address) {
                Some(table) => tables.all.push(table),
                None => log::warn!("the ACPI table at {:#x} is damaged; passed over", address.0),
            }
        }
        let dsdt = tables.get(b"FACP").and_then(fadt::dsdt_address);
        if let Some(dsdt) = dsdt.and_then(|address| read_table(memory, address)) {
            tables.all.push(dsdt);
        }
        Ok(tables)
    }

    /// The first table of that name, with its header.
    pub fn get(&self, signature: &[u8; 4]) -> Option<&[u8]> {
        self.all
            .iter()
            .find(|table| table.signature == *signature)
            .map(|table| table.bytes.as_slice())
    }

    /// The names, for the log.
    pub fn names(&self) -> String {
        let names: Vec<String> = self
            .all
            .iter()
            .map(|table| String::from_utf8_lossy(&table.signature).into_owned())
            .collect();
        names.join(" ")
    }
}

fn checksum_is_right(bytes: &[u8]) -> bool {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == 0
}

fn read_table(memory: &impl PhysicalMemory, at: MachineAddress) -> Option<Table> {
    let header = memory.bytes(at, HEADER).ok()?;
    let length = header.u32_at(4)? as usize;
    if !(HEADER..=LONGEST_TABLE).contains(&length) {
        return None;
    }
    let bytes = memory.bytes(at, length).ok()?;
    // The length may have changed since, if the memory is not what it claims to be.
    let whole = bytes.u32_at(4)? as usize == length && checksum_is_right(&bytes);
    whole.then(|| Table {
        signature: [bytes[0], bytes[1], bytes[2], bytes[3]],
        bytes,
    })
}

/// The root system description pointer (ACPI 6.5, 5.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RootPointer {
    address: MachineAddress,
    /// Width of an entry of the table that it points to.
    entry: usize,
}

impl RootPointer {
    const OLD_LENGTH: usize = 20;
    const NEW_LENGTH: usize = 36;

    fn parse(bytes: &[u8]) -> Option<Self> {
        let old = bytes.get(..Self::OLD_LENGTH)?;
        if !old.starts_with(b"RSD PTR ") || !checksum_is_right(old) {
            return None;
        }
        let rsdt = Self {
            address: MachineAddress(bytes.u32_at(16)?.into()),
            entry: 4,
        };
        let new = bytes
            .get(..Self::NEW_LENGTH)
            .filter(|new| new[15] >= 2 && checksum_is_right(new));
        match new.and_then(|new| new.u64_at(24)) {
            Some(xsdt @ 1..) => Some(Self {
                address: MachineAddress(xsdt),
                entry: 8,
            }),
            _ => Some(rsdt),
        }
    }

    fn read(memory: &impl PhysicalMemory, at: MachineAddress) -> Option<Self> {
        let bytes = memory
            .bytes(at, Self::NEW_LENGTH)
            .or_else(|_| memory.bytes(at, Self::OLD_LENGTH));
        Self::parse(&bytes.ok()?)
    }

    fn search(memory: &impl PhysicalMemory) -> Option<Self> {
        let extended = memory
            .bytes(MachineAddress(0x40e), 2)
            .ok()
            .and_then(|word| word.u16_at(0));
        let extended = extended.map(|segment| (u64::from(segment) << 4, 0x400));
        extended
            .into_iter()
            .chain([(0xe_0000, 0x2_0000)])
            .find_map(|(start, length)| {
                let bytes = memory.bytes(MachineAddress(start), length).ok()?;
                (0..length)
                    .step_by(16)
                    .find_map(|offset| Self::parse(&bytes[offset..]))
            })
    }

    /// The addresses in the table that it points to.
    fn tables(&self, memory: &impl PhysicalMemory) -> Option<Vec<MachineAddress>> {
        let table = read_table(memory, self.address)?;
        let address = |entry: &[u8]| match self.entry {
            4 => entry.u32_at(0).map(u64::from),
            _ => entry.u64_at(0),
        };
        Some(
            table.bytes[HEADER..]
                .chunks_exact(self.entry)
                .take(MOST_TABLES)
                .filter_map(address)
                .map(MachineAddress)
                .collect(),
        )
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::platform::physical::FakeMemory;
    use alloc::vec;
    use proptest::prelude::*;

    /// A table with a right header.
    pub(crate) fn table(signature: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let mut bytes = signature.to_vec();
        bytes.extend((content.len() as u32 + HEADER as u32).to_le_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend_from_slice(content);
        bytes[9] = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
        bytes
    }

    fn root_pointer(rsdt: u32, xsdt: u64) -> Vec<u8> {
        let mut bytes = b"RSD PTR ".to_vec();
        bytes.resize(16, 0);
        bytes[15] = 2;
        bytes.extend(rsdt.to_le_bytes());
        bytes[8] = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
        bytes.extend(36_u32.to_le_bytes());
        bytes.extend(xsdt.to_le_bytes());
        bytes.resize(36, 0);
        bytes[32] = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
        bytes
    }

    fn machine() -> FakeMemory {
        let xsdt: Vec<u8> = [0x2000_u64, 0x3000, 0x4000]
            .iter()
            .flat_map(|at| at.to_le_bytes())
            .collect();
        let mut damaged = table(b"HPET", &[1, 2, 3]);
        damaged[HEADER] ^= 1;
        FakeMemory(vec![
            (0xf_5000, root_pointer(0, 0x1000)),
            (0x1000, table(b"XSDT", &xsdt)),
            (0x2000, table(b"APIC", &[0; 8])),
            (0x3000, damaged),
            (0x4000, table(b"MCFG", &[0; 8])),
        ])
    }

    #[test]
    fn finds_sound_tables_and_passes_over_damaged_ones() {
        let tables = Tables::find(&machine(), Some(&Rsdp::At(MachineAddress(0xf_5000)))).unwrap();
        assert_eq!(tables.names(), "APIC MCFG");
        assert_eq!(tables.get(b"APIC").unwrap().len(), HEADER + 8);
        assert!(tables.get(b"HPET").is_none());
        let copy = Rsdp::Copy(root_pointer(0, 0x1000));
        assert_eq!(
            Tables::find(&machine(), Some(&copy)).unwrap().names(),
            "APIC MCFG"
        );
    }

    #[test]
    fn searches_where_bioses_put_the_pointer() {
        let mut memory = machine();
        let mut area = vec![0; 0x2_0000];
        area[0x1_5000..][..36].copy_from_slice(&root_pointer(0, 0x1000));
        memory.0[0] = (0xe_0000, area);
        assert_eq!(Tables::find(&memory, None).unwrap().names(), "APIC MCFG");
        memory.0.remove(0);
        assert_eq!(Tables::find(&memory, None).err(), Some(AcpiError::NoRootPointer));
    }

    #[test]
    fn an_old_pointer_leads_to_the_old_table() {
        let mut memory = machine();
        let mut old = root_pointer(0x5000, 0);
        old.truncate(20);
        old[15] = 0;
        old[8] = old[8].wrapping_add(2);
        memory.0[0].1 = old;
        memory.0.push((0x5000, table(b"RSDT", &0x2000_u32.to_le_bytes())));
        assert_eq!(
            Tables::find(&memory, Some(&Rsdp::At(MachineAddress(0xf_5000))))
                .unwrap()
                .names(),
            "APIC"
        );
    }

    proptest! {
        #[test]
        fn foreign_tables_never_panic(piece in 0usize..5, at in 0usize..80, value: u8) {
            let mut memory = machine();
            let bytes = &mut memory.0[piece].1;
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = Tables::find(&memory, Some(&Rsdp::At(MachineAddress(0xf_5000))));
        }
    }
}

//! What firmware and loaders leave in memory.

use hypervisor::{
    boot::{Rsdp, multiboot2, pvh},
    iommu::{Description, Kind},
    memory::MachineAddress,
    platform::{
        acpi::{HEADER, Tables, fadt, madt, mcfg},
        physical::{OutOfReach, PhysicalMemory},
    },
};

use crate::Input;

/// Where the fuzzer's bytes lie.
const BASE: u64 = 0x1000;

struct Memory<'a>(&'a [u8]);

impl PhysicalMemory for Memory<'_> {
    fn read(&self, at: MachineAddress, into: &mut [u8]) -> Result<(), OutOfReach> {
        let offset = at.0.checked_sub(BASE).ok_or(OutOfReach(at))? as usize;
        let end = offset.checked_add(into.len()).ok_or(OutOfReach(at))?;
        into.copy_from_slice(self.0.get(offset..end).ok_or(OutOfReach(at))?);
        Ok(())
    }
}

/// A root pointer and what it leads to; then the content of single tables, whose checksums would keep the fuzzer out.
pub(crate) fn acpi(bytes: &[u8]) {
    let memory = Memory(bytes);
    let _ = Tables::find(&memory, Some(&Rsdp::At(MachineAddress(BASE))));
    let mut copy = bytes.to_vec();
    copy.resize(bytes.len().max(36), 0);
    copy[..8].copy_from_slice(b"RSD PTR ");
    for (length, at) in [(20, 8), (36, 32)] {
        copy[at] = 0;
        copy[at] = copy[..length]
            .iter()
            .fold(0, |sum: u8, byte| sum.wrapping_sub(*byte));
    }
    let _ = Tables::find(&memory, Some(&Rsdp::Copy(copy)));

    let mut table = vec![0; HEADER];
    table.extend(bytes);
    let _ = (madt::parse(&table), mcfg::parse(&table), fadt::parse(&table));
    let _ = (fadt::dsdt_address(&table), fadt::soft_off(&table));
    let _ = (madt::parse(bytes), mcfg::parse(bytes), fadt::parse(bytes));
}

/// The tables of the IOMMUs: DMAR and IVRS.
pub(crate) fn iommu(bytes: &[u8]) {
    let mut input = Input(bytes);
    let kind = if input.byte() & 1 == 0 {
        Kind::Intel
    } else {
        Kind::Amd
    };
    let mut table = vec![0; HEADER];
    table.extend(input.0);
    let description = Description::read_table(kind, &table);
    for unit in &description.units {
        assert!(unit.registers.0 != 0 && unit.registers.0 < 1 << 52);
    }
    for reserved in &description.reserved {
        assert!(reserved.length > 0 && reserved.start.0 + reserved.length <= 1 << 52);
    }
}

/// What GRUB and QEMU tell the hypervisor.
pub(crate) fn boot_information(bytes: &[u8]) {
    let mut input = Input(bytes);
    if input.byte() & 1 == 0 {
        let _ = multiboot2::parse(input.0);
    } else {
        let _ = pvh::parse(&Memory(input.0), MachineAddress(BASE));
    }
}

//! The DMAR (Intel Virtualization Technology for Directed I/O, chapter 8).

use alloc::vec::Vec;

use super::{Description, Path, Reserved, Scope, Sender, SenderId, SenderKind, Unit, pages};
use crate::{
    iommu::Kind,
    memory::MachineAddress,
    platform::{acpi::HEADER, physical::Fields},
};

/// Flags of the table.
const INTERRUPT_REMAPPING: u8 = 1 << 0;
/// Where the structures begin.
const STRUCTURES: usize = HEADER + 12;

const HARDWARE_UNIT: u16 = 0;
const RESERVED_MEMORY: u16 = 1;
/// A unit's flag: it answers for all that no other one names.
const INCLUDE_ALL: u8 = 1 << 0;

const SCOPE_ENDPOINT: u8 = 1;
const SCOPE_HIERARCHY: u8 = 2;
const SCOPE_IO_APIC: u8 = 3;
const SCOPE_HPET: u8 = 4;

/// Reads the table.
pub(super) fn parse(table: &[u8]) -> Description {
    let mut description = Description {
        kind: Kind::Intel,
        units: Vec::new(),
        reserved: Vec::new(),
        interrupt_remapping: table
            .u8_at(HEADER + 1)
            .is_some_and(|flags| flags & INTERRUPT_REMAPPING != 0),
    };
    let mut rest = table.get(STRUCTURES..).unwrap_or_default();
    while let (Some(kind), Some(length)) = (rest.u16_at(0), rest.u16_at(2)) {
        let Some((structure, next)) = rest.split_at_checked(length.into()).filter(|_| length >= 4) else {
            break;
        };
        rest = next;
        match kind {
            HARDWARE_UNIT => description.units.extend(unit(structure)),
            RESERVED_MEMORY => description.reserved.extend(reserved(structure)),
            // Where address translation services are, how near memory is, and what has a name of its own in ACPI.
            _ => {}
        }
    }
    description
}

fn unit(structure: &[u8]) -> Option<Unit> {
    let registers = structure.u64_at(8)?;
    if registers == 0 || !registers.is_multiple_of(crate::memory::PAGE_SIZE) || registers >= 1 << 52 {
        return None;
    }
    let mut unit = Unit {
        registers: MachineAddress(registers),
        segment: structure.u16_at(6)?,
        function: None,
        scopes: Vec::new(),
        senders: Vec::new(),
    };
    for (kind, id, path) in scopes(structure.get(16..)?) {
        let sender = match kind {
            SCOPE_ENDPOINT | SCOPE_HIERARCHY => {
                unit.scopes.push(Scope::Path(path));
                continue;
            }
            SCOPE_IO_APIC => SenderKind::IoApic(id),
            SCOPE_HPET => SenderKind::Hpet(id),
            _ => continue,
        };
        unit.senders.push(Sender {
            kind: sender,
            requester: SenderId::Path(path),
        });
    }
    if structure.u8_at(4)? & INCLUDE_ALL != 0 {
        unit.scopes.push(Scope::Rest);
    }
    Some(unit)
}

fn reserved(structure: &[u8]) -> Option<Reserved> {
    let (start, length) = pages(structure.u64_at(8)?, structure.u64_at(16)?)?;
    let scopes = scopes(structure.get(24..)?)
        .filter(|(kind, ..)| matches!(*kind, SCOPE_ENDPOINT | SCOPE_HIERARCHY))
        .map(|(_, _, path)| Scope::Path(path))
        .collect();
    Some(Reserved {
        segment: structure.u16_at(6)?,
        start,
        length,
        readable: true,
        writable: true,
        scopes,
    })
}

/// The scopes at the end of a structure: type, id, path.
fn scopes(mut rest: &[u8]) -> impl Iterator<Item = (u8, u8, Path)> {
    core::iter::from_fn(move || {
        let length = rest.u8_at(1)?;
        let (scope, next) = rest.split_at_checked(length.into()).filter(|_| length >= 8)?;
        rest = next;
        let kind = scope[0];
        let path = Path {
            bus: scope[5],
            steps: scope[6..]
                .chunks_exact(2)
                .map(|step| (step[0], step[1]))
                .collect(),
            hierarchy: kind == SCOPE_HIERARCHY,
        };
        Some((kind, scope[4], path))
    })
}

//! The IVRS (AMD I/O Virtualization Technology Specification, 48882, chapter 5).

use alloc::vec::Vec;

use super::{Description, Requester, Reserved, Scope, Sender, SenderId, SenderKind, Unit, pages};
use crate::{
    iommu::Kind,
    memory::MachineAddress,
    platform::{acpi::HEADER, physical::Fields},
};

/// Where the blocks begin.
const BLOCKS: usize = HEADER + 12;

/// Blocks that describe a unit: the first form, and the two that give its features as well. Firmware may describe a unit once in each.
const UNIT: u8 = 0x10;
const UNIT_WITH_FEATURES: [u8; 2] = [0x11, 0x40];
/// Blocks that describe memory: for all functions, one, a range.
const MEMORY_ALL: u8 = 0x20;
const MEMORY_ONE: u8 = 0x21;
const MEMORY_RANGE: u8 = 0x22;
/// Flags of memory: readable and writable, or to be left alone by the IOMMU, which is both.
const READABLE: u8 = 1 << 1;
const WRITABLE: u8 = 1 << 2;
const EXCLUSION: u8 = 1 << 3;

const ALL: u8 = 1;
const SELECT: u8 = 2;
const RANGE_START: u8 = 3;
const RANGE_END: u8 = 4;
const ALIAS_SELECT: u8 = 0x42;
const ALIAS_RANGE_START: u8 = 0x43;
const EXTENDED_SELECT: u8 = 0x46;
const EXTENDED_RANGE_START: u8 = 0x47;
const SPECIAL: u8 = 0x48;
const NAMED: u8 = 0xf0;

/// Reads the table.
pub(super) fn parse(table: &[u8]) -> Description {
    let mut units: Vec<(u8, Unit)> = Vec::new();
    let mut reserved = Vec::new();
    let mut rest = table.get(BLOCKS..).unwrap_or_default();
    while let Some(length) = rest.u16_at(2) {
        let Some((block, next)) = rest.split_at_checked(length.into()).filter(|_| length >= 4) else {
            break;
        };
        rest = next;
        match block[0] {
            kind if kind == UNIT || UNIT_WITH_FEATURES.contains(&kind) => {
                let Some(unit) = unit(kind, block) else { continue };
                // The later form says more of the same unit.
                match units
                    .iter_mut()
                    .find(|(_, known)| known.registers == unit.registers)
                {
                    Some(known) if known.0 < kind => *known = (kind, unit),
                    Some(_) => {}
                    None => units.push((kind, unit)),
                }
            }
            MEMORY_ALL | MEMORY_ONE | MEMORY_RANGE => reserved.extend(memory(block)),
            _ => {}
        }
    }
    Description {
        kind: Kind::Amd,
        units: units.into_iter().map(|(_, unit)| unit).collect(),
        reserved,
        interrupt_remapping: true,
    }
}

fn unit(kind: u8, block: &[u8]) -> Option<Unit> {
    let registers = block.u64_at(8)?;
    if registers == 0 || !registers.is_multiple_of(crate::memory::PAGE_SIZE) || registers >= 1 << 52 {
        return None;
    }
    let mut unit = Unit {
        registers: MachineAddress(registers),
        segment: block.u16_at(16)?,
        function: Some(block.u16_at(4)?),
        scopes: Vec::new(),
        senders: Vec::new(),
    };
    let mut entries = block.get(if kind == UNIT { 24 } else { 40 }..)?;
    // A range that has begun: its first requester, and the alias that it has.
    let mut range: Option<(Requester, Option<Requester>)> = None;
    while let Some((entry, next)) = entry_length(entries).and_then(|length| entries.split_at_checked(length))
    {
        entries = next;
        let requester = |at| entry.u16_at(at).map(Requester);
        let Some(named) = requester(1) else { break };
        match entry[0] {
            ALL => unit.scopes.push(Scope::Rest),
            SELECT | EXTENDED_SELECT => unit.scopes.push(Scope::Requesters(named, named)),
            ALIAS_SELECT => unit.scopes.push(Scope::Aliased(named, named, requester(5)?)),
            RANGE_START | EXTENDED_RANGE_START => range = Some((named, None)),
            ALIAS_RANGE_START => range = Some((named, requester(5))),
            RANGE_END => match range.take() {
                Some((first, None)) if first <= named => unit.scopes.push(Scope::Requesters(first, named)),
                Some((first, Some(alias))) if first <= named => {
                    unit.scopes.push(Scope::Aliased(first, named, alias));
                }
                _ => {}
            },
            SPECIAL => {
                let handle = entry.u8_at(4)?;
                let kind = match entry.u8_at(7)? {
                    1 => SenderKind::IoApic(handle),
                    2 => SenderKind::Hpet(handle),
                    _ => continue,
                };
                unit.senders.push(Sender {
                    kind,
                    requester: SenderId::Requester(requester(5)?),
                });
            }
            // Padding, and what has a name of its own in ACPI.
            _ => {}
        }
    }
    Some(unit)
}

/// Bytes of the first entry; its type tells.
fn entry_length(entries: &[u8]) -> Option<usize> {
    /// Where an entry with names says how long the last of them is, and where that begins.
    const NAME_LENGTH: usize = 21;
    Some(match *entries.first()? {
        0..0x40 => 4,
        0x40..0x80 => 8,
        0x80..0xc0 => 16,
        NAMED => NAME_LENGTH + 1 + usize::from(*entries.get(NAME_LENGTH)?),
        _ => 32,
    })
}

fn memory(block: &[u8]) -> Option<Reserved> {
    let (first, last) = (Requester(block.u16_at(4)?), Requester(block.u16_at(6)?));
    let scope = match block[0] {
        MEMORY_ALL => Scope::Rest,
        MEMORY_ONE => Scope::Requesters(first, first),
        _ if first <= last => Scope::Requesters(first, last),
        _ => return None,
    };
    let (start, length) = (block.u64_at(16)?, block.u64_at(24)?);
    let (start, length) = pages(start, start.checked_add(length.checked_sub(1)?)?)?;
    let flags = block[1];
    Some(Reserved {
        segment: 0,
        start,
        length,
        readable: flags & (READABLE | EXCLUSION) != 0,
        writable: flags & (WRITABLE | EXCLUSION) != 0,
        scopes: alloc::vec![scope],
    })
}

//! What a PVH loader passes: `hvm_start_info` (arch-x86/hvm/start_info.h), version 1 and up, and what it points to.

use super::{
    BootError, Information, Protocol, Rsdp,
    memory_map::{Entry, Kind, Region},
};
use crate::{
    memory::MachineAddress,
    platform::physical::{Fields, PhysicalMemory},
};

const MAGIC: u32 = 0x336e_c578;
const LONGEST_COMMAND_LINE: usize = 4096;
/// More than any loader passes; a larger number is not believed.
const MOST_ENTRIES: u32 = 1024;

/// Reads the structure at `at`.
pub fn parse(memory: &impl PhysicalMemory, at: MachineAddress) -> Result<Information, BootError> {
    let start_info = memory.bytes(at, 56).map_err(|_| BootError::Information)?;
    let word = |offset| start_info.u32_at(offset).ok_or(BootError::Information);
    let pointer = |offset| {
        start_info
            .u64_at(offset)
            .map(MachineAddress)
            .ok_or(BootError::Information)
    };
    if word(0)? != MAGIC {
        return Err(BootError::Information);
    }
    if word(4)? < 1 {
        return Err(BootError::OldStartInfo);
    }
    let mut information = Information::new(Protocol::Pvh);
    let modules = entries(memory, pointer(16)?, word(12)?, 32)?;
    for module in modules.chunks_exact(32) {
        if let (Some(start), Some(length @ 1..)) = (module.u64_at(0), module.u64_at(8)) {
            information
                .modules
                .push(Region::new(MachineAddress(start), length));
        }
    }
    if let at @ MachineAddress(1..) = pointer(24)? {
        information.command_line = memory
            .string(at, LONGEST_COMMAND_LINE)
            .map_err(|_| BootError::Information)?;
    }
    if let at @ MachineAddress(1..) = pointer(32)? {
        information.rsdp = Some(Rsdp::At(at));
    }
    let map = entries(memory, pointer(40)?, word(48)?, 24)?;
    for entry in map.chunks_exact(24) {
        if let (Some(start), Some(length), Some(kind)) = (entry.u64_at(0), entry.u64_at(8), entry.u32_at(16))
        {
            information.memory.push(Entry {
                region: Region::new(MachineAddress(start), length),
                kind: Kind::from(kind),
            });
        }
    }
    Ok(information)
}

fn entries(
    memory: &impl PhysicalMemory,
    at: MachineAddress,
    count: u32,
    size: usize,
) -> Result<alloc::vec::Vec<u8>, BootError> {
    if count > MOST_ENTRIES {
        return Err(BootError::Information);
    }
    memory
        .bytes(at, count as usize * size)
        .map_err(|_| BootError::Information)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::physical::FakeMemory;
    use alloc::{vec, vec::Vec};
    use proptest::prelude::*;

    fn start_info(version: u32, modules: u32, map_entries: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [MAGIC, version, 0, modules] {
            bytes.extend(word.to_le_bytes());
        }
        for pointer in [0x2000_u64, 0x3000, 0xf5000, 0x4000] {
            bytes.extend(pointer.to_le_bytes());
        }
        bytes.extend([map_entries, 0].iter().flat_map(|word| word.to_le_bytes()));
        bytes
    }

    fn quads(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn memory(start_info: Vec<u8>) -> FakeMemory {
        FakeMemory(vec![
            (0x1000, start_info),
            (0x2000, quads(&[0x3ff0_0000, 0x5_1234, 0, 0])),
            (0x3000, b"console=none\0".to_vec()),
            (0x4000, quads(&[0, 0x9fc00, 1, 0x10_0000, 0x3fe0_0000, 1])),
        ])
    }

    #[test]
    fn reads_modules_command_line_and_map() {
        let information = parse(&memory(start_info(1, 1, 2)), MachineAddress(0x1000)).unwrap();
        assert_eq!(
            information.modules,
            [Region::new(MachineAddress(0x3ff0_0000), 0x5_1234)]
        );
        assert_eq!(information.command_line, "console=none");
        assert_eq!(information.rsdp, Some(Rsdp::At(MachineAddress(0xf5000))));
        assert_eq!(information.memory.len(), 2);
        assert_eq!(
            information.memory[1].region,
            Region::new(MachineAddress(0x10_0000), 0x3fe0_0000)
        );
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        let parse = |info| parse(&memory(info), MachineAddress(0x1000)).err();
        assert_eq!(parse(start_info(0, 0, 0)), Some(BootError::OldStartInfo));
        assert_eq!(parse(start_info(1, 2, 0)), Some(BootError::Information));
        assert_eq!(parse(start_info(1, u32::MAX, 0)), Some(BootError::Information));
        assert_eq!(parse(vec![0; 56]), Some(BootError::Information));
        assert_eq!(parse(vec![0; 5]), Some(BootError::Information));
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(at in 0usize..56, value: u8, at_map in 0usize..48) {
            let mut info = start_info(1, 1, 2);
            info[at] = value;
            let mut memory = memory(info);
            memory.0[3].1[at_map] = value;
            let _ = parse(&memory, MachineAddress(0x1000));
        }
    }
}

//! What a Multiboot2 loader passes: a block of tags (Multiboot2 specification 2.0, section 3.6).

use alloc::{string::String, vec::Vec};

use super::{
    BootError, Framebuffer, Information, Protocol, Rsdp,
    memory_map::{Entry, Kind, Region},
};
use crate::{memory::MachineAddress, platform::physical::Fields};

/// What the loader puts in EAX.
pub const MAGIC: u32 = 0x36d7_6289;
/// The block is at most this long: a longer one is not believed.
pub const LONGEST: usize = 1 << 20;

const TAG_END: u32 = 0;
const TAG_COMMAND_LINE: u32 = 1;
const TAG_LOADER_NAME: u32 = 2;
const TAG_MODULE: u32 = 3;
const TAG_MEMORY_MAP: u32 = 6;
const TAG_FRAMEBUFFER: u32 = 8;
const TAG_RSDP_1: u32 = 14;
const TAG_RSDP_2: u32 = 15;

/// Reads the block, beginning with its own length. What is cut short counts as absent.
pub fn parse(block: &[u8]) -> Result<Information, BootError> {
    let length = block.u32_at(0).ok_or(BootError::Information)? as usize;
    let block = block.get(..length).ok_or(BootError::Information)?;
    let mut information = Information::new(Protocol::Multiboot2);
    let mut offset = 8_usize;
    while let (Some(kind), Some(size)) = (block.u32_at(offset), block.u32_at(offset + 4)) {
        let end = offset.saturating_add(size as usize);
        if kind == TAG_END || size < 8 {
            break;
        }
        let Some(tag) = block.get(offset + 8..end) else {
            break;
        };
        read_tag(kind, tag, &mut information);
        offset = end.next_multiple_of(8);
    }
    Ok(information)
}

fn read_tag(kind: u32, tag: &[u8], information: &mut Information) {
    match kind {
        TAG_COMMAND_LINE => information.command_line = string(tag),
        TAG_LOADER_NAME => information.loader = string(tag),
        TAG_MODULE => {
            if let (Some(start), Some(end)) = (tag.u32_at(0), tag.u32_at(4))
                && start < end
            {
                let region = Region {
                    start: MachineAddress(start.into()),
                    end: MachineAddress(end.into()),
                };
                information.modules.push(region);
            }
        }
        TAG_MEMORY_MAP => information.memory = memory_map(tag).unwrap_or_default(),
        TAG_FRAMEBUFFER => information.framebuffer = framebuffer(tag),
        // The newer description wins, in whichever order they come.
        TAG_RSDP_2 => information.rsdp = Some(Rsdp::Copy(tag.to_vec())),
        TAG_RSDP_1 if information.rsdp.is_none() => information.rsdp = Some(Rsdp::Copy(tag.to_vec())),
        _ => {}
    }
}

fn string(tag: &[u8]) -> String {
    let end = tag.iter().position(|&byte| byte == 0).unwrap_or(tag.len());
    String::from_utf8_lossy(&tag[..end]).into_owned()
}

fn memory_map(tag: &[u8]) -> Option<Vec<Entry>> {
    let size = tag.u32_at(0)? as usize;
    if size < 20 {
        return None;
    }
    let entry = |bytes: &[u8]| {
        Some(Entry {
            region: Region::new(MachineAddress(bytes.u64_at(0)?), bytes.u64_at(8)?),
            kind: Kind::from(bytes.u32_at(16)?),
        })
    };
    tag.get(8..)?.chunks_exact(size).map(entry).collect()
}

fn framebuffer(tag: &[u8]) -> Option<Framebuffer> {
    let (address, pitch, width, height) = (tag.u64_at(0)?, tag.u32_at(8)?, tag.u32_at(12)?, tag.u32_at(16)?);
    let (bits_per_pixel, kind) = (tag.u8_at(20)?, tag.u8_at(21)?);
    match kind {
        1 => Some(Framebuffer::Pixels {
            address: MachineAddress(address),
            pitch,
            width,
            height,
            bits_per_pixel,
            red: tag.u8_at(24)?,
            green: tag.u8_at(26)?,
            blue: tag.u8_at(28)?,
        }),
        2 => Some(Framebuffer::Text {
            address: MachineAddress(address),
            columns: width,
            rows: height,
            pitch,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn block(tags: &[(u32, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        for (kind, content) in tags.iter().chain([&(TAG_END, vec![])]) {
            bytes.extend_from_slice(&kind.to_le_bytes());
            bytes.extend_from_slice(&(content.len() as u32 + 8).to_le_bytes());
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn reads_the_tags_it_knows() {
        let mut map = words(&[24, 0]);
        map.extend(words(&[0x10_0000, 0, 0x4000_0000, 0, 1, 0]));
        map.extend(words(&[0, 1, 0x1000, 0, 2, 0]));
        let mut screen = words(&[0xb8000, 0, 160, 80, 25]);
        screen.extend([16, 2, 0, 0]);
        let bytes = block(&[
            (TAG_COMMAND_LINE, b"serial=com2\0".to_vec()),
            (77, vec![1, 2, 3]),
            (
                TAG_MODULE,
                [words(&[0x200_0000, 0x200_1234]), b"bundle\0".to_vec()].concat(),
            ),
            (TAG_MEMORY_MAP, map),
            (TAG_FRAMEBUFFER, screen),
            (TAG_RSDP_2, b"RSD PTR new".to_vec()),
            (TAG_RSDP_1, b"RSD PTR old".to_vec()),
        ]);
        let information = parse(&bytes).unwrap();
        assert_eq!(information.command_line, "serial=com2");
        assert_eq!(
            information.modules,
            [Region {
                start: MachineAddress(0x200_0000),
                end: MachineAddress(0x200_1234)
            }]
        );
        assert_eq!(information.memory.len(), 2);
        assert_eq!(
            information.memory[1].region,
            Region::new(MachineAddress(1 << 32), 0x1000)
        );
        assert_eq!(information.memory[1].kind, Kind::Reserved);
        assert_eq!(
            information.framebuffer,
            Some(Framebuffer::Text {
                address: MachineAddress(0xb8000),
                columns: 80,
                rows: 25,
                pitch: 160
            })
        );
        assert_eq!(information.rsdp, Some(Rsdp::Copy(b"RSD PTR new".to_vec())));
    }

    #[test]
    fn a_block_longer_than_its_bytes_is_refused() {
        assert_eq!(parse(&words(&[64, 0])).err(), Some(BootError::Information));
        assert_eq!(parse(&[]).err(), Some(BootError::Information));
    }

    proptest! {
        #[test]
        fn foreign_tags_never_panic(tags in proptest::collection::vec((0u32..20, proptest::collection::vec(any::<u8>(), 0..60)), 0..10), at: usize, flip: u8) {
            let mut bytes = block(&tags);
            let at = 8 + at % (bytes.len() - 8);
            bytes[at] ^= flip;
            let _ = parse(&bytes);
        }
    }
}

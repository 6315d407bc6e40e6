//! The kernel image: an ELF64 file with the PVH note. Its headers are foreign input: every number is checked against the file and the guest's memory
//! before it is used.

use alloc::vec::Vec;
use core::ops::Range;

use elf::{ElfBytes, abi, endian::LittleEndian, file::Class, segment::ProgramHeader};
use xen_abi::elfnote::{XEN_ELFNOTE_NAME, XEN_ELFNOTE_PHYS32_ENTRY};

use super::MemoryMap;
use crate::memory::GuestAddress;

/// Why an image cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Not an ELF64 executable for x86-64, or damaged.
    #[error("the kernel is not an ELF64 executable for x86-64, or is damaged")]
    NotElf,
    /// A bzImage.
    #[error(
        "the kernel is a bzImage with a compressed payload: it has to be unpacked when the image is built"
    )]
    Compressed,
    /// No PVH note.
    #[error("the kernel has no PVH entry point (ELF note Xen, type 18)")]
    NoEntry,
    /// A segment or the entry lies outside the guest's memory, or segments overlap.
    #[error("a segment of the kernel overlaps another or does not fit into the guest's memory below 3 GiB")]
    OutsideMemory,
}

/// A part of the image to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where to.
    pub address: GuestAddress,
    /// Bytes of the file, within its bounds.
    pub file: Range<usize>,
    /// Bytes in memory, at least as many as in the file; what the file lacks is zero.
    pub memory_size: u64,
}

/// A kernel that can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// 32-bit entry point.
    pub entry: GuestAddress,
    /// What to load, by rising address; at least one, and none overlaps another.
    pub segments: Vec<Segment>,
}

impl Kernel {
    /// Reads the headers of `image`; everything it says is checked against the image's length and against `memory`, bytes of guest RAM from 0.
    /// A bzImage is accepted if its payload is not compressed.
    pub fn parse(image: &[u8], memory: u64) -> Result<Self, ImageError> {
        let Some(payload) = bzimage_payload(image) else {
            return parse_elf(image, memory);
        };
        let content = image.get(payload.clone()).ok_or(ImageError::NotElf)?;
        if !content.starts_with(&abi::ELFMAGIC) {
            return Err(ImageError::Compressed);
        }
        let mut kernel = parse_elf(content, memory)?;
        for segment in &mut kernel.segments {
            segment.file = segment.file.start + payload.start..segment.file.end + payload.start;
        }
        Ok(kernel)
    }

    /// The first address behind all segments.
    pub fn end(&self) -> GuestAddress {
        GuestAddress(
            self.segments
                .last()
                .map_or(0, |last| last.address.0 + last.memory_size),
        )
    }
}

/// Where the payload of a bzImage lies, if `image` is one (Linux boot protocol 2.08 and later). The range may lie outside the image.
fn bzimage_payload(image: &[u8]) -> Option<Range<usize>> {
    let word =
        |offset: usize| Some(u32::from_le_bytes(image.get(offset..offset + 4)?.try_into().ok()?) as usize);
    if image.get(0x1fe..0x200)? != [0x55, 0xaa] || image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    // A setup size of 0 means 4, for the oldest kernels.
    let setup_sectors = match image.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(*sectors),
    };
    let start = (setup_sectors + 1) * 512 + word(0x248)?;
    Some(start..start + word(0x24c)?)
}

fn parse_elf(image: &[u8], memory: u64) -> Result<Kernel, ImageError> {
    let file = ElfBytes::<LittleEndian>::minimal_parse(image).map_err(|_| ImageError::NotElf)?;
    let header = file.ehdr;
    if header.class != Class::ELF64
        || header.e_machine != abi::EM_X86_64
        || ![abi::ET_EXEC, abi::ET_DYN].contains(&header.e_type)
    {
        return Err(ImageError::NotElf);
    }
    let headers = file.segments().ok_or(ImageError::NotElf)?;

    let mut entry = None;
    let mut segments = Vec::new();
    for header in headers.iter() {
        match header.p_type {
            abi::PT_LOAD if header.p_memsz > 0 => segments.push(segment(&header, image, memory)?),
            abi::PT_NOTE if entry.is_none() => entry = pvh_entry(&image[file_range(&header, image)?]),
            _ => {}
        }
    }
    let entry = GuestAddress(entry.ok_or(ImageError::NoEntry)?);

    segments.sort_unstable_by_key(|segment| segment.address);
    let overlap = segments
        .windows(2)
        .any(|pair| pair[0].address.0 + pair[0].memory_size > pair[1].address.0);
    let covered = segments
        .iter()
        .any(|segment| (segment.address.0..segment.address.0 + segment.memory_size).contains(&entry.0));
    if overlap || !covered {
        return Err(ImageError::OutsideMemory);
    }
    Ok(Kernel { entry, segments })
}

/// The bytes of the file that a program header names.
fn file_range(header: &ProgramHeader, image: &[u8]) -> Result<Range<usize>, ImageError> {
    let end = header
        .p_offset
        .checked_add(header.p_filesz)
        .ok_or(ImageError::NotElf)?;
    if end > image.len() as u64 {
        return Err(ImageError::NotElf);
    }
    Ok(header.p_offset as usize..end as usize)
}

fn segment(header: &ProgramHeader, image: &[u8], memory: u64) -> Result<Segment, ImageError> {
    let file = file_range(header, image)?;
    let end = header
        .p_paddr
        .checked_add(header.p_memsz)
        .ok_or(ImageError::OutsideMemory)?;
    if header.p_memsz < header.p_filesz {
        return Err(ImageError::NotElf);
    }
    if end > memory.min(MemoryMap::HOLE) {
        return Err(ImageError::OutsideMemory);
    }
    Ok(Segment {
        address: GuestAddress(header.p_paddr),
        file,
        memory_size: header.p_memsz,
    })
}

/// The entry point that the notes name: a sequence of three words (length of name, length of content, type), name and content, each padded to a
/// multiple of 4 bytes. Linux writes an 8-byte address, others 4 bytes.
fn pvh_entry(mut notes: &[u8]) -> Option<u64> {
    loop {
        let word = |index: usize| {
            Some(u32::from_le_bytes(
                notes.get(4 * index..4 * index + 4)?.try_into().ok()?,
            ))
        };
        let (name_length, length, kind) = (word(0)? as usize, word(1)? as usize, word(2)?);
        let content_at = 12 + name_length.next_multiple_of(4);
        let name = notes.get(12..12 + name_length)?;
        let content = notes.get(content_at..content_at + length)?;
        if kind == XEN_ELFNOTE_PHYS32_ENTRY && name.strip_suffix(&[0]) == Some(XEN_ELFNOTE_NAME.as_bytes()) {
            return match *content {
                [a, b, c, d] => Some(u64::from(u32::from_le_bytes([a, b, c, d]))),
                [a, b, c, d, 0, 0, 0, 0] => Some(u64::from(u32::from_le_bytes([a, b, c, d]))),
                _ => None,
            };
        }
        notes = notes.get(content_at + length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// A note named `Xen`.
    fn note(kind: u32, content: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        note.extend(4u32.to_le_bytes());
        note.extend((content.len() as u32).to_le_bytes());
        note.extend(kind.to_le_bytes());
        note.extend(b"Xen\0");
        note.extend(content);
        note.resize(note.len().next_multiple_of(4), 0);
        note
    }

    /// A program header: type, file offset, address, bytes in the file, bytes in memory.
    type Header = (u32, u64, u64, u64, u64);

    /// An ELF file with these program headers, and `content` at 0x1000.
    fn elf(headers: &[Header], content: &[u8]) -> Vec<u8> {
        let mut image = Vec::new();
        image.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        image.extend(2u16.to_le_bytes());
        image.extend(62u16.to_le_bytes());
        image.extend(1u32.to_le_bytes());
        image.extend([0; 8]);
        image.extend(64u64.to_le_bytes());
        image.extend([0; 8 + 4]);
        for half in [64, 56, headers.len() as u16, 64, 0, 0] {
            image.extend(half.to_le_bytes());
        }
        for (kind, offset, address, file, memory) in headers {
            image.extend(kind.to_le_bytes());
            image.extend(7u32.to_le_bytes());
            for value in [
                *offset,
                0xffff_ffff_8000_0000u64.wrapping_add(*address),
                *address,
                *file,
                *memory,
                0x1000,
            ] {
                image.extend(value.to_le_bytes());
            }
        }
        image.resize(0x1000, 0);
        image.extend(content);
        image
    }

    fn kernel_image() -> Vec<u8> {
        let mut content = note(6, b"Linux\0");
        content.extend(note(18, &0x100_0200u64.to_le_bytes()));
        let notes = content.len() as u64;
        content.resize(0x400, 0xcc);
        elf(
            &[
                (1, 0x1000, 0x100_0000, 0x400, 0x1000),
                (4, 0x1000, 0, notes, notes),
                (1, 0x1200, 0x80_0000, 0x100, 0x100),
            ],
            &content,
        )
    }

    #[test]
    fn a_kernel_is_understood() {
        let kernel = Kernel::parse(&kernel_image(), 64 * MIB).unwrap();
        assert_eq!(kernel.entry, GuestAddress(0x100_0200));
        assert_eq!(kernel.end(), GuestAddress(0x100_1000));
        assert_eq!(
            kernel.segments,
            [
                Segment {
                    address: GuestAddress(0x80_0000),
                    file: 0x1200..0x1300,
                    memory_size: 0x100
                },
                Segment {
                    address: GuestAddress(0x100_0000),
                    file: 0x1000..0x1400,
                    memory_size: 0x1000
                },
            ]
        );
    }

    #[test]
    fn a_four_byte_entry_is_understood() {
        let content = note(18, &0x10_0010u32.to_le_bytes());
        let length = content.len() as u64;
        let image = elf(
            &[
                (4, 0x1000, 0, length, length),
                (1, 0x1000, 0x10_0000, length, MIB),
            ],
            &content,
        );
        assert_eq!(
            Kernel::parse(&image, 64 * MIB).unwrap().entry,
            GuestAddress(0x10_0010)
        );
    }

    #[test]
    fn bad_images_have_their_reasons() {
        let parse = |headers: &[Header]| {
            let content = note(18, &0x10_0010u32.to_le_bytes());
            Kernel::parse(&elf(headers, &content), 64 * MIB).unwrap_err()
        };
        let note = (4, 0x1000, 0, 20, 20);
        assert_eq!(Kernel::parse(b"", 64 * MIB), Err(ImageError::NotElf));
        assert_eq!(
            Kernel::parse(&kernel_image(), 16 * MIB),
            Err(ImageError::OutsideMemory)
        );
        assert_eq!(parse(&[(1, 0x1000, 0x10_0000, 20, 0x1000)]), ImageError::NoEntry);
        assert_eq!(parse(&[note]), ImageError::OutsideMemory);
        assert_eq!(
            parse(&[note, (1, 0x1000, 0x10_0000, 21, 0x1000)]),
            ImageError::NotElf
        );
        assert_eq!(parse(&[note, (1, 0x1000, 0x10_0000, 20, 19)]), ImageError::NotElf);
        assert_eq!(
            parse(&[note, (1, u64::MAX, 0x10_0000, 20, 20)]),
            ImageError::NotElf
        );
        assert_eq!(
            parse(&[note, (1, 0x1000, u64::MAX, 20, 20)]),
            ImageError::OutsideMemory
        );
        assert_eq!(
            parse(&[note, (1, 0x1000, 0x20_0000, 20, 20)]),
            ImageError::OutsideMemory
        );
        assert_eq!(
            parse(&[
                note,
                (1, 0x1000, 0x10_0000, 20, 0x1000),
                (1, 0x1000, 0x10_0fff, 1, 1)
            ]),
            ImageError::OutsideMemory
        );
    }

    /// A bzImage with one setup sector around `payload`.
    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = alloc::vec![0; 0x400];
        image[0x1f1] = 1;
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&0x10u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend([0; 0x10]);
        image.extend(payload);
        image
    }

    #[test]
    fn a_bzimage_is_opened_if_it_is_not_compressed() {
        assert_eq!(
            Kernel::parse(&bzimage(b"\x28\xb5\x2f\xfd"), 64 * MIB),
            Err(ImageError::Compressed)
        );
        let kernel = Kernel::parse(&bzimage(&kernel_image()), 64 * MIB).unwrap();
        assert_eq!(kernel.segments[1].file, 0x1410..0x1810);
        let mut truncated = bzimage(&kernel_image());
        truncated.truncate(0x1000);
        assert_eq!(Kernel::parse(&truncated, 64 * MIB), Err(ImageError::NotElf));
    }

    fn check(image: &[u8]) {
        let Ok(kernel) = Kernel::parse(image, 64 * MIB) else {
            return;
        };
        assert!(kernel.end().0 <= 64 * MIB);
        for segment in &kernel.segments {
            assert!(segment.file.end <= image.len());
            assert!(segment.file.len() as u64 <= segment.memory_size);
        }
    }

    proptest! {
        #[test]
        fn damaged_images_never_panic(damage in prop::collection::vec((0usize..0x1430, any::<u8>()), 0..20), cut in 0usize..0x1430) {
            let mut image = kernel_image();
            for (offset, value) in damage {
                if let Some(byte) = image.get_mut(offset) {
                    *byte = value;
                }
            }
            check(&image);
            check(&bzimage(&image));
            image.truncate(cut);
            check(&image);
        }

        #[test]
        fn odd_headers_never_panic(headers in prop::collection::vec((0u32..6, 0u64.., 0u64.., 0u64.., 0u64..), 0..6)) {
            check(&elf(&headers, &note(18, &[0; 4])));
        }

        #[test]
        fn notes_never_panic(notes: Vec<u8>) {
            pvh_entry(&notes);
        }
    }
}

//! ELF executables as the machine loads them: what they need, and without what only tools read.

use elf::{ElfBytes, abi, endian::LittleEndian, segment::ProgramHeader};

use crate::{Error, Result};

/// Type of the ELF note that names a kernel's PVH entry.
const PVH_ENTRY_NOTE: u64 = 18;
const HEADER_LENGTH: usize = 64;
const PROGRAM_HEADER_LENGTH: usize = 56;
const PAGE: usize = 4096;
/// Shorter runs of zeros are not worth a segment of their own.
const ZERO_RUN: usize = 16 * PAGE;

/// An executable for the bare machine, its headers checked.
pub struct Executable<'a> {
    bytes: &'a [u8],
    loads: Vec<ProgramHeader>,
    notes: Vec<ProgramHeader>,
    has_pvh_entry: bool,
}

impl<'a> Executable<'a> {
    /// Reads the headers of the executable that `name` stands for.
    pub fn parse(name: &str, bytes: &'a [u8]) -> Result<Self> {
        let refuse = |why: &str| {
            Error::other(
                format!("{name} cannot be loaded: {why}"),
                "a static ELF64 executable for x86_64 is needed, such as a vmlinux or a program for x86_64-unknown-none",
            )
        };
        let file =
            ElfBytes::<LittleEndian>::minimal_parse(bytes).map_err(|cause| refuse(&cause.to_string()))?;
        if file.ehdr.e_machine != abi::EM_X86_64 || file.ehdr.class != elf::file::Class::ELF64 {
            return Err(refuse("it is no ELF64 for x86_64"));
        }
        let segments = file
            .segments()
            .ok_or_else(|| refuse("it has no program headers"))?;
        let loads: Vec<_> = segments
            .iter()
            .filter(|load| load.p_type == abi::PT_LOAD && load.p_memsz != 0)
            .collect();
        let notes: Vec<_> = segments
            .iter()
            .filter(|note| note.p_type == abi::PT_NOTE)
            .collect();
        if loads.is_empty() {
            return Err(refuse("it has nothing to load"));
        }
        for segment in loads.iter().chain(&notes) {
            let fits = usize::try_from(segment.p_offset)
                .ok()
                .zip(usize::try_from(segment.p_filesz).ok())
                .and_then(|(start, length)| bytes.get(start..start.checked_add(length)?))
                .is_some();
            let sane = segment.p_filesz <= segment.p_memsz.max(segment.p_filesz)
                && segment.p_paddr.checked_add(segment.p_memsz).is_some();
            if !fits || !sane {
                return Err(refuse("it is cut short"));
            }
        }
        let is_pvh = |note: elf::note::Note| matches!(note, elf::note::Note::Unknown(note) if note.n_type == PVH_ENTRY_NOTE && note.name.starts_with(b"Xen"));
        let has_pvh_entry = notes.iter().any(|segment| {
            file.segment_data_as_notes(segment)
                .is_ok_and(|mut notes| notes.any(is_pvh))
        });
        Ok(Self {
            bytes,
            loads,
            notes,
            has_pvh_entry,
        })
    }

    /// Whether it names an entry by PVH.
    pub fn has_pvh_entry(&self) -> bool {
        self.has_pvh_entry
    }

    /// The physical address after its last byte in memory.
    pub fn end(&self) -> u64 {
        self.loads
            .iter()
            .map(|load| load.p_paddr + load.p_memsz)
            .max()
            .unwrap_or(0)
    }

    /// The same executable without sections, symbols and debug information, and without the zeros that a loader makes anyway.
    pub fn compact(&self) -> Vec<u8> {
        let pieces: Vec<ProgramHeader> = self.loads.iter().flat_map(|load| self.split(load)).collect();
        let headers = pieces.len() + self.notes.len();
        let mut bytes = self.bytes[..HEADER_LENGTH].to_vec();
        bytes[32..40].copy_from_slice(&(HEADER_LENGTH as u64).to_le_bytes());
        bytes[40..48].fill(0);
        bytes[56..58].copy_from_slice(&(headers as u16).to_le_bytes());
        bytes[58..64].fill(0);
        bytes.resize(HEADER_LENGTH + headers * PROGRAM_HEADER_LENGTH, 0);
        // Notes come first and stay small, so that a loader which looks only at the start of a file finds them.
        for (index, segment) in self.notes.iter().chain(&pieces).enumerate() {
            let content = self.content(segment);
            let place = bytes.len().next_multiple_of(8);
            // Loaders map by pages: file and memory agree in the bits below.
            let within = segment.p_paddr as usize % PAGE;
            let place = match segment.p_type {
                abi::PT_LOAD if place % PAGE <= within => place - place % PAGE + within,
                abi::PT_LOAD => place.next_multiple_of(PAGE) + within,
                _ => place,
            };
            if !content.is_empty() {
                bytes.resize(place, 0);
                bytes.extend_from_slice(content);
            }
            let align = if segment.p_type == abi::PT_LOAD {
                PAGE as u64
            } else {
                segment.p_align
            };
            let at = HEADER_LENGTH + index * PROGRAM_HEADER_LENGTH;
            let header = &mut bytes[at..at + PROGRAM_HEADER_LENGTH];
            header[..4].copy_from_slice(&segment.p_type.to_le_bytes());
            header[4..8].copy_from_slice(&segment.p_flags.to_le_bytes());
            let place = if content.is_empty() { within } else { place };
            let fields = [
                place as u64,
                segment.p_vaddr,
                segment.p_paddr,
                segment.p_filesz,
                segment.p_memsz,
                align,
            ];
            for (field, slot) in fields.iter().zip(header[8..].chunks_exact_mut(8)) {
                slot.copy_from_slice(&field.to_le_bytes());
            }
        }
        bytes
    }

    fn content(&self, segment: &ProgramHeader) -> &'a [u8] {
        &self.bytes[segment.p_offset as usize..(segment.p_offset + segment.p_filesz) as usize]
    }

    /// Cuts a segment where long runs of zeros begin: each piece is its content followed by the zeros up to the next one.
    fn split(&self, load: &ProgramHeader) -> Vec<ProgramHeader> {
        let content = self.content(load);
        let mut pieces = Vec::new();
        let mut start = 0;
        loop {
            let (end, next) = content_run(content, start);
            let last = next == content.len();
            let memory_end = if last { load.p_memsz as usize } else { next };
            pieces.push(ProgramHeader {
                p_offset: load.p_offset + start as u64,
                p_vaddr: load.p_vaddr + start as u64,
                p_paddr: load.p_paddr + start as u64,
                p_filesz: (end - start) as u64,
                p_memsz: (memory_end - start) as u64,
                ..*load
            });
            if last {
                return pieces;
            }
            start = next;
        }
    }
}

/// Where the content that begins at `start` gives way to a long run of zeros (or to the end), and where that run ends.
fn content_run(content: &[u8], start: usize) -> (usize, usize) {
    let (mut end, mut at) = (start, start);
    while at < content.len() {
        let page = &content[at..content.len().min(at + PAGE)];
        let used = page
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        if used != 0 {
            if at - end >= ZERO_RUN {
                return (end, at);
            }
            end = at + used;
        }
        at += page.len();
    }
    (end, content.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An executable of one segment at 1 MiB, with a PVH note and something that only tools read.
    fn sample(content: &[u8], memory: u64) -> Vec<u8> {
        let mut note = Vec::new();
        for word in [4u32, 8, PVH_ENTRY_NOTE as u32] {
            note.extend_from_slice(&word.to_le_bytes());
        }
        note.extend_from_slice(b"Xen\0");
        note.extend_from_slice(&0x10_0000u64.to_le_bytes());
        let mut bytes = vec![0; 0x1000];
        bytes[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        bytes[16..20].copy_from_slice(&[2, 0, 62, 0]);
        bytes[20..24].copy_from_slice(&1u32.to_le_bytes());
        bytes[24..32].copy_from_slice(&0x10_0000u64.to_le_bytes());
        bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
        bytes[52..58].copy_from_slice(&[64, 0, 56, 0, 2, 0]);
        let mut header = |index: usize, kind: u32, fields: [u64; 6]| {
            let at = 64 + index * 56;
            bytes[at..at + 4].copy_from_slice(&kind.to_le_bytes());
            bytes[at + 4..at + 8].copy_from_slice(&5u32.to_le_bytes());
            for (index, field) in fields.iter().enumerate() {
                bytes[at + 8 + 8 * index..at + 16 + 8 * index].copy_from_slice(&field.to_le_bytes());
            }
        };
        let address = 0xffff_ffff_8010_0000;
        header(
            0,
            abi::PT_LOAD,
            [
                0x1000,
                address,
                0x10_0000,
                content.len() as u64,
                memory,
                0x20_0000,
            ],
        );
        let notes_at = 0x1000 + content.len() as u64;
        header(
            1,
            abi::PT_NOTE,
            [
                notes_at,
                address,
                0x10_0000,
                note.len() as u64,
                note.len() as u64,
                4,
            ],
        );
        bytes.extend_from_slice(content);
        bytes.extend_from_slice(&note);
        bytes.extend_from_slice(&[7; 5000]);
        bytes
    }

    fn loaded(bytes: &[u8]) -> Vec<u8> {
        let executable = Executable::parse("sample", bytes).unwrap();
        let mut memory = vec![0; (executable.end() - 0x10_0000) as usize];
        for load in &executable.loads {
            let content = executable.content(load);
            assert!(content.is_empty() || load.p_offset % 4096 == load.p_paddr % 4096);
            assert_eq!(load.p_vaddr - load.p_paddr, 0xffff_ffff_8000_0000);
            let at = (load.p_paddr - 0x10_0000) as usize;
            memory[at..at + content.len()].copy_from_slice(content);
        }
        memory
    }

    #[test]
    fn a_compact_executable_loads_the_same() {
        let mut content = vec![1; 5000];
        content.resize(300_000, 0);
        content.extend_from_slice(&[2; 100]);
        content.resize(700_000, 0);
        let bytes = sample(&content, 800_000);
        let executable = Executable::parse("sample", &bytes).unwrap();
        assert!(executable.has_pvh_entry());
        assert_eq!(executable.end(), 0x10_0000 + 800_000);
        let compact = executable.compact();
        assert!(compact.len() < 30_000, "{} bytes", compact.len());
        assert!(Executable::parse("compact", &compact).unwrap().has_pvh_entry());
        assert_eq!(loaded(&bytes), loaded(&compact));
    }

    #[test]
    fn a_segment_may_start_with_zeros_or_have_none() {
        for content in [
            vec![0; 200_000],
            [vec![0; 200_000], vec![1; 10]].concat(),
            vec![3; 70_000],
            Vec::new(),
        ] {
            let bytes = sample(&content, 300_000);
            let compact = Executable::parse("sample", &bytes).unwrap().compact();
            assert_eq!(loaded(&bytes), loaded(&compact));
        }
    }

    #[test]
    fn refuses_what_cannot_be_loaded() {
        let bytes = sample(&[1; 100], 100);
        let refused = |bytes: &[u8]| {
            Executable::parse("sample", bytes)
                .err()
                .expect("was accepted")
                .to_string()
        };
        assert!(refused(b"MZ").starts_with("sample cannot be loaded"));
        assert!(refused(&bytes[..0x1010]).contains("cut short"));
        let mut other = bytes.clone();
        other[18] = 3;
        assert!(refused(&other).contains("no ELF64 for x86_64"));
    }
}

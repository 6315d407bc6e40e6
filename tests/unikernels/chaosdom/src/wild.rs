//! Wild values: what a hostile guest passes where a pointer, a frame, a length or a domain is expected.
//!
//! The promise that keeps the domain itself alive: what names memory of its own names the arena or frames that were set aside for it, never code,
//! heap or stack. The arena is mapped a second time at [`ARENA`], with a hole behind it, so that no array that begins there runs into anything else.

use core::ops::Range;

use crate::Random;

/// Where the arena is seen by wild pointers.
pub const ARENA: u64 = 1 << 40;
/// Pages of the arena.
pub const ARENA_PAGES: u64 = 64;
/// Its first page once more, not to be written.
pub const READ_ONLY: u64 = ARENA + (ARENA_PAGES + 1) * PAGE;
/// Pages whose entries in the page tables are nonsense, so many.
pub const NONSENSE: u64 = ARENA + 256 * PAGE;
/// Entries of nonsense.
pub const NONSENSE_PAGES: u64 = 256;

const PAGE: u64 = 4096;
/// Frames below the image, of which nothing is needed any more.
const LOW_FRAMES: u64 = 0x100;
/// Frames behind all memory, where things can be put.
const EMPTY_FRAMES: Range<u64> = 0x800_0000..0x800_0400;

/// The domain's own memory that may come to harm.
#[derive(Clone, Debug)]
pub struct Wild {
    /// Frames that it can lose.
    pub victims: Range<u64>,
}

impl Wild {
    /// A guest-virtual address.
    pub fn pointer(&self, random: &mut Random) -> u64 {
        let arena = ARENA_PAGES * PAGE;
        match random.below(16) {
            0..=8 => ARENA + random.below(arena / 8) * 8,
            9 => ARENA + random.below(arena),
            10 => ARENA + arena - random.below(64),
            11 => READ_ONLY - PAGE + random.below(3 * PAGE),
            12 => NONSENSE + random.below(NONSENSE_PAGES * PAGE),
            13 | 14 => random.one_of(&[
                0,
                8,
                0xfff,
                u64::MAX,
                u64::MAX - 7,
                (1 << 47) - 8,
                1 << 47,
                0xffff_8000_0000_0000,
                0xffff_8880_0000_0000,
                0xffff_ffff_8000_0000,
                0xfee0_0000,
            ]),
            _ => random.word(),
        }
    }

    /// A guest frame.
    pub fn frame(&self, random: &mut Random) -> u64 {
        match random.below(16) {
            0..=8 => self.victim(random),
            9 => random.below(LOW_FRAMES),
            10..=13 => EMPTY_FRAMES.start + random.below(EMPTY_FRAMES.end - EMPTY_FRAMES.start),
            14 => random.one_of(&[
                0xfee00,
                0xfefff,
                0xf_ffff,
                (1 << 28) - 1,
                1 << 28,
                1 << 36,
                (1 << 52) - 1,
                u64::MAX >> 12,
                u64::MAX,
            ]),
            _ => random.word() | 1 << 24,
        }
    }

    /// A frame of its own that it can lose.
    pub fn victim(&self, random: &mut Random) -> u64 {
        self.victims.start + random.below(self.victims.end - self.victims.start)
    }

    /// A domain id.
    pub fn domain(&self, random: &mut Random) -> u16 {
        match random.below(8) {
            0..=2 => 0x7ff0,
            3..=6 => random.below(20) as u16,
            _ => random.one_of(&[0x7ff1, 0x7ff2, 0x7ff3, 0x7ff4, 0x7fff, 0x8000, 0xffff]),
        }
    }

    /// A small number: an operation, an index, a port, a count.
    pub fn small(&self, random: &mut Random) -> u64 {
        random.below(200)
    }

    /// Whatever stands in a field of a structure.
    pub fn word(&self, random: &mut Random) -> u64 {
        match random.below(16) {
            0..=2 => self.small(random),
            3..=4 => self.small(random) | self.small(random) << 32,
            5 => u64::from(self.domain(random)),
            6 => u64::from(self.domain(random)) | self.small(random) << 16 | (self.small(random) + 1) << 32,
            7..=9 => self.pointer(random),
            10..=12 => self.frame(random),
            13 => random.one_of(&[
                0,
                1,
                4095,
                4096,
                4097,
                i32::MAX as u64,
                1 << 31,
                u32::MAX as u64,
                1 << 32,
                i64::MAX as u64,
                1 << 63,
                u64::MAX,
            ]),
            14 => 0,
            _ => random.word(),
        }
    }

    /// A length or a count.
    pub fn count(&self, random: &mut Random) -> u64 {
        match random.below(8) {
            0..=3 => random.below(8),
            4 => random.below(5000),
            5 => random.one_of(&[
                i32::MAX as u64,
                1 << 31,
                u32::MAX as u64,
                1 << 32,
                u64::MAX,
                i64::MAX as u64,
            ]),
            6 => random.word() & u64::from(u32::MAX),
            _ => random.word(),
        }
    }

    /// An entry of the page tables that is no good: not there, to nowhere, with bits that must not be set, or to a page that can be lost.
    pub fn entry(&self, random: &mut Random) -> u64 {
        let flags = random.word() & 0xfff | random.below(2);
        match random.below(4) {
            0 => self.victim(random) << 12 | flags,
            1 => self.frame(random) << 12 | flags,
            2 => random.word() | 1 << 48,
            _ => flags & !1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_needed_is_named() {
        let wild = Wild {
            victims: 0x300..0x380,
        };
        let mut random = Random::new(1);
        let ram = 0x100..0x400_u64;
        let spared = |frame: u64| !ram.contains(&frame) || wild.victims.contains(&frame);
        for _ in 0..200_000 {
            let pointer = wild.pointer(&mut random);
            assert!(!(0x1000..0x40_0000).contains(&pointer), "{pointer:#x}");
            assert!(spared(wild.frame(&mut random)));
            // As an address, and as a frame.
            let word = wild.word(&mut random);
            assert!(!(0x10_0000..0x400_0000).contains(&word), "{word:#x}");
            assert!(spared(word), "{word:#x}");
        }
    }
}

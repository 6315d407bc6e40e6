//! The frames of machine memory that nobody holds: one bit a frame.
//!
//! Single frames come from the bottom and runs from the top, so that the small allocations of every day do not break up the memory that a
//! domain with devices needs in one piece. Frames are handed out with whatever they last held: whoever passes one to a domain fills or zeroes
//! it first. Giving back a frame that is free already, or that never was one, is a bug of the hypervisor and panics.

use alloc::{vec, vec::Vec};

use super::Frame;

const BITS: u64 = u64::BITS as u64;

/// Frames that nobody holds.
pub struct FrameAllocator {
    /// A set bit is a free frame.
    free: Vec<u64>,
    /// A set bit is a frame that was given to the allocator in the first place.
    managed: Vec<u64>,
    /// No word below this one has a free frame.
    lowest: usize,
    free_pages: u64,
    total_pages: u64,
}

impl FrameAllocator {
    /// An allocator of the given ranges (first frame, count), which do not overlap. Its own tables take two bits a frame, from the heap.
    pub fn new(ranges: &[(Frame, u64)]) -> Self {
        let end = ranges
            .iter()
            .map(|(first, count)| first.0 + count)
            .max()
            .unwrap_or(0);
        let words = end.div_ceil(BITS) as usize;
        let mut this = Self {
            free: vec![0; words],
            managed: vec![0; words],
            lowest: 0,
            free_pages: 0,
            total_pages: 0,
        };
        for &(first, count) in ranges {
            assert!(
                !any_set(&this.managed, first.0, count),
                "memory ranges overlap at frame {:#x}",
                first.0
            );
            set(&mut this.managed, first.0, count);
            set(&mut this.free, first.0, count);
            this.free_pages += count;
        }
        this.total_pages = this.free_pages;
        this
    }

    /// A frame, from the bottom of memory.
    pub fn allocate(&mut self) -> Option<Frame> {
        while self.lowest < self.free.len() {
            let word = self.free[self.lowest];
            if word != 0 {
                let frame = self.lowest as u64 * BITS + u64::from(word.trailing_zeros());
                self.free[self.lowest] = word & (word - 1);
                self.free_pages -= 1;
                return Some(Frame(frame));
            }
            self.lowest += 1;
        }
        None
    }

    /// `count` frames in one piece, the first a multiple of `align` (a power of two), from the top of memory.
    pub fn allocate_contiguous(&mut self, count: u64, align: u64) -> Option<Frame> {
        assert!(count > 0 && align.is_power_of_two());
        let end = self.free.len() as u64 * BITS;
        let mut first = end.checked_sub(count)? & !(align - 1);
        loop {
            match highest_clear(&self.free, first, count) {
                None => {
                    clear(&mut self.free, first, count);
                    self.free_pages -= count;
                    return Some(Frame(first));
                }
                // Nothing that contains the taken frame can do: end below it.
                Some(taken) => first = taken.checked_sub(count)? & !(align - 1),
            }
        }
    }

    /// Takes back `count` frames from `first`.
    pub fn free(&mut self, first: Frame, count: u64) {
        assert!(
            highest_clear(&self.managed, first.0, count).is_none(),
            "frame {:#x} was never free",
            first.0
        );
        assert!(
            !any_set(&self.free, first.0, count),
            "frame {:#x} is free already",
            first.0
        );
        set(&mut self.free, first.0, count);
        self.free_pages += count;
        self.lowest = self.lowest.min((first.0 / BITS) as usize);
    }

    /// Frames that nobody holds.
    pub const fn free_pages(&self) -> u64 {
        self.free_pages
    }

    /// Frames that there were at boot, beside the hypervisor's own and the bundle.
    pub const fn total_pages(&self) -> u64 {
        self.total_pages
    }

    /// Whether the frame belongs to the memory that domains are given from (and so not to the hypervisor, a device or a hole).
    pub fn manages(&self, frame: Frame) -> bool {
        self.managed
            .get((frame.0 / BITS) as usize)
            .is_some_and(|word| word & (1 << (frame.0 % BITS)) != 0)
    }
}

/// The pieces of `first .. first + count` that lie in one word each: its index and the mask in it.
fn pieces(first: u64, count: u64) -> impl DoubleEndedIterator<Item = (usize, u64)> {
    let end = first + count;
    let words = if count == 0 {
        0..0
    } else {
        first / BITS..(end - 1) / BITS + 1
    };
    words.map(move |word| {
        let low = first.max(word * BITS) - word * BITS;
        let high = end.min((word + 1) * BITS) - word * BITS;
        (word as usize, (u64::MAX >> (BITS - (high - low))) << low)
    })
}

fn set(words: &mut [u64], first: u64, count: u64) {
    pieces(first, count).for_each(|(word, mask)| words[word] |= mask);
}

fn clear(words: &mut [u64], first: u64, count: u64) {
    pieces(first, count).for_each(|(word, mask)| words[word] &= !mask);
}

fn any_set(words: &[u64], first: u64, count: u64) -> bool {
    pieces(first, count).any(|(word, mask)| words.get(word).is_some_and(|bits| bits & mask != 0))
}

/// The highest bit of the range that is clear; beyond the table all are.
fn highest_clear(words: &[u64], first: u64, count: u64) -> Option<u64> {
    pieces(first, count).rev().find_map(|(word, mask)| {
        let clear = !words.get(word).copied().unwrap_or(0) & mask;
        (clear != 0).then(|| word as u64 * BITS + u64::from(clear.ilog2()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn single_frames_come_from_the_bottom_and_runs_from_the_top() {
        let mut frames = FrameAllocator::new(&[(Frame(3), 100), (Frame(512), 512)]);
        assert_eq!(frames.allocate(), Some(Frame(3)));
        assert_eq!(frames.allocate_contiguous(256, 256), Some(Frame(768)));
        assert_eq!(frames.allocate_contiguous(256, 256), Some(Frame(512)));
        assert_eq!(frames.allocate_contiguous(256, 1), None);
        assert_eq!(frames.allocate_contiguous(99, 1), Some(Frame(4)));
        assert_eq!(frames.allocate(), None);
        frames.free(Frame(10), 1);
        assert_eq!((frames.allocate(), frames.free_pages()), (Some(Frame(10)), 0));
        assert!(frames.manages(Frame(102)) && !frames.manages(Frame(103)) && !frames.manages(Frame(1 << 40)));
    }

    #[test]
    #[should_panic(expected = "free already")]
    fn a_double_free_is_a_bug() {
        FrameAllocator::new(&[(Frame(0), 8)]).free(Frame(2), 1);
    }

    #[test]
    #[should_panic(expected = "never free")]
    fn a_foreign_frame_is_a_bug() {
        FrameAllocator::new(&[(Frame(0), 8)]).free(Frame(7), 2);
    }

    proptest! {
        /// Against a set as the model: never a frame twice, never one that was not given, all come back.
        #[test]
        fn agrees_with_a_set(ranges in proptest::collection::btree_set(0u64..40, 1..8), steps in proptest::collection::vec((0u8..3, 1u64..70, 0u32..7), 0..120)) {
            let ranges: Vec<_> = ranges.into_iter().map(|slot| (Frame(slot * 50 + 7), 37 + slot % 14)).collect();
            let mut free: BTreeSet<u64> = ranges.iter().flat_map(|(first, count)| first.0..first.0 + count).collect();
            let all = free.clone();
            let mut frames = FrameAllocator::new(&ranges);
            let mut held: Vec<(u64, u64)> = vec![];
            for (what, count, align) in steps {
                match what {
                    0 => match frames.allocate() {
                        Some(frame) => {
                            prop_assert_eq!(free.first(), Some(&frame.0));
                            free.remove(&frame.0);
                            held.push((frame.0, 1));
                        }
                        None => prop_assert!(free.is_empty()),
                    },
                    1 => {
                        let align = 1u64 << align;
                        let possible = all.iter().any(|first| first % align == 0 && (*first..first + count).all(|f| free.contains(&f)));
                        match frames.allocate_contiguous(count, align) {
                            Some(first) => {
                                prop_assert_eq!(first.0 % align, 0);
                                for frame in first.0..first.0 + count {
                                    prop_assert!(free.remove(&frame));
                                }
                                held.push((first.0, count));
                            }
                            None => prop_assert!(!possible),
                        }
                    }
                    _ => if !held.is_empty() {
                        let (first, count) = held.swap_remove(count as usize % held.len());
                        frames.free(Frame(first), count);
                        free.extend(first..first + count);
                    },
                }
                prop_assert_eq!(frames.free_pages(), free.len() as u64);
            }
        }
    }
}

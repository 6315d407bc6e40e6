//! The frames of machine memory that nobody holds, by bits.
//!
//! Single frames come from the bottom and runs from the top, so that the small allocations of every day do not break up the memory that a
//! domain with devices needs in one piece. Frames are handed out with whatever they last held: whoever passes one to a domain fills or zeroes
//! it first, unless it is known to be zero ([`FrameAllocator::was_clean`]). What is given back is scrubbed by processors that have nothing else to do
//! ([`FrameAllocator::scrub`]), and some memory ahead, so that a domain that is built anew need not wait for it. Giving back a frame that is free already, or that never was one, is a bug of the hypervisor and panics.

use alloc::{vec, vec::Vec};

use super::{DirectMap, Frame, PAGE_SIZE};

const BITS: u64 = u64::BITS as u64;
/// Frames that are scrubbed in one piece: some microseconds of work.
const SCRUB_PIECE: u64 = 8;
/// Free frames that are kept zeroed as far as idle processors get to it; what was given back is scrubbed in any case.
const SCRUB_AHEAD: u64 = (64 << 20) / PAGE_SIZE;
/// Frames in 2 MiB.
const RUN: u64 = 512;

/// Frames that nobody holds.
pub struct FrameAllocator {
    /// A set bit is a free frame.
    free: Vec<u64>,
    /// A set bit is a frame that was given to the allocator in the first place.
    managed: Vec<u64>,
    /// A set bit is a frame that is zero, or was when it was handed out.
    clean: Vec<u64>,
    /// A set bit is a free frame that was given back and has not been scrubbed since.
    stale: Vec<u64>,
    stale_pages: u64,
    /// No word below this one has a stale frame.
    lowest_stale: usize,
    /// Free frames that are zero.
    clean_pages: u64,
    /// No free frame from here on needs scrubbing, but for stale ones.
    scrubbed_from: u64,
    /// No word below this one has a free frame.
    lowest: usize,
    free_pages: u64,
    total_pages: u64,
}

impl FrameAllocator {
    /// An allocator of the given ranges (first frame, count), which do not overlap. Its own tables take four bits a frame, from the heap.
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
            clean: vec![0; words],
            stale: vec![0; words],
            stale_pages: 0,
            lowest_stale: 0,
            clean_pages: 0,
            scrubbed_from: words as u64 * BITS,
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
                let frame = Frame(self.lowest as u64 * BITS + u64::from(word.trailing_zeros()));
                self.take(frame, 1);
                return Some(frame);
            }
            self.lowest += 1;
        }
        None
    }

    /// `count` frames in one piece, the first a multiple of `align` (a power of two), from the top of memory.
    pub fn allocate_contiguous(&mut self, count: u64, align: u64) -> Option<Frame> {
        assert!(count > 0 && align.is_power_of_two());
        let first = self
            .highest_run(count, align, |this, word| this.free[word] & this.clean[word])
            .or_else(|| self.highest_run(count, align, |this, word| this.free[word]))?;
        self.take(first, count);
        Some(first)
    }

    /// The highest run of frames whose bits are set in the words that `bits` answers.
    fn highest_run(&self, count: u64, align: u64, bits: fn(&Self, usize) -> u64) -> Option<Frame> {
        let end = self.free.len() as u64 * BITS;
        let mut first = end.checked_sub(count)? & !(align - 1);
        loop {
            match highest_clear(|word| bits(self, word), self.free.len(), first, count) {
                None => return Some(Frame(first)),
                // Nothing that contains the taken frame can do: end below it.
                Some(taken) => first = taken.checked_sub(count)? & !(align - 1),
            }
        }
    }

    /// A frame that is zero.
    pub fn allocate_zeroed(&mut self, memory: &DirectMap) -> Option<Frame> {
        let frame = self.allocate()?;
        self.make_clean(memory, frame);
        Some(frame)
    }

    /// A frame that is zero: `wanted` if that is free, and otherwise, or without a wish, one whose neighbours in its 2 MiB are free, too, at the place
    /// `index` of it, if there is such a one.
    pub fn allocate_beside(
        &mut self,
        memory: &DirectMap,
        wanted: Option<Frame>,
        index: u64,
    ) -> Option<Frame> {
        let frame = match wanted {
            Some(frame) => Some(frame).filter(|frame| any_set(&self.free, frame.0, 1)),
            None => self.lowest_run().map(|first| Frame(first.0 + index % RUN)),
        };
        match frame {
            Some(frame) => {
                self.take(frame, 1);
                self.make_clean(memory, frame);
                Some(frame)
            }
            None => self.allocate_zeroed(memory),
        }
    }

    /// The lowest aligned 2 MiB that are wholly free.
    fn lowest_run(&self) -> Option<Frame> {
        let words = (RUN / BITS) as usize;
        let first = self.lowest / words;
        self.free
            .chunks_exact(words)
            .enumerate()
            .skip(first)
            .find(|(_, words)| words.iter().all(|word| *word == u64::MAX))
            .map(|(run, _)| Frame(run as u64 * RUN))
    }

    fn make_clean(&self, memory: &DirectMap, frame: Frame) {
        if !self.was_clean(frame) {
            memory.zero(frame.address(), PAGE_SIZE as usize);
        }
    }

    /// Whether a frame was zero when it was handed out: to be asked before anybody writes it.
    pub fn was_clean(&self, frame: Frame) -> bool {
        any_set(&self.clean, frame.0, 1)
    }

    /// Takes free frames out.
    fn take(&mut self, first: Frame, count: u64) {
        clear(&mut self.free, first.0, count);
        self.free_pages -= count;
        self.clean_pages -= count_set(&self.clean, first.0, count);
        if self.stale_pages > 0 {
            self.stale_pages -= count_set(&self.stale, first.0, count);
            clear(&mut self.stale, first.0, count);
        }
    }

    /// Zeroes a few free frames: those that were given back first, then some ahead of whoever needs them. False if there is nothing to do.
    pub fn scrub(&mut self, memory: &DirectMap) -> bool {
        let Some(first) = self.next_stale().or_else(|| self.next_ahead()) else {
            return false;
        };
        // Of the frames that follow, those that need it.
        let end = (first + SCRUB_PIECE).min((first / BITS + 1) * BITS);
        for frame in first..end {
            if any_set(&self.free, frame, 1) && !any_set(&self.clean, frame, 1) {
                memory.zero(Frame(frame).address(), PAGE_SIZE as usize);
                set(&mut self.clean, frame, 1);
                self.clean_pages += 1;
                self.stale_pages -= u64::from(any_set(&self.stale, frame, 1));
                clear(&mut self.stale, frame, 1);
            }
        }
        true
    }

    fn next_stale(&mut self) -> Option<u64> {
        while self.stale_pages > 0 && self.lowest_stale < self.stale.len() {
            let word = self.stale[self.lowest_stale];
            if word != 0 {
                return Some(self.lowest_stale as u64 * BITS + u64::from(word.trailing_zeros()));
            }
            self.lowest_stale += 1;
        }
        None
    }

    /// From the top, where runs are taken.
    fn next_ahead(&mut self) -> Option<u64> {
        while self.clean_pages < SCRUB_AHEAD && self.scrubbed_from > 0 {
            let word = ((self.scrubbed_from - 1) / BITS) as usize;
            let below = u64::MAX >> (BITS - 1 - (self.scrubbed_from - 1) % BITS);
            let dirty = self.free[word] & !self.clean[word] & below;
            if dirty != 0 {
                let top = word as u64 * BITS + u64::from(dirty.ilog2());
                let first = (top + 1).saturating_sub(SCRUB_PIECE).max(word as u64 * BITS);
                let lowest = (first..=top).find(|frame| dirty & 1 << (frame % BITS) != 0)?;
                self.scrubbed_from = lowest;
                return Some(lowest);
            }
            self.scrubbed_from = word as u64 * BITS;
        }
        None
    }

    /// Takes back `count` frames from `first`.
    pub fn free(&mut self, first: Frame, count: u64) {
        assert!(
            highest_clear(|word| self.managed[word], self.managed.len(), first.0, count).is_none(),
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
        clear(&mut self.clean, first.0, count);
        set(&mut self.stale, first.0, count);
        self.stale_pages += count;
        self.lowest_stale = self.lowest_stale.min((first.0 / BITS) as usize);
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

fn count_set(words: &[u64], first: u64, count: u64) -> u64 {
    pieces(first, count)
        .map(|(word, mask)| u64::from((words[word] & mask).count_ones()))
        .sum()
}

/// The highest bit of the range that is clear in the `length` words that `words` answers; beyond them all are.
fn highest_clear(words: impl Fn(usize) -> u64, length: usize, first: u64, count: u64) -> Option<u64> {
    pieces(first, count).rev().find_map(|(word, mask)| {
        let clear = !(if word < length { words(word) } else { 0 }) & mask;
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

    #[test]
    fn what_was_given_back_is_scrubbed_and_clean_memory_goes_first() {
        const PAGES: u64 = 3 * RUN;
        let memory = DirectMap::fake(PAGES as usize);
        let mut frames = FrameAllocator::new(&[(Frame(0), PAGES)]);
        let (first, second) = (
            frames.allocate_contiguous(RUN, RUN).unwrap(),
            frames.allocate_contiguous(100, 1).unwrap(),
        );
        let write = |first: Frame, count| {
            for frame in first.0..first.0 + count {
                memory.write(Frame(frame).address(), &[7; 4096]);
            }
        };
        write(first, RUN);
        frames.free(first, RUN);
        // Nobody has scrubbed it, so it comes first again, and says what it is.
        assert_eq!(frames.allocate_contiguous(RUN, RUN), Some(first));
        assert!(!frames.was_clean(first));
        frames.free(first, RUN);
        for piece in 0..RUN / SCRUB_PIECE {
            assert!(frames.stale_pages == RUN - piece * SCRUB_PIECE && frames.scrub(&memory));
        }
        assert_eq!((frames.stale_pages, frames.clean_pages), (0, RUN));
        write(second, 100);
        frames.free(second, 100);
        assert_eq!(
            frames.allocate_contiguous(64, 64),
            Some(Frame(first.0 + RUN - 64))
        );
        assert!(frames.was_clean(Frame(first.0 + RUN - 1)));
        let mut page = [1; 4096];
        memory.read(Frame(first.0 + RUN - 64).address(), &mut page);
        assert_eq!(page, [0; 4096]);
        // All of this machine is less than what is kept ready.
        while frames.scrub(&memory) {}
        assert_eq!((frames.stale_pages, frames.clean_pages), (0, frames.free_pages()));
    }

    #[test]
    fn neighbours_are_found_in_a_free_run() {
        let memory = DirectMap::fake(2048);
        let mut frames = FrameAllocator::new(&[(Frame(5), 2043)]);
        let first = frames.allocate_beside(&memory, None, 700).unwrap();
        assert_eq!(first, Frame(512 + 188));
        assert_eq!(
            frames.allocate_beside(&memory, Some(Frame(701)), 189),
            Some(Frame(701))
        );
        // What is wanted is taken: any will do.
        assert_eq!(
            frames.allocate_beside(&memory, Some(Frame(701)), 189),
            Some(Frame(5))
        );
        assert_eq!(frames.allocate_beside(&memory, None, 0), Some(Frame(1024)));
        assert_eq!(frames.allocate_beside(&memory, None, 0), Some(Frame(1536)));
        assert_eq!(frames.allocate_beside(&memory, None, 0), Some(Frame(6)));
    }

    proptest! {
        /// Against a set as the model: never a frame twice, never one that was not given, all come back.
        #[test]
        fn agrees_with_a_set(ranges in proptest::collection::btree_set(0u64..40, 1..8), steps in proptest::collection::vec((0u8..5, 1u64..70, 0u32..7), 0..120)) {
            static MEMORY: std::sync::OnceLock<DirectMap> = std::sync::OnceLock::new();
            let memory = *MEMORY.get_or_init(|| DirectMap::fake(2100));
            let holds = |frame: u64| {
                let mut word = [0; 8];
                memory.read(Frame(frame).address(), &mut word);
                word != [0; 8]
            };
            for frame in 0..2100 {
                memory.write(Frame(frame).address(), &[1]);
            }
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
                            prop_assert!(!frames.was_clean(frame) || !holds(frame.0));
                            memory.write(frame.address(), &[1]);
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
                                    prop_assert!(!frames.was_clean(Frame(frame)) || !holds(frame));
                                    memory.write(Frame(frame).address(), &[1]);
                                }
                                held.push((first.0, count));
                            }
                            None => prop_assert!(!possible),
                        }
                    }
                    2 => {
                        frames.scrub(&memory);
                    }
                    3 => {
                        let wanted = (align > 3).then_some(Frame(count * 30));
                        match frames.allocate_beside(&memory, wanted, count) {
                            Some(frame) => {
                                prop_assert!(free.remove(&frame.0) && !holds(frame.0));
                                memory.write(frame.address(), &[1]);
                                held.push((frame.0, 1));
                            }
                            None => prop_assert!(free.is_empty()),
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
            while frames.scrub(&memory) {}
            prop_assert_eq!((frames.clean_pages, frames.stale_pages), (free.len() as u64, 0));
        }
    }
}

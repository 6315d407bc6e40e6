//! Pages of a domain that has gone, which others still have mapped.
//!
//! A device of a driver domain may be writing into such a page at this moment, and without an IOMMU nothing else stops it. So the page is
//! neither replaced nor reused while any map of it lives: it stays what it is, belongs to nobody, and becomes free with its last map.

use alloc::{collections::BTreeMap, vec::Vec};

use crate::memory::{Frame, FrameAllocator};

/// Frames of destroyed domains that others still have mapped.
#[derive(Debug, Default)]
pub struct HeldFrames(BTreeMap<Frame, Held>);

#[derive(Debug, Default)]
struct Held {
    maps: u32,
    /// Its domain has given it back.
    given_back: bool,
}

impl HeldFrames {
    /// Frames that are held.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Frames that are nobody's any more but for those maps: the others still count as their domain's.
    pub fn pages(&self) -> u64 {
        self.0.values().filter(|held| held.given_back).count() as u64
    }

    /// A map of a frame lost its granter.
    pub(super) fn hold(&mut self, frame: Frame) {
        self.0.entry(frame).or_default().maps += 1;
    }

    /// Such a map ends.
    pub(super) fn let_go(&mut self, frames: &mut FrameAllocator, frame: Frame) {
        let Some(held) = self.0.get_mut(&frame) else {
            return;
        };
        held.maps -= 1;
        if held.maps == 0 {
            let given_back = held.given_back;
            self.0.remove(&frame);
            if given_back {
                frames.free(frame, 1);
            }
        }
    }

    /// Frees those of a run of frames that nobody has mapped, and the others when their last map ends. For the frames of a domain, after
    /// [`super::release_all`].
    pub fn free(&mut self, frames: &mut FrameAllocator, first: Frame, count: u64) {
        let end = Frame(first.0 + count);
        let held: Vec<Frame> = self.0.range(first..end).map(|(frame, _)| *frame).collect();
        let mut next = first;
        for frame in held {
            if let Some(held) = self.0.get_mut(&frame) {
                held.given_back = true;
            }
            if frame > next {
                frames.free(next, frame.0 - next.0);
            }
            next = Frame(frame.0 + 1);
        }
        if end > next {
            frames.free(next, end.0 - next.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_frame_is_free_after_its_last_map() {
        let mut frames = FrameAllocator::new(&[(Frame(0), 10)]);
        let first = frames.allocate_contiguous(10, 1).unwrap();
        let mut held = HeldFrames::default();
        for frame in [3, 3, 4, 9] {
            held.hold(Frame(frame));
        }
        held.free(&mut frames, first, 10);
        assert_eq!((frames.free_pages(), held.count()), (7, 3));
        held.let_go(&mut frames, Frame(3));
        held.let_go(&mut frames, Frame(4));
        assert_eq!(frames.free_pages(), 8);
        held.let_go(&mut frames, Frame(3));
        held.let_go(&mut frames, Frame(9));
        held.let_go(&mut frames, Frame(9));
        assert_eq!((frames.free_pages(), held.count()), (10, 0));
    }
}

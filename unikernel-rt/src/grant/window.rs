//! Where mapped grants are put: a bitmap of the pages of an address range.

use alloc::vec;
use alloc::vec::Vec;

/// Hands out runs of pages in a range.
#[derive(Debug)]
pub struct Window {
    used: Vec<u64>,
    pages: usize,
    /// Where to look first: behind the last run, since what was used longest ago is most likely free.
    next: usize,
    free: usize,
}

impl Window {
    /// A range of `pages`, all free.
    pub fn new(pages: usize) -> Self {
        Self {
            used: vec![0; pages.div_ceil(64)],
            pages,
            next: 0,
            free: pages,
        }
    }

    /// How many pages are free.
    pub fn free_pages(&self) -> usize {
        self.free
    }

    /// Takes `count` pages in a row; answers the number of the first.
    pub fn take(&mut self, count: usize) -> Option<usize> {
        if count == 0 || count > self.free {
            return None;
        }
        let first = self
            .find(self.next, self.pages, count)
            .or_else(|| self.find(0, self.pages, count))?;
        for page in first..first + count {
            self.used[page / 64] |= 1 << (page % 64);
        }
        self.next = (first + count) % self.pages;
        self.free -= count;
        Some(first)
    }

    /// Gives pages back that [`take`](Self::take) handed out.
    pub fn give_back(&mut self, first: usize, count: usize) {
        for page in first..first + count {
            self.used[page / 64] &= !(1 << (page % 64));
        }
        self.free += count;
    }

    fn find(&self, from: usize, to: usize, count: usize) -> Option<usize> {
        let mut start = from;
        let mut page = from;
        while page < to {
            if page.is_multiple_of(64) && self.used[page / 64] == u64::MAX {
                page += 64;
                start = page;
                continue;
            }
            let busy = self.used[page / 64] & 1 << (page % 64) != 0;
            page += 1;
            if busy {
                start = page;
            } else if page - start == count {
                return Some(start);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_never_overlap(steps in prop::collection::vec((1usize..40, any::<bool>()), 1..200)) {
            let mut window = Window::new(200);
            let mut held: Vec<(usize, usize)> = Vec::new();
            for (count, release) in steps {
                if release && !held.is_empty() {
                    let (first, count) = held.swap_remove(count % held.len());
                    window.give_back(first, count);
                } else if let Some(first) = window.take(count) {
                    prop_assert!(first + count <= 200);
                    for &(other, length) in &held {
                        prop_assert!(first + count <= other || other + length <= first);
                    }
                    held.push((first, count));
                }
                prop_assert_eq!(window.free_pages(), 200 - held.iter().map(|run| run.1).sum::<usize>());
            }
        }
    }

    #[test]
    fn everything_can_be_taken_and_comes_back() {
        let mut window = Window::new(130);
        assert_eq!(window.take(130), Some(0));
        assert_eq!(window.take(1), None);
        window.give_back(60, 10);
        assert_eq!(window.take(11), None);
        assert_eq!(window.take(10), Some(60));
    }
}

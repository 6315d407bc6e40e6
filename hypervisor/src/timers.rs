//! When vCPUs have timers due: a heap a processor, of the vCPUs that are at home there, so that a processor is interrupted for its own vCPUs and looks at
//! no other's.
//!
//! A vCPU is in one heap at most, with the earliest of its deadlines. The next one is found at once; entering, changing, removing and moving one cost the
//! logarithm of the heap's size, and allocate only when a heap is larger than it ever was. Pure logic.

use alloc::{vec, vec::Vec};

use crate::domain::VcpuId;

/// A deadline in nanoseconds of the machine's clock, and whose it is.
type Entry = (u64, VcpuId);

/// Where a vCPU's entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    processor: usize,
    position: usize,
}

/// The heaps, and where everybody is in them.
#[derive(Debug)]
pub struct Timers {
    /// By processor: each a binary heap, the earliest first.
    heaps: Vec<Vec<Entry>>,
    /// By domain and index.
    places: Vec<Vec<Option<Place>>>,
}

impl Timers {
    /// Nothing is due on any of so many processors.
    pub fn new(processors: usize) -> Self {
        Self {
            heaps: vec![Vec::new(); processors.max(1)],
            places: Vec::new(),
        }
    }

    /// The deadline that a vCPU is entered with.
    pub fn deadline(&self, id: VcpuId) -> Option<u64> {
        let place = self.place(id)?;
        Some(self.heaps[place.processor][place.position].0)
    }

    /// Enters a vCPU that is at home on `processor`, with a deadline or none, in place of what it was entered with. True if that was something else.
    pub fn set(&mut self, id: VcpuId, processor: usize, deadline: Option<u64>) -> bool {
        let Some(deadline) = deadline else {
            return self.remove(id).is_some();
        };
        match self.place(id).filter(|place| place.processor == processor) {
            Some(Place { position, .. }) => {
                let before = core::mem::replace(&mut self.heaps[processor][position].0, deadline);
                self.settle(processor, position);
                before != deadline
            }
            None => {
                self.remove(id);
                self.insert(id, processor, deadline);
                true
            }
        }
    }

    /// A vCPU has another home.
    pub fn move_to(&mut self, id: VcpuId, processor: usize) {
        if self.place(id).is_some_and(|place| place.processor != processor)
            && let Some(deadline) = self.remove(id)
        {
            self.insert(id, processor, deadline);
        }
    }

    /// The earliest deadline on a processor.
    pub fn next(&self, processor: usize) -> Option<u64> {
        self.heaps[processor].first().map(|(deadline, _)| *deadline)
    }

    /// Takes out the vCPU whose deadline is the earliest on a processor, if that has come.
    pub fn take_due(&mut self, processor: usize, now: u64) -> Option<VcpuId> {
        let &(deadline, id) = self.heaps[processor].first()?;
        if deadline > now {
            return None;
        }
        self.remove(id);
        Some(id)
    }

    fn place(&self, id: VcpuId) -> Option<Place> {
        *self
            .places
            .get(usize::from(id.domain.0))?
            .get(id.index as usize)?
    }

    fn place_mut(&mut self, id: VcpuId) -> &mut Option<Place> {
        &mut self.places[usize::from(id.domain.0)][id.index as usize]
    }

    /// Makes room for a vCPU's place.
    fn know(&mut self, id: VcpuId) {
        let (domain, index) = (usize::from(id.domain.0), id.index as usize);
        if self.places.len() <= domain {
            self.places.resize(domain + 1, Vec::new());
        }
        if self.places[domain].len() <= index {
            self.places[domain].resize(index + 1, None);
        }
    }

    fn insert(&mut self, id: VcpuId, processor: usize, deadline: u64) {
        self.know(id);
        let position = self.heaps[processor].len();
        self.heaps[processor].push((deadline, id));
        self.settle(processor, position);
    }

    /// Takes a vCPU out; its deadline.
    fn remove(&mut self, id: VcpuId) -> Option<u64> {
        let Place { processor, position } = self.place(id)?;
        *self.place_mut(id) = None;
        let (deadline, _) = self.heaps[processor].swap_remove(position);
        if position < self.heaps[processor].len() {
            self.settle(processor, position);
        }
        Some(deadline)
    }

    /// Moves the entry at `position`, which alone may be out of order, to where it belongs, and notes where it and those in its way are.
    fn settle(&mut self, processor: usize, mut position: usize) {
        let moved = self.heaps[processor][position];
        while position > 0 {
            let parent = (position - 1) / 2;
            let above = self.heaps[processor][parent];
            if above <= moved {
                break;
            }
            self.put(processor, position, above);
            position = parent;
        }
        loop {
            let heap = &self.heaps[processor];
            let mut child = 2 * position + 1;
            if heap.get(child + 1).is_some_and(|right| *right < heap[child]) {
                child += 1;
            }
            let Some(&below) = heap.get(child).filter(|below| **below < moved) else {
                break;
            };
            self.put(processor, position, below);
            position = child;
        }
        self.put(processor, position, moved);
    }

    fn put(&mut self, processor: usize, position: usize, entry: Entry) {
        self.heaps[processor][position] = entry;
        *self.place_mut(entry.1) = Some(Place { processor, position });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::DomainId;

    fn id(number: u32) -> VcpuId {
        VcpuId {
            domain: DomainId((number / 4) as u16),
            index: number % 4,
        }
    }

    #[test]
    fn the_earliest_of_each_processor_is_next() {
        let mut timers = Timers::new(2);
        assert!(timers.set(id(1), 0, Some(30)) && timers.set(id(2), 0, Some(10)));
        assert!(timers.set(id(3), 1, Some(20)));
        assert_eq!((timers.next(0), timers.next(1)), (Some(10), Some(20)));
        assert!(!timers.set(id(2), 0, Some(10)), "nothing new");
        assert!(timers.set(id(2), 0, Some(40)));
        assert_eq!(timers.next(0), Some(30));
        assert_eq!(
            (timers.take_due(0, 29), timers.take_due(0, 30)),
            (None, Some(id(1)))
        );
        timers.move_to(id(2), 1);
        assert_eq!((timers.next(0), timers.deadline(id(2))), (None, Some(40)));
        assert!(timers.set(id(3), 1, None) && !timers.set(id(3), 1, None));
        assert_eq!(timers.next(1), Some(40));
    }

    proptest! {
        /// Against a map as the model.
        #[test]
        fn agrees_with_a_map(steps in proptest::collection::vec((0u8..5, 0u32..24, 0usize..3, 0u64..50), 0..200)) {
            let mut timers = Timers::new(3);
            let mut model: BTreeMap<VcpuId, (usize, u64)> = BTreeMap::new();
            for (what, number, processor, time) in steps {
                let id = id(number);
                match what {
                    0 | 1 => {
                        let before = model.insert(id, (processor, time));
                        prop_assert_eq!(timers.set(id, processor, Some(time)), before != Some((processor, time)));
                    }
                    2 => {
                        prop_assert_eq!(timers.set(id, processor, None), model.remove(&id).is_some());
                    }
                    3 => {
                        timers.move_to(id, processor);
                        model.entry(id).and_modify(|entry| entry.0 = processor);
                    }
                    _ => {
                        let due = model.iter().filter(|(_, entry)| entry.0 == processor && entry.1 <= time);
                        let due = due.map(|(id, entry)| (entry.1, *id)).min().map(|(_, id)| id);
                        prop_assert_eq!(timers.take_due(processor, time), due);
                        due.and_then(|id| model.remove(&id));
                    }
                }
                for processor in 0..3 {
                    let next = model.values().filter(|entry| entry.0 == processor).map(|entry| entry.1).min();
                    prop_assert_eq!(timers.next(processor), next);
                }
                prop_assert_eq!(timers.deadline(id), model.get(&id).map(|entry| entry.1));
            }
        }
    }
}

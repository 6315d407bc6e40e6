//! Grants that stay mapped because the frontend uses them again and again.
//!
//! The frontend says so by `feature-persistent`; it then keeps a reference valid for as long as we have it mapped. The number is
//! bounded: when there are too many, the one that was unused for the longest time makes room. What a request uses stays.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use unikernel_rt::grant::{GrantRef, Mapping};
use unikernel_rt::memory::SharedMemory;

struct Entry {
    mapping: Mapping,
    address: u64,
    /// Requests that use it.
    uses: u32,
    /// When it was last used, while nobody does: its key in `idle`.
    since: u64,
}

/// The grants of one connection.
pub struct PersistentGrants {
    entries: BTreeMap<GrantRef, Entry>,
    /// Those that nobody uses, the longest unused first.
    idle: BTreeMap<u64, GrantRef>,
    limit: usize,
    clock: u64,
}

impl PersistentGrants {
    /// None yet, and at most `limit`.
    pub fn new(limit: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            idle: BTreeMap::new(),
            limit,
            clock: 0,
        }
    }

    /// How many are mapped.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is mapped.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bus address of a grant that is mapped, from now on in use once more.
    pub fn acquire(&mut self, reference: GrantRef) -> Option<u64> {
        let entry = self.entries.get_mut(&reference)?;
        if entry.uses == 0 {
            self.idle.remove(&entry.since);
        }
        entry.uses += 1;
        Some(entry.address)
    }

    /// The bytes of a grant that is mapped.
    pub fn memory(&self, reference: GrantRef) -> Option<&SharedMemory> {
        self.entries.get(&reference).map(|entry| entry.mapping.memory())
    }

    /// Keeps a new mapping, in use once. What had to make room goes to `discarded`. The mapping comes back if it cannot be kept:
    /// everything is in use, or the reference is mapped already.
    pub fn insert(
        &mut self,
        reference: GrantRef,
        mapping: Mapping,
        address: u64,
        discarded: &mut Vec<Mapping>,
    ) -> Result<(), Mapping> {
        if self.entries.contains_key(&reference) {
            return Err(mapping);
        }
        if self.entries.len() >= self.limit {
            let oldest = self
                .idle
                .pop_first()
                .and_then(|(_, oldest)| self.entries.remove(&oldest));
            let Some(oldest) = oldest else { return Err(mapping) };
            discarded.push(oldest.mapping);
        }
        self.entries.insert(
            reference,
            Entry {
                mapping,
                address,
                uses: 1,
                since: 0,
            },
        );
        Ok(())
    }

    /// A request does not use it any more.
    pub fn release(&mut self, reference: GrantRef) {
        if let Some(entry) = self.entries.get_mut(&reference)
            && entry.uses > 0
        {
            entry.uses -= 1;
            if entry.uses == 0 {
                self.clock += 1;
                entry.since = self.clock;
                self.idle.insert(self.clock, reference);
            }
        }
    }

    /// Gives all mappings up.
    pub fn drain(&mut self) -> impl Iterator<Item = Mapping> + use<> {
        self.idle.clear();
        core::mem::take(&mut self.entries)
            .into_values()
            .map(|entry| entry.mapping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mapping() -> Mapping {
        Mapping::new(SharedMemory::allocate(1).unwrap(), vec![0])
    }

    #[test]
    fn the_longest_unused_makes_room() {
        let (mut grants, mut discarded) = (PersistentGrants::new(2), Vec::new());
        for reference in [1, 2] {
            grants
                .insert(
                    GrantRef(reference),
                    mapping(),
                    u64::from(reference),
                    &mut discarded,
                )
                .unwrap();
        }
        assert!(
            grants.insert(GrantRef(3), mapping(), 3, &mut discarded).is_err(),
            "all are in use"
        );
        grants.release(GrantRef(1));
        grants.release(GrantRef(2));
        assert_eq!(grants.acquire(GrantRef(1)), Some(1));
        grants.release(GrantRef(1));
        grants.insert(GrantRef(3), mapping(), 3, &mut discarded).unwrap();
        assert_eq!((discarded.len(), grants.len()), (1, 2));
        assert_eq!(grants.acquire(GrantRef(2)), None);
        assert_eq!(grants.acquire(GrantRef(1)), Some(1));
    }

    proptest! {
        #[test]
        fn what_is_in_use_stays_and_the_limit_holds(steps in prop::collection::vec((0u32..12, any::<bool>()), 1..300)) {
            let (mut grants, mut discarded, mut held) = (PersistentGrants::new(8), Vec::new(), Vec::new());
            for (reference, release) in steps {
                let reference = GrantRef(reference);
                if release {
                    if let Some(place) = held.iter().position(|&other| other == reference) {
                        held.swap_remove(place);
                        grants.release(reference);
                    }
                } else if grants.acquire(reference).is_some()
                    || grants.insert(reference, mapping(), reference.0.into(), &mut discarded).is_ok()
                {
                    held.push(reference);
                }
                prop_assert!(grants.len() <= 8);
                for &reference in &held {
                    prop_assert!(grants.memory(reference).is_some());
                }
            }
        }
    }
}

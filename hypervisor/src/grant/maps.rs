//! What a domain has mapped of others' grants, by the handle that it was given.

use alloc::vec::Vec;

use crate::{
    domain::DomainId,
    memory::{Frame, GuestAddress},
};

/// A mapped grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// Whose page it is, or was.
    pub granter: DomainId,
    /// The granter's reference.
    pub reference: u32,
    /// The page.
    pub frame: Frame,
    /// For writing.
    pub write: bool,
    /// Where the domain's processors see it.
    pub at: Option<GuestAddress>,
    /// Where its devices reach it, if they may.
    pub device: Option<u64>,
    /// The granter has gone since; the page is held for the map's sake.
    pub orphan: bool,
}

/// Handles that a domain can have at a time.
pub const MAX_MAPS: usize = 32 * 1024;

/// The maps of a domain.
#[derive(Debug, Default)]
pub struct Maps {
    slots: Vec<Slot>,
    /// The handle that is given out next, if one has come back.
    free: Option<u32>,
    count: u32,
}

#[derive(Clone, Copy, Debug)]
enum Slot {
    Taken(Map),
    /// Free, and the next one that is.
    Free(Option<u32>),
}

impl Maps {
    /// Whether a map more has a place.
    pub fn has_room(&self) -> bool {
        self.free.is_some() || self.slots.len() < MAX_MAPS
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Takes a map in; answers its handle. `None` without room, also in the hypervisor's heap.
    pub fn insert(&mut self, map: Map) -> Option<u32> {
        if let Some(handle) = self.free {
            let slot = self.slots.get_mut(handle as usize)?;
            if let Slot::Free(next) = *slot {
                self.free = next;
            }
            *slot = Slot::Taken(map);
            self.count += 1;
            return Some(handle);
        }
        if self.slots.len() >= MAX_MAPS {
            return None;
        }
        self.slots.try_reserve(1).ok()?;
        self.slots.push(Slot::Taken(map));
        self.count += 1;
        Some(self.slots.len() as u32 - 1)
    }

    /// The map of a handle.
    pub fn get_mut(&mut self, handle: u32) -> Option<&mut Map> {
        match self.slots.get_mut(handle as usize)? {
            Slot::Taken(map) => Some(map),
            Slot::Free(_) => None,
        }
    }

    /// Forgets a map.
    pub fn remove(&mut self, handle: u32) -> Option<Map> {
        let slot = self.slots.get_mut(handle as usize)?;
        let Slot::Taken(map) = *slot else {
            return None;
        };
        *slot = Slot::Free(self.free.replace(handle));
        self.count -= 1;
        Some(map)
    }

    /// All maps.
    pub fn iter(&self) -> impl Iterator<Item = &Map> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Taken(map) => Some(map),
            Slot::Free(_) => None,
        })
    }

    /// All maps.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Map> {
        self.slots.iter_mut().filter_map(|slot| match slot {
            Slot::Taken(map) => Some(map),
            Slot::Free(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_come_back_and_are_bounded() {
        let map = |reference| Map {
            granter: DomainId(1),
            reference,
            frame: Frame(7),
            write: true,
            at: None,
            device: None,
            orphan: false,
        };
        let mut maps = Maps::default();
        for handle in 0..MAX_MAPS as u32 {
            assert_eq!(maps.insert(map(handle)), Some(handle));
        }
        assert!(!maps.has_room() && maps.insert(map(0)).is_none());
        for handle in [5, 9] {
            assert_eq!(maps.remove(handle).map(|map| map.reference), Some(handle));
            assert!(maps.remove(handle).is_none() && maps.get_mut(handle).is_none());
        }
        assert_eq!(maps.iter().count(), MAX_MAPS - 2);
        assert_eq!(maps.count() as usize, MAX_MAPS - 2);
        assert_eq!([maps.insert(map(1)), maps.insert(map(2))], [Some(9), Some(5)]);
        assert_eq!(maps.get_mut(9).map(|map| map.reference), Some(1));
        assert!(!maps.has_room() && maps.remove(u32::MAX).is_none());
    }
}

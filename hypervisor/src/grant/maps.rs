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
    /// Its devices may use it.
    pub device: bool,
    /// The granter has gone since; the page is held for the map's sake.
    pub orphan: bool,
}

/// Handles that a domain can have at a time.
pub const MAX_MAPS: usize = 32 * 1024;

/// The maps of a domain.
#[derive(Default)]
pub struct Maps {
    slots: Vec<Option<Map>>,
    free: Vec<u32>,
}

impl Maps {
    /// Whether a map more has a place.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty() || self.slots.len() < MAX_MAPS
    }

    /// Takes a map in; answers its handle. `None` without room.
    pub fn insert(&mut self, map: Map) -> Option<u32> {
        if let Some(handle) = self.free.pop() {
            self.slots[handle as usize] = Some(map);
            return Some(handle);
        }
        if self.slots.len() >= MAX_MAPS {
            return None;
        }
        self.slots.push(Some(map));
        Some(self.slots.len() as u32 - 1)
    }

    /// The map of a handle.
    pub fn get_mut(&mut self, handle: u32) -> Option<&mut Map> {
        self.slots.get_mut(handle as usize)?.as_mut()
    }

    /// Forgets a map.
    pub fn remove(&mut self, handle: u32) -> Option<Map> {
        let map = self.slots.get_mut(handle as usize)?.take()?;
        self.free.push(handle);
        Some(map)
    }

    /// All maps.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Map> {
        self.slots.iter_mut().flatten()
    }

    /// All handles.
    pub fn handles(&self) -> impl Iterator<Item = u32> + '_ {
        (0..)
            .zip(&self.slots)
            .filter(|(_, map)| map.is_some())
            .map(|(handle, _)| handle)
    }
}

//! The domains of the manifest by their ids. Every exit looks its domain up a dozen times, so it is a place in an array: ids are dense from 1, and the
//! domains are the same for as long as the machine is up.

use alloc::vec::Vec;
use core::ops::Index;

use super::{Domain, DomainId};

/// All domains, in the order of their ids.
pub struct Domains(Vec<Domain>);

impl Domains {
    /// One domain for each of the `parts`, made with its id.
    pub fn new<T>(parts: impl IntoIterator<Item = T>, mut make: impl FnMut(DomainId, T) -> Domain) -> Self {
        let ids = (1..).map(DomainId);
        let domains = ids.zip(parts).map(|(id, part)| make(id, part));
        Self(domains.collect())
    }

    /// A domain of the manifest.
    pub fn get(&self, id: &DomainId) -> Option<&Domain> {
        self.0.get(place(*id))
    }

    /// A domain of the manifest.
    pub fn get_mut(&mut self, id: &DomainId) -> Option<&mut Domain> {
        self.0.get_mut(place(*id))
    }

    /// All of them.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &Domain> {
        self.0.iter()
    }

    /// All of them.
    pub fn values_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Domain> {
        self.0.iter_mut()
    }

    /// Their ids.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &DomainId> {
        self.0.iter().map(|domain| &domain.id)
    }

    /// All of them, with their ids.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&DomainId, &Domain)> {
        self.0.iter().map(|domain| (&domain.id, domain))
    }
}

/// Where a domain is; for an id that is none's, beyond all.
fn place(id: DomainId) -> usize {
    usize::from(id.0).wrapping_sub(1)
}

/// For an id that is known to be a domain's.
impl Index<&DomainId> for Domains {
    type Output = Domain;

    fn index(&self, id: &DomainId) -> &Domain {
        &self.0[place(*id)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hypervisor;

    #[test]
    fn every_domain_is_found_by_its_id_and_nobody_else() {
        let hv = hypervisor();
        let ids: Vec<DomainId> = hv.domains.keys().copied().collect();
        assert_eq!(ids.first(), Some(&DomainId(1)));
        for id in &ids {
            assert_eq!(hv.domains.get(id).map(|domain| domain.id), Some(*id));
            assert_eq!(hv.domains[id].id, *id);
        }
        let end = DomainId(ids.len() as u16 + 1);
        for id in [DomainId(0), end, DomainId(u16::MAX)] {
            assert!(hv.domains.get(&id).is_none());
        }
    }
}

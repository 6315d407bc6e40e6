//! What is known of the vCPUs that compete. Each switch looks members up dozens of times, so a vCPU is a place in an array: by its domain, then by its index.

use alloc::vec::Vec;
use core::ops::Index;

use super::Member;
use crate::domain::VcpuId;

/// Members by their vCPUs. It grows with the greatest ids that come in, which are those of the manifest.
#[derive(Debug, Default)]
pub(super) struct Members(Vec<Vec<Option<Member>>>);

impl Members {
    pub(super) fn get(&self, id: &VcpuId) -> Option<&Member> {
        let (domain, vcpu) = place(id);
        self.0.get(domain)?.get(vcpu)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: &VcpuId) -> Option<&mut Member> {
        let (domain, vcpu) = place(id);
        self.0.get_mut(domain)?.get_mut(vcpu)?.as_mut()
    }

    pub(super) fn contains_key(&self, id: &VcpuId) -> bool {
        self.get(id).is_some()
    }

    /// Adds a member, or puts it in the place of an earlier one.
    pub(super) fn insert(&mut self, id: VcpuId, member: Member) {
        let (domain, vcpu) = place(&id);
        let places = grown(&mut self.0, domain);
        *grown(places, vcpu) = Some(member);
    }

    pub(super) fn remove(&mut self, id: &VcpuId) -> Option<Member> {
        let (domain, vcpu) = place(id);
        self.0.get_mut(domain)?.get_mut(vcpu)?.take()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Member> {
        self.0.iter().flatten().flatten()
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.0.iter_mut().flatten().flatten()
    }
}

/// For a vCPU that is known to be a member.
impl Index<&VcpuId> for Members {
    type Output = Member;

    fn index(&self, id: &VcpuId) -> &Member {
        self.get(id).expect("only members wait")
    }
}

fn place(id: &VcpuId) -> (usize, usize) {
    (usize::from(id.domain.0), id.index as usize)
}

/// The element at `index` of a vector that is as long as that needs.
fn grown<T: Default>(vector: &mut Vec<T>, index: usize) -> &mut T {
    if vector.len() <= index {
        vector.resize_with(index + 1, T::default);
    }
    &mut vector[index]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::DomainId,
        sched::{Class, Scheduler, Terms, placement, set::ProcessorSet},
    };

    fn id(domain: u16, index: u32) -> VcpuId {
        let domain = DomainId(domain);
        VcpuId { domain, index }
    }

    #[test]
    fn members_are_found_by_their_ids_and_nobody_else() {
        let mut scheduler = Scheduler::new(1);
        let place = placement::Place {
            allowed: ProcessorSet::first(1),
            exclusive: false,
        };
        for (domain, weight) in [(1, 10), (4, 40)] {
            let terms = Terms {
                class: Class::Shared(weight),
                place,
                cap: None,
                vcpus: 3,
            };
            scheduler.admit(DomainId(domain), terms);
        }
        for member in [id(4, 2), id(1, 0)] {
            scheduler.add(member);
        }
        let members = &mut scheduler.members;
        assert_eq!(members[&id(4, 2)].class, Class::Shared(40));
        assert_eq!(members[&id(1, 0)].class, Class::Shared(10));
        for absent in [
            id(4, 0),
            id(4, 3),
            id(0, 0),
            id(1, 1),
            id(5, 0),
            id(u16::MAX, u32::MAX),
        ] {
            assert!(!members.contains_key(&absent), "{absent:?}");
            assert!(members.get_mut(&absent).is_none() && members.remove(&absent).is_none());
        }
        assert_eq!(members.values().count(), 2);
        assert_eq!(members.values_mut().count(), 2);
        assert!(members.remove(&id(4, 2)).is_some());
        assert!(members.get(&id(4, 2)).is_none());
        assert_eq!(members.values().count(), 1);
    }
}

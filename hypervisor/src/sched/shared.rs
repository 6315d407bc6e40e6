//! Shared vCPUs: a queue by virtual time for each set of processors that some may run on.
//!
//! Each vCPU ages while it runs, the faster the lighter it is, and the youngest goes first, wherever it ran before: that shares the whole machine by
//! weight. A vCPU that ran elsewhere must be younger by a turn of its own to be taken from there, so few move.
//!
//! Ages are compared across the machine, which asks for three bounds:
//! - Who slept comes back a moment younger than those who did not ([`Group::clock`], [`PREEMPTS`]), and not more: it runs soon, and sleeping earns no
//!   hoard.
//! - One that is so heavy that it always runs falls behind its group's clock for ever; it is held to within [`Group::most_lag`], so it
//!   does not keep a processor for that long once others want more.
//! - Vcpus that are pinned to a crowded processor fall behind those that are not. Within a group that never happens, since every member may run wherever the
//!   others may; so whole groups are moved together, which changes nothing among their members, when one is ahead by more than [`MOST_LEAD`].

use alloc::vec::Vec;

use super::{Class, Member, Members, set::ProcessorSet};
use crate::domain::VcpuId;

/// Virtual nanoseconds by which a group may be ahead of another.
pub(super) const MOST_LEAD: i64 = 100_000_000;
/// What one has at least of its turn before it is cut short, in nanoseconds.
pub(super) const SHORTEST_RUN: u64 = 1_000_000;
/// By how much one that slept may be younger than those that did not, if it is; and how much older than one that wakes is old enough for one's turn to be cut
/// short. Virtual nanoseconds.
pub(super) const PREEMPTS: i64 = 2_000_000;

/// The shared vCPUs of the same set of processors.
#[derive(Debug)]
pub(super) struct Group {
    pub allowed: ProcessorSet,
    /// The age of the one that was picked last, or of a later one: the least age that one comes back with.
    pub clock: i64,
    /// Those that wait for a processor.
    pub waiting: Vec<VcpuId>,
    /// How many may run.
    pub ready: u32,
    /// The least weight of a member.
    pub lightest: u32,
}

impl Group {
    pub(super) fn new(allowed: ProcessorSet) -> Self {
        Self {
            allowed,
            clock: 0,
            waiting: Vec::new(),
            ready: 0,
            lightest: u32::MAX,
        }
    }

    /// How far behind the clock one may be that runs all the time: what the coarsest turns of the others may make of it by chance, and not more.
    pub(super) fn most_lag(&self) -> i64 {
        let lightest = Class::Shared(self.lightest);
        2 * lightest.aged(lightest.slice())
    }
}

/// How much younger than the others one must be to be taken to another processor.
pub(super) fn attachment(member: &Member) -> i64 {
    member.class.aged(member.class.slice())
}

/// The index of the group for a set of processors.
pub(super) fn group_of(groups: &mut Vec<Group>, allowed: ProcessorSet) -> usize {
    match groups.iter().position(|group| group.allowed == allowed) {
        Some(index) => index,
        None => {
            groups.push(Group::new(allowed));
            groups.len() - 1
        }
    }
}

/// The first member of a group begins to compete: the group does so from where those are that it competes with.
pub(super) fn join(groups: &mut [Group], index: usize) -> i64 {
    let others = groups
        .iter()
        .enumerate()
        .filter(|(other, group)| {
            *other != index && group.ready > 0 && !group.allowed.and(groups[index].allowed).is_empty()
        })
        .map(|(_, group)| group.clock)
        .min();
    let group = &mut groups[index];
    group.clock = group.clock.max(others.unwrap_or(group.clock));
    group.clock
}

/// A member of a group was picked at this age. Groups that are too far ahead are brought nearer, with all their members.
pub(super) fn picked(groups: &mut [Group], members: &mut Members, index: usize, age: i64) {
    let group = &mut groups[index];
    group.clock = group.clock.max(age);
    let clock = group.clock;
    for (other, group) in groups.iter_mut().enumerate() {
        let waits = group.waiting.iter().map(|id| members[id].age).min();
        let lead = waits.unwrap_or(group.clock).saturating_sub(clock);
        if other == index || lead <= MOST_LEAD {
            continue;
        }
        let back = lead - MOST_LEAD / 2;
        group.clock -= back;
        members
            .values_mut()
            .filter(|member| member.group == Some(other))
            .for_each(|member| member.age -= back);
    }
}

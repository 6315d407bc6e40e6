//! Whom to tell that somebody waits: at most one processor, and none that will look around in time by itself.

use super::{Doing, Member, ProcessorSet, Scheduler, shared};
use crate::domain::VcpuId;

impl Scheduler {
    /// Somebody waits from now on: finds it a processor. In this order: its home if that is about to choose or idles; another that idles; one
    /// that runs somebody of lower rank; one that runs an equal, at the end of that one's turn.
    pub(super) fn place(&mut self, id: VcpuId, now: u64, woken: bool) -> Option<usize> {
        let member = self.members.get(&id)?;
        let home = member.home;
        let candidates = self.candidates(member);
        if candidates.contains(home) {
            let this = &self.processors[home];
            if this.doing == Doing::Work && self.rank_on(home).is_none() {
                return None;
            }
            if this.is_free() {
                return Some(home);
            }
        }
        if let Some(free) = candidates
            .iter()
            .find(|processor| self.processors[*processor].is_free())
        {
            return Some(free);
        }
        let rank = member.class.rank();
        let lower = candidates
            .iter()
            .filter(|processor| self.rank_on(*processor).is_none_or(|other| other < rank))
            .min_by_key(|processor| (*processor != home, self.rank_on(*processor)));
        if let Some(lower) = lower {
            return (!self.processors[lower].looks_by(now)).then_some(lower);
        }
        if member.group.is_some() {
            return self.place_shared(id, candidates, now, woken);
        }
        let equal = candidates
            .iter()
            .filter(|processor| self.rank_on(*processor) == Some(rank))
            .min_by_key(|processor| *processor != home)?;
        let this = &self.processors[equal];
        let end = this.current.as_ref().map_or(now, |current| current.slice_end);
        (!this.looks_by(end)).then_some(equal)
    }

    /// A shared one waits, and all processors that it may run on are busy with others of its rank or a higher one. It takes the place of the oldest, at the end
    /// of a turn.
    fn place_shared(&mut self, id: VcpuId, candidates: ProcessorSet, now: u64, woken: bool) -> Option<usize> {
        let member = self.members.get(&id)?;
        let (home, age, attachment) = (member.home, member.age, shared::attachment(member));
        let near = |processor: usize| if processor == home { attachment } else { 0 };
        let (_, oldest) = candidates
            .iter()
            .filter(|processor| self.rank_on(*processor) == Some(0))
            .map(|processor| (self.age_on(processor, now) + near(processor), processor))
            .max()?;
        let lead = self.age_on(oldest, now) - age;
        let told = |processor: usize| {
            let this = &self.processors[processor];
            let end = this.current.as_ref().map_or(now, |current| current.slice_end);
            self.rank_on(processor) == Some(0) && this.looks_by(end)
        };
        let nobody_told = !candidates.iter().any(told);
        let this = &mut self.processors[oldest];
        let current = this.current.as_mut()?;
        if woken {
            let runs = self.members.get(&current.id)?.class;
            let soon = now.saturating_add(runs.ages_within(shared::PREEMPTS - lead));
            let soon = soon.max(current.since + shared::SHORTEST_RUN);
            current.slice_end = current.slice_end.min(soon);
        }
        let overdue = now >= current.slice_end && lead > attachment - near(oldest);
        let end = current.slice_end;
        let wanted = nobody_told || overdue || woken;
        (wanted && !this.looks_by(end)).then_some(oldest)
    }

    /// After a choice: whoever waits may be for another processor, the one that lost this one above all.
    pub(super) fn look_after_waiting(&mut self, now: u64) -> Option<usize> {
        for index in 0..self.urgent.len() {
            if let Some(call) = self.place(self.urgent[index], now, false) {
                return Some(call);
            }
        }
        (0..self.groups.len()).find_map(|group| {
            let youngest = self.groups[group]
                .waiting
                .iter()
                .copied()
                .min_by_key(|id| self.members[id].age)?;
            self.place(youngest, now, false)
        })
    }

    fn candidates(&self, member: &Member) -> ProcessorSet {
        match member.anchor {
            Some(anchor) => [anchor].into_iter().collect(),
            None => member.allowed,
        }
    }

    /// The rank of the one that runs on a processor; `None` if none does, or none that may.
    fn rank_on(&self, processor: usize) -> Option<u16> {
        let current = self.processors[processor].current.as_ref()?;
        let member = self.members.get(&current.id).filter(|member| member.ready)?;
        Some(member.class.rank())
    }

    /// The age of the shared one that runs on a processor, as of now.
    pub(super) fn age_on(&self, processor: usize, now: u64) -> i64 {
        let Some(current) = &self.processors[processor].current else {
            return i64::MIN / 2;
        };
        self.members.get(&current.id).map_or(i64::MIN / 2, |member| {
            let ran = now.saturating_sub(current.since);
            member.age.saturating_add(member.class.aged(ran))
        })
    }
}

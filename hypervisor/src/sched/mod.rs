//! Who runs next, where, and which processor has to be told.
//!
//! Realtime vCPUs run before all others, by priority, each within its budget; interactive ones (driver domains) before all shared ones, taking turns; shared
//! ones get what is left of the whole machine in proportion to their weights. Everybody runs only where its domain may ([`placement`]), and a capped
//! domain no more than its cap. Within that no processor idles while somebody waits who may run there.
//!
//! There is one queue for the whole machine, of which a processor takes the first that may run there, so nobody waits behind the wrong processor, and
//! there is nothing to balance. A vCPU's *home* is the processor that it ran on last; its timers are looked after there.
//!
//! Pure logic: time comes in as nanoseconds, what processors do is told by [`Scheduler::work`], [`Scheduler::depart`] and [`Scheduler::idle`], and whoever has
//! to be interrupted is an answer. A processor is named in an answer only if it would not look around soon enough by itself.

mod budget;
mod class;
mod members;
mod place;
pub mod placement;
mod processor;
mod set;
mod shared;

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use crate::domain::{DomainId, VcpuId};
use budget::{Budget, Cap};
use members::Members;
use processor::Current;
use shared::Group;

pub use budget::CAP_PERIOD;
pub use class::{Class, TIME_SLICE};
pub use processor::{Doing, Processor};
pub use set::{MOST_PROCESSORS, ProcessorSet};

/// How a domain competes.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Its vCPUs' class.
    pub class: Class,
    /// Where they may run.
    pub place: placement::Place,
    /// Hundredths of a processor that they may take together.
    pub cap: Option<u32>,
    /// How many there are.
    pub vcpus: u32,
}

/// What is to happen after a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picked {
    /// Who runs.
    pub id: Option<VcpuId>,
    /// Who must be called, because somebody waits whom it should look at.
    pub call: Option<usize>,
}

/// When a processor goes before others in what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Urgency {
    /// It is one domain's alone, or a realtime vCPU runs there.
    pub always: bool,
    /// Also because a realtime vCPU is at home there, whose interrupt it may be.
    pub after_interrupt: bool,
}

/// Run queues of the machine.
#[derive(Debug)]
pub struct Scheduler {
    processors: Vec<Processor>,
    domains: BTreeMap<DomainId, Entry>,
    members: Members,
    /// Realtime and interactive ones that wait: the highest rank first, among equals who came first.
    urgent: Vec<VcpuId>,
    groups: Vec<Group>,
    /// Those that may run, but not before a time.
    throttled: BTreeSet<(u64, VcpuId)>,
}

#[derive(Debug)]
struct Entry {
    terms: Terms,
    cap: Option<Cap>,
}

#[derive(Debug)]
struct Member {
    class: Class,
    allowed: ProcessorSet,
    /// Of the shared ones.
    group: Option<usize>,
    home: usize,
    /// The processor that alone can run it for the time being.
    anchor: Option<usize>,
    ready: bool,
    /// The processor whose current one it is.
    on: Option<usize>,
    throttled: Option<u64>,
    /// How often it was kept from running.
    throttlings: u64,
    /// Virtual nanoseconds.
    age: i64,
    budget: Option<Budget>,
}

impl Member {
    fn may_run_on(&self, processor: usize) -> bool {
        self.allowed.contains(processor) && self.anchor.is_none_or(|anchor| anchor == processor)
    }
}

impl Default for Scheduler {
    fn default() -> Self {
        Self::new(1)
    }
}

impl Scheduler {
    /// For `processors` processors.
    pub fn new(processors: usize) -> Self {
        Self {
            processors: (0..processors.clamp(1, MOST_PROCESSORS))
                .map(|_| Processor::new())
                .collect(),
            domains: BTreeMap::new(),
            members: Members::default(),
            urgent: Vec::new(),
            groups: Vec::new(),
            throttled: BTreeSet::new(),
        }
    }

    /// Says how a domain competes, before its vCPUs do.
    pub fn admit(&mut self, domain: DomainId, terms: Terms) {
        if terms.place.exclusive {
            for processor in terms.place.allowed.iter() {
                if let Some(processor) = self.processors.get_mut(processor) {
                    processor.exclusive = true;
                }
            }
        }
        let cap = terms.cap.map(|cap| Cap::new(cap, terms.vcpus));
        self.domains.insert(domain, Entry { terms, cap });
    }

    /// A processor, by number.
    pub fn processor(&self, index: usize) -> &Processor {
        &self.processors[index]
    }

    /// Lets a vCPU of an admitted domain compete, on the processor that has the fewest; it is not ready yet. One that is known already stays
    /// where it is.
    pub fn add(&mut self, id: VcpuId) {
        let Some(entry) = self.domains.get(&id.domain) else {
            return;
        };
        if self.members.contains_key(&id) {
            return;
        }
        let Terms { class, place, .. } = entry.terms;
        let crowd = |processor: &usize| {
            let at_home = |member: &&Member| member.home == *processor;
            self.members.values().filter(at_home).count()
        };
        let home = place.allowed.iter().min_by_key(crowd).unwrap_or(0);
        let (mut budget, mut group) = (None, None);
        match class {
            Class::Realtime {
                budget: most, period, ..
            } => {
                budget = Budget::new(most, period);
                self.processors[home].realtime += 1;
            }
            Class::Interactive => {}
            Class::Shared(weight) => {
                let index = shared::group_of(&mut self.groups, place.allowed);
                let lightest = &mut self.groups[index].lightest;
                *lightest = weight.min(*lightest);
                group = Some(index);
            }
        }
        let member = Member {
            class,
            allowed: place.allowed,
            group,
            home,
            anchor: None,
            ready: false,
            on: None,
            throttled: None,
            throttlings: 0,
            age: i64::MIN / 2,
            budget,
        };
        self.members.insert(id, member);
    }

    /// Forgets a vCPU.
    pub fn remove(&mut self, id: VcpuId) {
        self.sleep(id);
        let Some(member) = self.members.remove(&id) else {
            return;
        };
        if let Some(processor) = member.on
            && let Some(current) = self.processors[processor].current.take()
        {
            self.settle(id.domain, &current);
        }
        if matches!(member.class, Class::Realtime { .. }) {
            self.processors[member.home].realtime -= 1;
        }
        if let Some(group) = member.group {
            let weights = self.members.values().filter(|other| other.group == Some(group));
            self.groups[group].lightest = weights
                .filter_map(|other| match other.class {
                    Class::Shared(weight) => Some(weight),
                    _ => None,
                })
                .min()
                .unwrap_or(u32::MAX);
        }
    }

    /// The processor that a vCPU ran on last, or will first; the first for one that does not compete.
    pub fn home(&self, id: VcpuId) -> usize {
        self.members.get(&id).map_or(0, |member| member.home)
    }

    /// Whether a vCPU is the one that was picked last for its processor, even if it may no longer run.
    pub fn is_current(&self, id: VcpuId) -> bool {
        self.members.get(&id).is_some_and(|member| member.on.is_some())
    }

    /// The vCPU was loaded into a processor: no other can run it until another vCPU takes its place there.
    pub fn loaded(&mut self, id: VcpuId, processor: usize) {
        self.unload(processor, id);
        if let Some(member) = self.members.get_mut(&id) {
            member.anchor = Some(processor);
            self.processors[processor].loaded = Some(id);
        }
    }

    /// What is loaded in a processor makes room for `id`.
    fn unload(&mut self, processor: usize, id: VcpuId) {
        if let Some(last) = self.processors[processor].loaded.take_if(|last| *last != id)
            && let Some(member) = self.members.get_mut(&last)
            // One that was built anew meanwhile may be elsewhere.
            && member.anchor == Some(processor)
        {
            member.anchor = None;
        }
    }

    /// Whether a domain's peers can run while it does, so that looking for what they do is not in vain.
    pub fn runs_beside_others(&self, domain: DomainId) -> bool {
        let alone = self
            .domains
            .get(&domain)
            .is_some_and(|entry| entry.terms.place.exclusive);
        let common = self.processors.iter().filter(|processor| !processor.exclusive);
        alone || common.count() > 1
    }

    /// When a processor goes before others.
    pub fn urgency(&self, processor: usize) -> Urgency {
        let this = &self.processors[processor];
        let current = this
            .current
            .as_ref()
            .and_then(|current| self.members.get(&current.id));
        let runs_realtime = current.is_some_and(|member| matches!(member.class, Class::Realtime { .. }));
        let always = this.exclusive || runs_realtime;
        Urgency {
            always,
            after_interrupt: always || this.realtime > 0,
        }
    }

    /// A processor works.
    pub fn work(&mut self, processor: usize) {
        self.processors[processor].doing = Doing::Work;
    }

    /// A processor begins to run the vCPU that was picked for it, until `alarm` at the latest.
    pub fn depart(&mut self, processor: usize, alarm: Option<u64>) {
        self.let_go(processor, Doing::Guest, alarm);
    }

    /// A processor sleeps until `alarm` at the latest.
    pub fn idle(&mut self, processor: usize, alarm: Option<u64>) {
        self.let_go(processor, Doing::Idle, alarm);
    }

    fn let_go(&mut self, processor: usize, doing: Doing, alarm: Option<u64>) {
        let this = &mut self.processors[processor];
        (this.doing, this.called, this.alarm) = (doing, false, alarm);
    }

    /// A processor is to look around. False: it does, or was told already.
    pub fn call(&mut self, processor: usize) -> bool {
        let this = &mut self.processors[processor];
        if this.doing == Doing::Work || core::mem::replace(&mut this.called, true) {
            return false;
        }
        this.calls += 1;
        true
    }

    /// A vCPU may run. Answers whom to call.
    pub fn ready(&mut self, id: VcpuId, now: u64) -> Option<usize> {
        let member = self.members.get_mut(&id)?;
        if core::mem::replace(&mut member.ready, true) {
            return None;
        }
        let (group, on) = (member.group, member.on);
        if let Some(group) = group {
            self.come_back(id, group, now);
        }
        if on.is_some() {
            // It is back before anybody took its place.
            return None;
        }
        match self.may_run_again(id, now) {
            Some(until) => self.throttle(id, until),
            None => {
                self.enqueue(id, false);
                self.place(id, now, true)
            }
        }
    }

    /// A shared vCPU that slept is as old as those that did not, at least.
    fn come_back(&mut self, id: VcpuId, group: usize, now: u64) {
        if self.groups[group].ready == 0 {
            shared::join(&mut self.groups, group);
        } else {
            self.catch_up(group, now);
        }
        let group = &mut self.groups[group];
        group.ready += 1;
        if let Some(member) = self.members.get_mut(&id) {
            member.age = member.age.max(group.clock - shared::PREEMPTS);
        }
    }

    /// Brings the clock of a group up to date if nobody of it waits: then nobody of it was picked either.
    fn catch_up(&mut self, group: usize, now: u64) {
        if !self.groups[group].waiting.is_empty() {
            return;
        }
        let mut youngest = None;
        for processor in self.groups[group].allowed.iter() {
            let age = self.processors.get(processor).and_then(|this| {
                let member = self.members.get(&this.current.as_ref()?.id)?;
                (member.group == Some(group) && member.ready).then(|| self.age_on(processor, now))
            });
            youngest = [youngest, age].into_iter().flatten().min();
        }
        let clock = &mut self.groups[group].clock;
        *clock = (*clock).max(youngest.unwrap_or(*clock));
    }

    /// A vCPU may not run.
    pub fn sleep(&mut self, id: VcpuId) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        if !core::mem::replace(&mut member.ready, false) {
            return;
        }
        if let Some(until) = member.throttled.take() {
            self.throttled.remove(&(until, id));
        }
        if let Some(group) = member.group {
            self.groups[group].ready -= 1;
        }
        self.dequeue(id);
    }

    /// Chooses who runs on `processor` from now on, and is [loaded](Self::loaded) there before anybody else asks; whoever ran until now waits again if it still may run. One that was preempted goes before its equals
    /// if its turn is not over.
    pub fn pick(&mut self, processor: usize, now: u64) -> Picked {
        let last = self.retire(processor, now);
        let mut gave_way = last.and_then(|(id, yielded)| yielded.then_some(id));
        let id = loop {
            let Some(id) = self.best(processor, gave_way) else {
                if gave_way.take().is_some() {
                    continue;
                }
                break None;
            };
            match self.admission(id, now) {
                Ok((limit, piece)) => {
                    self.dispatch(id, processor, now, limit, piece);
                    break Some(id);
                }
                Err(until) => {
                    // This processor sees to it that the wait ends.
                    self.dequeue(id);
                    self.migrate(id, processor);
                    self.throttle(id, until);
                }
            }
        };
        let call = self.look_after_waiting(now);
        Picked { id, call }
    }

    /// The one that runs yields: others of its class go first.
    pub fn give_way(&mut self, processor: usize, now: u64) {
        if let Some(current) = &mut self.processors[processor].current {
            (current.slice_end, current.yielded) = (now, true);
        }
    }

    /// Whether somebody else should run on `processor` now.
    pub fn should_switch(&self, processor: usize, now: u64) -> bool {
        let Some(current) = &self.processors[processor].current else {
            return true;
        };
        let Some(member) = self.members.get(&current.id).filter(|member| member.ready) else {
            return true;
        };
        let rank = member.class.rank();
        current.limit.is_some_and(|limit| now >= limit)
            || self
                .first_urgent(processor)
                .is_some_and(|first| self.members[&first].class.rank() > rank)
            || now >= current.slice_end && self.equals_wait(processor, rank)
    }

    /// When a processor has to look around at the latest, for whoever runs there or is kept from running; `None` while nobody waits who would then
    /// run. (A shared one waits for an interactive one without end: an alarm for it would only keep the other from running.)
    pub fn alarm(&self, processor: usize) -> Option<u64> {
        let release = self
            .throttled
            .iter()
            .find(|(_, id)| self.home(*id) == processor)
            .map(|(until, _)| *until);
        let current = self.processors[processor].current.as_ref();
        let limit = current.and_then(|current| current.limit);
        let slice_end = current
            .filter(|current| {
                self.members
                    .get(&current.id)
                    .is_some_and(|member| self.equals_wait(processor, member.class.rank()))
            })
            .map(|current| current.slice_end);
        [release, limit, slice_end].into_iter().flatten().min()
    }

    /// How often a vCPU was kept from running because its budget, or its domain's cap, was used up, since it was made known.
    pub fn throttlings(&self, id: VcpuId) -> u64 {
        self.members.get(&id).map_or(0, |member| member.throttlings)
    }

    /// Ends the wait of one that may run again by now. Answers whom to call; call this until it answers `None`.
    pub fn release(&mut self, now: u64) -> Option<Option<usize>> {
        let (until, id) = *self.throttled.first()?;
        if until > now {
            return None;
        }
        self.throttled.pop_first();
        let member = self.members.get_mut(&id)?;
        member.throttled = None;
        self.enqueue(id, false);
        Some(self.place(id, now, true))
    }

    /// Whether others of the same rank wait for `processor`.
    fn equals_wait(&self, processor: usize, rank: u16) -> bool {
        if rank > 0 {
            let equal = |id: &&VcpuId| {
                let member = &self.members[*id];
                member.class.rank() == rank && member.may_run_on(processor)
            };
            return self.urgent.iter().any(|id| equal(&id));
        }
        self.groups
            .iter()
            .filter(|group| group.allowed.contains(processor))
            .flat_map(|group| &group.waiting)
            .any(|id| self.members[id].may_run_on(processor))
    }

    fn first_urgent(&self, processor: usize) -> Option<VcpuId> {
        self.urgent
            .iter()
            .copied()
            .find(|id| self.members[id].may_run_on(processor))
    }

    /// Who waits and goes first on `processor`, leaving out one that gave way (which only shared ones do this way).
    fn best(&self, processor: usize, gave_way: Option<VcpuId>) -> Option<VcpuId> {
        if let Some(id) = self.first_urgent(processor) {
            return Some(id);
        }
        let standing = |id: &VcpuId| {
            let member = &self.members[id];
            let away = if member.home == processor {
                0
            } else {
                shared::attachment(member)
            };
            member.age.saturating_add(away)
        };
        self.groups
            .iter()
            .filter(|group| group.allowed.contains(processor))
            .flat_map(|group| group.waiting.iter().copied())
            .filter(|id| Some(*id) != gave_way && self.members[id].may_run_on(processor))
            .min_by_key(standing)
    }

    /// The one that ran goes back to those that wait, if it still may run; and whether it gave way.
    fn retire(&mut self, processor: usize, now: u64) -> Option<(VcpuId, bool)> {
        self.charge(processor, now);
        let current = self.processors[processor].current.as_ref()?;
        if let Some(group) = self.members.get(&current.id).and_then(|member| member.group) {
            self.catch_up(group, now);
        }
        let last = self.processors[processor].current.take()?;
        self.settle(last.id.domain, &last);
        let member = self.members.get_mut(&last.id)?;
        member.on = None;
        if !member.ready {
            return None;
        }
        self.enqueue(last.id, now < last.slice_end);
        Some((last.id, last.yielded))
    }

    fn settle(&mut self, domain: DomainId, current: &Current) {
        let cap = self.domains.get_mut(&domain).and_then(|entry| entry.cap.as_mut());
        if let (Some(cap), Some(piece)) = (cap, current.piece) {
            cap.bring_back(piece);
        }
    }

    /// What the one that runs has used up to now.
    fn charge(&mut self, processor: usize, now: u64) {
        let Some(current) = &mut self.processors[processor].current else {
            return;
        };
        let since = current.since;
        let ran = now.saturating_sub(since);
        current.since = since + ran;
        if let Some(piece) = &mut current.piece {
            *piece = piece.saturating_sub(i64::try_from(ran).unwrap_or(i64::MAX));
        }
        let Some(member) = self.members.get_mut(&current.id) else {
            return;
        };
        if let Some(budget) = &mut member.budget {
            budget.spend(since, since + ran);
        }
        if let Some(group) = member.group {
            let group = &self.groups[group];
            let aged = member.age.saturating_add(member.class.aged(ran));
            member.age = aged.max(group.clock - group.most_lag());
        }
    }

    /// Until when a vCPU may not run, if so.
    fn may_run_again(&mut self, id: VcpuId, now: u64) -> Option<u64> {
        self.members.get_mut(&id)?.budget.as_mut()?.available(now).err()
    }

    /// Whether a vCPU may run now: until when at most, and the piece of its domain's credit that it takes. Or when it may.
    fn admission(&mut self, id: VcpuId, now: u64) -> Result<(Option<u64>, Option<i64>), u64> {
        let budget = match self
            .members
            .get_mut(&id)
            .and_then(|member| member.budget.as_mut())
        {
            Some(budget) => Some(budget.available(now)?),
            None => None,
        };
        let cap = self
            .domains
            .get_mut(&id.domain)
            .and_then(|entry| entry.cap.as_mut());
        let piece = match cap {
            Some(cap) => Some(cap.take(now)?),
            None => None,
        };
        let limit = [budget, piece].into_iter().flatten().min();
        Ok((limit.map(|limit| now + limit), piece.map(|piece| piece as i64)))
    }

    fn dispatch(&mut self, id: VcpuId, processor: usize, now: u64, limit: Option<u64>, piece: Option<i64>) {
        self.dequeue(id);
        self.migrate(id, processor);
        self.unload(processor, id);
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        member.on = Some(processor);
        let (class, group, age) = (member.class, member.group, member.age);
        if let Some(group) = group {
            shared::picked(&mut self.groups, &mut self.members, group, age);
        }
        self.processors[processor].current = Some(Current {
            id,
            since: now,
            slice_end: now + class.slice(),
            limit,
            piece,
            yielded: false,
        });
    }

    /// A vCPU that does not run has another home from now on.
    pub fn migrate(&mut self, id: VcpuId, processor: usize) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let from = core::mem::replace(&mut member.home, processor);
        if matches!(member.class, Class::Realtime { .. }) {
            self.processors[from].realtime -= 1;
            self.processors[processor].realtime += 1;
        }
    }

    /// Keeps a vCPU from running until a time. Answers whom to call: its home has to end the wait.
    fn throttle(&mut self, id: VcpuId, until: u64) -> Option<usize> {
        let member = self.members.get_mut(&id)?;
        member.throttled = Some(until);
        member.throttlings += 1;
        self.throttled.insert((until, id));
        let home = member.home;
        (!self.processors[home].looks_by(until)).then_some(home)
    }

    fn enqueue(&mut self, id: VcpuId, before_equals: bool) {
        let Some(member) = self.members.get(&id) else {
            return;
        };
        if let Some(group) = member.group {
            self.groups[group].waiting.push(id);
            return;
        }
        let rank = member.class.rank();
        let ranks = |other: &VcpuId| self.members[other].class.rank();
        let at = self.urgent.partition_point(|other| {
            if before_equals {
                ranks(other) > rank
            } else {
                ranks(other) >= rank
            }
        });
        self.urgent.insert(at, id);
    }

    fn dequeue(&mut self, id: VcpuId) {
        let group = self.members.get(&id).and_then(|member| member.group);
        match group {
            Some(group) => self.groups[group].waiting.retain(|waiting| *waiting != id),
            None => self.urgent.retain(|waiting| *waiting != id),
        }
    }
}

#[cfg(test)]
mod simulator;
#[cfg(test)]
mod tests;

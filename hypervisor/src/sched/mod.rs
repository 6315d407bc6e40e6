//! Who runs next: one run queue a processor, and a vCPU in one of them.
//!
//! Interactive vCPUs (driver domains) run before all shared ones and take turns among themselves; shared ones get what is left in proportion to their weights,
//! by virtual time: each ages while it runs, the faster the lighter it is, and the youngest is next. A vCPU that slept comes back no younger than the
//! youngest that waits, so sleeping earns no hoard. Pure logic: time comes in as nanoseconds, who may run is told by [`Scheduler::ready`] and
//! [`Scheduler::sleep`].

use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};

use crate::domain::VcpuId;

/// How long a vCPU runs while others of its class wait, in nanoseconds.
pub const TIME_SLICE: u64 = 10_000_000;
/// The weight that ages by one nanosecond a nanosecond.
const USUAL_WEIGHT: u64 = 256;

/// How a vCPU competes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Before every shared one.
    Interactive,
    /// With this weight, 1 at least.
    Shared(u32),
}

impl From<&manifest::Scheduling> for Class {
    fn from(scheduling: &manifest::Scheduling) -> Self {
        match scheduling.class {
            manifest::Class::Interactive | manifest::Class::Realtime { .. } => Self::Interactive,
            manifest::Class::Shared { weight } => Self::Shared(weight.max(1)),
        }
    }
}

/// Run queues of the processors.
pub struct Scheduler {
    queues: Vec<RunQueue>,
    members: BTreeMap<VcpuId, Member>,
}

#[derive(Debug)]
struct Member {
    class: Class,
    processor: usize,
    ready: bool,
    /// Virtual nanoseconds.
    age: u64,
}

#[derive(Default)]
struct RunQueue {
    interactive: VecDeque<VcpuId>,
    shared: Vec<VcpuId>,
    current: Option<Current>,
    /// The least age that a vCPU comes back with.
    clock: u64,
}

struct Current {
    id: VcpuId,
    since: u64,
    slice_end: u64,
}

impl Default for Scheduler {
    fn default() -> Self {
        Self::new(1)
    }
}

impl Scheduler {
    /// Queues for `processors` processors.
    pub fn new(processors: usize) -> Self {
        Self {
            queues: (0..processors.max(1)).map(|_| RunQueue::default()).collect(),
            members: BTreeMap::new(),
        }
    }

    /// Lets a vCPU compete, on the processor that has the fewest; it is not ready yet. One that is known already stays where it is.
    pub fn add(&mut self, id: VcpuId, class: Class) {
        if let Some(member) = self.members.get_mut(&id) {
            member.class = class;
            return;
        }
        let members = |processor: &usize| {
            self.members
                .values()
                .filter(|member| member.processor == *processor)
                .count()
        };
        let processor = (0..self.queues.len()).min_by_key(members).unwrap_or(0);
        self.members.insert(
            id,
            Member {
                class,
                processor,
                ready: false,
                age: 0,
            },
        );
    }

    /// Forgets a vCPU.
    pub fn remove(&mut self, id: VcpuId) {
        self.sleep(id);
        self.members.remove(&id);
        for queue in &mut self.queues {
            if queue.current.as_ref().is_some_and(|current| current.id == id) {
                queue.current = None;
            }
        }
    }

    /// The processor that a vCPU runs on when it runs; the first for one that does not compete.
    pub fn home(&self, id: VcpuId) -> usize {
        self.members.get(&id).map_or(0, |member| member.processor)
    }

    /// Whether a vCPU is the one that was picked last for its processor, even if it may no longer run.
    pub fn is_current(&self, id: VcpuId) -> bool {
        let current = &self.queues[self.home(id)].current;
        current.as_ref().is_some_and(|current| current.id == id)
    }

    /// Those that may run and wait for a processor, the first of each queue first.
    pub fn waiting(&self) -> impl Iterator<Item = VcpuId> {
        let interactive = self.queues.iter().flat_map(|queue| &queue.interactive);
        let shared = self.queues.iter().flat_map(|queue| &queue.shared);
        interactive.chain(shared).copied()
    }

    /// Moves a vCPU that is not running to another processor, no older or younger among the others there than it was here.
    pub fn migrate(&mut self, id: VcpuId, to: usize) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let from = core::mem::replace(&mut member.processor, to);
        let lead = member.age.saturating_sub(self.queues[from].clock);
        member.age = self.queues[to].clock + lead;
        let (ready, class) = (member.ready, member.class);
        if ready {
            self.queues[from].interactive.retain(|queued| *queued != id);
            self.queues[from].shared.retain(|queued| *queued != id);
            self.queues[to].push(id, class);
        }
    }

    /// A vCPU may run.
    pub fn ready(&mut self, id: VcpuId) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        if core::mem::replace(&mut member.ready, true) {
            return;
        }
        let queue = &mut self.queues[member.processor];
        member.age = member.age.max(queue.clock);
        if queue.current.as_ref().is_none_or(|current| current.id != id) {
            queue.push(id, member.class);
        }
    }

    /// A vCPU may not run.
    pub fn sleep(&mut self, id: VcpuId) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        member.ready = false;
        let queue = &mut self.queues[member.processor];
        queue.interactive.retain(|queued| *queued != id);
        queue.shared.retain(|queued| *queued != id);
    }

    /// Chooses who runs on `processor` from now on; whoever ran until now goes back to the queue if it still may run. An interactive
    /// one goes to the front if its slice is not over (it merely was interrupted), to the back otherwise.
    pub fn pick(&mut self, processor: usize, now: u64) -> Option<VcpuId> {
        self.charge(processor, now);
        let queue = &mut self.queues[processor];
        if let Some(last) = queue.current.take()
            && let Some(member) = self.members.get(&last.id).filter(|member| member.ready)
        {
            if member.class == Class::Interactive && now < last.slice_end {
                queue.interactive.push_front(last.id);
            } else {
                queue.push(last.id, member.class);
            }
        }
        let age = |id: &VcpuId| self.members.get(id).map_or(0, |member| member.age);
        let id = match queue.interactive.pop_front() {
            Some(id) => id,
            None => {
                let (index, id) = queue
                    .shared
                    .iter()
                    .copied()
                    .enumerate()
                    .min_by_key(|(_, id)| age(id))?;
                queue.shared.swap_remove(index);
                queue.clock = queue.clock.max(age(&id));
                id
            }
        };
        queue.current = Some(Current {
            id,
            since: now,
            slice_end: now + TIME_SLICE,
        });
        Some(id)
    }

    /// The one that runs yields: others of its class go first.
    pub fn give_way(&mut self, processor: usize, now: u64) {
        if let Some(current) = &mut self.queues[processor].current {
            current.slice_end = now;
        }
    }

    /// Whether somebody else should run on `processor` now.
    pub fn should_switch(&self, processor: usize, now: u64) -> bool {
        let queue = &self.queues[processor];
        let Some(current) = &queue.current else {
            return true;
        };
        let Some(member) = self.members.get(&current.id).filter(|member| member.ready) else {
            return true;
        };
        let goes_first = member.class != Class::Interactive && !queue.interactive.is_empty();
        goes_first || now >= current.slice_end && queue.equals_wait(member.class)
    }

    /// When the one that runs on `processor` has run long enough; `None` while nobody waits that would then run in its place. (A shared one waits for an
    /// interactive one without end: an alarm for it would only keep the other from running.)
    pub fn slice_end(&self, processor: usize) -> Option<u64> {
        let queue = &self.queues[processor];
        let current = queue.current.as_ref()?;
        let class = self.members.get(&current.id)?.class;
        queue.equals_wait(class).then_some(current.slice_end)
    }

    /// Ages the one that runs by the time that it ran.
    fn charge(&mut self, processor: usize, now: u64) {
        let Some(current) = &mut self.queues[processor].current else {
            return;
        };
        let ran = now.saturating_sub(current.since);
        current.since = now;
        if let Some(member) = self.members.get_mut(&current.id)
            && let Class::Shared(weight) = member.class
        {
            let aged = ran.saturating_mul(USUAL_WEIGHT) / u64::from(weight);
            member.age = member.age.saturating_add(aged);
        }
    }
}

impl RunQueue {
    /// Whether others of the class wait for their turn.
    fn equals_wait(&self, class: Class) -> bool {
        match class {
            Class::Interactive => !self.interactive.is_empty(),
            Class::Shared(_) => !self.shared.is_empty(),
        }
    }

    fn push(&mut self, id: VcpuId, class: Class) {
        match class {
            Class::Interactive => self.interactive.push_back(id),
            Class::Shared(_) => self.shared.push(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DomainId;

    const MILLISECOND: u64 = 1_000_000;

    fn id(domain: u16) -> VcpuId {
        VcpuId {
            domain: DomainId(domain),
            index: 0,
        }
    }

    fn scheduler(classes: &[Class]) -> Scheduler {
        let mut scheduler = Scheduler::default();
        for (domain, class) in (1..).zip(classes) {
            scheduler.add(id(domain), *class);
            scheduler.ready(id(domain));
        }
        scheduler
    }

    /// Runs for a second in slices, everyone always ready; answers the milliseconds that each got.
    fn share(scheduler: &mut Scheduler, count: usize) -> Vec<u64> {
        let mut got = std::vec![0; count];
        for slice in 0..100 {
            let picked = scheduler.pick(0, slice * TIME_SLICE).unwrap();
            got[usize::from(picked.domain.0) - 1] += TIME_SLICE / MILLISECOND;
        }
        got
    }

    #[test]
    fn shared_ones_share_by_weight() {
        let mut scheduler = scheduler(&[Class::Shared(256), Class::Shared(512), Class::Shared(256)]);
        assert_eq!(share(&mut scheduler, 3), [250, 500, 250]);
    }

    #[test]
    fn interactive_ones_go_first_and_take_turns() {
        let mut scheduler = scheduler(&[Class::Shared(256), Class::Interactive, Class::Interactive]);
        assert_eq!(share(&mut scheduler, 3), [0, 500, 500]);
        scheduler.sleep(id(2));
        scheduler.sleep(id(3));
        assert_eq!(scheduler.pick(0, 0), Some(id(1)));
        assert!(!scheduler.should_switch(0, 1));
        scheduler.ready(id(3));
        assert!(scheduler.should_switch(0, 1));
        assert_eq!(scheduler.pick(0, 1), Some(id(3)));
    }

    #[test]
    fn a_slice_ends_only_if_somebody_waits() {
        let mut scheduler = scheduler(&[Class::Shared(256)]);
        assert_eq!(scheduler.pick(0, 0), Some(id(1)));
        assert_eq!(scheduler.slice_end(0), None);
        assert!(!scheduler.should_switch(0, 5 * TIME_SLICE));
        scheduler.add(id(2), Class::Shared(256));
        scheduler.ready(id(2));
        assert_eq!(scheduler.slice_end(0), Some(TIME_SLICE));
        assert!(!scheduler.should_switch(0, TIME_SLICE - 1));
        assert!(scheduler.should_switch(0, TIME_SLICE));
        scheduler.give_way(0, 1);
        assert!(scheduler.should_switch(0, 1));
    }

    #[test]
    fn nobody_is_alarmed_for_a_turn_that_is_not_to_come() {
        let mut scheduler = scheduler(&[Class::Interactive, Class::Shared(256)]);
        assert_eq!(scheduler.pick(0, 0), Some(id(1)));
        assert_eq!(scheduler.slice_end(0), None);
        scheduler.give_way(0, 1);
        assert_eq!(scheduler.slice_end(0), None);
        assert!(!scheduler.should_switch(0, 2 * TIME_SLICE));
        scheduler.add(id(3), Class::Interactive);
        scheduler.ready(id(3));
        assert_eq!(scheduler.slice_end(0), Some(1));
        assert!(scheduler.should_switch(0, 1));
    }

    #[test]
    fn sleeping_earns_no_hoard() {
        let mut scheduler = scheduler(&[Class::Shared(256), Class::Shared(256)]);
        scheduler.sleep(id(2));
        for slice in 0..100 {
            assert_eq!(scheduler.pick(0, slice * TIME_SLICE), Some(id(1)));
        }
        scheduler.ready(id(2));
        let mut second = 0;
        for slice in 100..120 {
            second += u32::from(scheduler.pick(0, slice * TIME_SLICE) == Some(id(2)));
        }
        assert!((10..=11).contains(&second), "{second}");
    }

    #[test]
    fn who_sleeps_or_goes_is_not_picked() {
        let mut scheduler = scheduler(&[Class::Interactive, Class::Interactive]);
        assert_eq!(scheduler.pick(0, 0), Some(id(1)));
        scheduler.sleep(id(1));
        assert!(scheduler.should_switch(0, 0));
        scheduler.remove(id(2));
        assert_eq!(scheduler.pick(0, 1), None);
        scheduler.ready(id(2));
        scheduler.ready(id(1));
        scheduler.ready(id(1));
        assert_eq!(scheduler.pick(0, 2), Some(id(1)));
        scheduler.remove(id(1));
        assert_eq!(scheduler.pick(0, 3), None);
    }

    #[test]
    fn one_that_moves_keeps_its_standing() {
        let mut scheduler = Scheduler::new(2);
        for domain in 1..=4 {
            scheduler.add(id(domain), Class::Shared(256));
            scheduler.ready(id(domain));
        }
        assert_eq!(
            [1, 2, 3, 4].map(|domain| scheduler.home(id(domain))),
            [0, 1, 0, 1]
        );
        assert_eq!(
            (scheduler.pick(0, 0), scheduler.pick(1, 0)),
            (Some(id(1)), Some(id(2)))
        );
        assert!(scheduler.is_current(id(1)) && !scheduler.is_current(id(3)));
        assert_eq!(scheduler.waiting().collect::<Vec<_>>(), [id(3), id(4)]);
        scheduler.migrate(id(3), 1);
        assert_eq!((scheduler.home(id(3)), scheduler.slice_end(0)), (1, None));
        assert_eq!(scheduler.pick(1, TIME_SLICE), Some(id(4)));
        // It is as young here as it was there, and waits once.
        assert_eq!(scheduler.pick(1, 2 * TIME_SLICE), Some(id(3)));
        scheduler.sleep(id(3));
        scheduler.migrate(id(3), 0);
        assert_eq!(scheduler.pick(1, 3 * TIME_SLICE), Some(id(2)));
        scheduler.ready(id(3));
        assert_eq!(scheduler.waiting().collect::<Vec<_>>(), [id(3), id(4)]);
        // Brought up again, it is where it was.
        scheduler.add(id(4), Class::Shared(256));
        assert_eq!(scheduler.home(id(4)), 1);
    }
}

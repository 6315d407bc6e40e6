//! The plane and the journal: what a turn leaves there, and how the next life goes on from it.

use alloc::{collections::BTreeMap, vec::Vec};
use core::time::Duration;

use unikernel_rt::{atoll::MachineAction, memory::SharedMemory};
use xen_abi::atoll::{DOMAIN_STATE_BUILDING, DOMAIN_STATE_RUNNING, DOMAIN_STATE_STOPPED};

use super::{AfterLeaving, ControlPlane, Failures, GoingDown, Hypervisor, Phase, member::Member};
use crate::{
    DomainId,
    connection::Connection,
    journal::{self, Batch, Entry, Found, Journal, Stream},
    layout::Plan,
    store::{Quota, Store, StoreError},
};

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl<L> Member<L> {
    fn entry(&self) -> journal::Member {
        let mut entry = journal::Member {
            domain: self.plan.id.0,
            failures: self.failures.count(),
            destroyed: self.destroyed,
            rebuild_by: self.rebuild_by.map(nanos),
            suspends_by: self.suspends_by.map(nanos),
            answers: self.answers,
            ..Default::default()
        };
        match self.phase {
            Phase::Waiting => {}
            Phase::Running { since } => (entry.phase, entry.time) = (1, nanos(since)),
            Phase::Leaving { until, next } => {
                (entry.phase, entry.time) = (2, nanos(until));
                (entry.next, entry.rest) = match next {
                    AfterLeaving::Restart { rest } => (0, nanos(rest)),
                    AfterLeaving::Remove => (1, 0),
                    AfterLeaving::Keep => (2, 0),
                    AfterLeaving::Resume => (3, 0),
                };
            }
            Phase::Resting { until } => (entry.phase, entry.time) = (3, nanos(until)),
            Phase::Down => entry.phase = 4,
        }
        entry
    }

    fn follow(&mut self, entry: &journal::Member) {
        let time = Duration::from_nanos(entry.time);
        self.phase = match entry.phase {
            1 => Phase::Running { since: time },
            2 => Phase::Leaving {
                until: time,
                next: match entry.next {
                    0 => AfterLeaving::Restart {
                        rest: Duration::from_nanos(entry.rest),
                    },
                    1 => AfterLeaving::Remove,
                    3 => AfterLeaving::Resume,
                    _ => AfterLeaving::Keep,
                },
            },
            3 => Phase::Resting { until: time },
            4 => Phase::Down,
            _ => Phase::Waiting,
        };
        self.failures = Failures::of(entry.failures);
        self.destroyed = entry.destroyed;
        self.rebuild_by = entry.rebuild_by.map(Duration::from_nanos);
        self.suspends_by = entry.suspends_by.map(Duration::from_nanos);
        self.answers = entry.answers;
    }
}

impl<H: Hypervisor> ControlPlane<H> {
    /// The control plane of a machine that a former life may have begun to run, of which `area` tells. If it tells nothing that can be believed, everything begins anew.
    pub fn open(
        plan: Plan,
        quota: Quota,
        hypervisor: H,
        area: Option<&SharedMemory>,
    ) -> Result<Self, StoreError> {
        let (journal, found) = match area.map(Journal::open) {
            Some(Ok((journal, found))) => (Some(journal), found),
            Some(Err(error)) => {
                log::error!("nothing is kept for another life: {error}");
                (None, Found::Nothing)
            }
            None => (None, Found::Nothing),
        };
        let life = nanos(hypervisor.now());
        let told = match found {
            Found::Nothing => None,
            Found::Corrupt => {
                log::error!("the journal of the last life is corrupt");
                None
            }
            Found::Batches(batches) => {
                let entries: Option<Vec<Vec<Entry>>> =
                    batches.iter().map(|batch| journal::entries(batch)).collect();
                let entries: Option<Vec<Entry>> =
                    entries.map(|entries| entries.into_iter().flatten().collect());
                let store = entries.and_then(|entries| {
                    Some((
                        Store::replay(plan.control, quota.clone(), life, &entries).ok()?,
                        entries,
                    ))
                });
                if store.is_none() {
                    log::error!("the journal of the last life contradicts itself");
                }
                store
            }
        };
        let mut this = match told {
            Some((store, entries)) => Self::go_on(plan, store, hypervisor, &entries),
            None => {
                let mut this = Self::new(plan, quota, hypervisor)?;
                this.begin_with_nothing();
                this
            }
        };
        this.journal = journal;
        if this.journal.is_none() {
            this.store.batch().switch_off();
        }
        this.begin_journal_anew();
        Ok(this)
    }

    /// Nobody remembers those that run: they begin anew, too.
    fn begin_with_nothing(&mut self) {
        for index in 0..self.members.len() {
            let member = &self.members[index];
            let info = self.hypervisor.info(member.plan.id);
            let alive = |state| {
                matches!(
                    state,
                    DOMAIN_STATE_RUNNING | DOMAIN_STATE_STOPPED | DOMAIN_STATE_BUILDING
                )
            };
            if info.is_ok_and(|info| alive(info.state)) {
                log::error!("{} is started anew, for nothing is known of it", member.plan.name);
                self.destroy(index);
                self.members[index].destroyed = false;
            }
        }
    }

    fn go_on(plan: Plan, store: Store, hypervisor: H, entries: &[Entry]) -> Self {
        let mut this = Self::with_store(plan, store, hypervisor);
        let mut streams: BTreeMap<u16, Stream> = BTreeMap::new();
        for entry in entries {
            match entry {
                Entry::Stream(stream) => match streams.get_mut(&stream.domain) {
                    Some(known) if !stream.fresh => {
                        (known.position, known.partial) = (stream.position, stream.partial.clone());
                        known.output.extend_from_slice(&stream.output);
                    }
                    _ => drop(streams.insert(stream.domain, stream.clone())),
                },
                Entry::Released(domain) => drop(streams.remove(domain)),
                Entry::Member(entry) => {
                    let member = this
                        .members
                        .iter_mut()
                        .find(|member| member.plan.id.0 == entry.domain);
                    if let Some(member) = member {
                        member.follow(entry);
                    }
                }
                Entry::Machine(entry) => {
                    (this.ready, this.last_request) = (entry.ready, entry.last_request);
                    this.going_down = entry.going_down.map(|(again, until, is_over)| {
                        let action = if again {
                            MachineAction::Reboot
                        } else {
                            MachineAction::PowerOff
                        };
                        GoingDown::resume(action, Duration::from_nanos(until), is_over)
                    });
                }
                _ => {}
            }
        }
        for index in 0..this.members.len() {
            this.find_again(index, &streams);
        }
        let running = this.members.iter().filter(|member| member.is_running()).count();
        log::info!(
            "goes on where the last life ended: {running} of {} run",
            this.members.len()
        );
        this
    }

    /// Takes a domain up again that ran.
    fn find_again(&mut self, index: usize, streams: &BTreeMap<u16, Stream>) {
        let member = &mut self.members[index];
        if !member.is_running() {
            return;
        }
        let (id, name) = (member.plan.id, member.plan.name.clone());
        match self.hypervisor.info(id) {
            Ok(info) if matches!(info.state, DOMAIN_STATE_RUNNING | DOMAIN_STATE_STOPPED) => {
                match self.hypervisor.connect(id, info.store_port) {
                    Ok(link) => {
                        let connection = match streams.get(&id.0) {
                            Some(stream) => Connection::resume(&name, link, stream),
                            None => Connection::open(id, &name, link),
                        };
                        self.members[index].connection = Some(connection);
                    }
                    Err(error) => log::error!("{name} goes on without xenstore: {error}"),
                }
            }
            // The last life ended in the middle of building it anew.
            _ => self.leave(index, AfterLeaving::Restart { rest: Duration::ZERO }),
        }
    }

    /// Notes what has happened. Before that nobody outside may see it.
    pub(super) fn commit(&mut self) {
        if self.store.batch().is_off() {
            return;
        }
        let mut batch = core::mem::take(self.store.batch());
        for member in &mut self.members {
            if let Some(connection) = &mut member.connection {
                connection.note(&mut batch, false);
            }
        }
        self.note_plans(&mut batch, false);
        let bytes = batch.take();
        *self.store.batch() = batch;
        let Some(journal) = &mut self.journal else { return };
        match journal.append(&bytes) {
            Ok(true) => {}
            Ok(false) => self.begin_journal_anew(),
            Err(error) => self.give_journal_up(&error),
        }
    }

    fn note_plans(&mut self, batch: &mut Batch, whole: bool) {
        for member in &self.members {
            let entry = member.entry();
            if whole || self.noted.get(&member.plan.id) != Some(&entry) {
                self.noted.insert(member.plan.id, entry.clone());
                batch.note(|| Entry::Member(entry));
            }
        }
        let machine = journal::Machine {
            ready: self.ready,
            last_request: self.last_request,
            going_down: self.going_down.as_ref().map(GoingDown::entry),
        };
        if whole || self.noted_machine != machine {
            self.noted_machine = machine.clone();
            batch.note(|| Entry::Machine(machine));
        }
    }

    /// Has the journal begin with everything as it is.
    fn begin_journal_anew(&mut self) {
        self.store.batch().take();
        if self.store.batch().is_off() {
            return;
        }
        let mut batch = Batch::default();
        self.store.note_all(&mut batch);
        for member in &mut self.members {
            if let Some(connection) = &mut member.connection {
                connection.note(&mut batch, true);
            }
        }
        self.note_plans(&mut batch, true);
        let Some(journal) = &mut self.journal else { return };
        let bytes = batch.take();
        match journal.begin_anew(&bytes) {
            Ok(true) => {}
            Ok(false) => self.give_journal_up(&format_args!(
                "{} bytes are more than half of the keep region; give this domain a larger `keep`",
                bytes.len()
            )),
            Err(error) => self.give_journal_up(&error),
        }
    }

    fn give_journal_up(&mut self, why: &dyn core::fmt::Display) {
        log::error!("if this domain ends, all others begin anew: {why}");
        if let Some(Err(error)) = self.journal.as_mut().map(Journal::clear) {
            log::error!("the journal cannot even be cleared: {error}");
        }
        self.journal = None;
        self.store.batch().switch_off();
    }
}

/// What the journal was told last of each domain.
pub(super) type Noted = BTreeMap<DomainId, journal::Member>;

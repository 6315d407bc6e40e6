//! The control plane: serves every domain's xenstore connection, starts the domains, notices their ends, and follows the
//! operator.
//!
//! It is the supervisor, so it never waits for anyone: whatever another domain has to do (close a device, shut down) has a
//! deadline, after which the plane goes on without it. A turn does bounded work and returns; [`ControlPlane::turn`] says when the
//! next one is due.

mod faults;
mod hypervisor;
mod journal;
mod lifecycle;
mod member;
mod memory;
mod operator;
mod reconnect;
mod restarts;
#[cfg(test)]
mod tests;
mod vcpus;

pub use hypervisor::Hypervisor;
pub use member::{AfterLeaving, Phase};
pub use operator::{Command, GUEST_GRACE, Request, RequestError};
pub use restarts::Failures;

use alloc::vec::Vec;
use core::time::Duration;

use crate::{
    DomainId,
    journal::Journal,
    layout::{Plan, READY, REQUEST},
    store::{Path, Quota, Store, StoreError},
};
use unikernel_rt::xenbus::RECONNECT;

use member::Member;
use operator::GoingDown;

/// When the next turn is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once.
    Now,
    /// When something happens, or at this time.
    At(Duration),
    /// When something happens.
    Event,
}

/// The control plane of a machine.
pub struct ControlPlane<H: Hypervisor> {
    hypervisor: H,
    store: Store,
    control: DomainId,
    members: Vec<Member<H::Link>>,
    going_down: Option<GoingDown>,
    last_request: Option<u64>,
    ready: bool,
    /// Where the next life finds everything; none in tests, and where it does not fit.
    journal: Option<Journal>,
    noted: journal::Noted,
    noted_machine: crate::journal::Machine,
}

impl<H: Hypervisor> ControlPlane<H> {
    /// Lays out the tree. No domain has been started yet.
    pub fn new(plan: Plan, quota: Quota, hypervisor: H) -> Result<Self, StoreError> {
        let mut store = Store::new(plan.control, quota);
        for complaint in &plan.complaints {
            log::error!("{complaint}");
        }
        plan.populate(&mut store)?;
        store.watch(&Path::absolute(REQUEST)?, b"operator")?;
        for device in plan.domains.iter().flat_map(|domain| &domain.devices) {
            store.watch(&device.backend.child(RECONNECT)?, reconnect::TOKEN)?;
        }
        Ok(Self::with_store(plan, store, hypervisor))
    }

    fn with_store(plan: Plan, store: Store, hypervisor: H) -> Self {
        let control = plan.control;
        let members = plan
            .domains
            .into_iter()
            .filter(|domain| domain.id != control)
            .map(Member::new)
            .collect();
        Self {
            hypervisor,
            store,
            control,
            members,
            going_down: None,
            last_request: None,
            ready: false,
            journal: None,
            noted: Default::default(),
            noted_machine: Default::default(),
        }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Where a domain is in its life.
    pub fn phase(&self, domain: DomainId) -> Option<Phase> {
        self.members
            .iter()
            .find(|member| member.plan.id == domain)
            .map(|member| member.phase)
    }

    /// One turn: looks after the domains, starts at most one, and serves every connection a little. `domains_stopped` says
    /// that the hypervisor announced the end of some domain.
    pub fn turn(&mut self, domains_stopped: bool) -> Next {
        if domains_stopped {
            self.notice_ends();
        }
        self.advance_all();
        let started = self.start_next();
        let more = self.serve();
        self.advance_all();
        self.continue_going_down();
        let arrived = self.deliver();
        if started || more || arrived {
            Next::Now
        } else {
            self.deadline().map_or(Next::Event, Next::At)
        }
    }

    fn deadline(&self) -> Option<Duration> {
        let members = self.members.iter().filter_map(Member::deadline);
        members
            .chain(self.going_down.as_ref().and_then(GoingDown::deadline))
            .min()
    }

    /// Starts the next domain that has never been started.
    fn start_next(&mut self) -> bool {
        if self.going_down.is_some() {
            return false;
        }
        let waiting = self
            .members
            .iter()
            .position(|member| member.phase == Phase::Waiting);
        match waiting {
            Some(index) => self.start(index),
            None if !self.ready => {
                self.ready = true;
                self.write(READY, b"1");
                let running = self.members.iter().filter(|member| member.is_running()).count();
                log::info!("all domains are started: {running} of {} run", self.members.len());
            }
            None => return false,
        }
        true
    }

    /// Lets every connection have a few requests answered.
    fn serve(&mut self) -> bool {
        let mut more = false;
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            if let Some(connection) = &mut member.connection {
                more |= connection.serve(&mut self.store);
                self.route();
            }
        }
        more
    }

    /// Puts everything that waits into the rings. Answers whether requests have come meanwhile.
    fn deliver(&mut self) -> bool {
        self.route();
        self.commit();
        let mut arrived = false;
        for member in &mut self.members {
            if let Some(connection) = &mut member.connection {
                arrived |= connection.flush(&mut self.store);
            }
        }
        arrived
    }

    /// Hands watch events to their connections, and those of the control domain to the plane itself.
    fn route(&mut self) {
        // Following the operator changes nodes, which fires watches again; it ends, for one request is followed once.
        loop {
            let notifications = self.store.take_notifications();
            if notifications.is_empty() {
                return;
            }
            for notification in notifications {
                if notification.domain == self.control {
                    if &*notification.token == reconnect::TOKEN {
                        self.follow_backend(&notification.path);
                    } else {
                        self.follow_operator();
                    }
                    continue;
                }
                let member = self
                    .members
                    .iter_mut()
                    .find(|member| member.plan.id == notification.domain);
                if let Some(connection) = member.and_then(|member| member.connection.as_mut()) {
                    connection.deliver(&notification);
                }
            }
        }
    }

    fn write(&mut self, path: &str, value: &[u8]) {
        let written = Path::absolute(path).and_then(|path| self.store.write(&path, value));
        if let Err(error) = written {
            log::error!("{path} cannot be written: {error}");
        }
    }

    fn read(&self, path: &str) -> Option<&[u8]> {
        self.store.read(&Path::absolute(path).ok()?)
    }
}

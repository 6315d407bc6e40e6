//! The lives of domains: start, end, and what happens between an end and the next start.
//!
//! A domain that is gone leaves its devices in order: the plane sets its frontends' states to Closed, as the domain would have
//! done, and gives the backends a moment to close theirs. If it starts again, its own nodes are made anew and the backends'
//! nodes stay, for a backend that has closed goes back to InitWait by itself when the frontend's state is Initialising.
//! If it stays down, the nodes of both sides are removed. A domain's nodes as a *backend* always stay: its next instance finds
//! its frontends there.

use alloc::{format, string::String, vec::Vec};
use core::time::Duration;
use unikernel_rt::{atoll::DomainInfo, xenbus::State};
use xen_abi::{
    atoll::{DOMAIN_STATE_ABSENT, DOMAIN_STATE_FAILED, DOMAIN_STATE_RUNNING, DOMAIN_STATE_STOPPED},
    sched::{
        SHUTDOWN_crash as CRASH, SHUTDOWN_poweroff as POWER_OFF, SHUTDOWN_reboot as REBOOT,
        SHUTDOWN_soft_reset as SOFT_RESET, SHUTDOWN_suspend as SUSPEND, SHUTDOWN_watchdog as WATCHDOG,
    },
};

use super::{AfterLeaving, ControlPlane, Hypervisor, Phase, member::LEAVE_TIME};
use crate::{
    connection::Connection,
    layout::{DomainPlan, Rings, put_all, ring_nodes},
    store::{Path, Special, Store, StoreError},
};
use manifest::Restart;

impl<H: Hypervisor> ControlPlane<H> {
    /// Starts a domain, introduces it, and answers the operator if it was asked for.
    pub(super) fn start(&mut self, index: usize) {
        let outcome = self.try_start(index);
        let member = &mut self.members[index];
        let name = member.plan.name.clone();
        let answers = member.answers.take();
        let reply = match outcome {
            Ok(()) => {
                log::info!("{name} is started");
                Ok(format!("{name} is started"))
            }
            Err(error) => {
                log::error!("{error}");
                self.start_failed(index);
                Err(error)
            }
        };
        if let Some(sequence) = answers {
            self.answer(sequence, reply);
        }
    }

    fn try_start(&mut self, index: usize) -> Result<(), String> {
        self.forget_wishes(index)
            .map_err(|error| format!("what the backends of a domain want: {error}"))?;
        let now = self.hypervisor.now();
        let member = &mut self.members[index];
        let (id, name) = (member.plan.id, &member.plan.name);
        // Before its first start all is as new; whoever serves it may have begun to publish.
        let made = if member.phase == Phase::Waiting {
            Ok(())
        } else {
            renew(&mut self.store, &member.plan)
        };
        made.map_err(|error| format!("{name}: its xenstore nodes cannot be made: {error}"))?;
        // A former life of ours may have come just so far.
        let runs = self
            .hypervisor
            .info(id)
            .is_ok_and(|info| info.state == DOMAIN_STATE_RUNNING);
        if !runs {
            self.hypervisor
                .start(id)
                .map_err(|error| format!("{name} cannot be started: {error}"))?;
        }
        member.destroyed = false;
        let info = self
            .hypervisor
            .info(id)
            .map_err(|error| format!("{name}: its state is not known: {error}"))?;
        if info.state == DOMAIN_STATE_FAILED {
            return Err(format!(
                "{name} could not be built; the hypervisor's log says why"
            ));
        }
        member.phase = Phase::Running { since: now };
        let rings = ring_nodes(self.control, id, &rings(&info));
        put_all(&mut self.store, &rings).map_err(|error| format!("{name}: its rings' nodes: {error}"))?;
        match self.hypervisor.connect(id, info.store_port) {
            Ok(link) => member.connection = Some(Connection::open(id, name, link)),
            // It can still do what needs no xenstore.
            Err(error) => log::error!("{name} runs without xenstore: {error}"),
        }
        self.store.introduce(id);
        // It may have ended already; that announcement came while it was still being started.
        if info.state == DOMAIN_STATE_STOPPED {
            self.ended(index, &info);
        }
        Ok(())
    }

    /// A domain that ran before is tried again, for what it lacks (memory that is still in use) may come back.
    fn start_failed(&mut self, index: usize) {
        let now = self.hypervisor.now();
        let member = &mut self.members[index];
        let ran_before = member.phase != Phase::Waiting && member.failures.count() > 0;
        let rest = member
            .failures
            .after_failure(&member.plan.restarts, Duration::ZERO);
        member.phase = match rest {
            Some(rest) if ran_before => Phase::Resting { until: now + rest },
            _ => Phase::Down,
        };
    }

    /// Asks about every domain that should be running.
    pub(super) fn notice_ends(&mut self) {
        for index in 0..self.members.len() {
            if !self.members[index].is_running() {
                continue;
            }
            match self.hypervisor.info(self.members[index].plan.id) {
                Ok(info)
                    if matches!(
                        info.state,
                        DOMAIN_STATE_STOPPED | DOMAIN_STATE_FAILED | DOMAIN_STATE_ABSENT
                    ) =>
                {
                    self.ended(index, &info);
                }
                Ok(_) => {}
                Err(error) => log::error!(
                    "{}: its state is not known: {error}",
                    self.members[index].plan.name
                ),
            }
        }
    }

    fn ended(&mut self, index: usize, info: &DomainInfo) {
        let now = self.hypervisor.now();
        let going_down = self.going_down.is_some();
        let member = &mut self.members[index];
        let (name, ran) = (member.plan.name.clone(), member.ran(now));
        let stopped = info.state == DOMAIN_STATE_STOPPED;
        let wanted = member.rebuild_by.take().is_some();
        let resumes = member.suspends_by.take().is_some();
        let next = match info.shutdown_reason {
            _ if !stopped => {
                log::error!("{name} was taken down");
                AfterLeaving::Remove
            }
            SUSPEND if resumes && !wanted && !going_down => AfterLeaving::Resume,
            reason @ (POWER_OFF | SUSPEND) => {
                log::info!(
                    "{name} shut down ({})",
                    if reason == POWER_OFF {
                        "poweroff"
                    } else {
                        "suspend"
                    }
                );
                match member.plan.restarts.policy {
                    Restart::Always if reason == POWER_OFF => AfterLeaving::Restart {
                        rest: member.failures.after_reboot(&member.plan.restarts, ran),
                    },
                    _ => AfterLeaving::Remove,
                }
            }
            REBOOT | SOFT_RESET => {
                log::info!("{name} shut down (reboot)");
                AfterLeaving::Restart {
                    rest: member.failures.after_reboot(&member.plan.restarts, ran),
                }
            }
            reason => {
                match reason {
                    CRASH => log::error!("{name} crashed"),
                    WATCHDOG => log::error!("{name} crashed (its watchdog expired)"),
                    other => log::error!("{name} crashed (for the unknown reason {other})"),
                }
                let rest = member.failures.after_failure(&member.plan.restarts, ran);
                match (member.plan.restarts.policy, rest) {
                    (Restart::Never, _) => AfterLeaving::Keep,
                    (_, Some(rest)) => AfterLeaving::Restart { rest },
                    (_, None) => {
                        let count = member.failures.count();
                        log::error!(
                            "{name} crashed {count} times in a row and stays down; `restart {name}` tries again"
                        );
                        AfterLeaving::Remove
                    }
                }
            }
        };
        let next = match next {
            // Drivers are needed to the last; guests that are meant to end are not brought back.
            AfterLeaving::Restart { .. } if going_down && member.plan.is_guest => AfterLeaving::Remove,
            _ if wanted && !going_down => AfterLeaving::Restart { rest: Duration::ZERO },
            next => next,
        };
        self.leave(index, next);
    }

    /// Ends a domain that may be running, to build it anew.
    pub(super) fn rebuild(&mut self, index: usize) {
        let member = &mut self.members[index];
        // The ring is let go before what it belongs to.
        (member.rebuild_by, member.connection) = (None, None);
        self.destroy(index);
        self.leave(index, AfterLeaving::Restart { rest: Duration::ZERO });
    }

    /// The domain is gone: ends its connection, announces it, and lets its backends close its devices.
    pub(super) fn leave(&mut self, index: usize, next: AfterLeaving) {
        let until = self.hypervisor.now() + LEAVE_TIME;
        let member = &mut self.members[index];
        member.connection = None;
        member.phase = Phase::Leaving { until, next };
        self.store.forget(member.plan.id);
        for device in &member.plan.devices {
            let closed = device
                .frontend
                .child("state")
                .and_then(|state| self.store.write(&state, b"6"));
            if let Err(error) = closed {
                log::error!("{}: {error}", device.frontend);
            }
        }
        self.store.announce(Special::ReleaseDomain);
    }

    /// Takes every domain's next step that is due.
    pub(super) fn advance_all(&mut self) {
        let now = self.hypervisor.now();
        for index in 0..self.members.len() {
            if self.members[index].suspends_by.is_some_and(|by| by <= now) {
                self.does_not_suspend(index);
            }
            if self.members[index].rebuild_by.is_some_and(|by| by <= now) {
                log::warn!("{} did not end by itself in time", self.members[index].plan.name);
                self.rebuild(index);
            }
            match self.members[index].phase {
                Phase::Leaving { until, next } if until <= now || self.devices_are_closed(index) => {
                    self.left(index, next);
                }
                _ => {}
            }
            match self.members[index].phase {
                Phase::Resting { until } if until <= now => self.start(index),
                _ => {}
            }
        }
    }

    fn left(&mut self, index: usize, next: AfterLeaving) {
        let now = self.hypervisor.now();
        if !matches!(next, AfterLeaving::Keep | AfterLeaving::Resume) {
            self.destroy(index);
        }
        let member = &mut self.members[index];
        for device in &member.plan.devices {
            let (frontend, backend) = (&device.frontend, &device.backend);
            let stays_down = !matches!(next, AfterLeaving::Restart { .. } | AfterLeaving::Resume);
            let removed = self.store.remove(frontend).and_then(|()| {
                if stays_down {
                    self.store.remove(backend)
                } else {
                    Ok(())
                }
            });
            if let Err(error) = removed {
                log::error!("{frontend} or {backend} cannot be removed: {error}");
            }
        }
        if next == AfterLeaving::Resume {
            self.resume(index);
            return;
        }
        member.phase = match next {
            AfterLeaving::Restart { rest } => Phase::Resting { until: now + rest },
            AfterLeaving::Remove | AfterLeaving::Keep | AfterLeaving::Resume => Phase::Down,
        };
        if next == AfterLeaving::Remove {
            self.memory_is_free();
        }
    }

    /// Whether nobody uses the devices of a domain that is gone any more.
    fn devices_are_closed(&self, index: usize) -> bool {
        self.members[index].plan.devices.iter().all(|device| {
            let backend = self
                .members
                .iter()
                .find(|member| member.plan.id == device.backend_domain);
            let state = device
                .backend
                .child("state")
                .ok()
                .and_then(|path| self.store.read(&path));
            let state = state
                .and_then(|text| core::str::from_utf8(text).ok())
                .map_or(State::Unknown, State::parse);
            let unused = matches!(state, State::Closed | State::Initialising | State::Unknown);
            unused || !backend.is_some_and(|backend| backend.is_running())
        })
    }

    /// Has the hypervisor unwind a domain, unless it has.
    pub(super) fn destroy(&mut self, index: usize) {
        let member = &mut self.members[index];
        if core::mem::replace(&mut member.destroyed, true) {
            return;
        }
        if let Err(error) = self.hypervisor.destroy(member.plan.id) {
            log::error!("{} cannot be taken down: {error}", member.plan.name);
        }
    }
}

pub(super) fn rings(info: &DomainInfo) -> Rings {
    Rings {
        store_frame: info.store_frame,
        store_port: info.store_port,
        console_frame: info.console_frame,
        console_port: info.console_port,
    }
}

/// Makes a domain's nodes as new, except for what it serves as a backend, and what its own backends have kept.
fn renew(store: &mut Store, plan: &DomainPlan) -> Result<(), StoreError> {
    let home = Path::home(plan.id);
    let children = store
        .tree()
        .get(&home)
        .map(|node| node.children.keys().cloned().collect::<Vec<_>>());
    for name in children
        .unwrap_or_default()
        .iter()
        .filter(|name| &***name != "backend")
    {
        store.remove(&home.child(name)?)?;
    }
    put_all(store, &plan.home)?;
    for device in &plan.devices {
        put_all(store, device.above.iter().chain(&device.frontend_nodes))?;
        if store.tree().get(&device.backend).is_none() {
            put_all(store, &device.backend_nodes)?;
        }
    }
    Ok(())
}

//! `reconnect NAME`: a guest connects all its devices anew, without an end of its own. For guests whose backends could not take their rings over.
//!
//! A guest that says so (`control/feature-suspend`, as Linux does) is asked to suspend itself. Once it has, its backends close its devices, their nodes are made as new, and
//! it goes on as if it had come to another machine: its own resume path connects everything again, and issues anew what was under way.

use alloc::{
    format,
    string::{String, ToString},
};

use xen_abi::atoll::DOMAIN_STATE_RUNNING;

use super::{ControlPlane, Hypervisor, Phase, RequestError, lifecycle::rings, operator::GUEST_GRACE};
use crate::{
    connection::Connection,
    layout::{put_all, ring_nodes},
    store::StoreError,
};

impl<H: Hypervisor> ControlPlane<H> {
    /// Asks a guest to suspend itself. The answer comes when it goes on.
    pub(super) fn reconnect(&mut self, sequence: u64, name: &str) -> Result<Option<String>, RequestError> {
        if self.going_down.is_some() {
            return Err(RequestError::GoingDown);
        }
        let Some(index) = self.members.iter().position(|member| member.plan.name == name) else {
            return Err(self.no_member(name));
        };
        let member = &self.members[index];
        if !member.plan.is_guest {
            return Err(RequestError::NoGuest(name.into()));
        }
        if !matches!(member.phase, Phase::Running { .. }) || member.rebuild_by.is_some() {
            return Err(RequestError::NotRunning(name.into()));
        }
        let feature = format!("/local/domain/{}/control/feature-suspend", member.plan.id);
        if self.read(&feature) != Some(b"1") {
            return Err(RequestError::NoSuspend(name.into()));
        }
        let until = self.hypervisor.now() + GUEST_GRACE;
        let member = &mut self.members[index];
        (member.suspends_by, member.answers) = (Some(until), Some(sequence));
        self.ask_guest(index, "suspend");
        Ok(None)
    }

    /// Its time to follow is over.
    pub(super) fn does_not_suspend(&mut self, index: usize) {
        let member = &mut self.members[index];
        member.suspends_by = None;
        let said = format!("{} did not suspend itself in time, and runs on", member.plan.name);
        log::warn!("{said}");
        if let Some(sequence) = member.answers.take() {
            self.answer(sequence, Err(said));
        }
    }

    /// Its devices are closed: it goes on.
    pub(super) fn resume(&mut self, index: usize) {
        let outcome = self.try_resume(index);
        let member = &mut self.members[index];
        let name = member.plan.name.clone();
        let answers = member.answers.take();
        let reply = match outcome {
            Ok(()) => {
                log::info!("{name} is resumed");
                Ok(format!("{name} is resumed"))
            }
            Err(error) => {
                let error = format!("{name} cannot be resumed: {error}");
                log::error!("{error}");
                member.phase = Phase::Down;
                self.destroy(index);
                Err(error)
            }
        };
        if let Some(sequence) = answers {
            self.answer(sequence, reply);
        }
    }

    fn try_resume(&mut self, index: usize) -> Result<(), String> {
        let now = self.hypervisor.now();
        let member = &mut self.members[index];
        let id = member.plan.id;
        let store = &mut self.store;
        let made = member.plan.devices.iter().try_for_each(|device| {
            put_all(store, device.above.iter().chain(&device.frontend_nodes))?;
            if store.tree().get(&device.backend).is_none() {
                put_all(store, &device.backend_nodes)?;
            }
            Ok::<(), StoreError>(())
        });
        made.map_err(|error| format!("its devices' nodes cannot be made: {error}"))?;
        let info = self.hypervisor.info(id).map_err(|error| error.to_string())?;
        let nodes = ring_nodes(self.control, id, &rings(&info));
        put_all(&mut self.store, &nodes).map_err(|error| error.to_string())?;
        // It asks for its devices as soon as it runs.
        let link = self.hypervisor.connect(id, info.store_port)?;
        member.connection = Some(Connection::open(id, &member.plan.name, link));
        member.phase = Phase::Running { since: now };
        // A former life of ours may have come just so far.
        if info.state != DOMAIN_STATE_RUNNING {
            self.hypervisor.resume(id).map_err(|error| error.to_string())?;
        }
        self.store.introduce(id);
        Ok(())
    }
}

//! A guest connects all its devices anew, without an end of its own: the operator wants it (`reconnect NAME`), or a backend could not take its rings over and says so (the node
//! `reconnect` of the device).
//!
//! A guest that says so (`control/feature-suspend`, as Linux does) is asked to suspend itself. Once it has, its backends close its devices, their nodes are made as new, and
//! it goes on as if it had come to another machine: its own resume path connects everything again, and issues anew what was under way.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use unikernel_rt::xenbus::RECONNECT;
use xen_abi::atoll::DOMAIN_STATE_RUNNING;

use super::{ControlPlane, Hypervisor, Phase, RequestError, lifecycle::rings, operator::GUEST_GRACE};
use crate::{
    connection::Connection,
    layout::{DeviceNodes, put_all, ring_nodes},
    store::StoreError,
};

/// The token of the watches on what backends say.
pub(super) const TOKEN: &[u8] = b"reconnect";

impl<H: Hypervisor> ControlPlane<H> {
    /// A backend may want a frontend to connect anew. One that cannot is told that its device closes.
    pub(super) fn follow_backend(&mut self, path: &str) {
        if self.read(path) != Some(b"1") {
            return;
        }
        let of_path = |device: &DeviceNodes| device.backend.child(RECONNECT).is_ok_and(|node| *node == *path);
        let Some(index) = self
            .members
            .iter()
            .position(|member| member.plan.devices.iter().any(of_path))
        else {
            return;
        };
        let name = self.members[index].plan.name.clone();
        match self.ask_to_suspend(index) {
            Ok(()) => log::warn!("{name} is asked to connect its devices anew; {path} says why beside"),
            Err(error) => {
                log::error!("{name} cannot connect its devices anew: {error}");
                self.close_lost(index);
            }
        }
    }

    /// Tells a guest that those of its devices close whose backends wanted it to connect anew.
    fn close_lost(&mut self, index: usize) {
        let member = &self.members[index];
        let name = &member.plan.name;
        let wishes = |device: &&DeviceNodes| {
            let node = device.backend.child(RECONNECT).ok();
            node.and_then(|node| self.store.read(&node)) == Some(b"1")
        };
        let lost = member.plan.devices.iter().filter(wishes);
        let states: Vec<_> = lost
            .filter_map(|device| device.backend.child("state").ok())
            .collect();
        for state in states {
            log::error!("{name} loses the device of {state}");
            if let Err(error) = self.store.write(&state, b"5") {
                log::error!("{state}: {error}");
            }
        }
    }

    fn ask_to_suspend(&mut self, index: usize) -> Result<(), RequestError> {
        let member = &self.members[index];
        let name = &member.plan.name;
        if !member.plan.is_guest {
            return Err(RequestError::NoGuest(name.clone()));
        }
        if !matches!(member.phase, Phase::Running { .. }) || member.rebuild_by.is_some() {
            return Err(RequestError::NotRunning(name.clone()));
        }
        let feature = format!("/local/domain/{}/control/feature-suspend", member.plan.id);
        if self.read(&feature) != Some(b"1") {
            return Err(RequestError::NoSuspend(name.clone()));
        }
        if member.suspends_by.is_none() {
            self.members[index].suspends_by = Some(self.hypervisor.now() + GUEST_GRACE);
            self.ask_guest(index, "suspend");
        }
        Ok(())
    }

    /// Frontends that begin anew need not be asked to.
    pub(super) fn forget_wishes(&mut self, index: usize) -> Result<(), StoreError> {
        let store = &mut self.store;
        self.members[index].plan.devices.iter().try_for_each(|device| {
            let node = device.backend.child(RECONNECT)?;
            if store.tree().get(&node).is_some() {
                store.remove(&node)?;
            }
            Ok(())
        })
    }

    /// Asks a guest to suspend itself. The answer comes when it goes on.
    pub(super) fn reconnect(&mut self, sequence: u64, name: &str) -> Result<Option<String>, RequestError> {
        if self.going_down.is_some() {
            return Err(RequestError::GoingDown);
        }
        let Some(index) = self.members.iter().position(|member| member.plan.name == name) else {
            return Err(self.no_member(name));
        };
        self.ask_to_suspend(index)?;
        self.members[index].answers = Some(sequence);
        Ok(None)
    }

    /// Its time to follow is over. What its backends cannot serve any more closes.
    pub(super) fn does_not_suspend(&mut self, index: usize) {
        let member = &mut self.members[index];
        member.suspends_by = None;
        let said = format!("{} did not suspend itself in time, and runs on", member.plan.name);
        log::warn!("{said}");
        self.close_lost(index);
        if let Some(sequence) = self.members[index].answers.take() {
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
        self.forget_wishes(index)
            .map_err(|error| format!("what its backends want: {error}"))?;
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

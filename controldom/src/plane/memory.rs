//! How much memory guests have: what the operator asks for, and asking again when memory has become free.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use manifest::size;

use super::{ControlPlane, Hypervisor, RequestError};
use crate::{DomainId, store::Path};

/// No guest is asked to go below this part of the memory that it started with.
const SHRINK: u64 = 8;
const PAGE_SIZE: u64 = 4096;

impl<H: Hypervisor> ControlPlane<H> {
    /// Tells the hypervisor how much a guest may have, and the guest's balloon where to go. How far it got is for `list` to show.
    pub(super) fn set_memory(&mut self, name: &str, bytes: u64) -> Result<String, RequestError> {
        if self.going_down.is_some() {
            return Err(RequestError::GoingDown);
        }
        let Some(member) = self.members.iter().find(|member| member.plan.name == name) else {
            return Err(self.no_member(name));
        };
        let plan = &member.plan;
        if !plan.is_guest {
            return Err(RequestError::NoBalloon(name.into()));
        }
        // A kernel keeps tables in proportion to what it started with.
        let least = manifest::LEAST_LINUX_MEMORY.max((plan.memory / SHRINK).next_multiple_of(PAGE_SIZE));
        let (least, most) = (least.min(plan.memory), plan.memory_maximum);
        let bytes = bytes & !(PAGE_SIZE - 1);
        if !(least..=most).contains(&bytes) {
            return Err(RequestError::MemoryBounds {
                name: name.into(),
                least: size::show(least),
                most: size::show(most),
                wanted: size::show(bytes),
            });
        }
        if !member.is_running() {
            return Err(RequestError::NotRunning(name.into()));
        }
        let id = plan.id;
        self.hypervisor
            .set_memory(id, bytes / PAGE_SIZE)
            .map_err(|error| RequestError::Hypervisor(name.into(), error))?;
        self.ask_balloon(id, bytes);
        Ok(format!(
            "{name} is asked to have {}; list shows how far it is",
            size::show(bytes)
        ))
    }

    /// A domain is gone for good: guests that lacked memory try again.
    pub(super) fn memory_is_free(&mut self) {
        let running = self
            .members
            .iter()
            .filter(|member| member.is_running() && member.plan.is_guest);
        let guests: Vec<DomainId> = running.map(|member| member.plan.id).collect();
        for id in guests {
            if let Ok(info) = self.hypervisor.info(id)
                && info.memory_pages < info.target_pages
            {
                self.ask_balloon(id, info.target_pages * PAGE_SIZE);
            }
        }
    }

    /// Writes a guest's target. A Linux that could not reach it gives up after a few attempts, and looks again only if the target is another: so the
    /// same one is a page lower the second time.
    fn ask_balloon(&mut self, id: DomainId, bytes: u64) {
        let node = format!("{}/memory/target", Path::home(id));
        let text = (bytes >> 10).to_string();
        let again = self.read(&node) == Some(text.as_bytes());
        let text = if again {
            ((bytes - PAGE_SIZE) >> 10).to_string()
        } else {
            text
        };
        self.write(&node, text.as_bytes());
    }
}

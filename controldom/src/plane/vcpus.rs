//! `vcpus NAME COUNT`: how many of its vCPUs a guest is to run on. As with Xen, `cpu/N/availability` in its home says so of each, and the guest's kernel
//! follows or does not; the hypervisor has no part in it.

use alloc::{format, string::String};

use super::{ControlPlane, Hypervisor, RequestError};
use crate::{DomainId, store::Path};

impl<H: Hypervisor> ControlPlane<H> {
    /// Tells a guest that runs which of its vCPUs it may use: the first `count`.
    pub(super) fn set_vcpus(&mut self, name: &str, count: u32) -> Result<String, RequestError> {
        if self.going_down.is_some() {
            return Err(RequestError::GoingDown);
        }
        let Some(member) = self.members.iter().find(|member| member.plan.name == name) else {
            return Err(self.no_member(name));
        };
        let (id, most) = (member.plan.id, member.plan.vcpus);
        if !member.plan.is_guest {
            return Err(RequestError::NoHotPlug(name.into()));
        }
        if !(1..=most).contains(&count) {
            return Err(RequestError::VcpuBounds {
                name: name.into(),
                most,
                wanted: count,
            });
        }
        if !member.is_running() {
            return Err(RequestError::NotRunning(name.into()));
        }
        for vcpu in 0..most {
            self.set_availability(id, vcpu, vcpu < count);
        }
        let vcpus = if count == 1 { "vCPU" } else { "vCPUs" };
        Ok(format!("{name} is asked to run on {count} {vcpus} of {most}"))
    }

    /// Writes what is news only: a kernel that watches looks at each write.
    fn set_availability(&mut self, domain: DomainId, vcpu: u32, available: bool) {
        let path = format!("{}/cpu/{vcpu}/availability", Path::home(domain));
        let value: &[u8] = if available { b"online" } else { b"offline" };
        if self.read(&path) != Some(value) {
            self.write(&path, value);
        }
    }
}

//! The one value that everything hangs from.

use alloc::collections::BTreeMap;

use manifest::Manifest;

use crate::{
    domain::{Body, Domain, DomainId, Vcpu, VcpuId, VcpuStatus},
    event::Vectors,
    grant::HeldFrames,
    memory::{DirectMap, FrameAllocator},
    platform::Machine,
    sched::Scheduler,
};

/// All state of the running hypervisor. One processor does the work for now and holds it by exclusive reference; what belongs to a single
/// processor lives in [`crate::platform::cpu`].
pub struct Hypervisor {
    /// What was found.
    pub machine: Machine,
    /// What was asked.
    pub manifest: Manifest,
    /// Bytes of the boot bundle, kept to build domains from.
    pub bundle: &'static [u8],
    /// Machine memory as the hypervisor reaches it.
    pub memory: DirectMap,
    /// Frames that nobody holds.
    pub frames: FrameAllocator,
    /// Every domain of the manifest, built or not.
    pub domains: BTreeMap<DomainId, Domain>,
    /// Who runs next.
    pub scheduler: Scheduler,
    /// Which domain's physical interrupt arrives on which vector.
    pub vectors: Vectors,
    /// Frames of destroyed domains that others still have mapped.
    pub held: HeldFrames,
}

impl Hypervisor {
    /// A domain of the manifest.
    pub fn domain(&self, id: DomainId) -> Option<&Domain> {
        self.domains.get(&id)
    }

    /// A domain of the manifest.
    pub fn domain_mut(&mut self, id: DomainId) -> Option<&mut Domain> {
        self.domains.get_mut(&id)
    }

    /// What a domain owns; `None` while it is not built.
    pub fn body(&self, id: DomainId) -> Option<&Body> {
        self.domains.get(&id)?.body.as_ref()
    }

    /// What a domain owns; `None` while it is not built.
    pub fn body_mut(&mut self, id: DomainId) -> Option<&mut Body> {
        self.domains.get_mut(&id)?.body.as_mut()
    }

    /// A vCPU of a domain that is built.
    pub fn vcpu(&self, id: VcpuId) -> Option<&Vcpu> {
        self.body(id.domain)?.vcpus.get(id.index as usize)
    }

    /// A vCPU of a domain that is built.
    pub fn vcpu_mut(&mut self, id: VcpuId) -> Option<&mut Vcpu> {
        self.body_mut(id.domain)?.vcpus.get_mut(id.index as usize)
    }

    /// Something happened that a vCPU may be waiting for: a blocked one becomes runnable, and stops polling.
    pub fn wake(&mut self, id: VcpuId) {
        if let Some(vcpu) = self.vcpu_mut(id)
            && vcpu.status == VcpuStatus::Blocked
        {
            vcpu.status = VcpuStatus::Runnable;
            vcpu.polling = None;
        }
    }
}

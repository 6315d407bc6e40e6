//! The one value that everything hangs from.

use alloc::collections::BTreeMap;

use manifest::Manifest;

use crate::{
    domain::{Domain, DomainId},
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
}

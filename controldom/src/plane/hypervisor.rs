//! What the control plane asks of the hypervisor: a trait, so that tests put a machine of their own in.

use alloc::string::String;
use core::time::Duration;
use unikernel_rt::{
    atoll::{DomainInfo, Fault, MachineAction},
    hypercall::Errno,
};

use crate::{DomainId, connection::Link};

/// The hypervisor. Every call returns at once; starting a domain takes as long as building it.
pub trait Hypervisor {
    /// A way to a domain's xenstore ring. Dropping it unmaps the ring and closes the event channel.
    type Link: Link;

    /// The time on a clock that only goes forward.
    fn now(&self) -> Duration;
    /// Builds a domain from its pristine image if need be, and starts it.
    fn start(&mut self, domain: DomainId) -> Result<(), Errno>;
    /// Stops a domain and unwinds what it holds.
    fn destroy(&mut self, domain: DomainId) -> Result<(), Errno>;
    /// Lets a domain go on that has suspended itself.
    fn resume(&mut self, domain: DomainId) -> Result<(), Errno>;
    /// Sets how many pages of memory a domain may have from now on.
    fn set_memory(&mut self, domain: DomainId, pages: u64) -> Result<(), Errno>;
    /// What is known of a domain.
    fn info(&mut self, domain: DomainId) -> Result<DomainInfo, Errno>;
    /// Maps a domain's xenstore ring, and binds to its port; an error is a sentence.
    fn connect(&mut self, domain: DomainId, store_port: u32) -> Result<Self::Link, String>;
    /// Injects a fault into a domain once it has run for some time.
    fn inject_fault(&mut self, domain: DomainId, fault: Fault, after: Duration) -> Result<(), Errno>;
    /// Ends the machine's run. Returns only if that fails.
    fn machine(&mut self, action: MachineAction) -> Result<(), Errno>;
}

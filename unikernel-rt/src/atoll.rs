//! The control interface of the hypervisor (`xen_abi::atoll`): what the control domain and the console domain ask for,
//! and what every domain may ask about itself.

use alloc::string::String;
use alloc::vec::Vec;

pub use xen_abi::atoll::{DomainFigures, DomainInfo, MachineInfo, ProcessorFigures};

use pci_types::PciAddress;

use crate::DomainId;
use crate::hypercall::Errno;

/// What the machine is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineAction {
    /// Power off.
    PowerOff,
    /// Reset.
    Reboot,
}

/// What is done to a domain on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It stops as if it had crashed.
    Kill,
    /// It runs no more, and nobody is told.
    Hang,
    /// Its next life finds its keep region garbled.
    CorruptKeep,
}

/// The control interface. Each call needs the capability that `xen_abi::atoll` names for it; without it the answer is
/// [`Errno::EPERM`].
pub trait Control {
    /// What is known of a domain.
    fn domain_info(&self, domain: DomainId) -> Result<DomainInfo, Errno>;
    /// Builds (if need be) and starts a domain.
    fn start(&self, domain: DomainId) -> Result<(), Errno>;
    /// Stops a domain at once, and unwinds what it holds.
    fn destroy(&self, domain: DomainId) -> Result<(), Errno>;
    /// Lets a domain go on that has suspended itself.
    fn resume(&self, domain: DomainId) -> Result<(), Errno>;
    /// Sets how many pages of memory a domain may have from now on.
    fn set_memory(&self, domain: DomainId, pages: u64) -> Result<(), Errno>;
    /// Zeroes what a domain hands on to its next life.
    fn discard_keep(&self, domain: DomainId) -> Result<(), Errno>;
    /// Injects a fault once the domain has run for `after` nanoseconds from now on; `EOPNOTSUPP` where the manifest does not allow it.
    fn inject_fault(&self, domain: DomainId, fault: Fault, after: u64) -> Result<(), Errno>;
    /// Ends the machine's run. Returns only if that fails.
    fn machine(&self, action: MachineAction) -> Result<(), Errno>;
    /// Figures of the machine.
    fn machine_info(&self) -> Result<MachineInfo, Errno>;
    /// What a domain has done with its time.
    fn domain_figures(&self, domain: DomainId) -> Result<DomainFigures, Errno>;
    /// What a processor has done with its time; `ENOENT` behind the last one. `restart` begins anew with its longest recent stay in the hypervisor.
    fn processor_figures(&self, processor: u32, restart: bool) -> Result<ProcessorFigures, Errno>;
    /// The place of a PCI function that this domain was given; `ENOENT` behind the last one.
    fn pci_function(&self, index: u32) -> Result<PciAddress, Errno>;
    /// The report of a domain's last crash (`back` = 0) or of one before; `ENOENT` if there is none.
    fn read_crash(&self, domain: DomainId, back: u16) -> Result<String, Errno>;
    /// Reads the log from `position` into `buffer`. Answers the position to go on from, and how many bytes came.
    fn read_log(&self, position: u64, buffer: &mut [u8]) -> Result<(u64, usize), Errno>;
}

/// The name of a domain, as far as it is text.
pub fn name(info: &DomainInfo) -> &str {
    let end = info
        .name
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(info.name.len());
    core::str::from_utf8(&info.name[..end]).unwrap_or("")
}

/// Every domain that the hypervisor knows, in the order of the ids, which are dense from 1.
pub fn domains(control: &dyn Control) -> Result<Vec<DomainInfo>, Errno> {
    let mut all = Vec::new();
    for id in 1..=u16::MAX {
        match control.domain_info(DomainId(id)) {
            Ok(info) => all.push(info),
            Err(Errno::ESRCH) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

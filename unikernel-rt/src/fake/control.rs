//! A control interface that remembers what it was asked.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use pci_types::PciAddress;
use xen_abi::atoll::{DOMAIN_STATE_ABSENT, DOMAIN_STATE_RUNNING, NAME_LENGTH};

use crate::DomainId;
use crate::atoll::{Control, DomainFigures, DomainInfo, Fault, MachineAction, MachineInfo, ProcessorFigures};
use crate::hypercall::Errno;

/// A machine's worth of domains that start and stop at once. Clones are the same machine.
#[derive(Clone, Default)]
pub struct FakeControl {
    state: Rc<RefCell<State>>,
}

#[derive(Default)]
struct State {
    domains: BTreeMap<u16, DomainInfo>,
    actions: Vec<MachineAction>,
    faults: Vec<(DomainId, Fault, u64)>,
    refused: BTreeMap<u16, Errno>,
    machine: MachineInfo,
    log: Vec<u8>,
    functions: Vec<PciAddress>,
    figures: BTreeMap<u16, DomainFigures>,
    processors: Vec<ProcessorFigures>,
    crashes: BTreeMap<u16, Vec<String>>,
}

impl FakeControl {
    /// Gives the asking domain a PCI function.
    pub fn add_function(&self, function: PciAddress) {
        self.state.borrow_mut().functions.push(function);
    }

    /// A machine without domains.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next domain, absent, and answers its id.
    pub fn add(&self, name: &str) -> DomainId {
        let mut state = self.state.borrow_mut();
        let id = state.domains.len() as u16 + 1;
        let mut info = DomainInfo {
            domain: id,
            state: DOMAIN_STATE_ABSENT,
            vcpus: 1,
            ..DomainInfo::default()
        };
        let length = name.len().min(NAME_LENGTH);
        info.name[..length].copy_from_slice(&name.as_bytes()[..length]);
        state.domains.insert(id, info);
        DomainId(id)
    }

    /// Changes what is known of a domain, as if it had happened.
    pub fn set(&self, domain: DomainId, change: impl FnOnce(&mut DomainInfo)) {
        if let Some(info) = self.state.borrow_mut().domains.get_mut(&domain.0) {
            change(info);
        }
    }

    /// Has every start of a domain refused from now on.
    pub fn refuse(&self, domain: DomainId, error: Errno) {
        self.state.borrow_mut().refused.insert(domain.0, error);
    }

    /// What the machine was told to do.
    pub fn actions(&self) -> Vec<MachineAction> {
        self.state.borrow().actions.clone()
    }

    /// The faults that were injected.
    pub fn faults(&self) -> Vec<(DomainId, Fault, u64)> {
        self.state.borrow().faults.clone()
    }

    /// Sets the machine's figures.
    pub fn set_machine(&self, info: MachineInfo) {
        self.state.borrow_mut().machine = info;
    }

    /// Sets what a domain has done.
    pub fn set_figures(&self, figures: DomainFigures) {
        self.state.borrow_mut().figures.insert(figures.domain, figures);
    }

    /// Sets what the processors have done.
    pub fn set_processors(&self, figures: &[ProcessorFigures]) {
        self.state.borrow_mut().processors = figures.to_vec();
    }

    /// A domain crashes, which leaves a report.
    pub fn crash(&self, domain: DomainId, report: &str) {
        let mut state = self.state.borrow_mut();
        state
            .crashes
            .entry(domain.0)
            .or_default()
            .insert(0, report.into());
    }

    /// Appends to the log.
    pub fn append_log(&self, bytes: &[u8]) {
        self.state.borrow_mut().log.extend_from_slice(bytes);
    }
}

impl Control for FakeControl {
    fn domain_info(&self, domain: DomainId) -> Result<DomainInfo, Errno> {
        self.state
            .borrow()
            .domains
            .get(&domain.0)
            .copied()
            .ok_or(Errno::ESRCH)
    }

    fn start(&self, domain: DomainId) -> Result<(), Errno> {
        let mut state = self.state.borrow_mut();
        if let Some(&error) = state.refused.get(&domain.0) {
            return Err(error);
        }
        let info = state.domains.get_mut(&domain.0).ok_or(Errno::ESRCH)?;
        info.state = DOMAIN_STATE_RUNNING;
        info.generation += 1;
        Ok(())
    }

    fn destroy(&self, domain: DomainId) -> Result<(), Errno> {
        let mut state = self.state.borrow_mut();
        state.domains.get_mut(&domain.0).ok_or(Errno::ESRCH)?.state = DOMAIN_STATE_ABSENT;
        Ok(())
    }

    fn resume(&self, domain: DomainId) -> Result<(), Errno> {
        let mut state = self.state.borrow_mut();
        let info = state.domains.get_mut(&domain.0).ok_or(Errno::ESRCH)?;
        info.state = DOMAIN_STATE_RUNNING;
        Ok(())
    }

    fn set_memory(&self, domain: DomainId, pages: u64) -> Result<(), Errno> {
        let mut state = self.state.borrow_mut();
        state.domains.get_mut(&domain.0).ok_or(Errno::ESRCH)?.target_pages = pages;
        Ok(())
    }

    fn discard_keep(&self, domain: DomainId) -> Result<(), Errno> {
        self.domain_info(domain).map(drop)
    }

    fn inject_fault(&self, domain: DomainId, fault: Fault, after: u64) -> Result<(), Errno> {
        let mut state = self.state.borrow_mut();
        if !state.domains.contains_key(&domain.0) {
            return Err(Errno::ESRCH);
        }
        state.faults.push((domain, fault, after));
        Ok(())
    }

    fn machine(&self, action: MachineAction) -> Result<(), Errno> {
        self.state.borrow_mut().actions.push(action);
        Ok(())
    }

    fn machine_info(&self) -> Result<MachineInfo, Errno> {
        Ok(self.state.borrow().machine)
    }

    fn domain_figures(&self, domain: DomainId) -> Result<DomainFigures, Errno> {
        let state = self.state.borrow();
        state.domains.get(&domain.0).ok_or(Errno::ESRCH)?;
        let nothing = DomainFigures {
            domain: domain.0,
            ..DomainFigures::default()
        };
        Ok(state.figures.get(&domain.0).copied().unwrap_or(nothing))
    }

    fn processor_figures(&self, processor: u32, _: bool) -> Result<ProcessorFigures, Errno> {
        let state = self.state.borrow();
        let figures = state.processors.get(processor as usize).copied();
        figures.ok_or(Errno::ENOENT)
    }

    fn pci_function(&self, index: u32) -> Result<PciAddress, Errno> {
        let state = self.state.borrow();
        state.functions.get(index as usize).copied().ok_or(Errno::ENOENT)
    }

    fn read_crash(&self, domain: DomainId, back: u16) -> Result<String, Errno> {
        let state = self.state.borrow();
        let reports = state.crashes.get(&domain.0);
        let report = reports.and_then(|reports| reports.get(usize::from(back)));
        report.cloned().ok_or(Errno::ENOENT)
    }

    fn read_log(&self, position: u64, buffer: &mut [u8]) -> Result<(u64, usize), Errno> {
        let state = self.state.borrow();
        let rest = usize::try_from(position)
            .ok()
            .and_then(|from| state.log.get(from..))
            .unwrap_or(&[]);
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok((position + length as u64, length))
    }
}

//! The made-up machine.

use super::*;
use crate::{
    connection::Link,
    wire::{HEADER_LENGTH, encode},
};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc};
use unikernel_rt::{
    atoll::{DomainInfo, Fault},
    hypercall::Errno,
    memory::SharedMemory,
    ring::bytes::ByteChannel,
};
use xen_abi::atoll::{DOMAIN_STATE_ABSENT, DOMAIN_STATE_FAILED, DOMAIN_STATE_RUNNING, DOMAIN_STATE_STOPPED};

#[derive(Default)]
struct FakeDomain {
    info: DomainInfo,
    page: Option<SharedMemory>,
    refuses_to_start: Option<Errno>,
    fails_to_build: bool,
}

#[derive(Default)]
struct State {
    now: Duration,
    domains: BTreeMap<DomainId, FakeDomain>,
    calls: Vec<String>,
    stopped: bool,
    refuses_machine: bool,
    refuses_faults: bool,
}

/// The test's hand on the machine.
#[derive(Clone, Default)]
pub struct World(Rc<RefCell<State>>);

/// The control plane's.
pub struct FakeHypervisor(Rc<RefCell<State>>);

pub struct FakeLink {
    ring: ByteChannel,
}

pub fn machine() -> (FakeHypervisor, World) {
    let world = World::default();
    (FakeHypervisor(world.0.clone()), world)
}

impl World {
    /// The same machine for another life of the plane.
    pub fn hypervisor(&self) -> FakeHypervisor {
        FakeHypervisor(self.0.clone())
    }

    pub fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.0.borrow_mut().calls)
    }

    pub fn take_stopped(&self) -> bool {
        std::mem::take(&mut self.0.borrow_mut().stopped)
    }

    pub fn pass(&self, time: Duration) {
        self.0.borrow_mut().now += time;
    }

    pub fn end(&self, domain: DomainId, reason: u32) {
        let mut state = self.0.borrow_mut();
        state.stopped = true;
        let info = &mut state.domains.get_mut(&domain).unwrap().info;
        (info.state, info.shutdown_reason) = (DOMAIN_STATE_STOPPED, reason);
    }

    pub fn set_memory(&self, domain: DomainId, pages: u64, target: u64) {
        let mut state = self.0.borrow_mut();
        let info = &mut state.domains.get_mut(&domain).unwrap().info;
        (info.memory_pages, info.target_pages) = (pages, target);
    }

    pub fn refuse_to_start(&self, domain: DomainId, error: Option<Errno>) {
        self.0
            .borrow_mut()
            .domains
            .entry(domain)
            .or_default()
            .refuses_to_start = error;
    }

    pub fn fail_to_build(&self, domain: DomainId) {
        self.0
            .borrow_mut()
            .domains
            .entry(domain)
            .or_default()
            .fails_to_build = true;
    }

    pub fn refuse_faults(&self) {
        self.0.borrow_mut().refuses_faults = true;
    }

    pub fn refuse_machine(&self) {
        self.0.borrow_mut().refuses_machine = true;
    }

    /// The domain's own end of its ring.
    pub fn ring(&self, domain: DomainId) -> ByteChannel {
        let page = self.0.borrow().domains[&domain].page.clone().unwrap();
        ByteChannel::store_client(page).unwrap()
    }

    pub fn send(&self, domain: DomainId, kind: u32, payload: &[u8]) {
        let message = encode(kind, 1, 0, payload);
        assert_eq!(self.ring(domain).write(&message).unwrap(), message.len());
    }

    /// The messages that wait in a domain's ring: kind and payload.
    pub fn receive(&self, domain: DomainId) -> Vec<(u32, String)> {
        let mut bytes = [0; 1024];
        let length = self.ring(domain).read(&mut bytes).unwrap();
        let (mut rest, mut messages) = (&bytes[..length], Vec::new());
        while !rest.is_empty() {
            let field = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            let end = HEADER_LENGTH + field(12) as usize;
            messages.push((
                field(0),
                String::from_utf8_lossy(&rest[HEADER_LENGTH..end]).into(),
            ));
            rest = &rest[end..];
        }
        messages
    }
}

impl Link for FakeLink {
    fn ring(&self) -> &ByteChannel {
        &self.ring
    }

    fn notify(&self) {}
}

impl Hypervisor for FakeHypervisor {
    type Link = FakeLink;

    fn now(&self) -> Duration {
        self.0.borrow().now
    }

    fn start(&mut self, domain: DomainId) -> Result<(), Errno> {
        let mut state = self.0.borrow_mut();
        state.calls.push(format!("start {domain}"));
        let fake = state.domains.entry(domain).or_default();
        if let Some(error) = fake.refuses_to_start {
            return Err(error);
        }
        assert_ne!(
            fake.info.state, DOMAIN_STATE_STOPPED,
            "domain {domain} was not unwound"
        );
        fake.info.state = if fake.fails_to_build {
            DOMAIN_STATE_FAILED
        } else {
            DOMAIN_STATE_RUNNING
        };
        fake.info.generation += 1;
        fake.info.store_port = u32::from(domain.0) * 100 + fake.info.generation;
        fake.info.store_frame = 0xfeffc;
        fake.page = Some(SharedMemory::allocate(1).unwrap());
        Ok(())
    }

    fn resume(&mut self, domain: DomainId) -> Result<(), Errno> {
        let mut state = self.0.borrow_mut();
        state.calls.push(format!("resume {domain}"));
        state.domains.get_mut(&domain).unwrap().info.state = DOMAIN_STATE_RUNNING;
        Ok(())
    }

    fn destroy(&mut self, domain: DomainId) -> Result<(), Errno> {
        let mut state = self.0.borrow_mut();
        state.calls.push(format!("destroy {domain}"));
        state.domains.entry(domain).or_default().info.state = DOMAIN_STATE_ABSENT;
        Ok(())
    }

    fn set_memory(&mut self, domain: DomainId, pages: u64) -> Result<(), Errno> {
        let mut state = self.0.borrow_mut();
        state.calls.push(format!("memory {domain} {pages}"));
        Ok(())
    }

    fn inject_fault(&mut self, domain: DomainId, fault: Fault, after: Duration) -> Result<(), Errno> {
        let mut state = self.0.borrow_mut();
        if state.refuses_faults {
            return Err(Errno::EOPNOTSUPP);
        }
        state.calls.push(format!("{fault:?} {domain} after {after:?}"));
        Ok(())
    }

    fn info(&mut self, domain: DomainId) -> Result<DomainInfo, Errno> {
        self.0
            .borrow()
            .domains
            .get(&domain)
            .map(|fake| fake.info)
            .ok_or(Errno::ESRCH)
    }

    fn connect(&mut self, domain: DomainId, store_port: u32) -> Result<FakeLink, String> {
        let state = self.0.borrow();
        let fake = &state.domains[&domain];
        assert_eq!(fake.info.store_port, store_port);
        let page = fake.page.clone().ok_or("no page")?;
        Ok(FakeLink {
            ring: ByteChannel::store_server(page).map_err(|error| error.to_string())?,
        })
    }

    fn machine(&mut self, action: MachineAction) -> Result<(), Errno> {
        let mut state = self.0.borrow_mut();
        state.calls.push(format!("machine {action:?}"));
        if state.refuses_machine {
            Err(Errno::EPERM)
        } else {
            Ok(())
        }
    }
}

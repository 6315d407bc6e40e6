//! Event channels between the fakes of several domains, and a clock that moves when somebody waits.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::time::Duration;

use crate::DomainId;
use crate::event::{EventChannels, InterruptSource, Port, PortSet};
use crate::hypercall::Errno;
use crate::time::{Clock, Instant};

/// The event channels of one domain. [`as_domain`](Self::as_domain) gives those of another one on the same machine.
#[derive(Clone)]
pub struct FakeEvents {
    own: DomainId,
    machine: Rc<Machine>,
}

type Hook = Box<dyn FnMut()>;

#[derive(Default)]
struct Machine {
    now: Cell<u64>,
    ports: RefCell<BTreeMap<(DomainId, Port), End>>,
    fired: RefCell<BTreeMap<DomainId, PortSet>>,
    notified: RefCell<BTreeMap<DomainId, Vec<Port>>>,
    ended: RefCell<Vec<u32>>,
    idle: RefCell<BTreeMap<DomainId, Hook>>,
    sources: RefCell<Vec<InterruptSource>>,
    masked: RefCell<BTreeSet<(DomainId, Port)>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Unbound(DomainId),
    Bound(DomainId, Port),
    Virq(u32),
    Pirq(u32),
}

impl FakeEvents {
    /// The event channels of a domain on a new machine.
    pub fn new(own: DomainId) -> Self {
        Self {
            own,
            machine: Rc::default(),
        }
    }

    /// The event channels of another domain on the same machine.
    pub fn as_domain(&self, domain: DomainId) -> Self {
        Self {
            own: domain,
            machine: self.machine.clone(),
        }
    }

    /// Makes a port of this domain fire.
    pub fn fire(&self, port: Port) {
        self.set_fired(self.own, port);
    }

    /// Makes this domain's port of a virtual interrupt fire, if it is bound.
    pub fn fire_virq(&self, virq: u32) {
        self.fire_end(End::Virq(virq));
    }

    /// Makes this domain's port of a device's interrupt fire, if it is bound.
    pub fn fire_interrupt(&self, source: InterruptSource) {
        let pirq = self
            .machine
            .sources
            .borrow()
            .iter()
            .position(|&known| known == source);
        if let Some(pirq) = pirq {
            self.fire_end(End::Pirq(pirq as u32));
        }
    }

    /// The ports that this domain notified since the last question, in order.
    pub fn take_notified(&self) -> Vec<Port> {
        self.machine
            .notified
            .borrow_mut()
            .remove(&self.own)
            .unwrap_or_default()
    }

    /// How many ports this domain has open.
    pub fn open_ports(&self) -> usize {
        self.machine
            .ports
            .borrow()
            .keys()
            .filter(|(domain, _)| *domain == self.own)
            .count()
    }

    /// The physical interrupts that were acknowledged, in order.
    pub fn acknowledged(&self) -> Vec<u32> {
        self.machine.ended.borrow().clone()
    }

    /// Moves the clock.
    pub fn advance(&self, length: Duration) {
        self.machine
            .now
            .set(self.machine.now.get() + length.as_nanos() as u64);
    }

    /// What the rest of the world does whenever this domain waits and nothing has fired: usually the peer's turn.
    pub fn on_idle(&self, action: impl FnMut() + 'static) {
        self.machine.idle.borrow_mut().insert(self.own, Box::new(action));
    }

    /// Ends this domain as the hypervisor does: its ports are closed, and the other ends are unbound towards it again.
    pub fn kill(&self) {
        let mut ports = self.machine.ports.borrow_mut();
        ports.retain(|(domain, _), _| *domain != self.own);
        for end in ports.values_mut() {
            if let End::Bound(domain, _) = *end
                && domain == self.own
            {
                *end = End::Unbound(domain);
            }
        }
        self.machine.fired.borrow_mut().remove(&self.own);
    }

    fn fire_end(&self, wanted: End) {
        let ports: Vec<Port> = {
            let ports = self.machine.ports.borrow();
            ports
                .iter()
                .filter(|((domain, _), end)| *domain == self.own && **end == wanted)
                .map(|((_, port), _)| *port)
                .collect()
        };
        ports.into_iter().for_each(|port| self.fire(port));
    }

    fn set_fired(&self, domain: DomainId, port: Port) {
        self.machine
            .fired
            .borrow_mut()
            .entry(domain)
            .or_default()
            .insert(port);
    }

    fn bind(&self, end: End) -> Port {
        let mut ports = self.machine.ports.borrow_mut();
        let port = (1..)
            .map(Port)
            .find(|&port| !ports.contains_key(&(self.own, port)));
        let port = port.expect("a domain of a test has few ports");
        ports.insert((self.own, port), end);
        port
    }

    /// One more chance for the world to do something; answers whether anything can still change.
    fn idle(&self) -> bool {
        let hook = self.machine.idle.borrow_mut().remove(&self.own);
        let Some(mut hook) = hook else { return false };
        hook();
        self.machine.idle.borrow_mut().entry(self.own).or_insert(hook);
        true
    }

    fn pass_until(&self, deadline: Option<Instant>) {
        let deadline = deadline.expect("this domain waits for ever: nothing has fired, and nobody acts");
        self.machine
            .now
            .set(self.machine.now.get().max(deadline.as_nanos()));
    }
}

impl Clock for FakeEvents {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.machine.now.get())
    }

    fn wall(&self) -> Duration {
        Duration::from_secs(1_000_000_000) + Duration::from_nanos(self.machine.now.get())
    }
}

impl EventChannels for FakeEvents {
    fn allocate_unbound(&self, remote: DomainId) -> Result<Port, Errno> {
        Ok(self.bind(End::Unbound(remote)))
    }

    fn bind_interdomain(&self, remote: DomainId, remote_port: Port) -> Result<Port, Errno> {
        if self.machine.ports.borrow().get(&(remote, remote_port)) != Some(&End::Unbound(self.own)) {
            return Err(Errno::EINVAL);
        }
        let port = self.bind(End::Bound(remote, remote_port));
        self.machine
            .ports
            .borrow_mut()
            .insert((remote, remote_port), End::Bound(self.own, port));
        // As Xen does, in case the other end notified before anybody was there to hear it.
        self.fire(port);
        Ok(port)
    }

    fn bind_virq(&self, virq: u32) -> Result<Port, Errno> {
        Ok(self.bind(End::Virq(virq)))
    }

    fn map_interrupt(&self, source: InterruptSource) -> Result<u32, Errno> {
        self.machine.sources.borrow_mut().push(source);
        Ok(self.machine.sources.borrow().len() as u32 - 1)
    }

    fn bind_pirq(&self, pirq: u32) -> Result<Port, Errno> {
        Ok(self.bind(End::Pirq(pirq)))
    }

    fn end_of_interrupt(&self, pirq: u32) -> Result<(), Errno> {
        self.machine.ended.borrow_mut().push(pirq);
        Ok(())
    }

    fn close(&self, port: Port) -> Result<(), Errno> {
        let mut ports = self.machine.ports.borrow_mut();
        let end = ports.remove(&(self.own, port)).ok_or(Errno::EINVAL)?;
        if let End::Bound(remote, remote_port) = end {
            ports.insert((remote, remote_port), End::Unbound(self.own));
        }
        Ok(())
    }

    fn notify(&self, port: Port) -> Result<(), Errno> {
        let end = self.machine.ports.borrow().get(&(self.own, port)).copied();
        if let Some(End::Bound(domain, remote)) = end {
            self.set_fired(domain, remote);
        }
        self.machine
            .notified
            .borrow_mut()
            .entry(self.own)
            .or_default()
            .push(port);
        Ok(())
    }

    fn mask(&self, port: Port) {
        self.machine.masked.borrow_mut().insert((self.own, port));
    }

    fn unmask(&self, port: Port) -> Result<(), Errno> {
        self.machine.masked.borrow_mut().remove(&(self.own, port));
        Ok(())
    }

    fn poll(&self) -> PortSet {
        let mut all = self.machine.fired.borrow_mut();
        let Some(fired) = all.get_mut(&self.own) else {
            return PortSet::new();
        };
        let masked = self.machine.masked.borrow();
        let (kept, answered) = fired.iter().partition(|&port| masked.contains(&(self.own, port)));
        *fired = kept;
        answered
    }

    fn wait(&self, deadline: Option<Instant>) -> PortSet {
        loop {
            let fired = self.poll();
            if !fired.is_empty() || deadline.is_some_and(|deadline| deadline <= self.now()) {
                return fired;
            }
            if !self.idle()
                || self
                    .machine
                    .fired
                    .borrow()
                    .get(&self.own)
                    .is_none_or(PortSet::is_empty)
            {
                self.pass_until(deadline);
            }
        }
    }

    fn remember(&self, port: Port) {
        self.fire(port);
    }

    fn wait_for(&self, port: Port, deadline: Option<Instant>) -> bool {
        let taken = || {
            self.machine
                .fired
                .borrow_mut()
                .get_mut(&self.own)
                .is_some_and(|fired| fired.remove(port))
        };
        if taken() {
            return true;
        }
        if self.idle() && taken() {
            return true;
        }
        self.pass_until(deadline);
        false
    }
}

impl Extend<Port> for PortSet {
    fn extend<I: IntoIterator<Item = Port>>(&mut self, ports: I) {
        for port in ports {
            self.insert(port);
        }
    }
}

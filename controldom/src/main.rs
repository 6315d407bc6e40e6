//! The control domain: puts the control plane on the machine.
//!
//! It never blocks on another domain; the only place where it waits is the loop's end, for anything to happen.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::{
    format,
    string::{String, ToString},
};
use core::{convert::Infallible, time::Duration};

use controldom::{
    DomainId,
    connection::Link,
    layout::{Plan, PlanError},
    plane::{ControlPlane, Hypervisor, Next},
    store::{Quota, StoreError},
};
use manifest::Manifest;
use unikernel_rt::{
    System,
    atoll::{DomainInfo, Fault, MachineAction},
    event::{Channel, Port},
    grant::{Access, GrantRef, MapRequest},
    hypercall::Errno,
    ring::bytes::ByteChannel,
    time::Instant,
};
use xen_abi::{grant_table::GNTTAB_RESERVED_XENSTORE, xen::VIRQ_DOM_EXC};

unikernel_rt::entry!(run);

/// Why there can be no control plane; the machine cannot go on without.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the hypervisor gave the control domain no module with the manifest")]
    NoManifest,
    #[error("the manifest does not decode: build the image and the control domain from one tree")]
    CorruptManifest,
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("the manifest's control domain has the id {planned}, and this is {actual}")]
    Identity {
        planned: DomainId,
        actual: unikernel_rt::DomainId,
    },
    #[error("the ends of domains cannot be noticed: {0}")]
    Ends(Errno),
    #[error("xenstore cannot be laid out: {0}")]
    Store(#[from] StoreError),
}

fn run(system: System) -> Result<Infallible, Failure> {
    let module = system.modules.first().ok_or(Failure::NoManifest)?;
    // The module may be padded.
    let (manifest, _) =
        postcard::take_from_bytes::<Manifest>(module.data).map_err(|_| Failure::CorruptManifest)?;
    let plan = Plan::new(&manifest)?;
    if plan.control.0 != system.domain.0 {
        return Err(Failure::Identity {
            planned: plan.control,
            actual: system.domain,
        });
    }
    log::info!("{}: {} domains", manifest.name, manifest.domains.len());
    let events = system.events.clone();
    let ends = Channel::bind_virq(&events, VIRQ_DOM_EXC).map_err(Failure::Ends)?;
    let area = system.keep.area(system.keep.left()).ok();
    let mut plane = ControlPlane::open(plan, Quota::default(), Machine { system }, area.as_ref())?;
    // What ended while nobody was there is noticed now.
    let mut fired = events.poll();
    fired.insert(ends.port());
    loop {
        fired = match plane.turn(fired.contains(ends.port())) {
            Next::Now => events.poll(),
            Next::At(time) => events.wait(Some(instant(time))),
            Next::Event => events.wait(None),
        };
    }
}

fn instant(time: Duration) -> Instant {
    Instant::from_nanos(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

fn id(domain: DomainId) -> unikernel_rt::DomainId {
    unikernel_rt::DomainId(domain.0)
}

/// The hypervisor below.
struct Machine {
    system: System,
}

/// The ring stays mapped, and the channel bound, for as long as this lives.
struct StoreLink {
    ring: ByteChannel,
    channel: Channel,
}

impl Link for StoreLink {
    fn ring(&self) -> &ByteChannel {
        &self.ring
    }

    fn notify(&self) {
        self.channel.notify();
    }
}

impl Hypervisor for Machine {
    type Link = StoreLink;

    fn now(&self) -> Duration {
        Duration::from_nanos(self.system.events.now().as_nanos())
    }

    fn start(&mut self, domain: DomainId) -> Result<(), Errno> {
        self.system.control.start(id(domain))
    }

    fn destroy(&mut self, domain: DomainId) -> Result<(), Errno> {
        self.system.control.destroy(id(domain))
    }

    fn resume(&mut self, domain: DomainId) -> Result<(), Errno> {
        self.system.control.resume(id(domain))
    }

    fn set_memory(&mut self, domain: DomainId, pages: u64) -> Result<(), Errno> {
        self.system.control.set_memory(id(domain), pages)
    }

    fn inject_fault(&mut self, domain: DomainId, fault: Fault, after: Duration) -> Result<(), Errno> {
        let after = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        self.system.control.inject_fault(id(domain), fault, after)
    }

    fn info(&mut self, domain: DomainId) -> Result<DomainInfo, Errno> {
        self.system.control.domain_info(id(domain))
    }

    fn connect(&mut self, domain: DomainId, store_port: u32) -> Result<StoreLink, String> {
        let request = MapRequest {
            domain: id(domain),
            reference: GrantRef(GNTTAB_RESERVED_XENSTORE),
            access: Access::ReadWrite,
            device: false,
        };
        let page = self
            .system
            .grants
            .map(&[request])
            .map_err(|error| error.to_string())?;
        let ring = ByteChannel::store_server(page.memory().clone()).map_err(|error| error.to_string())?;
        let channel = Channel::bind_interdomain(&self.system.events, id(domain), Port(store_port))
            .map_err(|error| format!("its event channel {store_port} cannot be bound: {error}"))?;
        Ok(StoreLink { ring, channel })
    }

    fn machine(&mut self, action: MachineAction) -> Result<(), Errno> {
        self.system.control.machine(action)
    }
}

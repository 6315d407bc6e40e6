//! The one value that everything hangs from.

use alloc::{boxed::Box, string::String, vec::Vec};

use manifest::Manifest;
use xen_abi::vcpu::{RUNSTATE_blocked, RUNSTATE_offline, RUNSTATE_runnable};

use crate::{
    domain::{
        Body, Domain, DomainId, Domains, Vcpu, VcpuId, VcpuStatus, devices, images::Images, revival::Revival,
        watchdog::Watchdog,
    },
    event::Vectors,
    figures::{Account, Phase},
    grant::HeldFrames,
    iommu::Iommu,
    memory::{DirectMap, FrameAllocator, walk::Walks},
    platform::{Machine, time},
    processors::Processor,
    sched::{Class, Scheduler, Terms, placement},
    timers::Timers,
    virt::Backend,
};

/// All state of the running hypervisor. Processors share it behind one lock; who has the lock works. What a processor's handlers need without the lock lives
/// in [`crate::platform::cpu`].
pub struct Hypervisor {
    /// What was found.
    pub machine: Machine,
    /// What was asked.
    pub manifest: Manifest,
    /// The files that domains are built from.
    pub images: Images,
    /// The processor's virtualization extension.
    pub backend: Box<dyn Backend>,
    /// Machine memory as the hypervisor reaches it.
    pub memory: DirectMap,
    /// Frames that nobody holds.
    pub frames: FrameAllocator,
    /// Frames that the hypervisor has taken from there for itself; it does so before domains are built, and no more.
    pub own_pages: u64,
    /// Every domain of the manifest, built or not.
    pub domains: Domains,
    /// Who runs next.
    pub scheduler: Scheduler,
    /// Which domain's physical interrupt arrives on which vector.
    pub vectors: Vectors,
    /// What confines devices.
    pub iommu: Iommu,
    /// Functions of destroyed domains that are being reset.
    pub resets: devices::Resets,
    /// Frames of destroyed domains that others still have mapped.
    pub held: HeldFrames,
    /// When vCPUs have timers due.
    pub timers: Timers,
    /// When the control domain is to live again.
    pub revival: Revival,
    /// The processors that work, by number; the first is the boot processor.
    pub processors: Vec<Processor>,
    /// The vCPU whose hypercall is being carried out.
    pub calling: Option<VcpuId>,
    /// What of its address space was walked since it began.
    pub walks: Walks,
    /// How far the log reached when its reader was last told of it.
    pub log_announced: u64,
    /// When the first guest instruction ran, in nanoseconds of the machine's clock.
    pub first_guest: Option<u64>,
}

impl Hypervisor {
    /// Everything at its beginning: the domains of the manifest with the devices that are theirs, none built. What the operator should know of devices goes to the log.
    pub fn new(
        machine: Machine,
        manifest: Manifest,
        images: Images,
        memory: DirectMap,
        frames: FrameAllocator,
        backend: Box<dyn Backend>,
        iommu: Iommu,
    ) -> Self {
        let candidates: Vec<devices::Candidate> = machine.pci.iter().map(devices::Candidate::from).collect();
        let confined = iommu.shape().is_some();
        let (assignments, messages) =
            devices::assign(&manifest, &candidates, confined || manifest.allow_unconfined_dma);
        messages.iter().for_each(|message| log::warn!("{message}"));
        if !confined
            && assignments
                .iter()
                .any(|assignment| !assignment.functions.is_empty())
        {
            log::warn!(
                "no IOMMU is in use: the manifest accepts that devices of driver domains can reach all memory"
            );
        }
        let domains = Domains::new(
            manifest.domains.iter().zip(assignments),
            |id, (spec, assignment)| {
                let functions = assignment
                    .functions
                    .iter()
                    .filter_map(|address| machine.pci_function(*address))
                    .map(|function| devices::view(function, &machine.pci, &assignment.functions));
                let reserved = assignment
                    .functions
                    .iter()
                    .flat_map(|address| crate::iommu::start::reserved(&machine, *address));
                Domain {
                    functions: functions.collect(),
                    reserved: reserved.collect(),
                    interrupts: assignment
                        .lines
                        .iter()
                        .map(|line| machine.isa_gsi(*line))
                        .collect(),
                    devices: assignment.functions,
                    ports: assignment.ports,
                    ..Domain::new(id, spec.clone())
                }
            },
        );
        for (domain, function) in domains
            .values()
            .flat_map(|domain| domain.functions.iter().map(move |function| (domain, function)))
            .filter(|(_, function)| !function.withheld.is_empty())
        {
            log::warn!(
                "{} does not get all registers of PCI function {}: firmware put them into pages with others'",
                domain.spec.name,
                function.address
            );
        }
        let mut processors: Vec<Processor> = machine.online.iter().copied().map(Processor::new).collect();
        if processors.is_empty() {
            processors.push(Processor::new(0));
        }
        processors[0].account = Account::new(Phase::Hypervisor);
        let scheduler = admit_all(&domains, processors.len());
        Self {
            domains,
            machine,
            manifest,
            images,
            backend,
            memory,
            own_pages: frames.total_pages() - frames.free_pages(),
            frames,
            scheduler,
            vectors: Vectors::default(),
            iommu,
            resets: devices::Resets::default(),
            held: HeldFrames::default(),
            timers: Timers::new(processors.len()),
            revival: Revival::default(),
            processors,
            calling: None,
            walks: Walks::default(),
            log_announced: 0,
            first_guest: None,
        }
    }

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

    /// Something happened that a vCPU may be waiting for: a blocked one becomes runnable, and stops polling; one that runs on another processor
    /// comes out to see it.
    pub fn wake(&mut self, id: VcpuId) {
        let Some(vcpu) = self.vcpu_mut(id) else { return };
        match vcpu.status {
            VcpuStatus::Blocked => {
                vcpu.status = VcpuStatus::Runnable;
                vcpu.polling = None;
                let now = time::now();
                vcpu.runstate.enter(RUNSTATE_runnable, now);
                vcpu.counts.woke(now);
                self.enqueue(id);
                self.rearm(id);
            }
            VcpuStatus::Runnable => {
                if let Some(processor) = vcpu.on {
                    self.call(processor);
                }
            }
            VcpuStatus::Offline => {}
        }
    }

    /// A vCPU that was offline may run, in the state that was prepared for it.
    pub fn bring_up(&mut self, id: VcpuId) {
        let Some(domain) = self.domains.get_mut(&id.domain) else {
            return;
        };
        let Some(vcpu) = domain
            .body
            .as_mut()
            .and_then(|body| body.vcpus.get_mut(id.index as usize))
        else {
            return;
        };
        if vcpu.status == VcpuStatus::Offline {
            vcpu.status = VcpuStatus::Runnable;
            vcpu.awaits_startup = false;
            vcpu.runstate.enter(RUNSTATE_runnable, time::now());
            self.scheduler.add(id);
            self.enqueue(id);
        }
    }

    /// A vCPU goes offline, until it is brought up.
    pub fn take_down(&mut self, id: VcpuId) {
        self.recall(id);
        if let Some(vcpu) = self.vcpu_mut(id) {
            vcpu.stops += 1;
            vcpu.status = VcpuStatus::Offline;
            vcpu.runstate.enter(RUNSTATE_offline, time::now());
            self.scheduler.sleep(id);
            self.rearm(id);
        }
    }

    /// A vCPU goes to sleep until [`Self::wake`].
    pub fn sleep(&mut self, id: VcpuId) {
        if let Some(vcpu) = self.vcpu_mut(id) {
            vcpu.status = VcpuStatus::Blocked;
            vcpu.runstate.enter(RUNSTATE_blocked, time::now());
            self.scheduler.sleep(id);
        }
    }

    /// Timers of a vCPU (or, for the first of a domain, its watchdogs) were set or cleared: enters the next deadline in the queue of its processor. Whoever changes one calls
    /// this; after a hypercall and an exit the loop does for the vCPU that caused it.
    pub fn rearm(&mut self, id: VcpuId) {
        let Some(body) = self.body(id.domain) else { return };
        let watchdogs = body.watchdogs.iter().filter(|_| id.index == 0);
        let watchdogs = watchdogs.filter_map(Watchdog::deadline).min();
        let Some(vcpu) = body.vcpus.get(id.index as usize) else {
            return;
        };
        let deadline = vcpu.deadline().into_iter().chain(watchdogs).min();
        let home = self.scheduler.home(id);
        if !self.timers.set(id, home, deadline) {
            return;
        }
        if deadline.is_some_and(|deadline| !self.scheduler.processor(home).looks_by(deadline)) {
            self.call(home);
        }
    }

    /// The next piece of building and starting a domain; see [`crate::domain::build`].
    pub fn start_domain(
        &mut self,
        id: DomainId,
    ) -> Result<crate::domain::build::Progress, crate::errno::Errno> {
        crate::domain::build::start_domain(self, id)
    }

    /// Stops a domain for a reason (`SHUTDOWN_*`).
    pub fn stop_domain(&mut self, id: DomainId, reason: u32) {
        crate::domain::life::stop_domain(self, id, reason);
    }

    /// Stops the domain of a vCPU that did what none may, which `cause` says in a sentence.
    pub fn crash_domain(&mut self, vcpu: VcpuId, cause: String) {
        crate::domain::life::crash_domain(self, vcpu, cause);
    }

    /// Takes a domain down.
    pub fn destroy_domain(&mut self, id: DomainId) {
        crate::domain::life::destroy_domain(self, id);
    }
}

/// The scheduler, told how each domain competes. Wishes that the machine cannot fulfil go to the log.
fn admit_all(domains: &Domains, processors: usize) -> Scheduler {
    let wishes = domains
        .values()
        .map(|domain| (domain.spec.name.as_str(), &domain.spec.scheduling));
    let (places, messages) = placement::plan(wishes, processors);
    messages.iter().for_each(|message| log::warn!("{message}"));
    let mut scheduler = Scheduler::new(processors);
    for (domain, place) in domains.values().zip(places) {
        let spec = &domain.spec;
        let terms = Terms {
            class: Class::from(spec.scheduling.class),
            place,
            cap: spec.scheduling.cap,
            vcpus: spec.vcpus,
        };
        scheduler.admit(domain.id, terms);
    }
    scheduler
}

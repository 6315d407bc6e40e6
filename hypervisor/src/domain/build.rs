//! Building a domain from its pristine image, piece by piece: each call of [`start_domain`] does a bounded part, so that the hypervisor stays responsive while
//! a large guest is filled.
//!
//! Verify the files, then lay out and allocate, then zero and copy, then finish: special pages, tables, vCPUs, ports and grants. A domain comes into
//! being only with the last step, at once; whatever fails before gives everything back and is told with the domain's name.

mod memory;

use alloc::{boxed::Box, collections::VecDeque, format, string::String, vec::Vec};

use manifest::{Kind, bundle::Verifier};
use xen_abi::{
    grant_table::{GNTTAB_RESERVED_CONSOLE, GNTTAB_RESERVED_XENSTORE},
    hvm::params::{
        HVM_PARAM_CONSOLE_EVTCHN, HVM_PARAM_CONSOLE_PFN, HVM_PARAM_STORE_EVTCHN, HVM_PARAM_STORE_PFN,
    },
};

use memory::{LARGE_PAGE, Memory};

use super::{Body, DomainId, PARAMETERS, State, Vcpu, VcpuId, layout};
use crate::{
    Hypervisor,
    errno::Errno,
    event, grant,
    guest::{acpi, cpuid, pci::PciView, pvh},
    iommu::confine,
    memory::{Frame, GuestAddress, Mapping, OutOfMemory, P2m, PAGE_SIZE, PageKind},
    platform::time,
    virt::VirtualCpu,
};

/// Whether a piece was the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The domain runs.
    Done,
    /// Call again.
    Again,
    /// Call again at this time (nanoseconds of the machine's clock), or at any other: a device needs a moment.
    Wait(u64),
}

/// Bytes that one call zeroes or copies at most, and bytes that it hashes, each of which takes a hundred times as long. Whoever waits for the lock meanwhile
/// waits that long.
const PIECE: usize = 64 << 10;
const HASHED_PIECE: usize = 4 << 10;

/// A domain in the making.
pub struct Build {
    to_verify: VecDeque<(String, Verifier<'static>)>,
    memory: Option<Memory>,
}

impl Build {
    /// Pages that are going to be its memory.
    pub(super) fn memory_pages(&self) -> u64 {
        self.memory.as_ref().map_or(0, |memory| memory.pages)
    }

    /// Pages that hold its tables.
    pub(super) fn table_pages(&self) -> u64 {
        self.memory.as_ref().map_or(0, |memory| memory.p2m.table_pages())
    }
}

/// Why a domain cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Bundle(#[from] manifest::bundle::Error),
    #[error("{0}: {1}")]
    Image(String, pvh::ImageError),
    #[error(
        "{0} MiB of memory are asked for, and only {1} MiB are free in this machine; give it less memory in the manifest"
    )]
    Memory(u64, u64),
    #[error(
        "{0} MiB of memory are asked for, and no piece of that size is left that its devices could reach as a whole; give it less memory in the manifest"
    )]
    Contiguous(u64),
    #[error(
        "its kernel and initial RAM disk do not fit into its {0} MiB of memory; give it more in the manifest"
    )]
    TooSmall(u64),
    #[error("its command line is too long: {0} bytes")]
    CommandLine(usize),
    #[error(
        "a device of it has its registers at {0:#x}, where the {1} MiB of its memory are; give it less memory in the manifest"
    )]
    Registers(u64, u64),
    #[error("the hypervisor is short of memory for its tables")]
    Tables,
    #[error(transparent)]
    Confine(#[from] confine::ConfineError),
    #[error("its {0} could not be prepared: {1}")]
    Prepare(&'static str, Errno),
}

impl From<OutOfMemory> for Failure {
    fn from(_: OutOfMemory) -> Self {
        Self::Tables
    }
}

/// Does the next piece of building and starting a domain. `SRCH`: the manifest has no such domain; `EXIST`: it is there already, running or stopped; `NOMEM`, `INVAL`:
/// it cannot be built, and the log says why.
pub fn start_domain(hv: &mut Hypervisor, id: DomainId) -> Result<Progress, Errno> {
    let domain = hv.domain_mut(id).ok_or(Errno::SRCH)?;
    if domain.remains.is_some() {
        // Whoever took it down has not come to the end.
        super::life::destroy_some(hv, id);
        return Ok(Progress::Again);
    }
    let mut build = match domain.state {
        State::Running | State::Stopped { .. } => return Err(Errno::EXIST),
        State::Absent | State::Failed => None,
        State::Building => domain.building.take(),
    };
    let result = match &mut build {
        None => begin(hv, id).map(|begun| {
            build = Some(Box::new(begun));
            Progress::Again
        }),
        Some(build) => advance(hv, id, build),
    };
    let name = hv.domains[&id].spec.name.clone();
    let domain = hv.domains.get_mut(&id).ok_or(Errno::SRCH)?;
    match result {
        Ok(Progress::Done) => {
            log::info!("{name} starts: domain {}, {} MiB", id.0, domain.spec.memory >> 20);
            if let Some(body) = &domain.body {
                let (pages, large) = (body.pages, body.p2m.large_pages());
                log::debug!("{name} has {pages} pages of 4 KiB, in {large} large ones as far as it goes");
            }
            hv.check_accounts();
            Ok(Progress::Done)
        }
        Ok(progress) => {
            domain.state = State::Building;
            domain.building = build;
            Ok(progress)
        }
        Err(failure) => {
            log::error!("{name} cannot be started: {failure}");
            domain.state = State::Failed;
            domain.failure = Some(format!("{failure}"));
            if let Some(memory) = build.and_then(|build| build.memory) {
                memory.release(hv);
            }
            Err(match failure {
                Failure::Memory(..) | Failure::Contiguous(_) | Failure::Tables => Errno::NOMEM,
                _ => Errno::INVAL,
            })
        }
    }
}

/// Ends the making of a domain, which is absent then; what it had is left to be given back.
pub fn abandon(hv: &mut Hypervisor, id: DomainId) {
    let Some(domain) = hv.domain_mut(id) else { return };
    if domain.state != State::Building {
        return;
    }
    domain.state = State::Absent;
    if let Some(memory) = domain.building.take().and_then(|build| build.memory) {
        domain.remains = Some(Box::new(super::life::Remains::new(memory.p2m, memory.pages)));
    }
}

/// The files that a domain is made of: the kernel, then its modules.
fn files(kind: &Kind, control: bool) -> Vec<&str> {
    match kind {
        Kind::Unikernel { image, .. } if control => alloc::vec![image, manifest::bundle::MANIFEST_ENTRY],
        Kind::Unikernel { image, .. } => alloc::vec![image],
        Kind::Linux { kernel, initrd, .. } => core::iter::once(kernel)
            .chain(initrd)
            .map(String::as_str)
            .collect(),
    }
}

fn begin(hv: &mut Hypervisor, id: DomainId) -> Result<Build, Failure> {
    super::keep::provide(hv, id)?;
    let spec = &hv.domains[&id].spec;
    let mut to_verify = VecDeque::new();
    for name in files(&spec.kind, spec.capabilities.control) {
        if let Some(verifier) = hv.images.verifier(name)? {
            to_verify.push_back((name.into(), verifier));
        }
    }
    Ok(Build {
        to_verify,
        memory: None,
    })
}

fn advance(hv: &mut Hypervisor, id: DomainId, build: &mut Build) -> Result<Progress, Failure> {
    if let Some((name, verifier)) = build.to_verify.front_mut() {
        if verifier.advance(HASHED_PIECE)? {
            hv.images.set_verified(name);
            build.to_verify.pop_front();
        }
        return Ok(Progress::Again);
    }
    let Some(memory) = &mut build.memory else {
        build.memory = Some(lay_out(hv, id)?);
        return Ok(Progress::Again);
    };
    if memory.fill(hv) {
        return Ok(Progress::Again);
    }
    let devices = &hv.domains[&id].devices;
    if let Some(ready) = hv.resets.settle(&hv.machine, devices, time::now()) {
        return Ok(Progress::Wait(ready));
    }
    let memory = build.memory.take().ok_or(Failure::Tables)?;
    finish(hv, id, memory)?;
    Ok(Progress::Done)
}

/// Reads the kernel's headers, decides where everything goes, and allocates the memory.
fn lay_out(hv: &mut Hypervisor, id: DomainId) -> Result<Memory, Failure> {
    let domain = &hv.domains[&id];
    let spec = &domain.spec;
    let mebibytes = spec.memory >> 20;
    let names = files(&spec.kind, spec.capabilities.control);
    let (kernel_name, module_names) = names.split_first().ok_or(Failure::Tables)?;
    let image = hv.images.content(kernel_name)?;
    let kernel = pvh::Kernel::parse(image, spec.memory)
        .map_err(|error| Failure::Image((*kernel_name).into(), error))?;
    let contents = module_names
        .iter()
        .map(|name| hv.images.content(name))
        .collect::<Result<Vec<_>, _>>()?;
    let lengths: Vec<u64> = contents.iter().map(|content| content.len() as u64).collect();
    let low_end = spec.memory.min(pvh::MemoryMap::HOLE);
    let floor = kernel.end().0.max(layout::IMAGE.0);
    let places = layout::modules(&lengths, floor, low_end).ok_or(Failure::TooSmall(mebibytes))?;
    let copies = kernel
        .segments
        .iter()
        .map(|segment| (segment.address, &image[segment.file.clone()]));
    let to_copy = copies
        .chain(places.iter().copied().zip(contents.iter().copied()))
        .collect();
    let modules = places
        .iter()
        .zip(&lengths)
        .map(|(&address, &length)| pvh::Module { address, length })
        .collect();
    let pages = spec.memory / PAGE_SIZE;
    if hv.frames.free_pages() < pages + pages / LARGE_PAGE + 64 {
        return Err(Failure::Memory(mebibytes, hv.frames.free_pages() >> 8));
    }
    let contiguous = !domain.devices.is_empty() && hv.iommu.shape().is_none();
    let mut p2m = P2m::new(&hv.memory, &mut hv.frames)?;
    if hv.machine.features.gigabyte_pages {
        p2m.allow_giant_pages();
    }
    let mut memory = Memory {
        p2m,
        contiguous_base: None,
        pages,
        map: pvh::MemoryMap::new(spec.memory),
        kernel,
        modules,
        to_zero: VecDeque::new(),
        to_copy,
    };
    match memory.allocate(hv, contiguous, mebibytes) {
        Ok(()) => Ok(memory),
        Err(failure) => {
            memory.release(hv);
            Err(failure)
        }
    }
}

/// A zeroed frame.
fn zeroed(hv: &mut Hypervisor) -> Result<Frame, OutOfMemory> {
    hv.frames.allocate_zeroed(&hv.memory).ok_or(OutOfMemory)
}

/// Everything that takes a filled memory to a running domain.
fn finish(hv: &mut Hypervisor, id: DomainId, mut memory: Memory) -> Result<(), Failure> {
    let start_info = match prepare(hv, id, &mut memory) {
        Ok(start_info) => start_info,
        Err(failure) => {
            memory.release(hv);
            return Err(failure);
        }
    };
    let free = hv.frames.free_pages();
    let mut processors = match create_processors(hv, id) {
        Ok(processors) => processors,
        Err(failure) => {
            memory.release(hv);
            return Err(failure);
        }
    };
    let processor_pages = free - hv.frames.free_pages();
    let shared_info = match zeroed(hv) {
        Ok(frame) => frame,
        Err(error) => {
            processors
                .drain(..)
                .for_each(|processor| processor.release(&mut hv.frames));
            memory.release(hv);
            return Err(error.into());
        }
    };
    let now = time::now();
    let vcpus = (0..).zip(processors).map(|(index, processor)| {
        let info = super::legacy_vcpu_info(shared_info, index);
        Vcpu::new(VcpuId { domain: id, index }, processor, info, now)
    });
    let vcpus: Vec<Vcpu> = vcpus.collect();
    let Some(domain) = hv.domains.get_mut(&id) else {
        return Err(Failure::Tables);
    };
    let configuration = cpuid::Configuration {
        domain: id.0,
        vcpus: domain.spec.vcpus,
        tsc_khz: time::tsc_khz() as u32,
        extended_features: crate::virt::offered_xcr0(),
        iommu_mappings: false,
    };
    domain.body = Some(Body {
        p2m: memory.p2m,
        events: Default::default(),
        grants: Default::default(),
        calls: Default::default(),
        shared_info,
        parameters: [0; PARAMETERS],
        vcpus,
        contiguous_base: memory.contiguous_base,
        io: None,
        pages: memory.pages,
        target: domain.spec.memory / PAGE_SIZE,
        processor_pages,
        cpuid: cpuid::Policy::new(&host_cpuid, configuration),
        pci: PciView::new(domain.functions.clone()),
        debug_line: String::new(),
        counts: Default::default(),
        fault: None,
        watchdogs: Default::default(),
        last_lines: Default::default(),
    });
    domain.generation += 1;
    domain.started = now;
    domain.failure = None;
    domain.state = State::Running;
    let prepared = confine::confine(hv, id)
        .map_err(Failure::from)
        .and_then(|()| connect(hv, id));
    if let Err(failure) = prepared {
        super::life::destroy_domain(hv, id);
        return Err(failure);
    }
    crate::guest_time::publish_wall_clock(hv, id);
    let count = hv.body(id).map_or(0, |body| body.vcpus.len() as u32);
    for index in 0..count {
        let vcpu = VcpuId { domain: id, index };
        crate::guest_time::publish(hv, vcpu);
        hv.scheduler.add(vcpu);
    }
    let first = VcpuId { domain: id, index: 0 };
    if let Some(vcpu) = hv.vcpu_mut(first) {
        vcpu.processor
            .enter_pvh(&mut vcpu.registers, memory.kernel.entry, start_info);
    }
    hv.bring_up(first);
    Ok(())
}

/// Puts what the domain finds at its start into its memory, and maps the pages beyond; answers where `hvm_start_info` is.
fn prepare(hv: &mut Hypervisor, id: DomainId, memory: &mut Memory) -> Result<GuestAddress, Failure> {
    let spec = hv.domains[&id].spec.clone();
    let (Kind::Unikernel { command_line, .. } | Kind::Linux { command_line, .. }) = &spec.kind;
    let tables = acpi::build(layout::ACPI, spec.vcpus);
    let room = (layout::IMAGE.0 - layout::ACPI.0) as usize;
    if tables.bytes.len() > room {
        return Err(Failure::Tables);
    }
    memory.write(hv, layout::ACPI, &tables.bytes);
    let length = (tables.bytes.len() as u64).next_multiple_of(PAGE_SIZE);
    memory.map.carve(layout::ACPI, length, pvh::RangeKind::Acpi);
    let start_info = pvh::StartInfo {
        command_line,
        modules: &memory.modules,
        memory_map: &memory.map,
        rsdp: tables.rsdp,
    };
    let bytes = start_info.serialise(layout::START_INFO);
    if bytes.len() as u64 > layout::ACPI.0 - layout::START_INFO.0 {
        return Err(Failure::CommandLine(command_line.len()));
    }
    memory.write(hv, layout::START_INFO, &bytes);
    // The rings are the domain's own memory: it grants them to its servers.
    for at in [layout::STORE_PAGE, layout::CONSOLE_PAGE] {
        let frame = zeroed(hv)?;
        let mapping = Mapping {
            machine: frame,
            writable: true,
            kind: PageKind::Ram,
        };
        if let Err(error) = memory.p2m.map(&hv.memory, &mut hv.frames, at, mapping) {
            hv.frames.free(frame, 1);
            return Err(error.into());
        }
        memory.pages += 1;
    }
    super::keep::map(hv, id, &mut memory.p2m)?;
    let functions = hv.domains[&id].functions.clone();
    for range in functions.iter().flat_map(|function| function.memory()) {
        let mapping = Mapping {
            machine: Frame(range.address / PAGE_SIZE),
            writable: true,
            kind: PageKind::Device,
        };
        let count = range.length / PAGE_SIZE;
        let ram = |page| {
            let at = GuestAddress(range.address + page * PAGE_SIZE);
            let there = memory.p2m.translate(&hv.memory, at);
            there.is_some_and(|mapping| mapping.kind == PageKind::Ram)
        };
        if (0..count).any(ram) {
            return Err(Failure::Registers(range.address, spec.memory >> 20));
        }
        memory.p2m.map_range(
            &hv.memory,
            &mut hv.frames,
            GuestAddress(range.address),
            count,
            mapping,
        )?;
    }
    Ok(layout::START_INFO)
}

fn create_processors(hv: &mut Hypervisor, id: DomainId) -> Result<Vec<Box<dyn VirtualCpu>>, Failure> {
    let domain = &hv.domains[&id];
    let count = domain.spec.vcpus;
    let mut ports = domain.ports.clone();
    ports.extend(domain.functions.iter().flat_map(|function| function.ports()));
    let mut processors = Vec::new();
    for _ in 0..count {
        match hv.backend.create(&hv.memory, &mut hv.frames, &ports) {
            Ok(processor) => processors.push(processor),
            Err(error) => {
                processors
                    .drain(..)
                    .for_each(|processor: Box<dyn VirtualCpu>| processor.release(&mut hv.frames));
                return Err(error.into());
            }
        }
    }
    Ok(processors)
}

/// Ports, parameters and grants towards the domain's xenstore and console servers. The servers themselves get none towards themselves.
fn connect(hv: &mut Hypervisor, id: DomainId) -> Result<(), Failure> {
    let server = |wanted: fn(&manifest::Capabilities) -> bool| {
        hv.domains
            .values()
            .find(|domain| wanted(&domain.spec.capabilities))
            .map(|domain| domain.id)
    };
    let store = server(|capabilities| capabilities.control);
    let console = server(|capabilities| capabilities.console_log);
    let rings = [
        (
            store,
            layout::STORE_PAGE,
            HVM_PARAM_STORE_PFN,
            HVM_PARAM_STORE_EVTCHN,
            GNTTAB_RESERVED_XENSTORE,
        ),
        (
            console,
            layout::CONSOLE_PAGE,
            HVM_PARAM_CONSOLE_PFN,
            HVM_PARAM_CONSOLE_EVTCHN,
            GNTTAB_RESERVED_CONSOLE,
        ),
    ];
    for (server, page, frame_parameter, port_parameter, reference) in rings {
        let Some(server) = server.filter(|server| *server != id) else {
            continue;
        };
        let port = event::alloc_unbound(hv, id, server)
            .map_err(|error| Failure::Prepare("event channels", error))?;
        grant::offer(hv, id, reference, server, page.frame_number())
            .map_err(|error| Failure::Prepare("grants", error))?;
        if let Some(body) = hv.body_mut(id) {
            body.parameters[frame_parameter as usize] = page.frame_number();
            body.parameters[port_parameter as usize] = port.into();
        }
    }
    Ok(())
}

fn host_cpuid(leaf: u32, subleaf: u32) -> cpuid::Leaf {
    let answer = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    cpuid::Leaf {
        eax: answer.eax,
        ebx: answer.ebx,
        ecx: answer.ecx,
        edx: answer.edx,
    }
}

#[cfg(test)]
mod tests;

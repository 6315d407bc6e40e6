//! A whole hypervisor over a piece of the host's memory, with domains that never run: for tests of what happens between exits.
//!
//! Domains are numbered from 1 as in a manifest. Each has its RAM from guest-physical 0, filled with zeros, and vCPUs whose paging is off, so
//! that a guest-virtual address is the guest-physical one.

pub mod interleave;
pub(crate) mod models;
pub mod shared;

use core::cell::{Cell, RefCell};
use std::{boxed::Box, string::String, vec::Vec};

use crate::{
    Hypervisor,
    domain::{Body, DomainId, PARAMETERS, State, Vcpu, VcpuId},
    guest::cpuid::{Configuration, Leaf, Policy},
    memory::{
        DirectMap, Frame, FrameAllocator, GuestAddress, MachineAddress, Mapping, OutOfMemory, P2m, PAGE_SIZE,
        PageKind,
    },
    platform::Machine,
    virt::{Backend, Exit, Injection, Paging, Registers, StartState, VirtualCpu},
};

/// Pages of RAM of every domain.
pub const RAM_PAGES: u64 = 64;
/// Pages of the machine.
pub const MACHINE_PAGES: u64 = 2048;

/// A processor backend that runs nothing.
pub struct FakeCpu {
    /// What [`VirtualCpu::paging`] answers.
    pub paging: Paging,
    /// What is queued.
    pub injected: Option<Injection>,
}

std::thread_local! {
    /// How often translations were flushed, over all vCPUs.
    pub static FLUSHES: Cell<u32> = const { Cell::new(0) };
}

std::thread_local! {
    static SPARE: RefCell<Vec<DirectMap>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the memory of a hypervisor that has gone for the next one: a model makes thousands.
pub fn give_back(memory: DirectMap) {
    SPARE.with_borrow_mut(|spare| spare.push(memory));
}

/// A kernel in 64-bit code; addresses are not translated.
pub const KERNEL: Paging = Paging {
    cr0: 1,
    cr3: 0,
    cr4: 0,
    efer: 0x500,
    privilege: 0,
    long_code: true,
    code_base: 0,
};

impl VirtualCpu for FakeCpu {
    fn run(&mut self, _: &mut Registers, _: MachineAddress) -> Exit {
        Exit::Hypercall
    }
    fn skip_instruction(&mut self, registers: &mut Registers) {
        registers.rip += 3;
    }
    fn interruptible(&self, _: &Registers) -> bool {
        self.injected.is_none()
    }
    fn injection_pending(&self) -> bool {
        self.injected.is_some()
    }
    fn inject(&mut self, event: Injection) {
        self.injected = Some(event);
    }
    fn request_interrupt_window(&mut self, _: bool) -> bool {
        true
    }
    fn task_priority(&self) -> u8 {
        0
    }
    fn set_task_priority(&mut self, _: u8) {}
    fn paging(&self) -> Paging {
        self.paging
    }
    fn enter_pvh(&mut self, registers: &mut Registers, entry: GuestAddress, start_info: GuestAddress) {
        (registers.rip, registers.rbx) = (entry.0, start_info.0);
    }
    fn enter_startup(&mut self, registers: &mut Registers, vector: u8) {
        registers.rip = u64::from(vector) << 12;
    }
    fn enter_at(&mut self, start: &StartState) {
        self.paging = Paging {
            cr0: start.cr0,
            cr3: start.cr3,
            cr4: start.cr4,
            efer: start.efer,
            privilege: 0,
            long_code: start.cs.attributes & 1 << 9 != 0,
            code_base: start.cs.base.into(),
        };
    }
    fn read_msr(&self, _: u32) -> Option<u64> {
        None
    }
    fn write_msr(&mut self, _: u32, _: u64) -> Option<bool> {
        None
    }
    fn flush_translations(&mut self) {
        FLUSHES.set(FLUSHES.get() + 1);
    }
    fn set_tsc_offset(&mut self, _: u64) {}
    fn in_interrupt_shadow(&self, _: &Registers) -> bool {
        false
    }
    fn release(self: Box<Self>, _: &mut FrameAllocator) {}
}

struct FakeBackend;

impl Backend for FakeBackend {
    fn enable_here(&self) {}
    fn name(&self) -> &'static str {
        "a fake"
    }
    fn hypercall_instruction(&self) -> [u8; 3] {
        [0x0f, 0x01, 0xd9]
    }
    fn create(
        &self,
        _: &DirectMap,
        _: &mut FrameAllocator,
        _: &[(u16, u16)],
    ) -> Result<Box<dyn VirtualCpu>, OutOfMemory> {
        Ok(Box::new(FakeCpu {
            paging: KERNEL,
            injected: None,
        }))
    }
}

/// A domain's part of a manifest, without capabilities.
pub fn spec(name: &str, vcpus: u32) -> manifest::Domain {
    manifest::Domain {
        name: name.into(),
        kind: manifest::Kind::Unikernel {
            image: name.into(),
            command_line: String::new(),
        },
        memory: RAM_PAGES * PAGE_SIZE,
        memory_maximum: RAM_PAGES * PAGE_SIZE,
        vcpus,
        scheduling: manifest::Scheduling::default(),
        capabilities: manifest::Capabilities::default(),
        devices: Vec::new(),
        disks: Vec::new(),
        networks: Vec::new(),
        keep: 0,
        restarts: manifest::Restarts::default(),
        watchdog: 0,
        options: Vec::new(),
    }
}

/// Domain 1 `control` and domain 2 `console` with the capabilities of those names, domain 3 `guest` with two vCPUs; all running.
pub fn hypervisor() -> Hypervisor {
    let mut control = spec("control", 1);
    (control.capabilities.control, control.capabilities.observe) = (true, true);
    let mut console = spec("console", 1);
    console.capabilities.console_log = true;
    hypervisor_with(std::vec![control, console, spec("guest", 2)])
}

/// A hypervisor with these domains, all running.
pub fn hypervisor_with(specs: Vec<manifest::Domain>) -> Hypervisor {
    hypervisor_on(1, specs)
}

/// The same on so many processors.
pub fn hypervisor_on(processors: u32, specs: Vec<manifest::Domain>) -> Hypervisor {
    let manifest = manifest::Manifest {
        name: "test".into(),
        reboot_on_panic: false,
        fault_injection: false,
        allow_unconfined_dma: true,
        domains: specs,
    };
    let frames = FrameAllocator::new(&[(Frame(1), MACHINE_PAGES - 1)]);
    let spare = SPARE.with_borrow_mut(Vec::pop);
    let memory = spare.unwrap_or_else(|| DirectMap::fake(MACHINE_PAGES as usize));
    let backend = Box::new(FakeBackend);
    let mut hv = Hypervisor::new(
        Machine {
            online: (0..processors).collect(),
            ..Machine::default()
        },
        manifest,
        Default::default(),
        memory,
        frames,
        backend,
        Default::default(),
    );
    let ids: Vec<DomainId> = hv.domains.keys().copied().collect();
    for id in ids {
        build(&mut hv, id);
    }
    hv
}

/// Gives a domain a new body.
pub fn build(hv: &mut Hypervisor, id: DomainId) {
    let memory = hv.memory;
    let pages = hv.domain(id).unwrap().spec.memory / PAGE_SIZE;
    let frames = &mut hv.frames;
    let mut p2m = P2m::new(&memory, frames).unwrap();
    let first = frames.allocate_contiguous(pages, 1).unwrap();
    memory.zero(first.address(), (pages * PAGE_SIZE) as usize);
    let ram = Mapping {
        machine: first,
        writable: true,
        kind: PageKind::Ram,
    };
    p2m.map_range(&memory, frames, GuestAddress(0), pages, ram)
        .unwrap();
    let shared_info = frames.allocate().unwrap();
    memory.zero(shared_info.address(), PAGE_SIZE as usize);
    let domain = hv.domains.get_mut(&id).unwrap();
    let vcpus = (0..domain.spec.vcpus)
        .map(|index| {
            let processor = FakeCpu {
                paging: KERNEL,
                injected: None,
            };
            let info = crate::domain::legacy_vcpu_info(shared_info, index);
            Vcpu::new(VcpuId { domain: id, index }, Box::new(processor), info, 0)
        })
        .collect();
    let configuration = Configuration {
        domain: id.0,
        vcpus: domain.spec.vcpus,
        tsc_khz: 1_000_000,
        extended_features: 0,
        iommu_mappings: false,
    };
    domain.state = State::Running;
    domain.generation += 1;
    domain.body = Some(Body {
        p2m,
        events: Default::default(),
        grants: Default::default(),
        shared_info,
        parameters: [0; PARAMETERS],
        vcpus,
        contiguous_base: None,
        io: None,
        pages,
        target: pages,
        processor_pages: 0,
        calls: Default::default(),
        cpuid: Policy::new(&|_, _| Leaf::default(), configuration),
        pci: Default::default(),
        debug_line: String::new(),
        counts: Default::default(),
        fault: None,
        watchdogs: Default::default(),
        last_lines: Default::default(),
    });
    hv.bring_up(VcpuId { domain: id, index: 0 });
}

/// Takes a domain down.
pub fn destroy(hv: &mut Hypervisor, id: DomainId) {
    hv.destroy_domain(id);
}

/// The first vCPU of a domain.
pub fn vcpu(domain: u16) -> VcpuId {
    VcpuId {
        domain: DomainId(domain),
        index: 0,
    }
}

/// Writes a domain's memory.
pub fn poke(hv: &Hypervisor, domain: u16, at: u64, bytes: &[u8]) {
    let at = machine(hv, domain, at);
    hv.memory.write(at, bytes);
}

/// Reads a domain's memory.
pub fn peek<const N: usize>(hv: &Hypervisor, domain: u16, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    hv.memory.read(machine(hv, domain, at), &mut bytes);
    bytes
}

/// Where a domain's memory is.
pub fn machine(hv: &Hypervisor, domain: u16, at: u64) -> MachineAddress {
    let body = hv.body(DomainId(domain)).expect("the domain is built");
    body.p2m
        .machine_address(&hv.memory, GuestAddress(at), false)
        .expect("the address is mapped")
}

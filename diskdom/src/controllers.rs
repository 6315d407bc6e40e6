//! The controllers that this domain was given: found by class or id, brought up one by one. One that fails is reported by name
//! and left out.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};

use diskdom::device::Pause;
use diskdom::nvme;
use diskdom::virtio::VirtioDisk;
use diskdom::volume::Disks;
use unikernel_rt::System;
use unikernel_rt::event::{Events, Interrupt};
use unikernel_rt::hypercall::Errno;
use unikernel_rt::pci::{Command, Function, enumerate};
use unikernel_rt::virtio_pci::{Routing, VirtioFunction};

/// Mass storage, non-volatile memory, NVM Express.
const NVME_CLASS: (u8, u8, u8) = (0x01, 0x08, 0x02);
const VIRTIO_VENDOR: u16 = 0x1af4;
/// The transitional and the modern block device.
const VIRTIO_BLOCK: [u16; 2] = [0x1001, 0x1042];
/// The register of an NVMe controller's BAR.
const NVME_BAR: u8 = 0;

/// The disks, and whether every controller has its interrupt.
pub(super) fn bring_up(system: &System, clock: &Rc<dyn Pause>) -> (Disks, bool) {
    let mut found = Controllers {
        events: system.events.clone(),
        clock: clock.clone(),
        disks: Disks::default(),
        interrupts: true,
    };
    let mut any = false;
    for function in enumerate(&*system.control, &system.pci) {
        let (name, outcome) = if function.class == NVME_CLASS {
            let name = format!("NVMe controller {}", function.address());
            let outcome = found.nvme(&name, &function);
            (name, outcome)
        } else if function.vendor == VIRTIO_VENDOR && VIRTIO_BLOCK.contains(&function.device) {
            let name = format!("virtio disk {}", function.address());
            let outcome = found.virtio(&name, &function);
            (name, outcome)
        } else {
            log::info!("{function:?} is no disk controller");
            continue;
        };
        any = true;
        if let Err(error) = outcome {
            log::error!("{name} is left out: {error}");
        }
    }
    if !any {
        log::warn!("no disk controller was given to this domain");
    }
    (found.disks, found.interrupts)
}

struct Controllers {
    events: Events,
    clock: Rc<dyn Pause>,
    disks: Disks,
    interrupts: bool,
}

impl Controllers {
    fn nvme(&mut self, name: &str, function: &Function) -> Result<(), String> {
        function.enable(Command::MEMORY | Command::INTERRUPT_DISABLE);
        let registers = function
            .map_bar(NVME_BAR)
            .ok_or("its registers have no address")?;
        match function.bind_interrupt(&self.events, 0) {
            // It stays for as long as the domain lives; closing its port would end it.
            Ok(interrupt) => core::mem::forget(interrupt),
            Err(error) => self.without_interrupt(name, error),
        }
        let disks = nvme::start(name, registers, access(function), self.clock.clone())
            .map_err(|error| error.to_string())?;
        if disks.is_empty() {
            log::warn!("{name} has no namespace that can be used");
        }
        for disk in disks {
            self.disks
                .add("nvme", Box::new(disk), &*self.clock)
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn virtio(&mut self, name: &str, function: &Function) -> Result<(), String> {
        function.enable(Command::INTERRUPT_DISABLE);
        let VirtioFunction { transport, routing } =
            VirtioFunction::open(function).map_err(|error| error.to_string())?;
        // Once beforehand, to know whether there is one at all; the driver has it routed anew after each reset.
        let mut line = Line {
            events: self.events.clone(),
            function: function.clone(),
            routing,
            interrupt: None,
        };
        if let Err(error) = line.route() {
            self.without_interrupt(name, error);
        }
        let label = String::from(name);
        let route = Box::new(move || {
            if let Err(error) = line.route() {
                log::warn!("{label} has no interrupt: {error}");
            }
        });
        let disk = VirtioDisk::start(name, transport, route, cut_off(function), self.clock.clone())
            .map_err(|error| error.to_string())?;
        self.disks
            .add("virtio", Box::new(disk), &*self.clock)
            .map_err(|error| error.to_string())?;
        Ok(())
    }

    fn without_interrupt(&mut self, name: &str, error: Errno) {
        log::warn!("{name} has no interrupt ({error}); it is polled");
        self.interrupts = false;
    }
}

/// Allows a controller to reach memory, or ends that.
fn access(function: &Function) -> Box<dyn Fn(bool)> {
    let function = function.clone();
    Box::new(move |allowed| {
        if allowed {
            function.enable(Command::BUS_MASTER);
        } else {
            function.disable(Command::BUS_MASTER);
        }
    })
}

/// Ends a controller's access to memory.
fn cut_off(function: &Function) -> Box<dyn Fn()> {
    let function = function.clone();
    Box::new(move || function.disable(Command::BUS_MASTER))
}

/// The interrupt of a virtio device's queue.
struct Line {
    events: Events,
    function: Function,
    routing: Routing,
    interrupt: Option<Interrupt>,
}

impl Line {
    /// Tells the device which interrupt its queue has; a reset makes it forget.
    fn route(&mut self) -> Result<(), Errno> {
        // The old port first: an interrupt can be bound once.
        self.interrupt = None;
        self.interrupt = Some(self.routing.bind(&self.function, &self.events, 1)?);
        Ok(())
    }
}

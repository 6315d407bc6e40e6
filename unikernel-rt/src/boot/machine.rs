//! Puts the [`System`] together: the pages shared with the hypervisor, and what stands on them.
#![allow(unsafe_code)] // Pages at addresses that the hypervisor names become memory here.

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::time::Duration;

use xen_abi::atoll::*;
use xen_abi::hvm::params::*;
use xen_abi::memory::{AddToPhysmap, XENMAPSPACE_shared_info, XENMEM_add_to_physmap};
use xen_abi::xen::{__HYPERVISOR_memory_op, DOMID_SELF};

use super::{WINDOW, paging};
use crate::atoll::{Control, Fault, MachineAction};
use crate::console::Console;
use crate::event::xen::XenEvents;
use crate::event::{Channel, Port};
use crate::grant::xen::XenGrants;
use crate::hypercall::{Errno, call};
use crate::keep::Keep;
use crate::memory::{PAGE_SIZE, SharedMemory};
use crate::pci::{ConfigPorts, PciAddress};
use crate::ring::bytes::ByteChannel;
use crate::xenstore::{Client, Store};
use crate::{Connections, DomainId, Module, StartError, System, dma};

/// Bytes of a crash report that are read; it has fewer.
const CRASH_REPORT: usize = 16 * 1024;

/// Everything that a domain is given.
pub(super) fn system(command_line: &'static str, modules: Vec<Module>) -> Result<System, StartError> {
    let control = XenControl;
    let info = control
        .domain_info(DomainId::SELF)
        .map_err(refused("the domain's own id"))?;
    if let Ok(window) = dma_window() {
        dma::set_window(window.offset);
    }
    // The window's first page is for `shared_info`; grants take the rest.
    let first = window_page(0);
    share_info(first).map_err(refused("the page shared_info"))?;
    // SAFETY: the page was just put there, and this is called once.
    let events = unsafe { XenEvents::new(first, Duration::from_nanos(info.watchdog)) }
        .map_err(refused("the timer"))?;
    let pages = (WINDOW.end - WINDOW.start) as usize / PAGE_SIZE;
    // SAFETY: the page tables map the window for data; nothing else lives in it, and this is called once.
    let grants = unsafe { XenGrants::new(window_page(1), pages - 1) };
    Ok(System::new(
        DomainId(info.domain),
        command_line,
        modules,
        Rc::new(events),
        Rc::new(grants),
        Rc::new(control),
        Rc::new(ConfigPorts),
        Connections { store, console },
    )
    .with_keep(Keep::new(keep_region())))
}

/// The pages that the last life left.
fn keep_region() -> Option<SharedMemory> {
    let mut region = KeepRegion {
        domain: DOMID_SELF,
        ..KeepRegion::default()
    };
    operate(ATOLLOP_KEEP_REGION, &mut region).ok()?;
    let length = u64::from(region.pages) * PAGE_SIZE as u64;
    let base = NonNull::new(region.address as *mut u8).filter(|_| length > 0)?;
    if let Err(error) = paging::map(region.address..region.address.checked_add(length)?, paging::DATA) {
        log::error!("the keep region: {error}");
        return None;
    }
    // SAFETY: the hypervisor set these pages aside for this; they lie outside of what the heap and the image use, and were just mapped for ever.
    Some(unsafe { SharedMemory::from_raw(base, length as usize, None) })
}

fn refused(what: &'static str) -> impl Fn(Errno) -> StartError {
    move |error| StartError::Call { what, error }
}

/// A page of the window.
fn window_page(number: usize) -> NonNull<u8> {
    let address = WINDOW.start as usize + number * PAGE_SIZE;
    NonNull::new(address as *mut u8).expect("the window does not begin at 0")
}

/// Has the hypervisor put `shared_info` behind a page.
fn share_info(place: NonNull<u8>) -> Result<u64, Errno> {
    let mut argument = AddToPhysmap {
        domid: DOMID_SELF,
        space: XENMAPSPACE_shared_info,
        gpfn: (place.as_ptr() as usize / PAGE_SIZE) as u64,
        ..AddToPhysmap::default()
    };
    call::with(__HYPERVISOR_memory_op, XENMEM_add_to_physmap, &mut argument)
}

fn dma_window() -> Result<DmaWindow, Errno> {
    let mut window = DmaWindow::default();
    call::with(__HYPERVISOR_atoll_op, ATOLLOP_DMA_WINDOW, &mut window)?;
    Ok(window)
}

fn store(system: &System) -> Result<Rc<dyn Store>, StartError> {
    let (page, channel) = special(
        system,
        "xenstore ring",
        HVM_PARAM_STORE_PFN,
        HVM_PARAM_STORE_EVTCHN,
    )?;
    Ok(Rc::new(Client::new(ByteChannel::store_client(page)?, channel)))
}

fn console(system: &System) -> Result<Console, StartError> {
    let (page, channel) = special(
        system,
        "console ring",
        HVM_PARAM_CONSOLE_PFN,
        HVM_PARAM_CONSOLE_EVTCHN,
    )?;
    Ok(Console::new(ByteChannel::console_frontend(page)?, channel))
}

/// One of the pages that the hypervisor prepared, with its port.
fn special(
    system: &System,
    what: &'static str,
    page: u32,
    port: u32,
) -> Result<(SharedMemory, Channel), StartError> {
    let frame = call::parameter(page).map_err(refused(what))?;
    let port = call::parameter(port).map_err(refused(what))?;
    let address = frame.wrapping_mul(PAGE_SIZE as u64);
    let pointer = NonNull::new(address as *mut u8)
        .filter(|_| port != 0)
        .ok_or(StartError::Missing(what))?;
    if let Err(error) = paging::map(address..address.wrapping_add(PAGE_SIZE as u64), paging::DATA) {
        log::error!("the {what}: {error}");
        return Err(StartError::Missing(what));
    }
    // SAFETY: the hypervisor set the page aside for this; it lies outside of what the heap and the image use, and was just mapped for
    // ever.
    let memory = unsafe { SharedMemory::from_raw(pointer, PAGE_SIZE, None) };
    Ok((memory, Channel::borrow(&system.events, Port(port as u32))))
}

/// The control interface on the machine.
struct XenControl;

fn operate<T: zerocopy::FromBytes + zerocopy::IntoBytes>(
    operation: u64,
    argument: &mut T,
) -> Result<(), Errno> {
    call::with(__HYPERVISOR_atoll_op, operation, argument).map(drop)
}

fn reference(domain: DomainId) -> DomainReference {
    DomainReference {
        domain: domain.0,
        ..DomainReference::default()
    }
}

impl Control for XenControl {
    fn domain_info(&self, domain: DomainId) -> Result<DomainInfo, Errno> {
        let mut info = DomainInfo {
            domain: domain.0,
            ..DomainInfo::default()
        };
        operate(ATOLLOP_DOMAIN_INFO, &mut info)?;
        Ok(info)
    }

    fn start(&self, domain: DomainId) -> Result<(), Errno> {
        operate(ATOLLOP_DOMAIN_START, &mut reference(domain))
    }

    fn destroy(&self, domain: DomainId) -> Result<(), Errno> {
        operate(ATOLLOP_DOMAIN_DESTROY, &mut reference(domain))
    }

    fn resume(&self, domain: DomainId) -> Result<(), Errno> {
        operate(ATOLLOP_DOMAIN_RESUME, &mut reference(domain))
    }

    fn set_memory(&self, domain: DomainId, pages: u64) -> Result<(), Errno> {
        let mut request = DomainMemory {
            domain: domain.0,
            pages,
            ..DomainMemory::default()
        };
        operate(ATOLLOP_DOMAIN_MEMORY, &mut request)
    }

    fn discard_keep(&self, domain: DomainId) -> Result<(), Errno> {
        let mut region = KeepRegion {
            domain: domain.0,
            flags: KEEP_DISCARD,
            ..KeepRegion::default()
        };
        operate(ATOLLOP_KEEP_REGION, &mut region)
    }

    fn inject_fault(&self, domain: DomainId, fault: Fault, after: u64) -> Result<(), Errno> {
        let fault = match fault {
            Fault::Kill => FAULT_KILL,
            Fault::Hang => FAULT_HANG,
            Fault::CorruptKeep => FAULT_CORRUPT_KEEP,
        };
        let mut request = FaultInjection {
            domain: domain.0,
            fault,
            after,
            ..FaultInjection::default()
        };
        operate(ATOLLOP_INJECT_FAULT, &mut request)
    }

    fn machine(&self, action: MachineAction) -> Result<(), Errno> {
        let action = match action {
            MachineAction::PowerOff => MACHINE_POWER_OFF,
            MachineAction::Reboot => MACHINE_REBOOT,
        };
        operate(
            ATOLLOP_MACHINE_CONTROL,
            &mut MachineControl {
                action,
                ..MachineControl::default()
            },
        )
    }

    fn domain_figures(&self, domain: DomainId) -> Result<DomainFigures, Errno> {
        let mut figures = DomainFigures {
            domain: domain.0,
            ..DomainFigures::default()
        };
        operate(ATOLLOP_DOMAIN_FIGURES, &mut figures)?;
        Ok(figures)
    }

    fn processor_figures(&self, processor: u32, restart: bool) -> Result<ProcessorFigures, Errno> {
        let mut figures = ProcessorFigures {
            processor,
            flags: if restart { PROCESSOR_FIGURES_RESTART } else { 0 },
            ..ProcessorFigures::default()
        };
        operate(ATOLLOP_PROCESSOR_FIGURES, &mut figures)?;
        Ok(figures)
    }

    fn machine_info(&self) -> Result<MachineInfo, Errno> {
        let mut info = MachineInfo::default();
        operate(ATOLLOP_MACHINE_INFO, &mut info)?;
        Ok(info)
    }

    fn pci_function(&self, index: u32) -> Result<PciAddress, Errno> {
        let mut function = PciFunction {
            index,
            ..Default::default()
        };
        operate(ATOLLOP_PCI_FUNCTION, &mut function)?;
        Ok(PciAddress::new(
            function.segment,
            function.bus,
            function.devfn >> 3,
            function.devfn & 7,
        ))
    }

    fn read_crash(&self, domain: DomainId, back: u16) -> Result<String, Errno> {
        let mut buffer = alloc::vec![0; CRASH_REPORT];
        let read = call::with_buffer(
            __HYPERVISOR_atoll_op,
            ATOLLOP_CRASH_READ,
            &mut buffer,
            |buffer, length| CrashRead {
                domain: domain.0,
                back,
                buffer,
                length,
                ..CrashRead::default()
            },
        )?;
        buffer.truncate(read.length as usize);
        Ok(String::from_utf8_lossy(&buffer).into_owned())
    }

    fn read_log(&self, position: u64, buffer: &mut [u8]) -> Result<(u64, usize), Errno> {
        let wanted = buffer.len();
        let read = call::with_buffer(
            __HYPERVISOR_atoll_op,
            ATOLLOP_LOG_READ,
            buffer,
            |address, length| LogRead {
                position,
                buffer: address,
                length,
            },
        )?;
        Ok((read.position, (read.length as usize).min(wanted)))
    }
}

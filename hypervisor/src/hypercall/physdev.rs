//! `HYPERVISOR_physdev_op` (`physdev.h`): the physical interrupts of a domain's own devices. The hypervisor programs MSI-X itself, so whoever can
//! name a function and an entry needs no more.

use xen_abi::physdev::*;

use super::{
    Answer, Call, Result,
    context::{only_self, read, write},
};
use crate::{
    Hypervisor,
    domain::VcpuId,
    errno::Errno,
    event::interrupts::{self, Source},
    platform::pci::PciAddress,
};

pub(super) fn operation(hv: &mut Hypervisor, caller: VcpuId, call: &mut Call) -> Result {
    let [operation, at, ..] = call.arguments;
    let domain = caller.domain;
    match operation {
        PHYSDEVOP_map_pirq => {
            let mut request: PhysdevMapPirq = read(hv, caller, at)?;
            only_self(caller, request.domid)?;
            let wanted = u32::try_from(request.pirq).ok();
            let number = interrupts::map(hv, domain, source(&request)?, wanted)?;
            request.pirq = number as i32;
            if let Err(error) = write(hv, caller, at, &request) {
                let _ = interrupts::unmap(hv, domain, number);
                return Err(error);
            }
        }
        PHYSDEVOP_unmap_pirq => {
            let request: PhysdevUnmapPirq = read(hv, caller, at)?;
            only_self(caller, request.domid)?;
            interrupts::unmap(hv, domain, u32::try_from(request.pirq).map_err(|_| Errno::INVAL)?)?;
        }
        PHYSDEVOP_eoi => {
            let request: PhysdevEoi = read(hv, caller, at)?;
            interrupts::end(hv, domain, request.irq)?;
        }
        PHYSDEVOP_irq_status_query => {
            let mut request: PhysdevIrqStatusQuery = read(hv, caller, at)?;
            request.flags = interrupts::status(hv, domain, request.irq)?;
            write(hv, caller, at, &request)?;
        }
        PHYSDEVOP_get_free_pirq => {
            let mut request: PhysdevGetFreePirq = read(hv, caller, at)?;
            request.pirq = interrupts::free_number(hv, domain)?;
            write(hv, caller, at, &request)?;
        }
        _ => return Err(Errno::NOSYS),
    }
    Ok(Answer::OK)
}

fn source(request: &PhysdevMapPirq) -> Result<Source> {
    match request.r#type {
        MAP_PIRQ_TYPE_GSI => u32::try_from(request.index)
            .map(Source::Line)
            .map_err(|_| Errno::INVAL),
        MAP_PIRQ_TYPE_MSI | MAP_PIRQ_TYPE_MSI_SEG => {
            let segment = if request.r#type == MAP_PIRQ_TYPE_MSI_SEG {
                (request.bus >> 16) as u16
            } else {
                0
            };
            let devfn = u8::try_from(request.devfn).map_err(|_| Errno::INVAL)?;
            let function = PciAddress {
                segment,
                bus: request.bus as u8,
                device: devfn >> 3,
                function: devfn & 7,
            };
            let entry = u16::try_from(request.entry_nr).map_err(|_| Errno::INVAL)?;
            Ok(Source::Message { function, entry })
        }
        _ => Err(Errno::NOSYS),
    }
}

//! `HYPERVISOR_hvm_op` (`hvm/hvm_op.h`): the parameters of a domain, and how events interrupt it.

use xen_abi::hvm::{hvm_op::*, params::*};

use super::{
    Answer, Call, Result,
    context::{only_self, read, write},
    machine,
};
use crate::{
    Hypervisor,
    domain::VcpuId,
    errno::Errno,
    event, grant,
    memory::{GuestAddress, PAGE_SIZE, PageKind},
};

/// Vectors below are the processor's.
const FIRST_VECTOR: u8 = 16;

pub(super) fn operation(hv: &mut Hypervisor, caller: VcpuId, call: &mut Call) -> Result {
    let [operation, at, ..] = call.arguments;
    match operation {
        HVMOP_set_param => {
            let request: HvmParam = read(hv, caller, at)?;
            only_self(caller, request.domid)?;
            set_parameter(hv, caller, request.index, request.value)?;
        }
        HVMOP_get_param => {
            let mut request: HvmParam = read(hv, caller, at)?;
            only_self(caller, request.domid)?;
            request.value = parameter(hv, caller, request.index)?;
            write(hv, caller, at, &request)?;
        }
        HVMOP_set_evtchn_upcall_vector => {
            let request: HvmEvtchnUpcallVector = read(hv, caller, at)?;
            if request.vector < FIRST_VECTOR {
                return Err(Errno::INVAL);
            }
            let id = VcpuId {
                domain: caller.domain,
                index: request.vcpu,
            };
            let vcpu = hv.vcpu_mut(id).ok_or(Errno::NOENT)?;
            vcpu.upcall_vector = Some(request.vector);
            // What is pending already counts as an edge.
            let pending = event::upcall_pending(hv, id);
            hv.vcpu_mut(id).ok_or(Errno::NOENT)?.upcall_edge = pending;
            if pending {
                hv.wake(id);
            }
        }
        HVMOP_get_time => write(hv, caller, at, &HvmGetTime { now: machine::now() })?,
        HVMOP_flush_tlbs => {
            if at != 0 {
                return Err(Errno::INVAL);
            }
            grant::flush(hv, caller.domain);
        }
        HVMOP_get_mem_type => {
            let mut request: HvmGetMemType = read(hv, caller, at)?;
            only_self(caller, request.domid)?;
            request.mem_type = memory_type(hv, caller, request.pfn)?;
            write(hv, caller, at, &request)?;
        }
        _ => return Err(Errno::NOSYS),
    }
    Ok(Answer::OK)
}

fn set_parameter(hv: &mut Hypervisor, caller: VcpuId, index: u32, value: u64) -> Result<()> {
    let body = hv.body_mut(caller.domain).ok_or(Errno::SRCH)?;
    if index >= HVM_NR_PARAMS {
        return Err(Errno::INVAL);
    }
    match index {
        HVM_PARAM_CALLBACK_IRQ => {
            // There is no interrupt controller with lines in such a guest.
            match CallbackVia::from_param(value).ok_or(Errno::INVAL)? {
                CallbackVia::None | CallbackVia::Vector(FIRST_VECTOR..) => {}
                _ => return Err(Errno::INVAL),
            }
        }
        HVM_PARAM_STORE_EVTCHN
        | HVM_PARAM_CONSOLE_EVTCHN
        | HVM_PARAM_VM86_TSS
        | HVM_PARAM_VM86_TSS_SIZED
        | HVM_PARAM_ACPI_IOPORTS_LOCATION
        | HVM_PARAM_VM_GENERATION_ID_ADDR
        | HVM_PARAM_X87_FIP_WIDTH => {}
        _ => return Err(Errno::PERM),
    }
    body.parameters[index as usize] = value;
    Ok(())
}

fn parameter(hv: &Hypervisor, caller: VcpuId, index: u32) -> Result<u64> {
    let body = hv.body(caller.domain).ok_or(Errno::SRCH)?;
    match index {
        HVM_NR_PARAMS.. => Err(Errno::INVAL),
        HVM_PARAM_CALLBACK_IRQ
        | HVM_PARAM_STORE_PFN
        | HVM_PARAM_STORE_EVTCHN
        | HVM_PARAM_CONSOLE_PFN
        | HVM_PARAM_CONSOLE_EVTCHN
        | HVM_PARAM_VM86_TSS
        | HVM_PARAM_VM86_TSS_SIZED
        | HVM_PARAM_ACPI_IOPORTS_LOCATION
        | HVM_PARAM_VM_GENERATION_ID_ADDR
        | HVM_PARAM_X87_FIP_WIDTH => Ok(body.parameters[index as usize]),
        _ => Err(Errno::PERM),
    }
}

fn memory_type(hv: &Hypervisor, caller: VcpuId, frame: u64) -> Result<u16> {
    if frame > u64::MAX / PAGE_SIZE {
        return Err(Errno::INVAL);
    }
    let body = hv.body(caller.domain).ok_or(Errno::SRCH)?;
    Ok(
        match body.p2m.translate(&hv.memory, GuestAddress::of_frame(frame)) {
            Some(mapping) if mapping.kind == PageKind::Device => HVMMEM_mmio_dm,
            Some(mapping) if mapping.writable => HVMMEM_ram_rw,
            Some(_) => HVMMEM_ram_ro,
            None => HVMMEM_mmio_dm,
        },
    )
}

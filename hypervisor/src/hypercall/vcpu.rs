//! `HYPERVISOR_vcpu_op` (`vcpu.h`), with the older `set_timer_op` and `vm_assist`: bringing vCPUs up and down, their timers, and the areas in the guest's
//! memory that the hypervisor keeps up to date for them.

use core::mem::offset_of;

use xen_abi::{
    hvm::hvm_vcpu::*,
    sched::SHUTDOWN_poweroff,
    vcpu::*,
    xen::{VMASST_CMD_disable, VMASST_CMD_enable, VMASST_TYPE_runstate_update_flag, VcpuInfo, VcpuTimeInfo},
};
use zerocopy::{FromZeros, IntoBytes};

use super::{
    Answer, Call, Result,
    context::{VcpuCalls, read, space, write},
    machine, sched, start,
};
use crate::{
    Hypervisor,
    domain::{Vcpu, VcpuId, VcpuStatus},
    errno::Errno,
    event,
    memory::{
        GuestAddress, GuestVirtual, MachineAddress, PAGE_SIZE, PageKind,
        walk::{Access, GuestPointer},
    },
};

/// The shortest period of a timer, in nanoseconds.
const MIN_PERIOD: u64 = 1_000_000;

pub(super) fn operation(hv: &mut Hypervisor, caller: VcpuId, call: &mut Call) -> Result {
    let [operation, index, at, ..] = call.arguments;
    let index = u32::try_from(index).map_err(|_| Errno::NOENT)?;
    let id = VcpuId {
        domain: caller.domain,
        index,
    };
    let vcpu = hv.vcpu_mut(id).ok_or(Errno::NOENT)?;
    let offline = vcpu.status == VcpuStatus::Offline;
    match operation {
        VCPUOP_initialise => initialise(hv, caller, id, at),
        VCPUOP_up => {
            if vcpu.awaits_startup {
                return Err(Errno::INVAL);
            }
            hv.bring_up(id);
            Ok(Answer::OK)
        }
        VCPUOP_down => down(hv, caller, id),
        VCPUOP_is_up => Ok(Answer::Done(i64::from(!offline))),
        VCPUOP_get_runstate_info => {
            let info = runstate_info(vcpu, machine::now());
            write(hv, caller, at, &info)?;
            Ok(Answer::OK)
        }
        VCPUOP_register_runstate_memory_area => {
            let area: VcpuRegisterRunstateMemoryArea = read(hv, caller, at)?;
            let info = runstate_info(hv.vcpu(id).ok_or(Errno::NOENT)?, machine::now());
            if area.addr != 0 {
                write(hv, caller, area.addr, &info)?;
            }
            hv.vcpu_mut(id).ok_or(Errno::NOENT)?.runstate_area = (area.addr != 0).then_some(area.addr);
            Ok(Answer::OK)
        }
        VCPUOP_register_vcpu_time_memory_area => {
            let area: VcpuRegisterTimeMemoryArea = read(hv, caller, at)?;
            hv.recall(id);
            calls(hv, id)?.time_area = (area.addr != 0).then_some(area.addr);
            update_time_area(hv, id);
            Ok(Answer::OK)
        }
        VCPUOP_set_periodic_timer => {
            let request: VcpuSetPeriodicTimer = read(hv, caller, at)?;
            if request.period_ns < MIN_PERIOD || request.period_ns > i64::MAX as u64 {
                return Err(Errno::INVAL);
            }
            let next = machine::now().saturating_add(request.period_ns);
            hv.vcpu_mut(id).ok_or(Errno::NOENT)?.periodic = Some((request.period_ns, next));
            hv.rearm(id);
            Ok(Answer::OK)
        }
        VCPUOP_stop_periodic_timer => {
            vcpu.periodic = None;
            hv.rearm(id);
            Ok(Answer::OK)
        }
        VCPUOP_set_singleshot_timer => {
            only_caller(caller, id)?;
            let request: VcpuSetSingleshotTimer = read(hv, caller, at)?;
            if request.flags & VCPU_SSHOTTMR_future != 0 && request.timeout_abs_ns < machine::now() {
                return Err(Errno::TIME);
            }
            hv.vcpu_mut(id).ok_or(Errno::NOENT)?.oneshot = Some(request.timeout_abs_ns);
            Ok(Answer::OK)
        }
        VCPUOP_stop_singleshot_timer => {
            only_caller(caller, id)?;
            vcpu.oneshot = None;
            Ok(Answer::OK)
        }
        VCPUOP_register_vcpu_info => register_info(hv, caller, id, at),
        VCPUOP_send_nmi => {
            vcpu.non_maskable = true;
            hv.wake(id);
            Ok(Answer::OK)
        }
        VCPUOP_get_physid => Err(Errno::INVAL), // No vCPU is pinned for good.
        _ => Err(Errno::NOSYS),
    }
}

fn calls(hv: &mut Hypervisor, id: VcpuId) -> Result<&mut VcpuCalls> {
    Ok(hv.body_mut(id.domain).ok_or(Errno::SRCH)?.calls.vcpu(id.index))
}

fn only_caller(caller: VcpuId, id: VcpuId) -> Result<()> {
    if caller == id { Ok(()) } else { Err(Errno::INVAL) }
}

/// `HYPERVISOR_set_timer_op`: the same timer as the one-shot one; 0 stops it.
pub(super) fn set_timer(hv: &mut Hypervisor, caller: VcpuId, deadline: u64) -> Result {
    hv.vcpu_mut(caller).ok_or(Errno::SRCH)?.oneshot = (deadline != 0).then_some(deadline);
    Ok(Answer::OK)
}

/// `HYPERVISOR_vm_assist`: the one assistance that is for such guests.
pub(super) fn assist(hv: &mut Hypervisor, caller: VcpuId, call: &mut Call) -> Result {
    let [command, kind, ..] = call.arguments;
    let on = match command {
        VMASST_CMD_enable => true,
        VMASST_CMD_disable => false,
        _ => return Err(Errno::NOSYS),
    };
    if kind != VMASST_TYPE_runstate_update_flag {
        return Err(Errno::INVAL);
    }
    hv.body_mut(caller.domain)
        .ok_or(Errno::SRCH)?
        .calls
        .mark_runstate_updates = on;
    Ok(Answer::OK)
}

/// Gives a vCPU that waits for its start the registers that it starts with. It comes up by `VCPUOP_up`.
fn initialise(hv: &mut Hypervisor, caller: VcpuId, id: VcpuId, at: u64) -> Result {
    let context: VcpuHvmContext = read(hv, caller, at)?;
    let vcpu = hv.vcpu_mut(id).ok_or(Errno::NOENT)?;
    if !vcpu.awaits_startup {
        return Err(Errno::EXIST);
    }
    // It would learn of no event.
    if vcpu.vcpu_info.is_none() {
        return Err(Errno::INVAL);
    }
    let (registers, state) = start::checked(&context)?;
    vcpu.registers = registers;
    vcpu.processor.enter_at(&state);
    vcpu.awaits_startup = false;
    Ok(Answer::OK)
}

/// Takes a vCPU down; with its last one a domain is off.
fn down(hv: &mut Hypervisor, caller: VcpuId, id: VcpuId) -> Result {
    let body = hv.body(id.domain).ok_or(Errno::SRCH)?;
    if body
        .vcpus
        .iter()
        .all(|vcpu| vcpu.id == id || vcpu.status == VcpuStatus::Offline)
    {
        sched::shut_down(hv, id.domain, SHUTDOWN_poweroff)?;
        return Ok(Answer::Stopped);
    }
    if hv.vcpu(id).is_some_and(|vcpu| vcpu.status == VcpuStatus::Offline) {
        return Ok(Answer::OK);
    }
    // It comes up again where it left off, with this call done.
    hv.take_down(id);
    let vcpu = hv.vcpu_mut(id).ok_or(Errno::NOENT)?;
    if id != caller {
        return Ok(Answer::OK);
    }
    vcpu.registers.rax = 0;
    let Vcpu {
        processor, registers, ..
    } = vcpu;
    processor.skip_instruction(registers);
    Ok(Answer::Stopped)
}

/// Moves a vCPU's `vcpu_info` to a page of the domain's own, once.
fn register_info(hv: &mut Hypervisor, caller: VcpuId, id: VcpuId, at: u64) -> Result {
    let request: VcpuRegisterVcpuInfo = read(hv, caller, at)?;
    let (offset, size) = (u64::from(request.offset), size_of::<VcpuInfo>() as u64);
    if offset + size > PAGE_SIZE || !offset.is_multiple_of(8) || request.mfn > u64::MAX / PAGE_SIZE {
        return Err(Errno::INVAL);
    }
    let memory = hv.memory;
    let body = hv.body_mut(id.domain).ok_or(Errno::SRCH)?;
    let vcpu = body.vcpus.get_mut(id.index as usize).ok_or(Errno::NOENT)?;
    if body.calls.vcpu(id.index).has_own_info || id != caller && vcpu.status != VcpuStatus::Offline {
        return Err(Errno::INVAL);
    }
    let mapping = body
        .p2m
        .translate(&memory, GuestAddress::of_frame(request.mfn))
        .ok_or(Errno::INVAL)?;
    if mapping.kind != PageKind::Ram || !mapping.writable {
        return Err(Errno::INVAL);
    }
    body.calls.vcpu(id.index).has_own_info = true;
    // The hypervisor writes there from now on, so the page must stay.
    body.grants.pin(mapping.machine);
    event::move_vcpu_info(hv, id, MachineAddress(mapping.machine.address().0 + offset))?;
    Ok(Answer::OK)
}

/// A vCPU's runstate as its guest is told. Time offline goes under `blocked`: here a vCPU is offline before it is started and while its own domain wants it so,
/// and Linux takes what stands under `offline` for stolen, so that a vCPU that comes up would seem to have been robbed of all the time before.
fn runstate_info(vcpu: &Vcpu, now: u64) -> VcpuRunstateInfo {
    let runstate = vcpu.runstate;
    let mut time = runstate.totals(now);
    time[RUNSTATE_blocked as usize] += core::mem::take(&mut time[RUNSTATE_offline as usize]);
    VcpuRunstateInfo {
        state: runstate.current,
        _pad0: [0; 4],
        state_entry_time: runstate.since,
        time,
    }
}

/// Writes a vCPU's runstate to the area that it registered, if it did. An area that cannot be written keeps what it says.
pub fn update_runstate_area(hv: &Hypervisor, id: VcpuId) {
    let Some(body) = hv.body(id.domain) else { return };
    let Some(vcpu) = body.vcpus.get(id.index as usize) else {
        return;
    };
    let (Some(area), Ok(space)) = (vcpu.runstate_area, space(hv, id)) else {
        return;
    };
    let info = runstate_info(vcpu, machine::now());
    let marked = VcpuRunstateInfo {
        state_entry_time: info.state_entry_time | XEN_RUNSTATE_UPDATE,
        ..info
    };
    let entered = offset_of!(VcpuRunstateInfo, state_entry_time) as u64;
    let fence = || core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    // A reader that sees the mark, or another entry time before than after, reads again.
    let write = |write: &dyn Fn(u64, &[u8])| {
        if body.calls.mark_runstate_updates {
            write(entered, marked.state_entry_time.as_bytes());
            fence();
            write(0, marked.as_bytes());
            fence();
            write(entered, info.state_entry_time.as_bytes());
        } else {
            write(0, info.as_bytes());
        }
    };
    if area % PAGE_SIZE <= PAGE_SIZE - size_of::<VcpuRunstateInfo>() as u64 {
        // The usual case: one walk of the guest's tables.
        if let Ok(at) = space.backing(GuestVirtual(area), Access::WRITE) {
            write(&|offset, bytes| hv.memory.write(MachineAddress(at.0 + offset), bytes));
        }
    } else {
        write(&|offset, bytes| {
            let _ = space.write_bytes(GuestVirtual(area.wrapping_add(offset)), bytes);
        });
    }
}

/// Copies a vCPU's clock from its `vcpu_info` to the area that it registered for user mode, if it did.
pub fn update_time_area(hv: &Hypervisor, id: VcpuId) {
    let Some(body) = hv.body(id.domain) else { return };
    let Some(vcpu) = body.vcpus.get(id.index as usize) else {
        return;
    };
    let (Some(area), Some(info), Ok(space)) = (body.calls.time_area(id.index), vcpu.vcpu_info, space(hv, id))
    else {
        return;
    };
    let mut time = VcpuTimeInfo::new_zeroed();
    let from = info.0 + core::mem::offset_of!(VcpuInfo, time) as u64;
    hv.memory.read(MachineAddress(from), time.as_mut_bytes());
    let done = time.version;
    // Odd while the rest changes: `version` is the first field, and each write is whole before the next.
    time.version = done.wrapping_sub(1) | 1;
    if space.write(GuestPointer::new(area), &time.version).is_ok() {
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        let _ = space.write(GuestPointer::new(area), &time);
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        let _ = space.write(GuestPointer::new(area), &done);
    }
}

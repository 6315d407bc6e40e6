//! Hypercalls: one file a group; [`dispatch`] finds it.
//!
//! A hypercall comes from the kernel of a 64-bit guest, its number in `rax`, its arguments in `rdi`, `rsi`, `rdx`, `r10` and `r8`; pointers are
//! guest-virtual addresses of the caller. Each is carried out in pieces of bounded work: what is left is noted in the argument registers, which
//! the ABI lets a hypercall clobber, and the guest calls again without knowing it.
#![allow(
    non_upper_case_globals,
    reason = "constants of the public headers in patterns"
)]

mod atoll;
mod console;
mod context;
mod event_channel;
mod figures;
mod grant_table;
mod hvm;
pub(crate) mod machine;
mod memory;
mod multicall;
mod page;
mod physdev;
mod sched;
mod start;
mod vcpu;
mod version;

use xen_abi::{atoll::__HYPERVISOR_atoll_op, xen::*};

pub use console::flush as flush_console;
pub use context::DomainCalls;
pub use page::{PAGE_LENGTH, page};
pub use vcpu::{update_runstate_area, update_time_area};

use crate::{Hypervisor, domain::VcpuId, errno::Errno};

/// What becomes of a vCPU after its hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `rax` is set; skip the instruction and go on.
    Complete,
    /// More is to be done: leave the instruction pointer where it is, so that the vCPU calls again when it runs next. The
    /// progress is in its registers or with the object that it works on. It may be asleep until there is something to go on with.
    Again,
    /// `rax` is set; skip the instruction, let others run first.
    Yield,
    /// `rax` is set; skip the instruction, then block until [`Hypervisor::wake`] (for `SCHEDOP_poll` the ports and the deadline
    /// are in `Vcpu::polling`). The caller blocks the vCPU: it looks for interrupts of its local APIC first, as for HLT.
    Block,
    /// The vCPU does not run on: it went offline, or its domain was stopped or destroyed and may be gone.
    Stopped,
}

/// A hypercall: its number, and the arguments, which change as it makes progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Call {
    number: u64,
    arguments: [u64; 5],
}

/// What came of a hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It is done, with this result.
    Done(i64),
    /// A piece of it is done; the arguments say what is left.
    Again,
    /// Done with result 0; others may run first.
    Yield,
    /// Done with result 0; the vCPU waits.
    Block,
    /// The vCPU does not run on.
    Stopped,
}

type Result<T = Answer> = core::result::Result<T, Errno>;

impl Answer {
    const OK: Self = Self::Done(0);
}

/// Carries out the hypercall that `caller` has in its registers.
pub fn dispatch(hv: &mut Hypervisor, caller: VcpuId) -> Outcome {
    let Some(vcpu) = hv.vcpu(caller) else {
        return Outcome::Stopped;
    };
    let (paging, registers) = (vcpu.processor.paging(), &vcpu.registers);
    let arguments = [
        registers.rdi,
        registers.rsi,
        registers.rdx,
        registers.r10,
        registers.r8,
    ];
    let mut call = Call {
        number: registers.rax,
        arguments,
    };
    let answer = if paging.privilege > 0 {
        Err(Errno::PERM)
    } else if !paging.long_code {
        Err(Errno::NOSYS)
    } else {
        hv.walks.forget();
        hv.calling = Some(caller);
        let answer = carry_out(hv, caller, &mut call);
        hv.calling = None;
        answer
    };
    let (outcome, result) = match answer {
        Ok(Answer::Done(result)) => (Outcome::Complete, result),
        Ok(Answer::Yield) => (Outcome::Yield, 0),
        Ok(Answer::Block) => (Outcome::Block, 0),
        Ok(Answer::Stopped) => return Outcome::Stopped,
        Ok(Answer::Again) => {
            if let Some(vcpu) = hv.vcpu_mut(caller) {
                let registers = &mut vcpu.registers;
                let [rdi, rsi, rdx, r10, r8] = call.arguments;
                (
                    registers.rdi,
                    registers.rsi,
                    registers.rdx,
                    registers.r10,
                    registers.r8,
                ) = (rdi, rsi, rdx, r10, r8);
            }
            return Outcome::Again;
        }
        Err(error) => (Outcome::Complete, error.result()),
    };
    if let Some(vcpu) = hv.vcpu_mut(caller) {
        vcpu.registers.rax = result as u64;
        vcpu.counts.hypercalls += 1;
    }
    outcome
}

fn carry_out(hv: &mut Hypervisor, caller: VcpuId, call: &mut Call) -> Result {
    match call.number {
        __HYPERVISOR_multicall => multicall::operation(hv, caller, call),
        _ => carry_out_one(hv, caller, call),
    }
}

fn carry_out_one(hv: &mut Hypervisor, caller: VcpuId, call: &mut Call) -> Result {
    match call.number {
        __HYPERVISOR_memory_op => memory::operation(hv, caller, call),
        __HYPERVISOR_set_timer_op => vcpu::set_timer(hv, caller, call.arguments[0]),
        __HYPERVISOR_xen_version => version::operation(hv, caller, call),
        __HYPERVISOR_console_io => console::operation(hv, caller, call),
        __HYPERVISOR_grant_table_op => grant_table::operation(hv, caller, call),
        __HYPERVISOR_vm_assist => vcpu::assist(hv, caller, call),
        __HYPERVISOR_vcpu_op => vcpu::operation(hv, caller, call),
        __HYPERVISOR_sched_op => sched::operation(hv, caller, call),
        __HYPERVISOR_event_channel_op => event_channel::operation(hv, caller, call),
        __HYPERVISOR_physdev_op => physdev::operation(hv, caller, call),
        __HYPERVISOR_hvm_op => hvm::operation(hv, caller, call),
        __HYPERVISOR_atoll_op => atoll::operation(hv, caller, call),
        _ => Err(Errno::NOSYS),
    }
}

#[cfg(test)]
mod tests;

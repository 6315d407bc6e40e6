//! Hypercalls: one file a group; `dispatch` finds it.

use crate::{Hypervisor, domain::VcpuId};

/// What becomes of a vCPU after its hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `rax` is set; skip the instruction and go on.
    Complete,
    /// More is to be done: leave the instruction pointer where it is, so that the vCPU calls again when it runs next. The
    /// progress is in its registers or with the object that it works on.
    Again,
    /// `rax` is set; skip the instruction, let others run first.
    Yield,
    /// `rax` is set; skip the instruction, then block until [`Hypervisor::wake`] (for `SCHEDOP_poll` the ports and the deadline
    /// are in `Vcpu::polling`). The caller blocks the vCPU: it looks for interrupts of its local APIC first, as for HLT.
    Block,
    /// The vCPU does not run on: it went offline, or its domain was stopped or destroyed and may be gone.
    Stopped,
}

/// Carries out the hypercall that `caller` has in its registers.
pub fn dispatch(_hv: &mut Hypervisor, _caller: VcpuId) -> Outcome {
    Outcome::Complete
}

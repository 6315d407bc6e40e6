//! Model-specific registers of guests: an allow-list. What is not on it costs the guest a #GP.
//!
//! Registers that the processor holds per vCPU (EFER, SYSCALL, FS/GS bases, PAT, SYSENTER …) are the backend's
//! ([`VirtualCpu::read_msr`](crate::virt::VirtualCpu::read_msr)); ask it first, and [`VcpuMachine`] when it answers `None`.

use super::{
    VcpuMachine,
    apic::{Ipi, Time},
};
use crate::memory::GuestAddress;

/// What a write asks of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Nothing.
    Done,
    /// The guest gets #GP.
    Fault,
    /// Fill the page at this guest-physical address with the hypercall stubs.
    HypercallPage(GuestAddress),
    /// The offset of the time-stamp counter changed: hand [`VcpuMachine::tsc_offset`] to the backend.
    TscOffset,
    /// Deliver an interrupt message to the domain's vCPUs ([`super::apic::Ipi`]). The APIC's deadline may have changed too.
    Send(Ipi),
    /// Something of the local APIC changed: its deadline, its pending interrupts or its mode.
    Apic,
}

/// The registers kept here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {}

impl VcpuMachine {
    /// RDMSR; `None` costs the guest a #GP. `time` is now.
    pub fn read_msr(&self, msr: u32, time: Time) -> Option<u64> {
        let _ = (msr, time);
        todo!()
    }

    /// WRMSR. `time` is now.
    pub fn write_msr(&mut self, msr: u32, value: u64, time: Time) -> Written {
        let _ = (msr, value, time);
        todo!()
    }
}

//! What stands in a vCPU's place while a processor runs it.

use alloc::boxed::Box;

use super::{Exit, Injection, Paging, Registers, StartState, VirtualCpu};
use crate::memory::{FrameAllocator, GuestAddress, MachineAddress};

/// The place of a vCPU that is elsewhere. Whoever wants to see or change what is the processor backend's recalls the vCPU first
/// ([`Hypervisor::recall`](crate::Hypervisor::recall)); what is asked of the empty place is answered as if the guest could do nothing.
pub struct Away;

impl VirtualCpu for Away {
    fn run(&mut self, _: &mut Registers, _: MachineAddress) -> Exit {
        Exit::Unexpected(u64::MAX)
    }
    fn skip_instruction(&mut self, _: &mut Registers) {}
    fn interruptible(&self, _: &Registers) -> bool {
        false
    }
    fn in_interrupt_shadow(&self, _: &Registers) -> bool {
        false
    }
    fn injection_pending(&self) -> bool {
        false
    }
    fn takes_non_maskable(&self, _: &Registers) -> bool {
        false
    }
    fn inject(&mut self, _: Injection) {}
    fn request_interrupt_window(&mut self, _: bool) -> bool {
        true
    }
    fn task_priority(&self) -> u8 {
        0
    }
    fn set_task_priority(&mut self, _: u8) {}
    fn paging(&self) -> Paging {
        // User mode: no hypercall, and no access to memory of the kernel, is carried out for it.
        Paging {
            cr0: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            privilege: 3,
            long_code: false,
            code_base: 0,
        }
    }
    fn enter_pvh(&mut self, _: &mut Registers, _: GuestAddress, _: GuestAddress) {}
    fn enter_startup(&mut self, _: &mut Registers, _: u8) {}
    fn enter_at(&mut self, _: &StartState) {}
    fn read_msr(&self, _: u32) -> Option<u64> {
        None
    }
    fn write_msr(&mut self, _: u32, _: u64) -> Option<bool> {
        None
    }
    fn flush_translations(&mut self) {}
    fn set_tsc_offset(&mut self, _: u64) {}
    fn release(self: Box<Self>, _: &mut FrameAllocator) {}
}

use super::*;
use crate::{
    memory::DirectMap,
    virt::{
        Backend,
        svm::{Processor, Shared, Svm, asid::Asids},
    },
};
use spin::Mutex;

/// A backend over fake memory: everything but `run` works on any machine.
fn vcpu(ports: &[(u16, u16)]) -> (DirectMap, FrameAllocator, Box<dyn VirtualCpu>) {
    let memory = DirectMap::fake(16);
    let mut frames = FrameAllocator::new(&[(Frame(0), 16)]);
    let svm = Svm { shared: shared() };
    let vcpu = svm.create(&memory, &mut frames, ports).unwrap();
    (memory, frames, vcpu)
}

/// What all vCPUs of it share.
fn shared() -> Arc<Shared> {
    let processor = Processor {
        save_area: MachineAddress(0),
        host: MachineAddress(0),
        asids: Asids::new(0, 16, false),
        tsc_aux: u64::MAX,
    };
    Arc::new(Shared {
        port_map: MachineAddress(0x1000),
        msr_map: MachineAddress(0x2000),
        tsc_scaling: false,
        processors: vec![Mutex::new(processor)],
    })
}

#[test]
fn starts_as_pvh_asks() {
    let (_, _, mut vcpu) = vcpu(&[]);
    let mut registers = Registers::default();
    vcpu.enter_pvh(&mut registers, GuestAddress(0x10_0000), GuestAddress(0x5000));
    assert_eq!(
        (registers.rip, registers.rbx, registers.rflags),
        (0x10_0000, 0x5000, 2)
    );
    let paging = vcpu.paging();
    assert_eq!(
        (paging.cr0, paging.cr4, paging.efer, paging.privilege),
        (0x11, 0, 0, 0)
    );
    assert!(!paging.long_code && !vcpu.interruptible(&registers));
    vcpu.enter_startup(&mut registers, 0x9f);
    assert_eq!(
        (vcpu.paging().code_base, registers.rip, vcpu.paging().cr0),
        (0x9f000, 0, 0x10)
    );
    vcpu.enter_at(&StartState::long_mode(
        1 << 31 | 1,
        0x3000,
        1 << 5,
        1 << 11 | 1 << 8,
    ));
    let paging = vcpu.paging();
    assert_eq!(
        (paging.cr0, paging.cr3, paging.cr4, paging.efer),
        (1 << 31 | 0x11, 0x3000, 1 << 5, 0xd00)
    );
    assert!(paging.long_code);
    let code = StartSegment {
        base: 0x7000,
        limit: 0xffff,
        attributes: 0x9b,
    };
    let real = StartState {
        cs: code,
        ..StartState::long_mode(0, 0, 0, 0)
    };
    vcpu.enter_at(&real);
    let paging = vcpu.paging();
    assert_eq!((paging.cr0, paging.code_base, paging.efer), (0x10, 0x7000, 0));
    assert!(!paging.long_code);
}

#[test]
fn queues_one_event_at_a_time() {
    let (memory, _, mut vcpu) = vcpu(&[]);
    let registers = Registers {
        rflags: RFLAGS_INTERRUPTS,
        ..Default::default()
    };
    assert!(vcpu.interruptible(&registers));
    vcpu.inject(Injection::Exception {
        vector: 14,
        error: Some(0x15),
    });
    assert!(!vcpu.interruptible(&registers) && vcpu.injection_pending());
    // The VMCB is the first frame.
    assert_eq!(
        memory
            .atomic_u64(MachineAddress(0xa8))
            .load(core::sync::atomic::Ordering::Relaxed),
        0x15_8000_0b0e
    );
}

#[test]
fn an_interrupt_waits_as_a_virtual_one_and_leaves_no_room_for_a_window() {
    let memory = DirectMap::fake(1);
    let page = NonNull::new(memory.pointer(MachineAddress(0), 4096).cast::<Vmcb>()).unwrap();
    let mut vcpu = SvmVcpu::new(shared(), Frame(0), page, None);
    let open = Registers {
        rflags: RFLAGS_INTERRUPTS,
        ..Default::default()
    };
    let window = |vcpu: &SvmVcpu| vcpu.vmcb().control.intercept[0] & intercept::VIRTUAL_INTERRUPT as u32 != 0;
    let delivered =
        |vcpu: &mut SvmVcpu| vcpu.vmcb_mut().control.virtual_interrupt &= !virtual_interrupt::PENDING;

    assert!(vcpu.request_interrupt_window(true) && window(&vcpu));
    assert!(vcpu.interruptible(&open) && !vcpu.injection_pending());
    vcpu.inject(Injection::Interrupt(0xf3));
    assert_eq!(vcpu.vmcb().control.virtual_interrupt, 0xf3_011f_0100);
    assert_eq!(vcpu.vmcb().control.event_injection, 0);
    assert!(!window(&vcpu) && vcpu.injection_pending() && !vcpu.interruptible(&open));
    assert!(!vcpu.request_interrupt_window(true) && !window(&vcpu));
    // A non-maskable one goes first.
    assert!(vcpu.takes_non_maskable(&open));

    // An exit before its delivery, and one in the midst of it as TCG tells of it, change nothing.
    vcpu.note_interrupted_event();
    assert_eq!(vcpu.queued(), Some(0xf3));
    vcpu.vmcb_mut().control.exit_interrupt_info = 0x8000_03f3;
    vcpu.note_interrupted_event();
    assert_eq!(
        (vcpu.queued(), vcpu.vmcb().control.event_injection),
        (Some(0xf3), 0)
    );

    // As the manual has it: taken back before its delivery, which an exit then interrupted.
    delivered(&mut vcpu);
    vcpu.vmcb_mut().control.exit_interrupt_info = 0x8000_00f3;
    vcpu.note_interrupted_event();
    assert_eq!(
        (vcpu.queued(), vcpu.vmcb().control.event_injection),
        (Some(0xf3), 0)
    );

    delivered(&mut vcpu);
    vcpu.vmcb_mut().control.exit_interrupt_info = 0x2_8000_0b0e;
    vcpu.note_interrupted_event();
    assert_eq!(
        (vcpu.queued(), vcpu.vmcb().control.event_injection),
        (None, 0x2_8000_0b0e)
    );
    vcpu.vmcb_mut().control.exit_interrupt_info = 0;
    vcpu.note_interrupted_event();
    assert!(!vcpu.injection_pending() && vcpu.interruptible(&open));
    assert!(vcpu.request_interrupt_window(true) && window(&vcpu));
    assert!(vcpu.request_interrupt_window(false) && !window(&vcpu));
    vcpu.inject(Injection::Interrupt(0x20));
    vcpu.reset();
    assert!(!vcpu.injection_pending());
}

#[test]
fn keeps_efer_within_what_guests_have() {
    let (_, _, mut vcpu) = vcpu(&[]);
    assert_eq!(vcpu.write_msr(EFER, 0x901), Some(true));
    assert_eq!(vcpu.read_msr(EFER), Some(0x901));
    assert_eq!(vcpu.write_msr(EFER, 0x901 | EFER_SVME), Some(false));
    vcpu.enter_at(&StartState::long_mode(1 << 31 | 1, 0, 1 << 5, 1 << 8));
    assert_eq!(vcpu.write_msr(EFER, 0), Some(false));
    assert_eq!(vcpu.write_msr(EFER, 0xd01), Some(true));
    assert_eq!(vcpu.read_msr(EFER), Some(0xd01));
    assert_eq!(vcpu.write_msr(PAT, 0x0007_0406_0007_0402), Some(false));
    assert_eq!(vcpu.write_msr(0x1b, 0), None);
}

#[test]
fn gives_back_what_it_took() {
    let (_, mut frames, vcpu) = vcpu(&[(0x3f8, 8)]);
    assert_eq!(frames.free_pages(), 12);
    vcpu.release(&mut frames);
    assert_eq!(frames.free_pages(), 16);
}

#[test]
fn a_non_maskable_interrupt_waits_for_the_end_of_the_last() {
    let memory = DirectMap::fake(1);
    let page = NonNull::new(memory.pointer(MachineAddress(0), 4096).cast::<Vmcb>()).unwrap();
    let mut vcpu = SvmVcpu::new(shared(), Frame(0), page, None);
    let at = |rip| Registers {
        rip,
        ..Registers::default()
    };
    assert!(vcpu.takes_non_maskable(&at(1)));
    vcpu.inject(Injection::NonMaskableInterrupt);
    vcpu.vmcb_mut().control.event_injection = 0;
    let intercepted = |vcpu: &SvmVcpu| vcpu.vmcb().control.intercept[0] & intercept::IRET as u32 != 0;
    assert!(!vcpu.takes_non_maskable(&at(1)) && intercepted(&vcpu));
    vcpu.note_return(exit_code::CPUID, 5);
    assert!(!vcpu.takes_non_maskable(&at(5)) && !vcpu.ends_non_maskable(&at(5)));
    vcpu.note_return(exit_code::IRET, 9);
    assert!(!vcpu.takes_non_maskable(&at(9)) && vcpu.ends_non_maskable(&at(9)) && !intercepted(&vcpu));
    vcpu.note_return(exit_code::INTERRUPT, 9);
    assert!(!vcpu.takes_non_maskable(&at(9)));
    vcpu.note_return(exit_code::INTERRUPT, 1);
    assert!(vcpu.takes_non_maskable(&at(1)) && !vcpu.ends_non_maskable(&at(1)));
}

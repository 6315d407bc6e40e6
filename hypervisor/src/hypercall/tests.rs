//! Hypercalls as a guest makes them: registers and structures in its memory.

use super::*;
use crate::{
    domain::{DomainId, State, VcpuStatus},
    memory::{Frame, GuestAddress, PageKind},
    testing::{self, FakeCpu, KERNEL, RAM_PAGES, hypervisor, peek, poke, vcpu},
};
use machine::fake::{LOG, NOW, POWER};
use proptest::prelude::*;
use xen_abi::{
    atoll::*, event_channel::*, features::*, grant_table::*, hvm::hvm_op::*, hvm::hvm_vcpu::*,
    hvm::params::*, memory::*, physdev::*, sched::*, vcpu::*, version::*,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Where the tests put structures and arrays in a guest's memory.
const AT: u64 = 0x8000;
const LIST: u64 = 0xa000;

fn once(hv: &mut Hypervisor, id: VcpuId, number: u64, arguments: &[u64]) -> Outcome {
    let mut all = [0; 5];
    all[..arguments.len()].copy_from_slice(arguments);
    let registers = &mut hv.vcpu_mut(id).unwrap().registers;
    [
        registers.rdi,
        registers.rsi,
        registers.rdx,
        registers.r10,
        registers.r8,
    ] = all;
    registers.rax = number;
    dispatch(hv, id)
}

/// Makes a hypercall until it is done.
fn call(hv: &mut Hypervisor, id: VcpuId, number: u64, arguments: &[u64]) -> i64 {
    let mut outcome = once(hv, id, number, arguments);
    while outcome == Outcome::Again {
        outcome = dispatch(hv, id);
    }
    assert_eq!(outcome, Outcome::Complete);
    hv.vcpu(id).unwrap().registers.rax as i64
}

fn put<T: IntoBytes + Immutable>(hv: &Hypervisor, domain: u16, at: u64, value: &T) {
    poke(hv, domain, at, value.as_bytes());
}

fn get<T: FromBytes + IntoBytes>(hv: &Hypervisor, domain: u16, at: u64) -> T {
    let mut value = T::new_zeroed();
    hv.memory
        .read(testing::machine(hv, domain, at), value.as_mut_bytes());
    value
}

/// Makes a hypercall with a structure; answers the result and what became of the structure.
fn with<T>(hv: &mut Hypervisor, id: VcpuId, number: u64, operation: u64, value: &T) -> (i64, T)
where
    T: FromBytes + IntoBytes + Immutable,
{
    put(hv, id.domain.0, AT, value);
    let result = call(hv, id, number, &[operation, AT, 1]);
    (result, get(hv, id.domain.0, AT))
}

fn error(error: Errno) -> i64 {
    error.result()
}

#[test]
fn only_kernels_in_64_bit_code_may_call() {
    let mut hv = hypervisor();
    let id = vcpu(3);
    let as_mode = |hv: &mut Hypervisor, paging| {
        let cpu = FakeCpu {
            paging,
            injected: None,
            flushes: Default::default(),
        };
        hv.vcpu_mut(id).unwrap().processor = std::boxed::Box::new(cpu);
        call(hv, id, __HYPERVISOR_xen_version, &[XENVER_version])
    };
    assert_eq!(as_mode(&mut hv, KERNEL), 4 << 16 | 17);
    assert_eq!(
        as_mode(
            &mut hv,
            crate::virt::Paging {
                privilege: 3,
                ..KERNEL
            }
        ),
        error(Errno::PERM)
    );
    assert_eq!(
        as_mode(
            &mut hv,
            crate::virt::Paging {
                long_code: false,
                ..KERNEL
            }
        ),
        error(Errno::NOSYS)
    );
    assert_eq!(as_mode(&mut hv, KERNEL), 4 << 16 | 17);
    for number in [0, 6, 11, 35, 36, 39, 54, 56, 1 << 32 | 17, u64::MAX] {
        assert_eq!(call(&mut hv, id, number, &[]), error(Errno::NOSYS), "{number}");
    }
}

#[test]
fn the_version_speaks_xens_language() {
    let mut hv = hypervisor();
    assert_eq!(
        call(
            &mut hv,
            vcpu(3),
            __HYPERVISOR_xen_version,
            &[XENVER_capabilities, AT]
        ),
        0
    );
    assert!(peek::<1024>(&hv, 3, AT).starts_with(b"xen-3.0-x86_64 hvm-3.0-x86_32 "));
    let (result, features) = with(
        &mut hv,
        vcpu(3),
        __HYPERVISOR_xen_version,
        XENVER_get_features,
        &FeatureInfo::default(),
    );
    assert_eq!(result, 0);
    assert_ne!(features.submap & 1 << XENFEAT_hvm_callback_vector, 0);
    assert_eq!(features.submap & 1 << XENFEAT_hvm_pirqs, 0);
    let beyond = FeatureInfo {
        submap_idx: 1,
        submap: 0,
    };
    assert_eq!(
        with(
            &mut hv,
            vcpu(3),
            __HYPERVISOR_xen_version,
            XENVER_get_features,
            &beyond
        )
        .0,
        error(Errno::INVAL)
    );
    let nowhere = RAM_PAGES * 4096 - 8;
    assert_eq!(
        call(
            &mut hv,
            vcpu(3),
            __HYPERVISOR_xen_version,
            &[XENVER_extraversion, nowhere]
        ),
        error(Errno::FAULT)
    );
}

#[test]
fn console_lines_are_whole_and_bounded() {
    let mut hv = hypervisor();
    LOG.take();
    let write = |hv: &mut Hypervisor, text: &[u8]| {
        poke(hv, 3, AT, text);
        assert_eq!(
            call(
                hv,
                vcpu(3),
                __HYPERVISOR_console_io,
                &[CONSOLEIO_write, text.len() as u64, AT]
            ),
            0
        );
    };
    write(&mut hv, b"first\r\nsec");
    write(&mut hv, b"ond\n");
    assert_eq!(LOG.take(), ["guest: first", "guest: second"]);
    write(&mut hv, &[b'x'; 2500]);
    let lines = LOG.take();
    assert_eq!((lines.len(), lines[0].len()), (2, "guest: ".len() + 1024));
    flush_console(&mut hv, DomainId(3));
    flush_console(&mut hv, DomainId(3));
    assert_eq!(LOG.take(), ["guest: ".to_owned() + &"x".repeat(2500 - 2048)]);
    let negative = [CONSOLEIO_write, u64::MAX, AT];
    assert_eq!(
        call(&mut hv, vcpu(3), __HYPERVISOR_console_io, &negative),
        error(Errno::INVAL)
    );
    assert_eq!(
        call(
            &mut hv,
            vcpu(3),
            __HYPERVISOR_console_io,
            &[CONSOLEIO_read, 10, AT]
        ),
        0
    );
}

#[test]
fn event_channels_by_hypercall() {
    let mut hv = hypervisor();
    let op = __HYPERVISOR_event_channel_op;
    let request = EvtchnAllocUnbound {
        dom: DOMID_SELF,
        remote_dom: 2,
        port: 0,
    };
    let (result, unbound) = with(&mut hv, vcpu(3), op, EVTCHNOP_alloc_unbound, &request);
    assert_eq!((result, unbound.port), (0, 1));
    let theirs = EvtchnAllocUnbound { dom: 2, ..request };
    assert_eq!(
        with(&mut hv, vcpu(3), op, EVTCHNOP_alloc_unbound, &theirs).0,
        error(Errno::PERM)
    );
    let bind = EvtchnBindInterdomain {
        remote_dom: 3,
        remote_port: 1,
        ..Default::default()
    };
    let (result, bound) = with(&mut hv, vcpu(2), op, EVTCHNOP_bind_interdomain, &bind);
    assert_eq!((result, bound.local_port), (0, 1));
    let status = EvtchnStatus {
        dom: DOMID_SELF,
        port: 1,
        ..Default::default()
    };
    let (_, status) = with(&mut hv, vcpu(3), op, EVTCHNOP_status, &status);
    assert_eq!(
        (status.status, status.peer(), status.peer_port()),
        (EVTCHNSTAT_interdomain, 2, 1)
    );
    assert_eq!(
        with(&mut hv, vcpu(2), op, EVTCHNOP_send, &EvtchnSend { port: 1 }).0,
        0
    );
    assert!(crate::event::upcall_pending(&hv, vcpu(3)));
    // A pending upcall ends a wait before it begins.
    assert_eq!(
        once(&mut hv, vcpu(3), __HYPERVISOR_sched_op, &[SCHEDOP_block]),
        Outcome::Complete
    );
    assert_eq!(
        once(&mut hv, vcpu(1), __HYPERVISOR_sched_op, &[SCHEDOP_block]),
        Outcome::Block
    );
    assert_eq!(
        with(&mut hv, vcpu(3), op, EVTCHNOP_close, &EvtchnClose { port: 1 }).0,
        0
    );
    assert_eq!(
        with(&mut hv, vcpu(3), op, EVTCHNOP_expand_array, &0u64).0,
        error(Errno::NOSYS)
    );
    assert_eq!(
        with(
            &mut hv,
            vcpu(2),
            op,
            EVTCHNOP_reset,
            &EvtchnReset { dom: DOMID_SELF }
        )
        .0,
        0
    );
    // A port whose number cannot be told is not kept.
    let end = RAM_PAGES * 4096 - 8;
    put(
        &hv,
        3,
        end - 8,
        &EvtchnBindVirq {
            virq: VIRQ_TIMER,
            vcpu: 0,
            port: 0,
        },
    );
    assert_eq!(
        call(&mut hv, vcpu(3), op, &[EVTCHNOP_bind_virq, end]),
        error(Errno::FAULT)
    );
    assert_eq!(hv.body(DomainId(3)).unwrap().events.allocated_ports().count(), 0);
}

#[test]
fn a_poll_waits_for_a_port_or_a_time() {
    let mut hv = hypervisor();
    NOW.set(1000);
    let id = vcpu(3);
    let port = crate::event::bind_ipi(&mut hv, DomainId(3), 1).unwrap();
    put(&hv, 3, LIST, &port);
    put(
        &hv,
        3,
        AT,
        &SchedPoll {
            ports: LIST,
            nr_ports: 1,
            _pad0: [0; 4],
            timeout: 5000,
        },
    );
    assert_eq!(
        once(&mut hv, id, __HYPERVISOR_sched_op, &[SCHEDOP_poll, AT]),
        Outcome::Block
    );
    let polling = hv.vcpu(id).unwrap().polling.clone().unwrap();
    assert_eq!((polling.ports, polling.deadline), (vec![port], Some(5000)));
    hv.vcpu_mut(id).unwrap().status = VcpuStatus::Blocked;
    crate::event::send(&mut hv, DomainId(3), port).unwrap();
    assert_eq!(hv.vcpu(id).unwrap().polling, None);
    assert_eq!(
        once(&mut hv, id, __HYPERVISOR_sched_op, &[SCHEDOP_poll, AT]),
        Outcome::Complete
    );
    put(
        &hv,
        3,
        AT,
        &SchedPoll {
            timeout: 900,
            ..Default::default()
        },
    );
    assert_eq!(
        once(&mut hv, id, __HYPERVISOR_sched_op, &[SCHEDOP_poll, AT]),
        Outcome::Complete
    );
    put(
        &hv,
        3,
        AT,
        &SchedPoll {
            ports: LIST,
            nr_ports: 129,
            _pad0: [0; 4],
            timeout: 0,
        },
    );
    assert_eq!(
        call(&mut hv, id, __HYPERVISOR_sched_op, &[SCHEDOP_poll, AT]),
        error(Errno::INVAL)
    );
}

#[test]
fn a_domain_ends_itself_and_nobody_else() {
    let mut hv = hypervisor();
    let op = __HYPERVISOR_sched_op;
    let other = SchedRemoteShutdown {
        domain_id: 2,
        reason: SHUTDOWN_crash,
        ..Default::default()
    };
    assert_eq!(
        with(&mut hv, vcpu(3), op, SCHEDOP_remote_shutdown, &other).0,
        error(Errno::PERM)
    );
    assert_eq!(with(&mut hv, vcpu(1), op, SCHEDOP_remote_shutdown, &other).0, 0);
    assert_eq!(
        hv.domain(DomainId(2)).unwrap().state,
        State::Stopped {
            reason: SHUTDOWN_crash
        }
    );
    assert_eq!(
        with(
            &mut hv,
            vcpu(3),
            op,
            SCHEDOP_shutdown,
            &SchedShutdown { reason: 6 }
        )
        .0,
        error(Errno::INVAL)
    );
    let code = SchedShutdown {
        reason: SHUTDOWN_crash,
    };
    assert_eq!(with(&mut hv, vcpu(3), op, SCHEDOP_shutdown_code, &code).0, 0);
    assert_eq!(
        with(&mut hv, vcpu(3), op, SCHEDOP_shutdown_code, &code).0,
        error(Errno::INVAL)
    );
    put(
        &hv,
        3,
        AT,
        &SchedShutdown {
            reason: SHUTDOWN_reboot,
        },
    );
    assert_eq!(
        once(&mut hv, vcpu(3), op, &[SCHEDOP_shutdown, AT]),
        Outcome::Stopped
    );
    assert_eq!(
        hv.domain(DomainId(3)).unwrap().state,
        State::Stopped {
            reason: SHUTDOWN_crash
        }
    );
}

#[test]
fn watchdogs_start_poke_and_stop() {
    let mut hv = hypervisor();
    NOW.set(0);
    let dog = |hv: &mut Hypervisor, id, timeout| {
        with(
            hv,
            vcpu(3),
            __HYPERVISOR_sched_op,
            SCHEDOP_watchdog,
            &SchedWatchdog { id, timeout },
        )
        .0
    };
    assert_eq!(dog(&mut hv, 1, 5), error(Errno::INVAL));
    assert_eq!((dog(&mut hv, 0, 5), dog(&mut hv, 0, 7)), (1, 2));
    assert_eq!(dog(&mut hv, 0, 5), error(Errno::NOSPC));
    assert_eq!(dog(&mut hv, 2, 9), 0);
    assert_eq!(
        hv.body(DomainId(3)).unwrap().watchdogs,
        [5_000_000_000, 9_000_000_000]
    );
    assert_eq!((dog(&mut hv, 1, 0), dog(&mut hv, 1, 0)), (0, error(Errno::INVAL)));
    assert_eq!(dog(&mut hv, u32::MAX, 1), error(Errno::INVAL));
}

#[test]
fn timers_and_runstates() {
    let mut hv = hypervisor();
    NOW.set(10_000_000);
    let op = |hv: &mut Hypervisor, operation, index, at| {
        call(hv, vcpu(3), __HYPERVISOR_vcpu_op, &[operation, index, at])
    };
    put(
        &hv,
        3,
        AT,
        &VcpuSetSingleshotTimer {
            timeout_abs_ns: 9_000_000,
            flags: VCPU_SSHOTTMR_future,
            ..Default::default()
        },
    );
    assert_eq!(
        op(&mut hv, VCPUOP_set_singleshot_timer, 0, AT),
        error(Errno::TIME)
    );
    put(
        &hv,
        3,
        AT,
        &VcpuSetSingleshotTimer {
            timeout_abs_ns: 9_000_000,
            ..Default::default()
        },
    );
    assert_eq!(op(&mut hv, VCPUOP_set_singleshot_timer, 0, AT), 0);
    assert_eq!(
        op(&mut hv, VCPUOP_set_singleshot_timer, 1, AT),
        error(Errno::INVAL)
    );
    assert_eq!(op(&mut hv, VCPUOP_is_up, 2, 0), error(Errno::NOENT));
    assert_eq!(hv.vcpu(vcpu(3)).unwrap().oneshot, Some(9_000_000));
    assert_eq!(op(&mut hv, VCPUOP_stop_singleshot_timer, 0, 0), 0);
    assert_eq!(hv.vcpu(vcpu(3)).unwrap().oneshot, None);
    put(&hv, 3, AT, &VcpuSetPeriodicTimer { period_ns: 999_999 });
    assert_eq!(op(&mut hv, VCPUOP_set_periodic_timer, 0, AT), error(Errno::INVAL));
    put(&hv, 3, AT, &VcpuSetPeriodicTimer { period_ns: 4_000_000 });
    assert_eq!(op(&mut hv, VCPUOP_set_periodic_timer, 0, AT), 0);
    assert_eq!(hv.vcpu(vcpu(3)).unwrap().periodic, Some((4_000_000, 14_000_000)));
    assert_eq!(call(&mut hv, vcpu(3), __HYPERVISOR_set_timer_op, &[77]), 0);
    assert_eq!(hv.vcpu(vcpu(3)).unwrap().oneshot, Some(77));

    put(&hv, 3, AT, &VcpuRegisterRunstateMemoryArea { addr: LIST });
    assert_eq!(op(&mut hv, VCPUOP_register_runstate_memory_area, 0, AT), 0);
    let info = get::<VcpuRunstateInfo>(&hv, 3, LIST);
    assert_eq!(info.time.iter().sum::<u64>() + info.state_entry_time, 10_000_000);
    assert_eq!(
        call(
            &mut hv,
            vcpu(3),
            __HYPERVISOR_vm_assist,
            &[VMASST_CMD_enable, VMASST_TYPE_runstate_update_flag]
        ),
        0
    );
    NOW.set(11_000_000);
    update_runstate_area(&hv, vcpu(3));
    let info = get::<VcpuRunstateInfo>(&hv, 3, LIST);
    assert_eq!(info.time.iter().sum::<u64>() + info.state_entry_time, 11_000_000);
    put(
        &hv,
        3,
        AT,
        &VcpuRegisterRunstateMemoryArea {
            addr: RAM_PAGES * 4096,
        },
    );
    assert_eq!(
        op(&mut hv, VCPUOP_register_runstate_memory_area, 0, AT),
        error(Errno::FAULT)
    );
}

#[test]
fn a_vcpu_comes_up_goes_down_and_keeps_its_info() {
    let mut hv = hypervisor();
    let second = VcpuId {
        domain: DomainId(3),
        index: 1,
    };
    let op = |hv: &mut Hypervisor, operation, index, at| {
        call(hv, vcpu(3), __HYPERVISOR_vcpu_op, &[operation, index, at])
    };
    assert_eq!(op(&mut hv, VCPUOP_up, 1, 0), error(Errno::INVAL));
    let state = VcpuHvmX8664 {
        rip: 0x1234,
        rsp: 0x5678,
        rdi: 9,
        cr0: 1 << 31 | 1,
        cr3: 0x9000,
        cr4: 1 << 5,
        efer: 0x500,
        ..Default::default()
    };
    put(
        &hv,
        3,
        AT,
        &VcpuHvmContext::from(VcpuHvmX8664 { cr0: 1, ..state }),
    );
    assert_eq!(op(&mut hv, VCPUOP_initialise, 1, AT), error(Errno::INVAL));
    put(&hv, 3, AT, &VcpuHvmContext::from(state));
    assert_eq!(op(&mut hv, VCPUOP_initialise, 0, AT), error(Errno::EXIST));
    assert_eq!(op(&mut hv, VCPUOP_initialise, 1, AT), 0);
    assert_eq!(
        (
            op(&mut hv, VCPUOP_is_up, 1, 0),
            op(&mut hv, VCPUOP_up, 1, 0),
            op(&mut hv, VCPUOP_is_up, 1, 0)
        ),
        (0, 0, 1)
    );
    let registers = hv.vcpu(second).unwrap().registers;
    assert_eq!((registers.rip, registers.rsp, registers.rdi), (0x1234, 0x5678, 9));

    // A page that a vcpu_info moved to stays.
    put(
        &hv,
        3,
        AT,
        &VcpuRegisterVcpuInfo {
            mfn: 7,
            offset: 4096 - 32,
            rsvd: 0,
        },
    );
    assert_eq!(op(&mut hv, VCPUOP_register_vcpu_info, 0, AT), error(Errno::INVAL));
    put(
        &hv,
        3,
        AT,
        &VcpuRegisterVcpuInfo {
            mfn: 7,
            offset: 64,
            rsvd: 0,
        },
    );
    assert_eq!(op(&mut hv, VCPUOP_register_vcpu_info, 1, AT), error(Errno::INVAL));
    assert_eq!(op(&mut hv, VCPUOP_register_vcpu_info, 0, AT), 0);
    assert_eq!(op(&mut hv, VCPUOP_register_vcpu_info, 0, AT), error(Errno::INVAL));
    assert_eq!(
        hv.vcpu(vcpu(3)).unwrap().vcpu_info,
        testing::machine(&hv, 3, 7 * 4096 + 64)
    );
    put(&hv, 3, LIST, &7u64);
    let request = MemoryReservation {
        extent_start: LIST,
        nr_extents: 1,
        domid: DOMID_SELF,
        ..Default::default()
    };
    assert_eq!(
        with(
            &mut hv,
            vcpu(3),
            __HYPERVISOR_memory_op,
            XENMEM_decrease_reservation,
            &request
        )
        .0,
        0
    );

    put(&hv, 3, AT, &VcpuRegisterTimeMemoryArea { addr: LIST });
    poke(
        &hv,
        3,
        7 * 4096 + 64 + 32,
        VcpuTimeInfo {
            version: 6,
            system_time: 55,
            ..Default::default()
        }
        .as_bytes(),
    );
    assert_eq!(op(&mut hv, VCPUOP_register_vcpu_time_memory_area, 0, AT), 0);
    let time = get::<VcpuTimeInfo>(&hv, 3, LIST);
    assert_eq!((time.version, time.system_time), (6, 55));

    assert_eq!(op(&mut hv, VCPUOP_down, 1, 0), 0);
    assert_eq!(hv.vcpu(second).unwrap().status, VcpuStatus::Offline);
    assert_eq!(
        once(&mut hv, vcpu(3), __HYPERVISOR_vcpu_op, &[VCPUOP_down, 0]),
        Outcome::Stopped
    );
    assert_eq!(
        hv.domain(DomainId(3)).unwrap().state,
        State::Stopped {
            reason: SHUTDOWN_poweroff
        }
    );
}

#[test]
fn parameters_and_upcalls() {
    let mut hv = hypervisor();
    hv.body_mut(DomainId(3)).unwrap().parameters[HVM_PARAM_STORE_PFN as usize] = 0xfeffc;
    let op = __HYPERVISOR_hvm_op;
    let parameter = |index, value| HvmParam {
        domid: DOMID_SELF,
        pad: 0,
        index,
        value,
    };
    let (result, answer) = with(
        &mut hv,
        vcpu(3),
        op,
        HVMOP_get_param,
        &parameter(HVM_PARAM_STORE_PFN, 0),
    );
    assert_eq!((result, answer.value), (0, 0xfeffc));
    let set = |hv: &mut Hypervisor, index, value| {
        with(hv, vcpu(3), op, HVMOP_set_param, &parameter(index, value)).0
    };
    assert_eq!(set(&mut hv, HVM_PARAM_STORE_PFN, 1), error(Errno::PERM));
    assert_eq!(set(&mut hv, HVM_NR_PARAMS, 1), error(Errno::INVAL));
    assert_eq!(set(&mut hv, u32::MAX, 1), error(Errno::INVAL));
    assert_eq!(
        set(&mut hv, HVM_PARAM_CALLBACK_IRQ, CallbackVia::Gsi(9).to_param()),
        error(Errno::INVAL)
    );
    let vector = CallbackVia::Vector(0xf3).to_param();
    assert_eq!(set(&mut hv, HVM_PARAM_CALLBACK_IRQ, vector), 0);
    assert_eq!(hv.body(DomainId(3)).unwrap().parameters[0], vector);
    let upcall = |vcpu, vector| HvmEvtchnUpcallVector {
        vcpu,
        vector,
        ..Default::default()
    };
    assert_eq!(
        with(
            &mut hv,
            vcpu(3),
            op,
            HVMOP_set_evtchn_upcall_vector,
            &upcall(1, 0xf3)
        )
        .0,
        0
    );
    assert_eq!(
        with(
            &mut hv,
            vcpu(3),
            op,
            HVMOP_set_evtchn_upcall_vector,
            &upcall(1, 3)
        )
        .0,
        error(Errno::INVAL)
    );
    assert_eq!(
        with(
            &mut hv,
            vcpu(3),
            op,
            HVMOP_set_evtchn_upcall_vector,
            &upcall(2, 99)
        )
        .0,
        error(Errno::NOENT)
    );
    assert_eq!(call(&mut hv, vcpu(3), op, &[HVMOP_flush_tlbs, 0]), 0);
    let (_, kind) = with(
        &mut hv,
        vcpu(3),
        op,
        HVMOP_get_mem_type,
        &HvmGetMemType {
            domid: DOMID_SELF,
            pfn: 3,
            ..Default::default()
        },
    );
    assert_eq!(kind.mem_type, HVMMEM_ram_rw);
}

#[test]
fn memory_is_given_back_and_taken_again() {
    let mut hv = hypervisor();
    let id = vcpu(3);
    let free = hv.frames.free_pages();
    let pages: [u64; 3] = [20, 21, RAM_PAGES];
    put(&hv, 3, LIST, &pages);
    poke(&hv, 3, 20 << 12, b"secret");
    let request = MemoryReservation {
        extent_start: LIST,
        nr_extents: 3,
        domid: DOMID_SELF,
        ..Default::default()
    };
    let op = __HYPERVISOR_memory_op;
    // The third page does not exist.
    assert_eq!(with(&mut hv, id, op, XENMEM_decrease_reservation, &request).0, 2);
    let domain = MemoryDomain { domid: DOMID_SELF };
    assert_eq!(
        with(&mut hv, id, op, XENMEM_current_reservation, &domain).0,
        RAM_PAGES as i64 - 2
    );
    assert_eq!(
        with(&mut hv, id, op, XENMEM_maximum_reservation, &domain).0,
        RAM_PAGES as i64
    );
    assert_eq!(hv.frames.free_pages(), free + 2);
    // No more than it had comes back, and empty.
    assert_eq!(with(&mut hv, id, op, XENMEM_populate_physmap, &request).0, 2);
    assert_eq!(peek::<6>(&hv, 3, 20 << 12), [0; 6]);
    let others = MemoryReservation { domid: 2, ..request };
    assert_eq!(
        with(&mut hv, id, op, XENMEM_decrease_reservation, &others).0,
        error(Errno::PERM)
    );
    let huge = MemoryReservation {
        extent_order: 10,
        ..request
    };
    assert_eq!(
        with(&mut hv, id, op, XENMEM_decrease_reservation, &huge).0,
        error(Errno::INVAL)
    );
    // A granted page stays as long as it is mapped.
    let memory = hv.memory;
    crate::grant::offer(&mut hv, id.domain, 9, DomainId(2), 22).unwrap();
    crate::grant::map(&mut hv, DomainId(2), id.domain, 9, 1 << 32, GNTMAP_host_map).unwrap();
    put(&hv, 3, LIST, &22u64);
    assert_eq!(
        with(
            &mut hv,
            id,
            op,
            XENMEM_decrease_reservation,
            &MemoryReservation {
                nr_extents: 1,
                ..request
            }
        )
        .0,
        0
    );
    let remove = RemoveFromPhysmap {
        domid: DOMID_SELF,
        _pad0: [0; 6],
        gpfn: 22,
    };
    assert_eq!(
        with(&mut hv, id, op, XENMEM_remove_from_physmap, &remove).0,
        error(Errno::BUSY)
    );
    let mapper = hv
        .body(DomainId(2))
        .unwrap()
        .p2m
        .translate(&memory, GuestAddress(1 << 32))
        .unwrap();
    assert_eq!(mapper.kind, PageKind::Granted);
    // Long lists are worked through in pieces.
    let many: std::vec::Vec<u64> = (24..24 + 30).collect();
    poke(&hv, 3, LIST, many.as_bytes());
    assert_eq!(
        with(
            &mut hv,
            id,
            op,
            XENMEM_decrease_reservation,
            &MemoryReservation {
                nr_extents: 30,
                ..request
            }
        )
        .0,
        30
    );
    assert_eq!(
        with(
            &mut hv,
            id,
            op,
            XENMEM_populate_physmap,
            &MemoryReservation {
                nr_extents: 30,
                ..request
            }
        )
        .0,
        30
    );
}

#[test]
fn pages_of_the_hypervisor_appear_where_the_guest_wants_them() {
    let mut hv = hypervisor();
    let id = vcpu(3);
    let op = __HYPERVISOR_memory_op;
    let add = |hv: &mut Hypervisor, space, idx, gpfn| {
        with(
            hv,
            id,
            op,
            XENMEM_add_to_physmap,
            &AddToPhysmap {
                domid: DOMID_SELF,
                size: 0,
                space,
                idx,
                gpfn,
            },
        )
        .0
    };
    let shared = hv.body(id.domain).unwrap().shared_info;
    assert_eq!(add(&mut hv, XENMAPSPACE_shared_info, 0, 0xfe700), 0);
    assert_eq!(Frame::containing(testing::machine(&hv, 3, 0xfe700 << 12)), shared);
    assert_eq!(add(&mut hv, XENMAPSPACE_grant_table, 1, 40), 0);
    assert_eq!(hv.body(id.domain).unwrap().pages, RAM_PAGES - 1);
    let setup = GnttabSetupTable {
        dom: DOMID_SELF,
        nr_frames: 2,
        frame_list: LIST,
        ..Default::default()
    };
    let (result, setup) = with(
        &mut hv,
        id,
        __HYPERVISOR_grant_table_op,
        GNTTABOP_setup_table,
        &setup,
    );
    assert_eq!(
        (result, setup.status, get::<[u64; 2]>(&hv, 3, LIST)),
        (0, GNTST_okay, [u64::MAX, 40])
    );
    // The table moves; it is never in two places.
    assert_eq!(add(&mut hv, XENMAPSPACE_grant_table, 1, 0xfe800), 0);
    assert!(
        hv.body(id.domain)
            .unwrap()
            .p2m
            .translate(&hv.memory, GuestAddress(40 << 12))
            .is_none()
    );
    assert_eq!(add(&mut hv, XENMAPSPACE_grant_table, 64, 41), error(Errno::INVAL));
    assert_eq!(add(&mut hv, XENMAPSPACE_gmfn_foreign, 0, 41), error(Errno::PERM));
    assert_eq!(
        add(&mut hv, XENMAPSPACE_shared_info, 0, 1 << 28),
        error(Errno::INVAL)
    );
    // RAM moves with what it holds.
    poke(&hv, 3, 30 << 12, b"moved");
    assert_eq!(add(&mut hv, XENMAPSPACE_gmfn, 30, 200), 0);
    assert_eq!(peek::<5>(&hv, 3, 200 << 12), *b"moved");
    assert_eq!(add(&mut hv, XENMAPSPACE_gmfn, 30, 201), error(Errno::INVAL));
    let remove = RemoveFromPhysmap {
        domid: DOMID_SELF,
        _pad0: [0; 6],
        gpfn: 0xfe800,
    };
    assert_eq!(with(&mut hv, id, op, XENMEM_remove_from_physmap, &remove).0, 0);
    let batch = AddToPhysmapBatch {
        domid: DOMID_SELF,
        space: XENMAPSPACE_grant_table as u16,
        size: 2,
        foreign_domid: 0,
        idxs: LIST,
        gpfns: LIST + 64,
        errs: LIST + 128,
    };
    put(&hv, 3, LIST, &[0u64, 99]);
    put(&hv, 3, LIST + 64, &[300u64, 301]);
    assert_eq!(with(&mut hv, id, op, XENMEM_add_to_physmap_batch, &batch).0, 0);
    assert_eq!(get::<[i32; 2]>(&hv, 3, LIST + 128), [0, -Errno::INVAL.number()]);
    put(
        &hv,
        3,
        AT,
        &MemoryMap {
            nr_entries: 8,
            _pad0: [0; 4],
            buffer: LIST,
        },
    );
    assert_eq!(call(&mut hv, id, op, &[XENMEM_memory_map, AT]), 0);
    assert_eq!(get::<MemoryMap>(&hv, 3, AT).nr_entries, 1);
    assert_eq!({ get::<E820Entry>(&hv, 3, LIST).size }, RAM_PAGES * 4096);
    // All of it comes back with the domain.
    let held = hv.frames.free_pages();
    testing::destroy(&mut hv, id.domain);
    assert!(hv.frames.free_pages() > held + RAM_PAGES - 2);
}

#[test]
fn batches_of_grants_go_in_pieces() {
    let mut hv = hypervisor();
    for reference in 0..100 {
        crate::grant::offer(
            &mut hv,
            DomainId(3),
            reference,
            DomainId(2),
            u64::from(reference) % RAM_PAGES,
        )
        .unwrap();
    }
    let op = |index: u64| GnttabMapGrantRef {
        host_addr: (1 << 32) + index * 4096,
        flags: GNTMAP_host_map,
        r#ref: index as u32,
        dom: 3,
        ..Default::default()
    };
    for index in 0..100 {
        put(&hv, 2, AT + index * 32, &op(index));
    }
    let arguments = [GNTTABOP_map_grant_ref, AT, 100];
    assert_eq!(
        once(&mut hv, vcpu(2), __HYPERVISOR_grant_table_op, &arguments),
        Outcome::Again
    );
    assert_eq!(hv.vcpu(vcpu(2)).unwrap().registers.rdx, 36);
    assert_eq!(dispatch(&mut hv, vcpu(2)), Outcome::Complete);
    let mapped: std::vec::Vec<_> = (0..100)
        .map(|index| get::<GnttabMapGrantRef>(&hv, 2, AT + index * 32))
        .collect();
    assert!(mapped.iter().all(|op| op.status == GNTST_okay));
    for (index, op) in (0..).zip(&mapped) {
        let unmap = GnttabUnmapGrantRef {
            host_addr: op.host_addr,
            handle: op.handle,
            ..Default::default()
        };
        put(&hv, 2, AT + index * 24, &unmap);
    }
    assert_eq!(
        call(
            &mut hv,
            vcpu(2),
            __HYPERVISOR_grant_table_op,
            &[GNTTABOP_unmap_grant_ref, AT, 100]
        ),
        0
    );
    assert!((0..100).all(|index| get::<GnttabUnmapGrantRef>(&hv, 2, AT + index * 24).status == GNTST_okay));
    let op = __HYPERVISOR_grant_table_op;
    let (_, size) = with(
        &mut hv,
        vcpu(3),
        op,
        GNTTABOP_query_size,
        &GnttabQuerySize {
            dom: DOMID_SELF,
            ..Default::default()
        },
    );
    assert_eq!((size.nr_frames, size.max_nr_frames), (1, 64));
    assert_eq!(
        with(
            &mut hv,
            vcpu(3),
            op,
            GNTTABOP_set_version,
            &GnttabSetVersion { version: 2 }
        ),
        (0, GnttabSetVersion { version: 2 })
    );
    assert_eq!(
        with(
            &mut hv,
            vcpu(3),
            op,
            GNTTABOP_set_version,
            &GnttabSetVersion { version: 3 }
        )
        .0,
        error(Errno::INVAL)
    );
    let version = GnttabGetVersion {
        dom: DOMID_SELF,
        ..Default::default()
    };
    assert_eq!(
        with(&mut hv, vcpu(3), op, GNTTABOP_get_version, &version)
            .1
            .version,
        2
    );
    let transfer = GnttabTransfer {
        mfn: 1,
        domid: 2,
        ..Default::default()
    };
    assert_eq!(
        with(&mut hv, vcpu(3), op, GNTTABOP_transfer, &transfer).1.status,
        GNTST_general_error
    );
}

#[test]
fn a_multicall_carries_each_out_in_order() {
    let mut hv = hypervisor();
    let entry = |op, args: &[u64]| {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        MulticallEntry {
            op,
            result: 77,
            args: all,
        }
    };
    poke(&hv, 3, LIST, &[b'y'; 1025]);
    let entries = [
        entry(__HYPERVISOR_xen_version, &[XENVER_version]),
        entry(__HYPERVISOR_console_io, &[CONSOLEIO_write, 1025, LIST]),
        entry(99, &[]),
        entry(__HYPERVISOR_multicall, &[AT, 1]),
        entry(__HYPERVISOR_sched_op, &[SCHEDOP_yield]),
    ];
    for (index, entry) in (0..).zip(&entries) {
        put(&hv, 3, AT + index * 64, entry);
    }
    LOG.take();
    assert_eq!(call(&mut hv, vcpu(3), __HYPERVISOR_multicall, &[AT, 5]), 0);
    let result = |index: u64| get::<MulticallEntry>(&hv, 3, AT + index * 64).result as i64;
    assert_eq!(
        (result(0), result(1), result(2)),
        (4 << 16 | 17, 0, error(Errno::NOSYS))
    );
    assert_eq!((result(3), result(4)), (error(Errno::NOSYS), 0));
    assert_eq!(LOG.take().len(), 1);
    for index in 0..40 {
        put(&hv, 3, AT + index * 64, &entries[0]);
    }
    assert_eq!(
        once(&mut hv, vcpu(3), __HYPERVISOR_multicall, &[AT, 40]),
        Outcome::Again
    );
    assert_eq!(
        (dispatch(&mut hv, vcpu(3)), dispatch(&mut hv, vcpu(3))),
        (Outcome::Again, Outcome::Complete)
    );
    let last = get::<MulticallEntry>(&hv, 3, AT + 39 * 64);
    assert_eq!(last.result, 4 << 16 | 17);
}

#[test]
fn interrupts_of_ones_own_devices() {
    let mut hv = hypervisor();
    hv.domain_mut(DomainId(2)).unwrap().interrupts.push(4);
    let op = __HYPERVISOR_physdev_op;
    let request = PhysdevMapPirq {
        domid: DOMID_SELF,
        r#type: MAP_PIRQ_TYPE_GSI,
        index: 4,
        pirq: -1,
        ..Default::default()
    };
    assert_eq!(
        with(&mut hv, vcpu(3), op, PHYSDEVOP_map_pirq, &request).0,
        error(Errno::NODEV)
    );
    let (result, mapped) = with(&mut hv, vcpu(2), op, PHYSDEVOP_map_pirq, &request);
    assert_eq!((result, mapped.pirq), (0, 4));
    let bind = EvtchnBindPirq {
        pirq: 4,
        ..Default::default()
    };
    assert_eq!(
        with(
            &mut hv,
            vcpu(2),
            __HYPERVISOR_event_channel_op,
            EVTCHNOP_bind_pirq,
            &bind
        )
        .0,
        0
    );
    assert_eq!(
        with(&mut hv, vcpu(2), op, PHYSDEVOP_eoi, &PhysdevEoi { irq: 4 }).0,
        0
    );
    let unmap = PhysdevUnmapPirq {
        domid: DOMID_SELF,
        pirq: 4,
        ..Default::default()
    };
    assert_eq!(
        with(&mut hv, vcpu(2), op, PHYSDEVOP_unmap_pirq, &unmap).0,
        error(Errno::BUSY)
    );
    let message = PhysdevMapPirq {
        r#type: MAP_PIRQ_TYPE_MSI_SEG,
        devfn: 300,
        ..request
    };
    assert_eq!(
        with(&mut hv, vcpu(2), op, PHYSDEVOP_map_pirq, &message).0,
        error(Errno::INVAL)
    );
    assert_eq!(
        with(
            &mut hv,
            vcpu(2),
            op,
            PHYSDEVOP_setup_gsi,
            &PhysdevSetupGsi::default()
        )
        .0,
        error(Errno::NOSYS)
    );
}

#[test]
fn our_own_operations_need_their_capabilities() {
    let mut hv = hypervisor();
    let op = __HYPERVISOR_atoll_op;
    let about = |domain| DomainInfo {
        domain,
        ..Default::default()
    };
    let (result, info) = with(&mut hv, vcpu(3), op, ATOLLOP_DOMAIN_INFO, &about(DOMID_SELF));
    assert_eq!(
        (result, info.domain, info.state, &info.name[..6]),
        (0, 3, DOMAIN_STATE_RUNNING, &b"guest\0"[..])
    );
    assert_eq!(
        with(&mut hv, vcpu(3), op, ATOLLOP_DOMAIN_INFO, &about(2)).0,
        error(Errno::PERM)
    );
    assert_eq!(
        with(&mut hv, vcpu(1), op, ATOLLOP_DOMAIN_INFO, &about(9)).0,
        error(Errno::SRCH)
    );
    assert_eq!(
        with(&mut hv, vcpu(1), op, ATOLLOP_DOMAIN_INFO, &about(2))
            .1
            .memory_pages,
        RAM_PAGES
    );
    let reference = DomainReference {
        domain: 3,
        ..Default::default()
    };
    for operation in [ATOLLOP_DOMAIN_START, ATOLLOP_DOMAIN_DESTROY] {
        assert_eq!(
            with(&mut hv, vcpu(2), op, operation, &reference).0,
            error(Errno::PERM)
        );
    }
    assert_eq!(
        with(&mut hv, vcpu(1), op, ATOLLOP_DOMAIN_DESTROY, &reference).0,
        0
    );
    assert_eq!(hv.domain(DomainId(3)).unwrap().state, State::Absent);
    assert_eq!(
        with(
            &mut hv,
            vcpu(1),
            op,
            ATOLLOP_DOMAIN_DESTROY,
            &DomainReference::default()
        )
        .0,
        error(Errno::SRCH)
    );
    POWER.set(None);
    let control = MachineControl {
        action: MACHINE_REBOOT,
        ..Default::default()
    };
    assert_eq!(
        with(&mut hv, vcpu(2), op, ATOLLOP_MACHINE_CONTROL, &control).0,
        error(Errno::PERM)
    );
    assert_eq!(POWER.get(), None);
    assert_eq!(with(&mut hv, vcpu(1), op, ATOLLOP_MACHINE_CONTROL, &control).0, 0);
    assert_eq!(POWER.get(), Some("reboot"));

    LOG.set(std::vec!["0123456789".repeat(100)]);
    let read = LogRead {
        position: 995,
        buffer: LIST,
        length: 4096,
    };
    assert_eq!(
        with(&mut hv, vcpu(1), op, ATOLLOP_LOG_READ, &read).0,
        error(Errno::PERM)
    );
    let (result, read) = with(&mut hv, vcpu(2), op, ATOLLOP_LOG_READ, &read);
    assert_eq!(
        (result, read.position, read.length, peek(&hv, 2, LIST)),
        (0, 1000, 5, *b"56789")
    );

    assert_eq!(
        with(&mut hv, vcpu(2), op, ATOLLOP_DMA_WINDOW, &DmaWindow::default()).0,
        error(Errno::NODEV)
    );
    hv.body_mut(DomainId(2)).unwrap().contiguous_base = Some(crate::memory::MachineAddress(0x1000));
    assert_eq!(
        with(&mut hv, vcpu(2), op, ATOLLOP_DMA_WINDOW, &DmaWindow::default())
            .1
            .offset,
        0x1000
    );
    assert_eq!(
        with(
            &mut hv,
            vcpu(2),
            op,
            ATOLLOP_MACHINE_INFO,
            &MachineInfo::default()
        )
        .0,
        error(Errno::PERM)
    );
    let (_, info) = with(
        &mut hv,
        vcpu(1),
        op,
        ATOLLOP_MACHINE_INFO,
        &MachineInfo::default(),
    );
    assert_eq!(info.free_pages, hv.frames.free_pages());
}

proptest! {
    /// Whatever a guest puts into its registers and its memory, it costs nobody but itself.
    #[test]
    fn no_arguments_panic(
        calls in proptest::collection::vec((any::<proptest::sample::Index>(), 0u64..32, any::<[u64; 4]>(), any::<[u8; 4]>()), 1..40),
        words: [u64; 32], domain in 1u16..4,
    ) {
        const NUMBERS: [u64; 13] = [
            __HYPERVISOR_memory_op, __HYPERVISOR_multicall, __HYPERVISOR_set_timer_op, __HYPERVISOR_xen_version,
            __HYPERVISOR_console_io, __HYPERVISOR_grant_table_op, __HYPERVISOR_vm_assist, __HYPERVISOR_vcpu_op,
            __HYPERVISOR_sched_op, __HYPERVISOR_event_channel_op, __HYPERVISOR_physdev_op, __HYPERVISOR_hvm_op, __HYPERVISOR_atoll_op,
        ];
        let mut hv = hypervisor();
        let small = words.map(|word| if word & 1 == 0 { word >> 1 & 0x7_0003 } else { word });
        for (index, (number, operation, mut arguments, kinds)) in calls.into_iter().enumerate() {
            put(&hv, domain, AT, &small);
            put(&hv, domain, AT + 256 + index as u64 * 8, &words);
            for (argument, kind) in arguments.iter_mut().zip(kinds) {
                *argument = match kind % 4 {
                    0 => AT + u64::from(kind & 0xf0),
                    1 => u64::from(kind) >> 2,
                    2 => RAM_PAGES * 4096 - (u64::from(kind) >> 2),
                    _ => *argument,
                };
            }
            let id = vcpu(domain);
            let Some(running) = hv.vcpu(id).filter(|_| hv.domain(id.domain).unwrap().state == State::Running) else { break };
            let _ = running;
            let [second, third, fourth, fifth] = arguments;
            let mut outcome = once(&mut hv, id, *number.get(&NUMBERS), &[operation, second, third, fourth, fifth]);
            for _ in 0..20 {
                if outcome != Outcome::Again {
                    break;
                }
                outcome = dispatch(&mut hv, id);
            }
            if outcome == Outcome::Stopped {
                break;
            }
        }
        for id in [1, 2, 3] {
            testing::destroy(&mut hv, DomainId(id));
        }
        prop_assert_eq!((hv.frames.free_pages(), hv.held.count()), (testing::MACHINE_PAGES - 1, 0));
    }
}

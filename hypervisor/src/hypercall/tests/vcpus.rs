//! What vCPUs do with themselves and with time.

use super::*;

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
    let deadlines = hv.body(DomainId(3)).unwrap().watchdogs.map(|dog| dog.deadline());
    assert_eq!(deadlines, [Some(2_500_000_000), Some(4_500_000_000)]);
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
fn a_runstate_that_crosses_a_page_is_whole() {
    let mut hv = hypervisor();
    let id = vcpu(3);
    for (area, marked) in [(LIST, true), (LIST + 4096 - 24, true), (LIST + 4096 - 4, false)] {
        put(&hv, 3, AT, &VcpuRegisterRunstateMemoryArea { addr: area });
        let register = [VCPUOP_register_runstate_memory_area, 0, AT];
        assert_eq!(call(&mut hv, id, __HYPERVISOR_vcpu_op, &register), 0);
        let command = if marked {
            VMASST_CMD_enable
        } else {
            VMASST_CMD_disable
        };
        let assist = [command, VMASST_TYPE_runstate_update_flag];
        assert_eq!(call(&mut hv, id, __HYPERVISOR_vm_assist, &assist), 0);
        hv.vcpu_mut(id).unwrap().runstate = crate::domain::Runstate {
            current: RUNSTATE_runnable,
            since: 7,
            total: [1, 2, 3, 4],
        };
        NOW.set(107);
        update_runstate_area(&hv, id);
        let mut bytes = [0; size_of::<VcpuRunstateInfo>()];
        for (index, byte) in bytes.iter_mut().enumerate() {
            [*byte] = peek(&hv, 3, area + index as u64);
        }
        let expected = VcpuRunstateInfo {
            state: RUNSTATE_runnable,
            _pad0: [0; 4],
            state_entry_time: 7,
            // Nobody stole what it was offline for.
            time: [1, 102, 7, 0],
        };
        assert_eq!(bytes, expected.as_bytes());
    }
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
    // One that was never up does not become ready to go by being taken down.
    assert_eq!(op(&mut hv, VCPUOP_down, 1, 0), 0);
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
        Some(testing::machine(&hv, 3, 7 * 4096 + 64))
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
fn a_vcpu_beyond_the_shared_info_page_has_no_info_until_it_registers_one() {
    let mut hv = testing::hypervisor_with(vec![testing::spec("guest", 40)]);
    let (first, last) = (vcpu(1), VcpuId { index: 39, ..vcpu(1) });
    let op = |hv: &mut Hypervisor, operation, index, at| {
        call(hv, vcpu(1), __HYPERVISOR_vcpu_op, &[operation, index, at])
    };
    let shared_info = hv.body(DomainId(1)).unwrap().shared_info.address();
    let first_info = |hv: &Hypervisor| {
        let mut bytes = [0; size_of::<VcpuInfo>()];
        hv.memory.read(shared_info, &mut bytes);
        VcpuInfo::read_from_bytes(&bytes).unwrap()
    };
    // An event for it is not announced to the first vCPU in its stead, and waits.
    let port = crate::event::bind_ipi(&mut hv, DomainId(1), 39).unwrap();
    crate::event::send(&mut hv, DomainId(1), port).unwrap();
    crate::event::unmask(&mut hv, DomainId(1), port).unwrap();
    assert!(!crate::event::upcall_pending(&hv, first) && !crate::event::upcall_pending(&hv, last));
    assert!(crate::event::is_pending(&hv, DomainId(1), port));
    // Its clock is not the first one's, either.
    crate::guest_time::publish(&mut hv, last);
    assert_eq!(
        (first_info(&hv).evtchn_pending_sel, first_info(&hv).time.version),
        (0, 0)
    );
    // Nor does it start in the state that a hypercall names: nothing would ever wake it.
    let state = VcpuHvmX8664 {
        cr0: 1 << 31 | 1,
        cr4: 1 << 5,
        efer: 0x500,
        ..Default::default()
    };
    put(&hv, 1, LIST, &VcpuHvmContext::from(state));
    assert_eq!(op(&mut hv, VCPUOP_initialise, 39, LIST), error(Errno::INVAL));

    let place = VcpuRegisterVcpuInfo {
        mfn: 7,
        offset: 64,
        rsvd: 0,
    };
    poke(&hv, 1, 7 * 4096 + 64, &[0xff; 64]);
    put(&hv, 1, AT, &place);
    assert_eq!(op(&mut hv, VCPUOP_register_vcpu_info, 39, AT), 0);
    let info = get::<VcpuInfo>(&hv, 1, 7 * 4096 + 64);
    assert_eq!(
        (info.evtchn_upcall_pending, info.evtchn_pending_sel),
        (1, u64::MAX)
    );
    assert!(info.time.version != 0 && info.time.version.is_multiple_of(2));
    assert!(crate::event::upcall_pending(&hv, last) && !crate::event::upcall_pending(&hv, first));
    assert_eq!(op(&mut hv, VCPUOP_initialise, 39, LIST), 0);
    assert_eq!(op(&mut hv, VCPUOP_up, 39, 0), 0);
}

#[test]
fn a_vcpu_starts_in_32_bits_and_goes_down_and_up_where_it_was() {
    let mut hv = hypervisor();
    let second = VcpuId { index: 1, ..vcpu(3) };
    let op = |hv: &mut Hypervisor, operation, index, at| {
        call(hv, vcpu(3), __HYPERVISOR_vcpu_op, &[operation, index, at])
    };
    let flat = u32::MAX;
    let state = VcpuHvmX8632 {
        eip: 0x2000,
        esi: 5,
        cr0: 1,
        cs_limit: flat,
        ds_limit: flat,
        ss_limit: flat,
        es_limit: flat,
        tr_limit: 0x67,
        cs_ar: 0xc9b,
        ds_ar: 0xc93,
        ss_ar: 0xc93,
        es_ar: 0xc93,
        tr_ar: 0x8b,
        ..Default::default()
    };
    put(
        &hv,
        3,
        AT,
        &VcpuHvmContext::from(VcpuHvmX8632 { tr_ar: 0, ..state }),
    );
    assert_eq!(op(&mut hv, VCPUOP_initialise, 1, AT), error(Errno::INVAL));
    put(&hv, 3, AT, &VcpuHvmContext::from(state));
    assert_eq!(op(&mut hv, VCPUOP_initialise, 1, AT), 0);
    assert_eq!(op(&mut hv, VCPUOP_initialise, 1, AT), error(Errno::EXIST));
    assert_eq!(hv.vcpu(second).unwrap().status, VcpuStatus::Offline);
    assert_eq!(
        (op(&mut hv, VCPUOP_up, 1, 0), op(&mut hv, VCPUOP_up, 1, 0)),
        (0, 0)
    );
    let vcpu = hv.vcpu_mut(second).unwrap();
    assert_eq!((vcpu.registers.rip, vcpu.registers.rsi), (0x2000, 5));
    vcpu.registers.rip = 0x3000;
    assert_eq!(
        (op(&mut hv, VCPUOP_down, 1, 0), op(&mut hv, VCPUOP_is_up, 1, 0)),
        (0, 0)
    );
    assert_eq!(op(&mut hv, VCPUOP_initialise, 1, AT), error(Errno::EXIST));
    assert_eq!(
        (op(&mut hv, VCPUOP_up, 1, 0), op(&mut hv, VCPUOP_is_up, 1, 0)),
        (0, 1)
    );
    assert_eq!(hv.vcpu(second).unwrap().registers.rip, 0x3000);
}

//! Event channels, interrupts and what they interrupt.

use super::*;

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

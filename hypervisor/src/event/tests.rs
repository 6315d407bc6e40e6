//! Event channels between the domains of a fake hypervisor.

use super::*;
use crate::{
    domain::{Polling, VcpuStatus},
    testing::{self, destroy, hypervisor, peek, poke, vcpu},
};
use proptest::prelude::*;

const CONTROL: DomainId = DomainId(1);
const CONSOLE: DomainId = DomainId(2);
const GUEST: DomainId = DomainId(3);

pub(crate) fn pending(hv: &Hypervisor, domain: u16, port: u32) -> bool {
    is_pending(hv, DomainId(domain), port)
}

fn binding(hv: &Hypervisor, domain: DomainId, port: u32) -> Binding {
    hv.body(domain).unwrap().events.port(port).binding
}

fn block(hv: &mut Hypervisor, id: VcpuId) {
    hv.vcpu_mut(id).unwrap().status = VcpuStatus::Blocked;
}

fn status(hv: &Hypervisor, id: VcpuId) -> VcpuStatus {
    hv.vcpu(id).unwrap().status
}

fn set_mask(hv: &Hypervisor, domain: DomainId, port: u32) {
    let at =
        MachineAddress(hv.body(domain).unwrap().shared_info.address().0 + 2560 + u64::from(port / 64) * 8);
    hv.memory
        .atomic_u64(at)
        .fetch_or(1 << (port % 64), core::sync::atomic::Ordering::SeqCst);
}

#[test]
fn a_channel_carries_events_both_ways_and_survives_its_peer() {
    let mut hv = hypervisor();
    let guest = alloc_unbound(&mut hv, GUEST, CONSOLE).unwrap();
    assert_eq!(send(&mut hv, GUEST, guest), Ok(()));
    assert_eq!(
        bind_interdomain(&mut hv, CONTROL, GUEST, guest),
        Err(Errno::INVAL)
    );
    assert_eq!(
        bind_interdomain(&mut hv, CONSOLE, GUEST, guest + 1),
        Err(Errno::INVAL)
    );
    assert_eq!(
        bind_interdomain(&mut hv, CONSOLE, DomainId(9), guest),
        Err(Errno::SRCH)
    );
    let console = bind_interdomain(&mut hv, CONSOLE, GUEST, guest).unwrap();
    assert!(pending(&hv, 2, console) && !pending(&hv, 3, guest));
    block(&mut hv, vcpu(3));
    send(&mut hv, CONSOLE, console).unwrap();
    assert!(pending(&hv, 3, guest) && upcall_pending(&hv, vcpu(3)));
    assert_eq!(status(&hv, vcpu(3)), VcpuStatus::Runnable);
    // The backend dies and comes back under its id.
    destroy(&mut hv, CONSOLE);
    assert_eq!(binding(&hv, GUEST, guest), Binding::Unbound { remote: CONSOLE });
    assert_eq!(send(&mut hv, GUEST, guest), Ok(()));
    testing::build(&mut hv, CONSOLE);
    let console = bind_interdomain(&mut hv, CONSOLE, GUEST, guest).unwrap();
    assert_eq!(
        binding(&hv, GUEST, guest),
        Binding::Interdomain {
            remote: CONSOLE,
            port: console
        }
    );
    // The frontend closes: the backend's end waits, and its event is gone with the port.
    close(&mut hv, GUEST, guest).unwrap();
    assert!(!pending(&hv, 3, guest));
    assert_eq!(binding(&hv, CONSOLE, console), Binding::Unbound { remote: GUEST });
    assert_eq!(send(&mut hv, GUEST, guest), Err(Errno::INVAL));
    assert_eq!(close(&mut hv, GUEST, 0), Err(Errno::INVAL));
}

#[test]
fn a_channel_to_oneself_closes_both_ends() {
    let mut hv = hypervisor();
    let first = alloc_unbound(&mut hv, GUEST, GUEST).unwrap();
    let second = bind_interdomain(&mut hv, GUEST, GUEST, first).unwrap();
    send(&mut hv, GUEST, second).unwrap();
    assert!(pending(&hv, 3, first));
    unbind_all(&mut hv, GUEST);
    assert_eq!(hv.body(GUEST).unwrap().events.allocated_ports().count(), 0);
}

#[test]
fn virtual_interrupts_go_where_the_manifest_says() {
    let mut hv = hypervisor();
    assert_eq!(bind_virq(&mut hv, GUEST, VIRQ_DOM_EXC, 0), Err(Errno::PERM));
    assert_eq!(bind_virq(&mut hv, CONTROL, VIRQ_CON_RING, 0), Err(Errno::PERM));
    assert_eq!(bind_virq(&mut hv, CONSOLE, VIRQ_CON_RING, 1), Err(Errno::INVAL));
    assert_eq!(bind_virq(&mut hv, GUEST, NR_VIRQS, 0), Err(Errno::INVAL));
    assert_eq!(bind_virq(&mut hv, GUEST, VIRQ_TIMER, 2), Err(Errno::NOENT));
    let exception = bind_virq(&mut hv, CONTROL, VIRQ_DOM_EXC, 0).unwrap();
    let timer = bind_virq(&mut hv, GUEST, VIRQ_TIMER, 1).unwrap();
    assert_eq!(bind_virq(&mut hv, GUEST, VIRQ_TIMER, 1), Err(Errno::EXIST));
    assert_eq!(bind_vcpu(&mut hv, GUEST, timer, 0), Err(Errno::INVAL));
    assert_eq!(send(&mut hv, GUEST, timer), Err(Errno::INVAL));
    raise_global_virq(&mut hv, VIRQ_DOM_EXC);
    assert!(pending(&hv, 1, exception));
    raise_virq(&mut hv, vcpu(3), VIRQ_TIMER);
    assert!(!pending(&hv, 3, timer));
    let second = VcpuId {
        domain: GUEST,
        index: 1,
    };
    block(&mut hv, second);
    raise_virq(&mut hv, second, VIRQ_TIMER);
    assert!(pending(&hv, 3, timer) && upcall_pending(&hv, second) && !upcall_pending(&hv, vcpu(3)));
    assert_eq!(status(&hv, second), VcpuStatus::Runnable);
    close(&mut hv, GUEST, timer).unwrap();
    assert!(bind_virq(&mut hv, GUEST, VIRQ_TIMER, 1).is_ok());
}

#[test]
fn a_masked_port_wakes_only_who_polls_for_it() {
    let mut hv = hypervisor();
    let port = bind_ipi(&mut hv, GUEST, 0).unwrap();
    set_mask(&hv, GUEST, port);
    block(&mut hv, vcpu(3));
    send(&mut hv, GUEST, port).unwrap();
    assert!(pending(&hv, 3, port) && !upcall_pending(&hv, vcpu(3)));
    assert_eq!(status(&hv, vcpu(3)), VcpuStatus::Blocked);
    unmask(&mut hv, GUEST, port).unwrap();
    assert!(upcall_pending(&hv, vcpu(3)));
    assert_eq!(status(&hv, vcpu(3)), VcpuStatus::Runnable);

    let other = bind_ipi(&mut hv, GUEST, 1).unwrap();
    set_mask(&hv, GUEST, other);
    block(&mut hv, vcpu(3));
    hv.vcpu_mut(vcpu(3)).unwrap().polling = Some(Polling {
        ports: vec![other],
        deadline: None,
    });
    send(&mut hv, GUEST, other).unwrap();
    assert_eq!(status(&hv, vcpu(3)), VcpuStatus::Runnable);
    assert_eq!(hv.vcpu(vcpu(3)).unwrap().polling, None);
}

#[test]
fn a_port_moves_between_vcpus() {
    let mut hv = hypervisor();
    let guest = alloc_unbound(&mut hv, GUEST, CONSOLE).unwrap();
    bind_vcpu(&mut hv, GUEST, guest, 1).unwrap();
    assert_eq!(bind_vcpu(&mut hv, GUEST, guest, 2), Err(Errno::NOENT));
    assert_eq!(bind_vcpu(&mut hv, GUEST, guest + 1, 0), Err(Errno::INVAL));
    let console = bind_interdomain(&mut hv, CONSOLE, GUEST, guest).unwrap();
    send(&mut hv, CONSOLE, console).unwrap();
    assert!(
        !upcall_pending(&hv, vcpu(3))
            && upcall_pending(
                &hv,
                VcpuId {
                    domain: GUEST,
                    index: 1
                }
            )
    );
}

#[test]
fn a_vcpu_info_moves_with_what_is_pending() {
    let mut hv = hypervisor();
    let port = bind_ipi(&mut hv, GUEST, 0).unwrap();
    send(&mut hv, GUEST, port).unwrap();
    poke(&hv, 3, 0x2000, &[0; 64]);
    let to = testing::machine(&hv, 3, 0x2040);
    move_vcpu_info(&mut hv, vcpu(3), to).unwrap();
    assert!(upcall_pending(&hv, vcpu(3)));
    assert_eq!(peek::<1>(&hv, 3, 0x2040), [1]);
    assert_eq!(peek::<8>(&hv, 3, 0x2048), [0xff; 8]);
}

#[test]
fn the_reader_of_the_log_learns_of_new_lines_once() {
    let mut hv = hypervisor();
    let port = bind_virq(&mut hv, CONSOLE, VIRQ_CON_RING, 0).unwrap();
    announce_log(&mut hv);
    assert!(!pending(&hv, 2, port));
    hardware::LOG_END.set(10);
    announce_log(&mut hv);
    assert!(pending(&hv, 2, port));
    bits(&hv, CONSOLE, port).unwrap().0.clear_pending();
    announce_log(&mut hv);
    assert!(!pending(&hv, 2, port));
}

proptest! {
    /// Whatever domains do, both ends of every channel agree.
    #[test]
    fn both_ends_agree(steps in proptest::collection::vec((0u8..7, 1u16..5, 1u16..5, 0u32..8), 0..120)) {
        let mut hv = hypervisor();
        for (what, domain, remote, number) in steps {
            let (domain, remote) = (DomainId(domain), DomainId(remote));
            let _ = match what {
                0 => alloc_unbound(&mut hv, domain, remote).map(drop),
                1 => bind_interdomain(&mut hv, domain, remote, number).map(drop),
                2 => close(&mut hv, domain, number),
                3 => send(&mut hv, domain, number),
                4 => bind_vcpu(&mut hv, domain, number, number / 2),
                5 => bind_virq(&mut hv, domain, number, number / 4).map(drop),
                _ => unmask(&mut hv, domain, number),
            };
            for (id, body) in hv.domains.iter().map(|(id, domain)| (*id, domain.body.as_ref().unwrap())) {
                for (port, state) in body.events.allocated_ports() {
                    if let Binding::Interdomain { remote, port: other } = state.binding {
                        prop_assert_eq!(binding(&hv, remote, other), Binding::Interdomain { remote: id, port });
                    }
                }
            }
        }
        for id in [CONTROL, CONSOLE, GUEST] {
            unbind_all(&mut hv, id);
        }
        prop_assert!(hv.domains.values().all(|domain| domain.body.as_ref().unwrap().events.allocated_ports().count() == 0));
    }
}

//! What was counted, as a domain with the capability reads it.

use super::*;
use crate::{event, figures::Phase, grant};

const CONTROL: u16 = 1;
const GUEST: u16 = 3;

fn of_domain(hv: &mut Hypervisor, domain: u16) -> DomainFigures {
    let request = DomainFigures {
        domain,
        ..Default::default()
    };
    let (result, figures) = with(
        hv,
        vcpu(CONTROL),
        __HYPERVISOR_atoll_op,
        ATOLLOP_DOMAIN_FIGURES,
        &request,
    );
    assert_eq!(result, 0);
    figures
}

#[test]
fn figures_need_the_capability_and_an_object() {
    let mut hv = hypervisor();
    let mut ask = |caller: u16, operation, number: u32| {
        put(&hv, caller, AT, &[0_u8; size_of::<DomainFigures>()]);
        put(&hv, caller, AT, &number);
        call(&mut hv, vcpu(caller), __HYPERVISOR_atoll_op, &[operation, AT])
    };
    assert_eq!(ask(GUEST, ATOLLOP_DOMAIN_FIGURES, u32::from(GUEST)), 0);
    assert_eq!(ask(GUEST, ATOLLOP_DOMAIN_FIGURES, 0x7ff0), 0);
    assert_eq!(
        ask(GUEST, ATOLLOP_DOMAIN_FIGURES, u32::from(CONTROL)),
        error(Errno::PERM)
    );
    assert_eq!(ask(GUEST, ATOLLOP_PROCESSOR_FIGURES, 0), error(Errno::PERM));
    assert_eq!(ask(CONTROL, ATOLLOP_DOMAIN_FIGURES, 77), error(Errno::SRCH));
    assert_eq!(ask(CONTROL, ATOLLOP_PROCESSOR_FIGURES, 0), 0);
    assert_eq!(ask(CONTROL, ATOLLOP_PROCESSOR_FIGURES, 1), error(Errno::NOENT));
}

#[test]
fn a_domain_is_told_what_it_did() {
    let mut hv = hypervisor();
    NOW.set(5_000_000);
    let (guest, control) = (DomainId(GUEST), DomainId(CONTROL));
    let port = event::alloc_unbound(&mut hv, guest, control).unwrap();
    let other = event::bind_interdomain(&mut hv, control, guest, port).unwrap();
    let ipi = event::bind_ipi(&mut hv, guest, 0).unwrap();
    let before = of_domain(&mut hv, GUEST);
    event::send(&mut hv, guest, port).unwrap();
    event::send(&mut hv, guest, ipi).unwrap();
    event::send(&mut hv, control, other).unwrap();
    // What is pending already becomes so no second time.
    event::send(&mut hv, control, other).unwrap();
    hv.sleep(vcpu(GUEST));
    hv.wake(vcpu(GUEST));
    grant::offer(&mut hv, control, 8, guest, 2).unwrap();
    let host = xen_abi::grant_table::GNTMAP_host_map;
    let at = RAM_PAGES * 4096;
    let map = grant::map(&mut hv, guest, control, 8, at, host).unwrap();
    grant::map(&mut hv, guest, control, 8, at + 4096, host).unwrap();
    grant::unmap(&mut hv, guest, map.handle, at, 0).unwrap();
    let mut copy = xen_abi::grant_table::GnttabCopy {
        len: 100,
        flags: 0,
        ..Default::default()
    };
    (copy.source.domid, copy.dest.domid) = (DOMID_SELF, DOMID_SELF);
    grant::copy(&mut hv, guest, &copy).unwrap();
    let after = of_domain(&mut hv, GUEST);
    assert_eq!(
        (after.generation, after.class, after.online),
        (1, CLASS_INTERACTIVE, 1)
    );
    assert_eq!(after.events_sent - before.events_sent, 2);
    assert_eq!(
        after.events_received - before.events_received,
        1 + u64::from(event::is_pending(&hv, guest, port))
    );
    assert_eq!((after.ipis, after.wakes), (1, 1));
    assert_eq!(
        (after.grant_maps, after.grant_unmaps, after.grants_mapped),
        (2, 1, 1)
    );
    assert_eq!((after.grant_copies, after.bytes_copied), (1, 100));
    // Both vCPUs exist since 0.
    assert_eq!(
        after.running + after.runnable + after.blocked + after.offline,
        2 * after.now
    );
    testing::destroy(&mut hv, guest);
    testing::build(&mut hv, guest);
    let anew = of_domain(&mut hv, GUEST);
    assert_eq!((anew.generation, anew.events_sent, anew.grants_mapped), (2, 0, 0));
}

#[test]
fn a_processor_accounts_for_all_its_time() {
    let mut hv = hypervisor();
    let account = &mut hv.processors[0].account;
    account.arrive(1000);
    account.depart(Phase::Guest, 3000);
    account.watch().left(6000);
    NOW.set(10_000);
    let request = ProcessorFigures::default();
    let (result, figures) = with(
        &mut hv,
        vcpu(CONTROL),
        __HYPERVISOR_atoll_op,
        ATOLLOP_PROCESSOR_FIGURES,
        &request,
    );
    assert_eq!(result, 0);
    assert_eq!(
        (figures.guest, figures.hypervisor, figures.waiting, figures.idle),
        (3000, 3000, 4000, 0)
    );
    assert_eq!(
        (figures.now, figures.longest_stay, figures.flags),
        (10_000, 2000, 0)
    );
}

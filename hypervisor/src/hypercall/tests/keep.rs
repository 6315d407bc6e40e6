//! The keep region and faults on purpose, as domains ask for them.

use super::*;
use crate::domain::layout;

const GUEST: u16 = 3;

fn keep(hv: &mut Hypervisor, caller: u16, domain: u16, flags: u16) -> (i64, KeepRegion) {
    let request = KeepRegion {
        domain,
        flags,
        ..Default::default()
    };
    with(
        hv,
        vcpu(caller),
        __HYPERVISOR_atoll_op,
        ATOLLOP_KEEP_REGION,
        &request,
    )
}

#[test]
fn a_domain_asks_where_its_keep_region_is() {
    let mut hv = hypervisor();
    let (result, region) = keep(&mut hv, GUEST, DOMID_SELF, 0);
    assert_eq!(
        (result, region.domain, region.pages, region.address),
        (0, GUEST, 0, layout::KEEP.0)
    );
    assert_eq!(keep(&mut hv, GUEST, DOMID_SELF, 2).0, error(Errno::INVAL));
    assert_eq!(keep(&mut hv, GUEST, DOMID_SELF, KEEP_DISCARD).0, 0);
    // Others' are the control domain's business alone.
    assert_eq!(keep(&mut hv, GUEST, 1, 0).0, error(Errno::PERM));
    assert_eq!(keep(&mut hv, 2, GUEST, KEEP_DISCARD).0, error(Errno::PERM));
    assert_eq!(keep(&mut hv, 1, GUEST, KEEP_DISCARD).0, 0);
    assert_eq!(keep(&mut hv, 1, 9, 0).0, error(Errno::SRCH));
}

#[test]
fn the_control_domain_injects_faults_where_the_manifest_allows_it() {
    let inject = |hv: &mut Hypervisor, caller: u16, domain: u16, fault: u16| {
        let request = FaultInjection {
            domain,
            fault,
            ..Default::default()
        };
        let id = vcpu(caller);
        put(hv, caller, AT, &request);
        let outcome = once(hv, id, __HYPERVISOR_atoll_op, &[ATOLLOP_INJECT_FAULT, AT]);
        (outcome, hv.vcpu(id).unwrap().registers.rax as i64)
    };
    let mut hv = hypervisor();
    let refused = (Outcome::Complete, error(Errno::NOTSUP));
    assert_eq!(inject(&mut hv, 1, GUEST, FAULT_KILL), refused);
    hv.manifest.fault_injection = true;
    let not_yours = (Outcome::Complete, error(Errno::PERM));
    assert_eq!(inject(&mut hv, GUEST, GUEST, FAULT_KILL), not_yours);
    let nobody = (Outcome::Complete, error(Errno::SRCH));
    assert_eq!(inject(&mut hv, 1, 9, FAULT_KILL), nobody);
    assert_eq!(inject(&mut hv, 1, GUEST, FAULT_KILL), (Outcome::Complete, 0));
    assert!(matches!(
        hv.domain(DomainId(GUEST)).unwrap().state,
        State::Stopped {
            reason: SHUTDOWN_crash
        }
    ));
    assert_eq!(inject(&mut hv, 1, 2, FAULT_HANG), (Outcome::Complete, 0));
    assert_eq!(hv.vcpu(vcpu(2)).unwrap().status, VcpuStatus::Offline);
    // It may also hit itself.
    assert_eq!(inject(&mut hv, 1, 1, FAULT_HANG).0, Outcome::Stopped);
}

//! What needs a capability of the manifest, and what is about others: all of it must be refused, whomever it names. A chaosdom has no capability and no device.

use xen_abi::{
    atoll::*,
    event_channel::{EVTCHNOP_alloc_unbound, EVTCHNOP_reset, EVTCHNOP_status},
    grant_table::{GNTTABOP_get_version, GnttabGetVersion},
    hvm::hvm_op::{HVMOP_get_param, HVMOP_set_param, HvmParam},
    memory::*,
    physdev::*,
    sched::{SCHEDOP_remote_shutdown, SchedRemoteShutdown},
    xen::*,
};

use super::Chaos;
use crate::machine::call;

const AT: usize = 0;

pub(super) fn run(chaos: &mut Chaos<'_>) {
    while chaos.tally.goes_on() {
        let other = loop {
            let domain = chaos.machine.wild.domain(&mut chaos.random);
            if domain != DOMID_SELF && domain != chaos.system.domain.0 {
                break domain;
            }
        };
        let (number, operation) = ask(chaos, other);
        let at = chaos.machine.put(AT, &());
        let answer = call(number, [operation, at, 1, 0, 0]);
        if answer >= 0 {
            let what =
                format_args!("hypercall {number}, operation {operation}, about domain {other}: {answer}");
            chaos.tally.violation(what);
        }
        chaos.tally.answer(answer);
    }
}

/// Writes a request about another domain; the hypercall and the operation that it is for.
fn ask(chaos: &mut Chaos<'_>, other: u16) -> (u64, u64) {
    let (machine, random) = (&chaos.machine, &mut chaos.random);
    machine.scribble(random, AT, 16);
    let atoll = |operation| (__HYPERVISOR_atoll_op, operation);
    match random.below(18) {
        0 => {
            machine.put(
                AT,
                &DomainInfo {
                    domain: other,
                    ..Default::default()
                },
            );
            atoll(ATOLLOP_DOMAIN_INFO)
        }
        1..=3 => {
            machine.put(
                AT,
                &DomainReference {
                    domain: other,
                    ..Default::default()
                },
            );
            atoll(random.one_of(&[
                ATOLLOP_DOMAIN_START,
                ATOLLOP_DOMAIN_DESTROY,
                ATOLLOP_DOMAIN_RESUME,
                ATOLLOP_KEEP_REGION,
                ATOLLOP_INJECT_FAULT,
                ATOLLOP_CRASH_READ,
            ]))
        }
        4 => {
            let request = DomainMemory {
                domain: other,
                pages: machine.wild.word(random),
                ..Default::default()
            };
            machine.put(AT, &request);
            atoll(ATOLLOP_DOMAIN_MEMORY)
        }
        5 => {
            let action = random.below(3) as u32;
            machine.put(
                AT,
                &MachineControl {
                    action,
                    ..Default::default()
                },
            );
            atoll(ATOLLOP_MACHINE_CONTROL)
        }
        6 => atoll(ATOLLOP_LOG_READ),
        7 => atoll(random.one_of(&[ATOLLOP_MACHINE_INFO, ATOLLOP_PROCESSOR_FIGURES])),
        8 => {
            machine.put(
                AT,
                &DomainFigures {
                    domain: other,
                    ..Default::default()
                },
            );
            atoll(ATOLLOP_DOMAIN_FIGURES)
        }
        9 => atoll(random.one_of(&[ATOLLOP_DMA_WINDOW, ATOLLOP_PCI_FUNCTION])),
        10 => {
            let request = SchedRemoteShutdown {
                domain_id: other,
                ..Default::default()
            };
            machine.put(AT, &request);
            (__HYPERVISOR_sched_op, SCHEDOP_remote_shutdown)
        }
        11 => {
            let request = MemoryReservation {
                domid: other,
                nr_extents: 1,
                extent_start: machine.arena_pointer(4096),
                ..Default::default()
            };
            machine.put(AT, &request);
            (
                __HYPERVISOR_memory_op,
                random.one_of(&[XENMEM_populate_physmap, XENMEM_decrease_reservation]),
            )
        }
        12 => {
            let space = random.below(6) as u32;
            let request = AddToPhysmap {
                // Pages of others by their own name, or another's table by its.
                domid: if space == XENMAPSPACE_gmfn_foreign {
                    DOMID_SELF
                } else {
                    other
                },
                space,
                idx: machine.wild.frame(random),
                gpfn: machine.wild.frame(random),
                ..Default::default()
            };
            machine.put(AT, &request);
            (__HYPERVISOR_memory_op, XENMEM_add_to_physmap)
        }
        13 => {
            let request = HvmParam {
                domid: other,
                index: random.below(50) as u32,
                ..Default::default()
            };
            machine.put(AT, &request);
            (
                __HYPERVISOR_hvm_op,
                random.one_of(&[HVMOP_get_param, HVMOP_set_param]),
            )
        }
        14 => {
            machine.put(AT, &other);
            let operation = random.one_of(&[EVTCHNOP_alloc_unbound, EVTCHNOP_status, EVTCHNOP_reset]);
            (__HYPERVISOR_event_channel_op, operation)
        }
        15 => {
            machine.put(
                AT,
                &GnttabGetVersion {
                    dom: other,
                    ..Default::default()
                },
            );
            (__HYPERVISOR_grant_table_op, GNTTABOP_get_version)
        }
        _ => {
            // Lines and functions of other domains' devices.
            let request = PhysdevMapPirq {
                domid: DOMID_SELF,
                r#type: random.one_of(&[MAP_PIRQ_TYPE_GSI, MAP_PIRQ_TYPE_MSI, MAP_PIRQ_TYPE_MSI_SEG]),
                index: random.below(32) as i32,
                pirq: -1,
                bus: random.below(4) as i32,
                devfn: random.below(256) as i32,
                entry_nr: random.below(4) as i32,
                ..Default::default()
            };
            machine.put(AT, &request);
            (__HYPERVISOR_physdev_op, PHYSDEVOP_map_pirq)
        }
    }
}

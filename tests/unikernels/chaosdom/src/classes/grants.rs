//! Grants: of frames that the domain has and has not, to everybody, mapped, copied, revoked and mapped again, in any order. A peer that does the same lets itself be used.
//!
//! What must not be: that a grant of anybody but the domain itself and its peers can be mapped or copied, and that a copy reaches beyond its page.

use alloc::vec::Vec;

use unikernel_rt::memory::{PAGE_SIZE, SharedMemory};
use xen_abi::{
    grant_table::*,
    memory::{AddToPhysmap, XENMAPSPACE_grant_table, XENMEM_add_to_physmap},
    xen::{__HYPERVISOR_grant_table_op, __HYPERVISOR_memory_op, DOMID_SELF},
};

use super::Chaos;
use crate::machine::call;

/// Entries that are written to and named: those of one page, and some behind.
const ENTRIES: u64 = 512;
/// Where mappings go: guest-physical pages with nothing behind.
const PLACES: u64 = 0x1_2000_0000;
/// So many of them.
const PLACE_COUNT: u64 = 256;
/// Handles that are remembered.
const REMEMBERED: usize = 64;
/// Arrays of operations lie here in the arena, frame lists behind.
const OPERATIONS: usize = 0;
const LIST: usize = 32 * 4096;
/// The longest array.
const LONGEST: u64 = 130;

/// A map as the domain remembers it.
#[derive(Clone, Copy)]
struct Known {
    handle: u32,
    place: u64,
}

struct Grants {
    /// The first page of the table, wherever the hypervisor puts it.
    table: Option<SharedMemory>,
    known: Vec<Known>,
}

pub(super) fn run(chaos: &mut Chaos<'_>) {
    let mut grants = Grants {
        table: table(chaos),
        known: Vec::with_capacity(REMEMBERED),
    };
    while chaos.tally.goes_on() {
        match chaos.random.below(32) {
            0..=7 => change_entries(chaos, &grants),
            8..=15 => map(chaos, &mut grants),
            16..=21 => unmap(chaos, &mut grants),
            22..=28 => copy(chaos),
            29 => others(chaos),
            30 => wild_array(chaos),
            _ => manage(chaos, &mut grants),
        }
    }
}

/// A page of the domain's own table, put over a page that it allocated for that. Entries are reached through it for ever.
fn table(chaos: &Chaos<'_>) -> Option<SharedMemory> {
    let page = SharedMemory::allocate(1).ok()?;
    let at = page.address(0).ok()?.as_ptr() as u64;
    let request = AddToPhysmap {
        domid: DOMID_SELF,
        space: XENMAPSPACE_grant_table,
        idx: 0,
        gpfn: at / PAGE_SIZE as u64,
        ..Default::default()
    };
    let request = chaos.machine.put(OPERATIONS, &request);
    let answer = call(__HYPERVISOR_memory_op, [XENMEM_add_to_physmap, request, 0, 0, 0]);
    log::info!("the table's place: {answer}");
    (answer == 0).then_some(page)
}

/// Somebody who may have granted something, or not.
fn granter(chaos: &mut Chaos<'_>) -> u16 {
    let Chaos {
        plan,
        random,
        machine,
        system,
        ..
    } = chaos;
    match random.below(8) {
        0..=2 => system.domain.0,
        3 => DOMID_SELF,
        4..=5 if plan.peer != 0 => plan.peer,
        _ => machine.wild.domain(random),
    }
}

/// A reference: of one of the entries, seldom one far away.
fn reference(chaos: &mut Chaos<'_>) -> u32 {
    if chaos.random.once_in(16) {
        chaos.machine.wild.word(&mut chaos.random) as u32
    } else {
        chaos.random.below(ENTRIES) as u32
    }
}

/// Nobody but the domain itself and its peer has granted it anything.
fn is_strange(chaos: &Chaos<'_>, domain: u16) -> bool {
    domain != DOMID_SELF && domain != chaos.system.domain.0 && domain != chaos.plan.peer
}

/// Grants and revokes, without asking who uses what. Either version's entries are written, whichever the table has.
fn change_entries(chaos: &mut Chaos<'_>, grants: &Grants) {
    let Some(table) = &grants.table else {
        return chaos.tally.count();
    };
    for _ in 0..8 {
        let (wild, random) = (&chaos.machine.wild, &mut chaos.random);
        let flags = match random.below(8) {
            0..=3 => GTF_permit_access,
            4 => GTF_permit_access | GTF_readonly,
            5 => 0,
            _ => random.word() as u16,
        };
        let domain = match random.below(4) {
            0..=1 => chaos.system.domain.0,
            2 if chaos.plan.peer != 0 => chaos.plan.peer,
            _ => wild.domain(random),
        };
        let frame = if random.once_in(4) {
            wild.frame(random)
        } else {
            wild.victim(random)
        };
        let entry = random.below(ENTRIES) as usize;
        let written = if random.once_in(2) {
            table.write(
                entry * 8,
                &[u32::from(domain) << 16 | u32::from(flags), frame as u32],
            )
        } else {
            let rest = wild.word(random) as u32;
            let words = [
                u32::from(domain) << 16 | u32::from(flags),
                rest,
                frame as u32,
                (frame >> 32) as u32,
            ];
            table.write(entry % 256 * 16, &words)
        };
        let _ = written;
        chaos.tally.count();
    }
}

fn count(chaos: &mut Chaos<'_>) -> u64 {
    match chaos.random.below(8) {
        0 => chaos.random.below(LONGEST),
        _ => 1 + chaos.random.below(8),
    }
}

fn map(chaos: &mut Chaos<'_>, grants: &mut Grants) {
    let count = count(chaos);
    let size = size_of::<GnttabMapGrantRef>();
    for index in 0..count as usize {
        let (dom, r#ref) = (granter(chaos), reference(chaos));
        let (wild, random) = (&chaos.machine.wild, &mut chaos.random);
        let host_addr = match random.below(8) {
            0 => wild.word(random),
            1 => wild.frame(random) << 12,
            _ => PLACES + random.below(PLACE_COUNT) * PAGE_SIZE as u64,
        };
        let flags = match random.below(8) {
            0 => random.word() as u32,
            1 => GNTMAP_device_map | GNTMAP_host_map,
            2 => GNTMAP_host_map | GNTMAP_readonly,
            _ => GNTMAP_host_map,
        };
        let operation = GnttabMapGrantRef {
            host_addr,
            flags,
            r#ref,
            dom,
            ..Default::default()
        };
        chaos.machine.put(OPERATIONS + index * size, &operation);
    }
    let at = chaos.machine.put(OPERATIONS, &());
    let answer = call(
        __HYPERVISOR_grant_table_op,
        [GNTTABOP_map_grant_ref, at, count, 0, 0],
    );
    for index in 0..count as usize {
        let operation: GnttabMapGrantRef = chaos.machine.get(OPERATIONS + index * size);
        let status = if answer < 0 {
            answer
        } else {
            i64::from(operation.status)
        };
        if answer == 0 && operation.status == GNTST_okay {
            if is_strange(chaos, operation.dom) {
                chaos.tally.violation(format_args!("mapped {operation:?}"));
            }
            let known = Known {
                handle: operation.handle,
                place: operation.host_addr,
            };
            if grants.known.len() < REMEMBERED {
                grants.known.push(known);
            } else {
                let place = chaos.random.below(REMEMBERED as u64) as usize;
                grants.known[place] = known;
            }
        }
        chaos.tally.answer(status);
    }
}

/// Unmaps what is mapped, what was unmapped already, and what never was.
fn unmap(chaos: &mut Chaos<'_>, grants: &mut Grants) {
    let count = count(chaos);
    let size = size_of::<GnttabUnmapGrantRef>();
    for index in 0..count as usize {
        let random = &mut chaos.random;
        let known = match grants.known.len() as u64 {
            0 => Known {
                handle: 0,
                place: PLACES,
            },
            length if random.once_in(4) => grants.known[random.below(length) as usize],
            length => grants.known.swap_remove(random.below(length) as usize),
        };
        let wild = &chaos.machine.wild;
        let operation = GnttabUnmapGrantRef {
            host_addr: match random.below(8) {
                0 => wild.word(random),
                1 => 0,
                _ => known.place,
            },
            dev_bus_addr: if random.once_in(8) { wild.word(random) } else { 0 },
            handle: match random.below(8) {
                0 => wild.word(random) as u32,
                1 => random.below(600) as u32,
                _ => known.handle,
            },
            ..Default::default()
        };
        chaos.machine.put(OPERATIONS + index * size, &operation);
    }
    let at = chaos.machine.put(OPERATIONS, &());
    let answer = call(
        __HYPERVISOR_grant_table_op,
        [GNTTABOP_unmap_grant_ref, at, count, 0, 0],
    );
    for index in 0..count as usize {
        let operation: GnttabUnmapGrantRef = chaos.machine.get(OPERATIONS + index * size);
        chaos.tally.answer(if answer < 0 {
            answer
        } else {
            operation.status.into()
        });
    }
}

/// Copies between grants and frames, in and out of bounds.
fn copy(chaos: &mut Chaos<'_>) {
    let count = count(chaos);
    let size = size_of::<GnttabCopy>();
    for index in 0..count as usize {
        let end = |chaos: &mut Chaos<'_>| {
            let granted = !chaos.random.once_in(3);
            let (domain, reference) = (granter(chaos), reference(chaos));
            let (wild, random) = (&chaos.machine.wild, &mut chaos.random);
            let offset = match random.below(4) {
                0 => random.word() as u16,
                1 => 4095,
                _ => random.below(4096) as u16,
            };
            let place = if granted {
                GnttabCopyPtr::of_grant(domain, reference, offset)
            } else {
                let domain = if random.once_in(8) {
                    wild.domain(random)
                } else {
                    DOMID_SELF
                };
                GnttabCopyPtr::of_frame(domain, wild.frame(random), offset)
            };
            (place, granted)
        };
        let (source, source_granted) = end(chaos);
        let (dest, dest_granted) = end(chaos);
        let random = &mut chaos.random;
        let flags = if random.once_in(16) {
            random.word() as u16
        } else {
            (u16::from(source_granted) * GNTCOPY_source_gref) | (u16::from(dest_granted) * GNTCOPY_dest_gref)
        };
        let operation = GnttabCopy {
            source,
            dest,
            len: match random.below(4) {
                0 => random.word() as u16,
                1 => 4096,
                _ => random.below(512) as u16,
            },
            flags,
            ..Default::default()
        };
        chaos.machine.put(OPERATIONS + index * size, &operation);
    }
    let at = chaos.machine.put(OPERATIONS, &());
    let answer = call(__HYPERVISOR_grant_table_op, [GNTTABOP_copy, at, count, 0, 0]);
    for index in 0..count as usize {
        let operation: GnttabCopy = chaos.machine.get(OPERATIONS + index * size);
        if answer == 0 && operation.status == GNTST_okay {
            for end in [&operation.source, &operation.dest] {
                if is_strange(chaos, end.domid) && operation.len > 0 {
                    chaos.tally.violation(format_args!("copied {operation:?}"));
                }
                if u32::from(end.offset) + u32::from(operation.len) > PAGE_SIZE as u32 {
                    chaos
                        .tally
                        .violation(format_args!("copied beyond a page {operation:?}"));
                }
            }
        }
        chaos.tally.answer(if answer < 0 {
            answer
        } else {
            operation.status.into()
        });
    }
}

/// The operations that nobody needs, with anything.
fn others(chaos: &mut Chaos<'_>) {
    let (machine, random) = (&chaos.machine, &mut chaos.random);
    machine.scribble(random, OPERATIONS, 32);
    let operation = random.one_of(&[
        GNTTABOP_unmap_and_replace,
        GNTTABOP_transfer,
        GNTTABOP_dump_table,
        GNTTABOP_cache_flush,
        GNTTABOP_swap_grant_ref,
        GNTTABOP_get_version,
        13,
        63,
    ]);
    if operation == GNTTABOP_swap_grant_ref {
        let request = GnttabSwapGrantRef {
            ref_a: random.below(ENTRIES + 100) as u32,
            ref_b: random.below(ENTRIES) as u32,
            ..Default::default()
        };
        machine.put(OPERATIONS, &request);
    }
    let at = machine.put(OPERATIONS, &());
    let count = random.below(4);
    let answer = call(__HYPERVISOR_grant_table_op, [operation, at, count, 0, 0]);
    chaos.tally.answer(answer);
}

/// An array that is not there, or not all of it, or far too long.
fn wild_array(chaos: &mut Chaos<'_>) {
    let (machine, random) = (&chaos.machine, &mut chaos.random);
    let at = machine.wild.pointer(random);
    let count = machine.wild.count(random);
    let answer = call(__HYPERVISOR_grant_table_op, [random.below(13), at, count, 0, 0]);
    chaos.tally.answer(answer);
}

/// Changes the table as a whole: its length, its version, its place.
fn manage(chaos: &mut Chaos<'_>, grants: &mut Grants) {
    let (machine, random) = (&chaos.machine, &mut chaos.random);
    let frames = if random.once_in(4) {
        machine.wild.word(random) as u32
    } else {
        random.below(40) as u32
    };
    let list = machine.put(LIST, &());
    let (operation, at) = match random.below(8) {
        0..=2 => {
            let request = GnttabSetupTable {
                dom: if random.once_in(4) {
                    machine.wild.domain(random)
                } else {
                    DOMID_SELF
                },
                nr_frames: frames,
                frame_list: if random.once_in(4) {
                    machine.wild.pointer(random)
                } else {
                    list
                },
                ..Default::default()
            };
            (GNTTABOP_setup_table, machine.put(OPERATIONS, &request))
        }
        3 => {
            let request = GnttabGetStatusFrames {
                dom: DOMID_SELF,
                nr_frames: frames,
                frame_list: list,
                ..Default::default()
            };
            (GNTTABOP_get_status_frames, machine.put(OPERATIONS, &request))
        }
        4 => {
            let request = GnttabQuerySize {
                dom: machine.wild.domain(random),
                ..Default::default()
            };
            (GNTTABOP_query_size, machine.put(OPERATIONS, &request))
        }
        5 => {
            let version = random.one_of(&[0, 1, 1, 2, 2, 3, u32::MAX]);
            (
                GNTTABOP_set_version,
                machine.put(OPERATIONS, &GnttabSetVersion { version }),
            )
        }
        _ => {
            // Elsewhere with one of its pages; back with the first.
            let index = random.one_of(&[1, 2, 31, 32, 33, 63, 64, 0x8000_0000, 0x8000_0001, u64::MAX]);
            let (index, frame) = match (&grants.table, random.once_in(2)) {
                (Some(table), true) => {
                    let at = table.address(0).map_or(0, |at| at.as_ptr() as u64);
                    (0, at / PAGE_SIZE as u64)
                }
                _ => (index, machine.wild.frame(random)),
            };
            let request = AddToPhysmap {
                domid: DOMID_SELF,
                space: XENMAPSPACE_grant_table,
                idx: index,
                gpfn: frame,
                ..Default::default()
            };
            let at = machine.put(OPERATIONS, &request);
            let answer = call(__HYPERVISOR_memory_op, [XENMEM_add_to_physmap, at, 0, 0, 0]);
            return chaos.tally.answer(answer);
        }
    };
    let answer = call(__HYPERVISOR_grant_table_op, [operation, at, 1, 0, 0]);
    chaos.tally.answer(answer);
}

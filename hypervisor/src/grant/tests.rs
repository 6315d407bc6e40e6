//! Grants between the domains of a fake hypervisor.

use super::*;
use crate::testing::{self, build, destroy, hypervisor, peek, poke};
use proptest::prelude::*;
use xen_abi::grant_table::*;
use zerocopy::IntoBytes;

const CONSOLE: DomainId = DomainId(2);
const GUEST: DomainId = DomainId(3);
const BOTH: u32 = GNTMAP_host_map | GNTMAP_device_map;
const AT: u64 = 1 << 32;

/// The guest grants its frame `frame` by `reference`; its table is written as the guest would.
fn grant(hv: &mut Hypervisor, reference: u32, flags: u16, to: DomainId, frame: u32) {
    let memory = hv.memory;
    let body = hv.domains.get_mut(&GUEST).unwrap().body.as_mut().unwrap();
    body.grants
        .grow(&memory, &mut hv.frames, reference / 512 + 1)
        .unwrap();
    let page = body.grants.frames(Part::Entries)[reference as usize / 512].frame;
    let at = crate::memory::MachineAddress(page.address().0 + u64::from(reference % 512) * 8);
    memory.write(
        at,
        GrantEntryV1 {
            flags,
            domid: to.0,
            frame,
        }
        .as_bytes(),
    );
}

fn flags(hv: &Hypervisor, reference: u32) -> u16 {
    let page = hv.body(GUEST).unwrap().grants.frames(Part::Entries)[reference as usize / 512].frame;
    let at = crate::memory::MachineAddress(page.address().0 + u64::from(reference % 512) * 8);
    hv.memory
        .atomic_u16(at)
        .load(core::sync::atomic::Ordering::SeqCst)
}

fn with_devices(mut hv: Hypervisor) -> Hypervisor {
    hv.domain_mut(CONSOLE)
        .unwrap()
        .spec
        .devices
        .push(manifest::Device::SerialPort(1));
    hv
}

#[test]
fn a_map_shows_the_granters_page_and_pins_it() {
    let mut hv = with_devices(hypervisor());
    grant(&mut hv, 9, GTF_permit_access, CONSOLE, 5);
    poke(&hv, 3, 0x5010, b"hello");
    let mapped = map(&mut hv, CONSOLE, GUEST, 9, AT, BOTH).unwrap();
    assert_eq!(peek::<5>(&hv, 2, AT + 0x10), *b"hello");
    assert_eq!(mapped.device_address, testing::machine(&hv, 3, 0x5000).0);
    assert_eq!(flags(&hv, 9), GTF_permit_access | GTF_reading | GTF_writing);
    let frame = Frame::containing(testing::machine(&hv, 3, 0x5000));
    assert!(hv.body(GUEST).unwrap().grants.is_pinned(frame));
    // The same page again, read-only, elsewhere; the first place is taken.
    assert_eq!(
        map(&mut hv, CONSOLE, GUEST, 9, AT, BOTH),
        Err(GNTST_bad_virt_addr)
    );
    let second = map(
        &mut hv,
        CONSOLE,
        GUEST,
        9,
        AT + 4096,
        GNTMAP_host_map | GNTMAP_readonly,
    )
    .unwrap();
    // One part at a time.
    assert_eq!(
        unmap(&mut hv, CONSOLE, mapped.handle, AT + 4096, 0),
        Err(GNTST_bad_virt_addr)
    );
    assert_eq!(
        unmap(&mut hv, CONSOLE, mapped.handle, 0, 0x1000),
        Err(GNTST_bad_dev_addr)
    );
    unmap(&mut hv, CONSOLE, mapped.handle, AT, 0).unwrap();
    assert_eq!(flags(&hv, 9), GTF_permit_access | GTF_reading | GTF_writing);
    unmap(&mut hv, CONSOLE, mapped.handle, 0, mapped.device_address).unwrap();
    assert_eq!(flags(&hv, 9), GTF_permit_access | GTF_reading);
    assert_eq!(
        unmap(&mut hv, CONSOLE, mapped.handle, AT, 0),
        Err(GNTST_bad_handle)
    );
    unmap(&mut hv, CONSOLE, second.handle, AT + 4096, 0).unwrap();
    assert_eq!(flags(&hv, 9), GTF_permit_access);
    assert!(!hv.body(GUEST).unwrap().grants.is_pinned(frame));
    assert!(
        hv.body(CONSOLE)
            .unwrap()
            .p2m
            .translate(&hv.memory, GuestAddress(AT))
            .is_none()
    );
}

#[test]
fn maps_are_refused_while_the_heap_is_short() {
    let mut hv = hypervisor();
    grant(&mut hv, 9, GTF_permit_access, CONSOLE, 5);
    heap::USED.set(heap::SIZE - heap::RESERVE + 1);
    assert_eq!(
        map(&mut hv, CONSOLE, GUEST, 9, AT, GNTMAP_host_map),
        Err(GNTST_no_space)
    );
    assert_eq!(flags(&hv, 9), GTF_permit_access);
    heap::USED.set(0);
    assert!(map(&mut hv, CONSOLE, GUEST, 9, AT, GNTMAP_host_map).is_ok());
}

#[test]
fn what_was_not_granted_is_refused() {
    let mut hv = hypervisor();
    grant(&mut hv, 9, GTF_permit_access | GTF_readonly, CONSOLE, 5);
    grant(&mut hv, 10, GTF_permit_access, DomainId(1), 5);
    grant(&mut hv, 11, GTF_accept_transfer, CONSOLE, 5);
    grant(&mut hv, 12, GTF_permit_access, CONSOLE, testing::RAM_PAGES as u32);
    let mut attempt =
        |granter, reference, at, flags| map(&mut hv, CONSOLE, granter, reference, at, flags).unwrap_err();
    assert_eq!(attempt(GUEST, 9, AT, GNTMAP_host_map), GNTST_general_error);
    assert_eq!(attempt(GUEST, 10, AT, GNTMAP_host_map), GNTST_general_error);
    assert_eq!(attempt(GUEST, 11, AT, GNTMAP_host_map), GNTST_general_error);
    assert_eq!(attempt(GUEST, 12, AT, GNTMAP_host_map), GNTST_bad_page);
    assert_eq!(attempt(GUEST, 512, AT, GNTMAP_host_map), GNTST_bad_gntref);
    assert_eq!(attempt(DomainId(7), 9, AT, GNTMAP_host_map), GNTST_bad_domain);
    assert_eq!(attempt(GUEST, 9, AT, 0), GNTST_bad_gntref);
    // Without devices there is nothing to map for; over its own memory a domain maps nothing.
    assert_eq!(attempt(GUEST, 9, AT, BOTH), GNTST_general_error);
    assert_eq!(attempt(GUEST, 9, 0x3000, GNTMAP_host_map), GNTST_bad_virt_addr);
    assert_eq!(attempt(GUEST, 9, AT + 1, GNTMAP_host_map), GNTST_bad_virt_addr);
    assert_eq!(attempt(GUEST, 9, 1 << 40, GNTMAP_host_map), GNTST_bad_virt_addr);
    for reference in [9, 10, 11, 12] {
        assert_eq!(
            flags(&hv, reference) & (GTF_reading | GTF_writing) & !GTF_transfer_completed,
            0
        );
    }
    assert!(map(&mut hv, CONSOLE, GUEST, 9, AT, GNTMAP_host_map | GNTMAP_readonly).is_ok());
    assert_eq!(flags(&hv, 9) & (GTF_reading | GTF_writing), GTF_reading);
}

#[test]
fn a_destroyed_mapper_leaves_no_trace() {
    let mut hv = hypervisor();
    let free = hv.frames.free_pages();
    grant(&mut hv, 9, GTF_permit_access, CONSOLE, 5);
    map(&mut hv, CONSOLE, GUEST, 9, AT, GNTMAP_host_map).unwrap();
    destroy(&mut hv, CONSOLE);
    assert_eq!(flags(&hv, 9), GTF_permit_access);
    build(&mut hv, CONSOLE);
    assert_eq!(hv.frames.free_pages(), free - 1);
    assert!(map(&mut hv, CONSOLE, GUEST, 9, AT, GNTMAP_host_map).is_ok());
    // One page of the table, two second-stage tables for a place beyond all RAM.
    assert_eq!(hv.frames.free_pages(), free - 3);
}

#[test]
fn pages_of_a_destroyed_granter_live_until_they_are_unmapped() {
    let mut hv = hypervisor();
    let free = hv.frames.free_pages();
    grant(&mut hv, 9, GTF_permit_access, CONSOLE, 5);
    poke(&hv, 3, 0x5000, b"old");
    let mapped = map(&mut hv, CONSOLE, GUEST, 9, AT, GNTMAP_host_map).unwrap();
    let page = Frame::containing(testing::machine(&hv, 3, 0x5000));
    destroy(&mut hv, GUEST);
    build(&mut hv, GUEST);
    assert_eq!(hv.held.count(), 1);
    let rebuilt = Frame::containing(testing::machine(&hv, 3, 0));
    assert!(!(rebuilt.0..rebuilt.0 + testing::RAM_PAGES).contains(&page.0));
    assert_eq!(peek::<3>(&hv, 2, AT), *b"old");
    // The same reference of the new instance is another grant.
    grant(&mut hv, 9, GTF_permit_access, CONSOLE, 5);
    let second = map(&mut hv, CONSOLE, GUEST, 9, AT + 4096, GNTMAP_host_map).unwrap();
    assert_eq!(peek::<3>(&hv, 2, AT + 4096), [0; 3]);
    let flushes = testing::FLUSHES.get();
    unmap(&mut hv, CONSOLE, mapped.handle, AT, 0).unwrap();
    assert!(testing::FLUSHES.get() > flushes, "the page is free now");
    assert_eq!(
        (hv.held.count(), flags(&hv, 9)),
        (0, GTF_permit_access | GTF_reading | GTF_writing)
    );
    unmap(&mut hv, CONSOLE, second.handle, AT + 4096, 0).unwrap();
    destroy(&mut hv, GUEST);
    build(&mut hv, GUEST);
    assert_eq!(hv.frames.free_pages(), free - 2);
}

#[test]
fn both_ends_may_go_in_either_order() {
    for order in [[GUEST, CONSOLE], [CONSOLE, GUEST]] {
        let mut hv = hypervisor();
        let free = hv.frames.free_pages();
        grant(&mut hv, 9, GTF_permit_access, CONSOLE, 5);
        map(&mut hv, CONSOLE, GUEST, 9, AT, GNTMAP_host_map).unwrap();
        for id in order {
            destroy(&mut hv, id);
        }
        for id in order {
            build(&mut hv, id);
        }
        assert_eq!((hv.frames.free_pages(), hv.held.count()), (free, 0));
    }
}

#[test]
fn version_two_marks_use_in_its_status_table_and_grants_parts() {
    let mut hv = hypervisor();
    let memory = hv.memory;
    offer(&mut hv, GUEST, 1, CONSOLE, 7).unwrap();
    let body = hv.domains.get_mut(&GUEST).unwrap().body.as_mut().unwrap();
    assert_eq!(
        body.grants.set_version(&memory, &mut hv.frames, Version::Two),
        Ok(Vec::new())
    );
    let entries = body.grants.frames(Part::Entries)[0].frame.address().0;
    let status = body.grants.frames(Part::Status)[0].frame.address().0;
    let hdr = GrantEntryHeader {
        flags: GTF_permit_access | GTF_sub_page,
        domid: 2,
    };
    let part = GrantEntryV2SubPage {
        hdr,
        page_off: 100,
        length: 50,
        frame: 6,
    };
    memory.write(crate::memory::MachineAddress(entries + 20 * 16), part.as_bytes());
    let word = |index: u64| memory.atomic_u16(crate::memory::MachineAddress(status + index * 2));
    let read = |index| word(index).load(core::sync::atomic::Ordering::SeqCst);

    // The reserved entry was kept.
    let mapped = map(&mut hv, CONSOLE, GUEST, 1, AT, GNTMAP_host_map).unwrap();
    assert_eq!(read(1), GTF_reading | GTF_writing);
    let body = hv.domains.get_mut(&GUEST).unwrap().body.as_mut().unwrap();
    assert_eq!(
        body.grants.set_version(&memory, &mut hv.frames, Version::One),
        Err(Errno::BUSY)
    );
    unmap(&mut hv, CONSOLE, mapped.handle, AT, 0).unwrap();
    assert_eq!(read(1), 0);

    assert_eq!(
        map(&mut hv, CONSOLE, GUEST, 20, AT, GNTMAP_host_map),
        Err(GNTST_general_error)
    );
    poke(&hv, 3, 6 * 4096 + 100, b"part");
    let mut request = GnttabCopy {
        source: GnttabCopyPtr::of_grant(3, 20, 100),
        dest: GnttabCopyPtr::of_frame(xen_abi::xen::DOMID_SELF, 4, 8),
        len: 4,
        flags: GNTCOPY_source_gref,
        ..Default::default()
    };
    assert_eq!(copy(&mut hv, CONSOLE, &request), Ok(()));
    assert_eq!((peek::<4>(&hv, 2, 4 * 4096 + 8), read(20)), (*b"part", 0));
    request.source.offset = 99;
    assert_eq!(copy(&mut hv, CONSOLE, &request), Err(GNTST_general_error));
    (request.source.offset, request.len) = (148, 3);
    assert_eq!(copy(&mut hv, CONSOLE, &request), Err(GNTST_general_error));
    assert_eq!(read(20), 0);
    let body = hv.domains.get_mut(&GUEST).unwrap().body.as_mut().unwrap();
    let spare = body
        .grants
        .set_version(&memory, &mut hv.frames, Version::One)
        .unwrap();
    assert_eq!(spare.len(), 1);
    assert!(map(&mut hv, CONSOLE, GUEST, 1, AT, GNTMAP_host_map).is_ok());
}

#[test]
fn copies_keep_to_pages_and_rights() {
    let mut hv = hypervisor();
    grant(&mut hv, 9, GTF_permit_access | GTF_readonly, CONSOLE, 5);
    grant(&mut hv, 10, GTF_permit_access, CONSOLE, 6);
    poke(&hv, 3, 0x5000, b"from the guest");
    let request = GnttabCopy {
        source: GnttabCopyPtr::of_grant(3, 9, 0),
        dest: GnttabCopyPtr::of_grant(3, 10, 4082),
        len: 14,
        flags: GNTCOPY_source_gref | GNTCOPY_dest_gref,
        ..Default::default()
    };
    copy(&mut hv, CONSOLE, &request).unwrap();
    assert_eq!(peek::<14>(&hv, 3, 0x6000 + 4082), *b"from the guest");
    assert_eq!(flags(&hv, 10), GTF_permit_access);
    let back = GnttabCopy {
        source: request.dest,
        dest: request.source,
        ..request
    };
    assert_eq!(copy(&mut hv, CONSOLE, &back), Err(GNTST_general_error));
    assert_eq!(flags(&hv, 10), GTF_permit_access);
    assert_eq!(
        copy(&mut hv, CONSOLE, &GnttabCopy { len: 15, ..request }),
        Err(GNTST_bad_copy_arg)
    );
    let theirs = GnttabCopy {
        flags: GNTCOPY_dest_gref,
        ..request
    };
    assert_eq!(copy(&mut hv, CONSOLE, &theirs), Err(GNTST_permission_denied));
    // The last one ends where the address space does.
    for (frame, offset, len) in [(u64::MAX, 0, 14), (u64::MAX / 4096, 4096, 0)] {
        let nowhere = GnttabCopy {
            source: GnttabCopyPtr::of_frame(2, frame, offset),
            len,
            ..theirs
        };
        assert_eq!(copy(&mut hv, CONSOLE, &nowhere), Err(GNTST_bad_page));
    }
}

#[test]
fn entries_swap_unless_they_are_in_use() {
    let mut hv = hypervisor();
    grant(&mut hv, 9, GTF_permit_access, CONSOLE, 5);
    grant(&mut hv, 10, GTF_permit_access | GTF_readonly, CONSOLE, 6);
    let memory = hv.memory;
    let swap = |hv: &mut Hypervisor, one, other| hv.body_mut(GUEST).unwrap().grants.swap(&memory, one, other);
    assert_eq!(swap(&mut hv, 9, 10), Ok(()));
    assert_eq!(flags(&hv, 9), GTF_permit_access | GTF_readonly);
    assert_eq!(swap(&mut hv, 9, 512), Err(GNTST_bad_gntref));
    map(&mut hv, CONSOLE, GUEST, 10, AT, GNTMAP_host_map).unwrap();
    assert_eq!(swap(&mut hv, 9, 10), Err(GNTST_eagain));
}

proptest! {
    /// Whatever domains ask for and however they end, no frame is lost, none is free and mapped, and nothing panics.
    #[test]
    fn no_frame_is_lost(steps in proptest::collection::vec((0u8..6, 0u32..6, 0u64..4, any::<u32>()), 0..60)) {
        let mut hv = with_devices(hypervisor());
        let free = hv.frames.free_pages();
        for (what, reference, place, bits) in steps {
            match what {
                0 => grant(&mut hv, reference, (bits as u16) & 0x1e7, CONSOLE, bits >> 26),
                1 | 2 => drop(map(&mut hv, CONSOLE, GUEST, reference, AT + place * 4096, bits & 7)),
                3 => drop(unmap(&mut hv, CONSOLE, reference, AT + place * 4096, u64::from(bits))),
                4 => {
                    let end = |shift: u32| GnttabCopyPtr { u: u64::from(bits >> shift & 15), domid: 3, offset: bits as u16, _pad0: [0; 4] };
                    let request = GnttabCopy { source: end(4), dest: end(8), len: (bits >> 12) as u16, flags: 3, ..Default::default() };
                    let _ = copy(&mut hv, CONSOLE, &request);
                }
                _ => {
                    let id = if bits & 1 == 0 { GUEST } else { CONSOLE };
                    destroy(&mut hv, id);
                    build(&mut hv, id);
                }
            }
        }
        for id in [GUEST, CONSOLE] {
            destroy(&mut hv, id);
        }
        for id in [GUEST, CONSOLE] {
            build(&mut hv, id);
        }
        prop_assert_eq!((hv.frames.free_pages(), hv.held.count()), (free, 0));
    }
}

#[test]
fn confined_devices_reach_a_grant_while_it_is_mapped_and_no_longer() {
    use crate::{
        iommu::{Iommu, confine, fake::Fake, topology, units::Wishes},
        platform::pci::PciAddress,
    };
    let mut hv = hypervisor();
    let device = PciAddress {
        segment: 0,
        bus: 0,
        device: 3,
        function: 0,
    };
    let id = topology::requester(device);
    let fake = Fake::new(hv.memory);
    let route = topology::Route {
        unit: 0,
        requesters: std::vec![id],
    };
    let wishes = Wishes {
        remap_interrupts: false,
        x2apic: false,
    };
    let routes = std::collections::BTreeMap::from([(device, route)]);
    let units = std::vec![fake.unit()];
    hv.iommu = Iommu::enable(units, routes.into_iter().collect(), &[], &mut hv.frames, wishes).unwrap();
    hv.domain_mut(CONSOLE).unwrap().devices.push(device);
    let own = Frame::containing(testing::machine(&hv, 2, 0x3000));
    assert_eq!(fake.access(id, 0x3000, true), None);
    confine::confine(&mut hv, CONSOLE).unwrap();
    assert!(hv.accounts_balance());
    assert_eq!(fake.access(id, 0x3000, true), Some(own));
    assert_eq!(fake.access(id, AT, true), None);
    let page = Frame::containing(testing::machine(&hv, 3, 0x5000));
    grant(&mut hv, 9, GTF_permit_access, CONSOLE, 5);
    assert_eq!(
        map(&mut hv, CONSOLE, GUEST, 9, AT, GNTMAP_device_map),
        Err(GNTST_bad_virt_addr)
    );
    let mapped = map(&mut hv, CONSOLE, GUEST, 9, AT, BOTH).unwrap();
    let second = map(&mut hv, CONSOLE, GUEST, 9, AT + 4096, BOTH | GNTMAP_readonly).unwrap();
    assert_eq!(mapped.device_address, AT);
    assert_eq!(fake.access(id, AT, true), Some(page));
    assert_eq!(fake.access(id, AT + 4096, false), Some(page));
    assert_eq!(fake.access(id, AT + 4096, true), None);
    // Requests that use what stays mapped cost nothing; two pages that go, one wait.
    let waits = fake.completions();
    unmap(&mut hv, CONSOLE, mapped.handle, AT, AT).unwrap();
    unmap(&mut hv, CONSOLE, second.handle, AT + 4096, AT + 4096).unwrap();
    assert_ne!(
        flags(&hv, 9),
        GTF_permit_access,
        "its owner may not have it back yet"
    );
    flush(&mut hv, CONSOLE);
    assert_eq!(fake.completions(), waits + 1);
    assert_eq!(flags(&hv, 9), GTF_permit_access);
    assert_eq!(
        (fake.access(id, AT, true), fake.access(id, AT + 4096, false)),
        (None, None)
    );
    destroy(&mut hv, CONSOLE);
    assert_eq!(fake.access(id, 0x3000, false), None);
    assert!(hv.accounts_balance());
}

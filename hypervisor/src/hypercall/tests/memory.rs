//! What a domain does with its memory and its grant table.

use super::*;

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
        RAM_PAGES as i64 + 2
    );
    assert_eq!(hv.frames.free_pages(), free + 2);
    hv.check_accounts();
    // They come back empty; its rings are not part of its memory, so it may have two pages more, and not three.
    assert_eq!(with(&mut hv, id, op, XENMEM_populate_physmap, &request).0, 3);
    put(&hv, 3, LIST, &[RAM_PAGES + 1, RAM_PAGES + 2]);
    let more = MemoryReservation {
        nr_extents: 2,
        ..request
    };
    assert_eq!(with(&mut hv, id, op, XENMEM_populate_physmap, &more).0, 1);
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
fn what_was_taken_away_is_flushed_even_if_the_call_fails_later() {
    let mut hv = hypervisor();
    let id = vcpu(3);
    let free = hv.frames.free_pages();
    // The list goes on behind the end of the domain's memory.
    let list = RAM_PAGES * 4096 - 8;
    put(&hv, 3, list, &20u64);
    let request = MemoryReservation {
        extent_start: list,
        nr_extents: 2,
        domid: DOMID_SELF,
        ..Default::default()
    };
    let op = __HYPERVISOR_memory_op;
    let before = testing::FLUSHES.get();
    assert_eq!(
        with(&mut hv, id, op, XENMEM_decrease_reservation, &request).0,
        error(Errno::FAULT)
    );
    assert_eq!(hv.frames.free_pages(), free + 1);
    assert!(testing::FLUSHES.get() > before);
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
fn nobody_has_more_than_he_may() {
    let mut hv = hypervisor();
    let id = vcpu(3);
    hv.domain_mut(id.domain).unwrap().spec.memory_maximum = (RAM_PAGES + 40) * 4096;
    let op = __HYPERVISOR_memory_op;
    let set = |hv: &mut Hypervisor, caller: u16, domain, pages| {
        let request = DomainMemory {
            domain,
            pages,
            ..Default::default()
        };
        with(
            hv,
            vcpu(caller),
            __HYPERVISOR_atoll_op,
            ATOLLOP_DOMAIN_MEMORY,
            &request,
        )
        .0
    };
    let pages: std::vec::Vec<u64> = (RAM_PAGES..RAM_PAGES + 60).collect();
    poke(&hv, 3, LIST, pages.as_bytes());
    let request = MemoryReservation {
        extent_start: LIST,
        nr_extents: 60,
        domid: DOMID_SELF,
        ..Default::default()
    };
    let domain = MemoryDomain { domid: DOMID_SELF };
    let most = RAM_PAGES as i64 + 42;
    assert_eq!(with(&mut hv, id, op, XENMEM_maximum_reservation, &domain).0, most);
    // Its rings are beside; more it may not have until it is told so.
    assert_eq!(with(&mut hv, id, op, XENMEM_populate_physmap, &request).0, 2);
    assert_eq!(set(&mut hv, 2, 3, RAM_PAGES + 20), error(Errno::PERM));
    assert_eq!(set(&mut hv, 1, 9, RAM_PAGES + 20), error(Errno::SRCH));
    assert_eq!(set(&mut hv, 1, 3, RAM_PAGES + 41), error(Errno::INVAL));
    assert_eq!(set(&mut hv, 1, 3, 0), error(Errno::INVAL));
    assert_eq!(set(&mut hv, 1, 3, RAM_PAGES + 20), 0);
    assert_eq!(with(&mut hv, id, op, XENMEM_populate_physmap, &request).0, 22);
    assert_eq!(with(&mut hv, id, op, XENMEM_increase_reservation, &request).0, 0);
    assert_eq!(set(&mut hv, 1, 3, RAM_PAGES + 40), 0);
    assert_eq!(with(&mut hv, id, op, XENMEM_populate_physmap, &request).0, 42);
    assert_eq!(with(&mut hv, id, op, XENMEM_current_reservation, &domain).0, most);
    // Told to have less, it keeps what it has until it gives it back, and gets none again.
    assert_eq!(set(&mut hv, 1, 3, 8), 0);
    let less = MemoryReservation {
        nr_extents: 10,
        ..request
    };
    assert_eq!(with(&mut hv, id, op, XENMEM_decrease_reservation, &less).0, 10);
    assert_eq!(with(&mut hv, id, op, XENMEM_populate_physmap, &less).0, 0);
    hv.check_accounts();
}

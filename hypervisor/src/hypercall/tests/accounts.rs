//! Whatever domains do with memory, every page stays somebody's, and one's only.

use super::*;

const DOMAINS: [u16; 3] = [1, 2, 3];
/// Pages that a test plays with; those below hold its arguments.
const FIRST: u64 = 16;
const MOST: u64 = RAM_PAGES + 600;

fn memory(hv: &mut Hypervisor, domain: u16, operation: u64, order: u32, pages: &[u64]) -> i64 {
    poke(hv, domain, LIST, pages.as_bytes());
    let request = MemoryReservation {
        extent_start: LIST,
        nr_extents: pages.len() as u64,
        extent_order: order,
        domid: DOMID_SELF,
        ..Default::default()
    };
    with(hv, vcpu(domain), __HYPERVISOR_memory_op, operation, &request).0
}

fn add(hv: &mut Hypervisor, domain: u16, space: u32, idx: u64, gpfn: u64) -> i64 {
    let request = AddToPhysmap {
        domid: DOMID_SELF,
        size: 0,
        space,
        idx,
        gpfn,
    };
    with(
        hv,
        vcpu(domain),
        __HYPERVISOR_memory_op,
        XENMEM_add_to_physmap,
        &request,
    )
    .0
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn every_page_is_somebodys(steps in proptest::collection::vec((0u8..10, 0usize..3, 0u64..600, 1u64..40), 1..80)) {
        let mut hv = hypervisor();
        for id in DOMAINS.map(DomainId) {
            hv.domain_mut(id).unwrap().spec.memory_maximum = MOST * 4096;
        }
        let mut handles: std::vec::Vec<(DomainId, u32, u64)> = std::vec![];
        for (what, domain, page, count) in steps {
            let domain = DOMAINS[domain];
            let id = DomainId(domain);
            if hv.body(id).is_none() {
                testing::build(&mut hv, id);
                hv.check_accounts();
                continue;
            }
            let page = FIRST + page;
            let pages: std::vec::Vec<u64> = (page..page + count).collect();
            match what {
                0 | 1 => {
                    memory(&mut hv, domain, XENMEM_decrease_reservation, 0, &pages);
                }
                2 => {
                    memory(&mut hv, domain, XENMEM_populate_physmap, 0, &pages);
                }
                3 => {
                    memory(&mut hv, domain, XENMEM_populate_physmap, 9, &[512]);
                }
                4 => {
                    hv.body_mut(id).unwrap().target = (page + count * 16).min(MOST);
                }
                5 => {
                    let other = DomainId(domain % 3 + 1);
                    let reference = 10 + count as u32;
                    let at = (1 << 32) + page * 4096;
                    if crate::grant::offer(&mut hv, id, reference, other, page).is_ok()
                        && let Ok(mapped) = crate::grant::map(&mut hv, other, id, reference, at, GNTMAP_host_map)
                    {
                        handles.push((other, mapped.handle, at));
                    }
                }
                6 => if !handles.is_empty() {
                    let (mapper, handle, at) = handles.swap_remove(count as usize % handles.len());
                    let _ = crate::grant::unmap(&mut hv, mapper, handle, at, 0);
                    crate::grant::flush(&mut hv, mapper);
                },
                7 => {
                    add(&mut hv, domain, XENMAPSPACE_grant_table, count, page);
                    add(&mut hv, domain, XENMAPSPACE_gmfn, page + 1, page + count);
                    add(&mut hv, domain, XENMAPSPACE_shared_info, 0, page + 3);
                }
                8 => {
                    let memory = hv.memory;
                    while hv.frames.scrub(&memory) {}
                }
                _ => {
                    testing::destroy(&mut hv, id);
                    handles.retain(|(mapper, ..)| *mapper != id);
                }
            }
            hv.check_accounts();
        }
        for id in DOMAINS.map(DomainId) {
            testing::destroy(&mut hv, id);
            hv.check_accounts();
        }
        prop_assert_eq!(hv.frames.free_pages(), hv.frames.total_pages());
    }
}

#[test]
fn an_extent_of_2_mib_is_one_large_page() {
    let mut hv = hypervisor();
    hv.domain_mut(DomainId(3)).unwrap().spec.memory_maximum = MOST * 4096;
    hv.body_mut(DomainId(3)).unwrap().target = MOST;
    let large = |hv: &Hypervisor| hv.body(DomainId(3)).unwrap().p2m.large_pages();
    assert_eq!(memory(&mut hv, 3, XENMEM_populate_physmap, 9, &[512]), 1);
    assert_eq!(large(&hv), 1);
    assert_eq!(memory(&mut hv, 3, XENMEM_decrease_reservation, 0, &[700]), 1);
    assert_eq!(large(&hv), 0);
    // Its frame is free still, so the page is whole again.
    assert_eq!(memory(&mut hv, 3, XENMEM_populate_physmap, 0, &[700]), 1);
    assert_eq!(large(&hv), 1);
    assert_eq!(memory(&mut hv, 3, XENMEM_decrease_reservation, 9, &[512]), 1);
    assert_eq!(large(&hv), 0);
    hv.check_accounts();
}

#[test]
fn pages_can_be_given_back_when_no_frame_is_left() {
    let mut hv = hypervisor();
    hv.domain_mut(DomainId(3)).unwrap().spec.memory_maximum = MOST * 4096;
    hv.body_mut(DomainId(3)).unwrap().target = MOST;
    assert_eq!(memory(&mut hv, 3, XENMEM_populate_physmap, 9, &[512]), 1);
    // Somebody has all the rest.
    let mut taken = std::vec![];
    while let Some(frame) = hv.frames.allocate() {
        taken.push(frame);
    }
    let pages: std::vec::Vec<u64> = (600..620).collect();
    assert_eq!(memory(&mut hv, 3, XENMEM_decrease_reservation, 0, &pages), 20);
    assert_eq!(hv.frames.free_pages(), 19, "one is the table of the others");
    assert_eq!(memory(&mut hv, 3, XENMEM_populate_physmap, 0, &pages), 19);
    taken.iter().for_each(|frame| hv.frames.free(*frame, 1));
    hv.check_accounts();
}

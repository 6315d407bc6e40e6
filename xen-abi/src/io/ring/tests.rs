//! Properties of the ring arithmetic, above all where indices wrap.

use proptest::prelude::*;

use super::*;

/// A ring's size, and an index that is often near the wrap.
fn size_and_index() -> impl Strategy<Value = (u32, u32)> {
    let size = (0u32..=16).prop_map(|order| 1 << order);
    let index = prop_oneof![any::<u32>(), (0u32..100).prop_map(|n| n.wrapping_sub(50))];
    (size, index)
}

#[test]
fn sizes_of_the_usual_rings() {
    assert_eq!(RING_HEADER_SIZE, 64);
    assert_eq!(ring_size(4096, 112), 32);
    assert_eq!(ring_size(16 * 4096, 112), 512);
    assert_eq!(ring_size(4096, 12), 256);
    assert_eq!(ring_size(4096, 8), 256);
    assert_eq!(ring_size(4096, 16), 128);
}

#[test]
fn sizes_at_the_edges() {
    assert_eq!(ring_size(0, 8), 0);
    assert_eq!(ring_size(64, 8), 0);
    assert_eq!(ring_size(71, 8), 0);
    assert_eq!(ring_size(72, 8), 1);
    assert_eq!(ring_size(4096, 0), 0);
    assert_eq!(ring_size(usize::MAX, 1), 1 << 31);
}

#[test]
fn a_fresh_ring_notifies_of_the_first_entry() {
    let ring = SringHeader::initial();
    assert!(needs_notify(0, 1, ring.req_event));
    assert!(needs_notify(0, 5, ring.req_event));
    assert!(!needs_notify(1, 2, ring.req_event));
}

#[test]
fn nothing_new_needs_no_notification() {
    for event in [0, 1, 2, u32::MAX] {
        assert!(!needs_notify(1, 1, event));
    }
}

proptest! {
    #[test]
    fn the_size_is_the_largest_power_of_two_that_fits(bytes in 0usize..1 << 20, slot in 1usize..300) {
        let size = ring_size(bytes, slot);
        if size == 0 {
            prop_assert!(RING_HEADER_SIZE + slot > bytes);
        } else {
            prop_assert!(size.is_power_of_two());
            prop_assert!(RING_HEADER_SIZE + size as usize * slot <= bytes);
            prop_assert!(RING_HEADER_SIZE + 2 * size as usize * slot > bytes);
        }
    }

    #[test]
    fn every_slot_lies_in_the_ring((size, index) in size_and_index(), slot in 1usize..300) {
        let offset = slot_offset(size, slot, index);
        prop_assert!(offset >= RING_HEADER_SIZE);
        prop_assert!(offset + slot <= RING_HEADER_SIZE + size as usize * slot);
        prop_assert_eq!(offset, slot_offset(size, slot, index.wrapping_add(size)));
    }

    #[test]
    fn free_and_used_slots_add_up((size, cons) in size_and_index(), used in any::<u32>()) {
        let used = used % (size + 1);
        let prod = cons.wrapping_add(used);
        prop_assert_eq!(free_requests(size, prod, cons), size - used);
        prop_assert_eq!(is_full(size, prod, cons), used == size);
        prop_assert_eq!(unconsumed_responses(prod, cons), used);
        prop_assert!(!response_prod_overflow(size, prod, cons));
        prop_assert!(response_prod_overflow(size, cons.wrapping_add(size + 1), cons));
    }

    #[test]
    fn honest_requests_are_all_seen((size, rsp) in size_and_index(), taken in any::<u32>(), waiting in any::<u32>()) {
        let taken = taken % (size + 1);
        let waiting = waiting % (size - taken + 1);
        let cons = rsp.wrapping_add(taken);
        let prod = cons.wrapping_add(waiting);
        prop_assert_eq!(unconsumed_requests(size, prod, cons, rsp), waiting);
        prop_assert!(!request_prod_overflow(size, prod, rsp));
        prop_assert_eq!(request_cons_overflow(size, cons, rsp), taken == size);
    }

    #[test]
    fn a_lying_producer_yields_no_more_than_the_room(
        (size, rsp) in size_and_index(), taken in any::<u32>(), prod in any::<u32>(),
    ) {
        let taken = taken % (size + 1);
        let seen = unconsumed_requests(size, prod, rsp.wrapping_add(taken), rsp);
        prop_assert!(seen <= size - taken);
    }

    #[test]
    fn notification_is_due_exactly_when_the_event_is_passed(old in any::<u32>(), step in 0u32..1000, ahead in any::<u32>()) {
        // The event index counts from the entry behind the old producer: 1 is the very next one.
        for ahead in [ahead, ahead % 1100] {
            let due = needs_notify(old, old.wrapping_add(step), old.wrapping_add(ahead));
            prop_assert_eq!(due, (1..=step).contains(&ahead));
        }
    }

    #[test]
    fn a_consumer_that_asks_for_the_next_entry_is_told(cons in any::<u32>(), step in 1u32..1000) {
        prop_assert!(needs_notify(cons, cons.wrapping_add(step), next_event(cons)));
    }

    #[test]
    fn bytes_queued_and_free_add_up((size, cons) in size_and_index(), distance in any::<u32>()) {
        let prod = cons.wrapping_add(distance);
        match byte_ring::queued(size, prod, cons) {
            Some(bytes) => {
                prop_assert_eq!(bytes, distance);
                prop_assert_eq!(byte_ring::free(size, prod, cons), Some(size - bytes));
            }
            None => prop_assert!(distance > size && byte_ring::free(size, prod, cons).is_none()),
        }
    }

    #[test]
    fn bytes_keep_their_places((size, index) in size_and_index(), len in any::<u32>()) {
        let len = len % (size + 1);
        let (first, second) = byte_ring::places(size, index, len);
        prop_assert_eq!(first.len() + second.len(), len as usize);
        let expected = (0..len).map(|n| (index.wrapping_add(n) & (size - 1)) as usize);
        prop_assert!(first.chain(second).eq(expected));
    }

    #[test]
    fn places_stay_inside_whatever_is_asked((size, index) in size_and_index(), len in any::<u32>()) {
        let (first, second) = byte_ring::places(size, index, len);
        prop_assert!(first.end <= size as usize && second.end <= first.start.max(1));
    }
}

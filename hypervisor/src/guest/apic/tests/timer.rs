//! The timer.

use super::*;

#[test]
fn the_timer_fires_once() {
    let mut apic = enabled(0);
    write(&mut apic, 0x320, 0xec);
    write(&mut apic, 0x3e0, 0xb); // Divide by 1
    write(&mut apic, 0x380, 1000);
    assert_eq!(apic.deadline(), Some(1_010_000));
    assert_eq!(apic.read_memory(0x390, 4, at(1_004_000)), 600);
    assert!(!apic.expire(1_009_999));
    assert!(apic.expire(1_010_000));
    assert_eq!((apic.pending_vector(), apic.deadline()), (Some(0xec), None));
    assert_eq!(apic.read_memory(0x390, 4, at(1_020_000)), 0);
    write(&mut apic, 0x380, 1000);
    write(&mut apic, 0x380, 0);
    assert_eq!(apic.deadline(), None);
}

#[test]
fn the_timer_fires_again_and_again() {
    let mut apic = enabled(0);
    write(&mut apic, 0x320, 0x2_00ec);
    write(&mut apic, 0x3e0, 0x3); // Divide by 16
    write(&mut apic, 0x380, 1000);
    assert_eq!(apic.deadline(), Some(1_160_000));
    assert!(apic.expire(1_160_001));
    assert_eq!(apic.deadline(), Some(1_320_000));
    assert!(!apic.expire(1_700_000), "still pending from before");
    assert_eq!(apic.deadline(), Some(1_800_000), "missed periods are one");
    assert_eq!(apic.read_memory(0x390, 4, at(1_720_000)), 500);
    write(&mut apic, 0x3e0, 0xb);
    assert_eq!(
        apic.deadline(),
        Some(1_010_000),
        "the rest goes on at the new rate: 1000 ticks of 10 ns"
    );
    write(&mut apic, 0x380, 1);
    apic.expire(2_000_000);
    assert_eq!(apic.deadline(), Some(2_000_010), "no more often than every 50 us");
}

#[test]
fn the_timer_waits_for_the_counter() {
    let mut apic = enabled(0);
    apic.set_tsc_deadline(60_000, NOW);
    assert_eq!(
        (apic.tsc_deadline(), apic.deadline()),
        (0, None),
        "not in that mode"
    );
    write(&mut apic, 0x320, 0x4_00ec);
    apic.set_tsc_deadline(60_001, NOW);
    assert_eq!((apic.tsc_deadline(), apic.deadline()), (60_001, Some(1_005_001)));
    assert!(apic.expire(1_005_001));
    assert_eq!((apic.tsc_deadline(), apic.deadline()), (0, None));
    apic.set_tsc_deadline(5, NOW);
    assert_eq!(apic.deadline(), Some(NOW.nanoseconds), "past already");
    write(&mut apic, 0x320, 0xec);
    assert_eq!(apic.deadline(), None, "the mode changed");
    write(&mut apic, 0x380, 5);
    write(&mut apic, 0x320, 0x1_00ec);
    assert!(apic.deadline().is_some() && !apic.expire(u64::MAX), "masked");
}

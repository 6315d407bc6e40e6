//! The explorer finds what is there, and nothing else.

use super::*;
use crate::sync::{Ordering, fence};

/// Each stores to its own place and reads the other's: with store buffers both may read what was before.
fn store_and_look(order: Ordering, fenced: bool) -> Outcome {
    explore(move |scenario| {
        let places = [scenario.number(), scenario.number()];
        let seen = [scenario.number(), scenario.number()];
        for index in 0..2 {
            let (own, other) = (places[index].clone(), places[1 - index].clone());
            let seen = seen[index].clone();
            scenario.actor(["first", "second"][index], move || {
                own.store(1, order);
                if fenced {
                    fence(Ordering::SeqCst);
                }
                seen.store(other.load(Ordering::Acquire), Ordering::SeqCst);
            });
        }
        scenario.at_end(move || {
            let sum: u64 = seen.iter().map(|seen| seen.load(Ordering::SeqCst)).sum();
            assert!(sum > 0, "both have looked past each other");
        });
    })
}

#[test]
fn stores_may_be_late_but_not_behind_a_fence() {
    store_and_look(Ordering::Release, false).fails("buffered", "past each other");
    store_and_look(Ordering::Release, true).holds("fenced");
    store_and_look(Ordering::SeqCst, false).holds("sequential");
}

#[test]
fn a_lost_update_is_found() {
    let count = |atomic: bool| {
        explore(move |scenario| {
            let number = scenario.number();
            for name in ["first", "second", "third"] {
                let number = number.clone();
                scenario.actor(name, move || {
                    if atomic {
                        number.fetch_add(1, Ordering::SeqCst);
                    } else {
                        let before = number.load(Ordering::SeqCst);
                        number.store(before + 1, Ordering::SeqCst);
                    }
                });
            }
            scenario.at_end(move || assert_eq!(number.load(Ordering::SeqCst), 3));
        })
    };
    count(true).holds("atomic");
    count(false).fails("not atomic", "left == right");
}

#[test]
fn who_waits_for_what_nobody_does_is_stuck() {
    let waits = |number_of_interrupts: usize| {
        explore(move |scenario| {
            scenario.actor("sleeper", || {
                wait_for_interrupt();
                wait_for_interrupt();
            });
            scenario.actor("waker", move || {
                for _ in 0..number_of_interrupts {
                    interrupt(0);
                    pause();
                }
            });
        })
    };
    // The second may come before the first is taken, and is then one with it.
    waits(2).fails("merged", "these wait: sleeper");
    explore(|scenario| {
        let number = scenario.number();
        let other = number.clone();
        scenario.actor("spinner", move || {
            while number.load(Ordering::SeqCst) < 3 {
                spin();
            }
        });
        scenario.actor("counter", move || {
            for _ in 0..3 {
                other.fetch_add(1, Ordering::SeqCst);
            }
        });
    })
    .holds("spinning");
}

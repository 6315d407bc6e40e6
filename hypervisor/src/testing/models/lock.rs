//! The lock around the hypervisor: one at a time, and nobody sleeps for ever while it is free.

use core::cell::Cell;
use std::rc::Rc;

use crate::{
    lock::{Lock, Waiting},
    sync::{AtomicBool, AtomicU64, Ordering},
    testing::interleave::{self, Outcome, explore, interrupt, pause, settle, wait_for_interrupt},
};

std::thread_local! {
    /// The turn of the processor that runs.
    static TURN: Cell<[u32; 4]> = const { Cell::new([0; 4]) };
}

/// Sleeps until an interrupt, as processors do.
struct Halting;

impl Waiting for Halting {
    fn sleep() {
        halt();
    }

    fn wake(processor: usize) {
        interrupt(processor);
    }
}

/// Who has slept begins anew, whatever it saw before.
fn halt() {
    wait_for_interrupt();
    let processor = interleave::current().unwrap_or(0);
    settle((TURN.get()[processor], "slept"));
}

/// What processors do in turn, one at a time.
trait Exclusive: 'static {
    fn with(&self, processor: usize, act: impl FnOnce());
}

impl Exclusive for Lock<(), 1> {
    fn with(&self, processor: usize, act: impl FnOnce()) {
        let guard = self.lock::<Halting>(processor, false);
        act();
        drop(guard);
    }
}

/// The same, for whose first processor asks urgently.
struct FirstUrgent(Lock<(), 1>);

impl Exclusive for FirstUrgent {
    fn with(&self, processor: usize, act: impl FnOnce()) {
        let guard = self.0.lock::<Halting>(processor, processor == 0);
        act();
        drop(guard);
    }
}

/// So many processors take so many turns each. `wakes` interrupts come to the first besides, for reasons of their own.
fn turns<L: Exclusive>(processors: usize, turns: u32, wakes: u32, make: impl Fn() -> L) -> Outcome {
    explore(move |scenario| {
        let lock = Rc::new(make());
        scenario.watch_value(&lock);
        let inside = Rc::new(Cell::new(false));
        for processor in 0..processors {
            let (lock, inside) = (lock.clone(), inside.clone());
            let name = ["first", "second", "third", "fourth"][processor];
            scenario.actor(name, move || {
                for turn in 0..turns {
                    let mut turns = TURN.get();
                    turns[processor] = turn;
                    TURN.set(turns);
                    settle(turn);
                    lock.with(processor, || {
                        assert!(!inside.replace(true), "two at a time");
                        pause();
                        inside.set(false);
                    });
                }
            });
        }
        if wakes > 0 {
            scenario.actor("device", move || {
                for wake in 0..wakes {
                    settle(wake);
                    pause();
                    interrupt(0);
                }
            });
        }
    })
}

#[test]
fn the_lock_admits_one_and_leaves_nobody_asleep() {
    let lock = || Lock::<_, 1>::new(());
    turns(2, 2, 0, lock).holds("two processors");
    turns(2, 1, 1, lock).holds("interrupted sleep");
    let urgent = || FirstUrgent(Lock::new(()));
    turns(2, 1, 0, urgent).holds("one of two is urgent");
    if interleave::deep() {
        turns(2, 2, 0, urgent).holds("one of two is urgent, twice");
        turns(3, 1, 0, urgent).holds("one of three is urgent");
        turns(2, 3, 0, lock).holds("two processors, three turns");
        turns(3, 1, 0, lock).holds("three processors");
    }
}

/// What is wrong with a lock, to see that it is found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// The release may still be on its way when it looks for sleepers.
    LateRelease,
    /// Sleeps without another look after it has said so.
    NoSecondLook,
    /// Says that it sleeps only once it does.
    SleepsUnannounced,
    /// Looks, then takes.
    TakesLater,
}

struct Careless {
    taken: AtomicBool,
    sleepers: AtomicU64,
    wrong: Wrong,
}

impl Careless {
    fn new(wrong: Wrong) -> Self {
        Self {
            taken: AtomicBool::new(false),
            sleepers: AtomicU64::new(0),
            wrong,
        }
    }

    fn take(&self) -> bool {
        if self.wrong == Wrong::TakesLater {
            let free = !self.taken.load(Ordering::SeqCst);
            if free {
                self.taken.store(true, Ordering::SeqCst);
            }
            return free;
        }
        !self.taken.swap(true, Ordering::SeqCst)
    }
}

impl Exclusive for Careless {
    fn with(&self, processor: usize, act: impl FnOnce()) {
        let bit = 1 << processor;
        while !self.take() {
            let announced = self.wrong != Wrong::SleepsUnannounced;
            if announced {
                self.sleepers.fetch_or(bit, Ordering::SeqCst);
            }
            let looks = self.wrong != Wrong::NoSecondLook;
            let taken = looks && self.take();
            if !taken {
                if !announced {
                    self.sleepers.fetch_or(bit, Ordering::SeqCst);
                }
                halt();
            }
            self.sleepers.fetch_and(!bit, Ordering::SeqCst);
            if taken {
                break;
            }
        }
        act();
        let order = if self.wrong == Wrong::LateRelease {
            Ordering::Release
        } else {
            Ordering::SeqCst
        };
        self.taken.store(false, order);
        let sleepers = self.sleepers.load(Ordering::SeqCst);
        if sleepers != 0 {
            interrupt(sleepers.trailing_zeros() as usize);
        }
    }
}

#[test]
fn a_careless_lock_is_found_out() {
    for (wrong, why) in [
        (Wrong::LateRelease, "these wait"),
        (Wrong::NoSecondLook, "these wait"),
        (Wrong::SleepsUnannounced, "these wait"),
        (Wrong::TakesLater, "two at a time"),
    ] {
        turns(2, 2, 0, move || Careless::new(wrong)).fails("careless", why);
    }
}

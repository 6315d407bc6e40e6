//! The lock around the [`Hypervisor`](crate::Hypervisor): whoever waits for it spins for a moment, then sleeps until it is woken.
//!
//! Sleeping is what lets several emulated processors share a real one: a waiter that spins there takes the time that the holder needs, and in a queue
//! of spinning waiters everybody waits for whoever is next, even while that one cannot run. So there is no queue: who comes first takes the
//! lock, and each release wakes one of those that sleep, in turn.
#![allow(unsafe_code)] // A lock.

use core::{
    cell::UnsafeCell,
    ops::{Deref, DerefMut},
};

use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// How often a waiter looks before it sleeps. Under test once: what it does then is to be seen.
const SPINS: u32 = if cfg!(test) { 1 } else { 200 };

/// The most processors that a lock is between.
pub const MOST: usize = 256;
const WORDS: usize = MOST / u64::BITS as usize;

/// How waiting is done.
pub trait Waiting {
    /// Sleeps until [`Self::wake`], which may have come already; may wake up for no reason.
    fn sleep();
    /// Wakes a processor.
    fn wake(processor: usize);
}

/// A lock between at most [`MOST`] processors.
pub struct Lock<T> {
    taken: AtomicBool,
    /// Those that sleep, or are about to: a bit each.
    sleepers: [AtomicU64; WORDS],
    /// The one that was woken last.
    woken: AtomicUsize,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached by way of a guard alone, of which `taken` admits one at a time.
unsafe impl<T: Send> Sync for Lock<T> {}

/// The value, for as long as this lives.
pub struct Guard<'a, T, W: Waiting> {
    lock: &'a Lock<T>,
    waiting: core::marker::PhantomData<W>,
}

impl<T> Lock<T> {
    /// A lock that nobody has.
    pub const fn new(value: T) -> Self {
        Self {
            taken: AtomicBool::new(false),
            sleepers: [const { AtomicU64::new(0) }; WORDS],
            woken: AtomicUsize::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits until the lock is free, and takes it. The second answer: whether the processor has slept, so that interrupts may have come.
    pub fn lock<W: Waiting>(&self, processor: usize) -> (Guard<'_, T, W>, bool) {
        let (sleepers, bit) = (&self.sleepers[processor / 64], 1 << (processor % 64));
        let mut slept = false;
        loop {
            for _ in 0..SPINS {
                if let Some(guard) = self.try_lock() {
                    return (guard, slept);
                }
                core::hint::spin_loop();
            }
            sleepers.fetch_or(bit, Ordering::SeqCst);
            // Whoever releases it from here on sees the bit.
            let guard = self.try_lock();
            if guard.is_none() {
                W::sleep();
                slept = true;
            }
            sleepers.fetch_and(!bit, Ordering::SeqCst);
            if let Some(guard) = guard {
                return (guard, slept);
            }
        }
    }

    fn try_lock<W: Waiting>(&self) -> Option<Guard<'_, T, W>> {
        let free = !self.taken.load(Ordering::SeqCst) && !self.taken.swap(true, Ordering::SeqCst);
        // Not made for nothing: its end would release the lock.
        free.then(|| Guard {
            lock: self,
            waiting: core::marker::PhantomData,
        })
    }

    fn release<W: Waiting>(&self) {
        self.taken.store(false, Ordering::SeqCst);
        let sleepers = self.sleepers.each_ref().map(|word| word.load(Ordering::SeqCst));
        if sleepers != [0; WORDS] {
            let woken = next(&sleepers, self.woken.load(Ordering::Relaxed));
            self.woken.store(woken, Ordering::Relaxed);
            W::wake(woken);
        }
    }
}

/// The bit that follows `last`, around the end.
fn next(bits: &[u64; WORDS], last: usize) -> usize {
    let at = last / 64;
    let behind = bits[at] & (!1_u64).checked_shl(last as u32 % 64).unwrap_or(0);
    let words = (1..=WORDS).map(|ahead| (at + ahead) % WORDS);
    let rest = words.map(|word| (word, bits[word]));
    let found = core::iter::once((at, behind))
        .chain(rest)
        .find(|(_, word)| *word != 0);
    found.map_or(last, |(word, bits)| word * 64 + bits.trailing_zeros() as usize)
}

impl<T, W: Waiting> Deref for Guard<'_, T, W> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one, and lends the value for no longer than itself.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T, W: Waiting> DerefMut for Guard<'_, T, W> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T, W: Waiting> Drop for Guard<'_, T, W> {
    fn drop(&mut self) {
        self.lock.release::<W>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Mutex, thread, thread::Thread};

    static THREADS: Mutex<Vec<Thread>> = Mutex::new(Vec::new());

    struct Parking;

    impl Waiting for Parking {
        fn sleep() {
            thread::park();
        }
        fn wake(processor: usize) {
            THREADS.lock().unwrap()[processor].unpark();
        }
    }

    #[test]
    fn lets_one_in_at_a_time_and_leaves_nobody_asleep() {
        const TURNS: u64 = 2_000;
        static LOCK: Lock<u64> = Lock::new(0);
        let start = std::sync::Arc::new(std::sync::Barrier::new(5));
        let threads: Vec<_> = (0..4)
            .map(|index| {
                let start = start.clone();
                thread::spawn(move || {
                    start.wait();
                    for _ in 0..TURNS {
                        let (mut guard, _) = LOCK.lock::<Parking>(index);
                        let before = *guard;
                        if before.is_multiple_of(64) {
                            thread::yield_now();
                        }
                        *guard = before + 1;
                    }
                })
            })
            .collect();
        *THREADS.lock().unwrap() = threads.iter().map(|thread| thread.thread().clone()).collect();
        start.wait();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(*LOCK.lock::<Parking>(0).0, 4 * TURNS);
        assert!(LOCK.sleepers.iter().all(|word| word.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn wakes_in_turn() {
        let next = |set: &[usize], last| {
            let mut bits = [0; WORDS];
            set.iter().for_each(|at| bits[at / 64] |= 1 << (at % 64));
            next(&bits, last)
        };
        for set in [&[0, 1, 3][..], &[63], &[0, 63, 64, 255], &[5, 130], &[255]] {
            for last in 0..MOST {
                let following = (1..=MOST).map(|ahead| (last + ahead) % MOST);
                let expected = following.into_iter().find(|at| set.contains(at)).unwrap();
                assert_eq!(next(set, last), expected, "{set:?} after {last}");
            }
        }
    }
}

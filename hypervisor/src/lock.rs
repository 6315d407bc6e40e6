//! The lock around the [`Hypervisor`](crate::Hypervisor): whoever waits for it spins for a moment, then sleeps until it is woken.
//!
//! Sleeping is what lets several emulated processors share a real one: a waiter that spins there takes the time that the holder needs, and in a queue
//! of spinning waiters everybody waits for whoever is next, even while that one cannot run. So there is no queue: who comes first takes the
//! lock, and each release wakes one of those that sleep, in turn.
//!
//! A processor may ask urgently, because a realtime vCPU waits for what it does. While somebody does, nobody else is admitted: it waits for the one who has
//! the lock, and for others that are urgent, and for nobody who came later or waited longer.
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

/// How waiting is done.
pub trait Waiting {
    /// Sleeps until [`Self::wake`], which may have come already; may wake up for no reason.
    fn sleep();
    /// Wakes a processor.
    fn wake(processor: usize);
}

/// A lock between at most 64 processors a word, [`MOST`] unless said otherwise.
pub struct Lock<T, const WORDS: usize = { MOST / 64 }> {
    taken: AtomicBool,
    /// How many ask urgently.
    urgent: AtomicUsize,
    /// Those that sleep, or are about to.
    sleepers: Sleepers<WORDS>,
    /// The same of those that ask urgently.
    urgent_sleepers: Sleepers<WORDS>,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached by way of a guard alone, of which `taken` admits one at a time.
unsafe impl<T: Send, const WORDS: usize> Sync for Lock<T, WORDS> {}

/// The value, for as long as this lives.
pub struct Guard<'a, T, W: Waiting, const WORDS: usize = { MOST / 64 }> {
    lock: &'a Lock<T, WORDS>,
    waiting: core::marker::PhantomData<W>,
}

impl<T, const WORDS: usize> Lock<T, WORDS> {
    /// A lock that nobody has.
    pub const fn new(value: T) -> Self {
        Self {
            taken: AtomicBool::new(false),
            urgent: AtomicUsize::new(0),
            sleepers: Sleepers::new(),
            urgent_sleepers: Sleepers::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits until the lock is free, and takes it; before everybody who does not ask urgently if `urgent`.
    pub fn lock<W: Waiting>(&self, processor: usize, urgent: bool) -> Guard<'_, T, W, WORDS> {
        if !urgent {
            return self.wait(processor, &self.sleepers, false);
        }
        self.urgent.fetch_add(1, Ordering::SeqCst);
        let guard = self.wait(processor, &self.urgent_sleepers, true);
        self.urgent.fetch_sub(1, Ordering::SeqCst);
        guard
    }

    fn wait<W: Waiting>(
        &self,
        processor: usize,
        sleepers: &Sleepers<WORDS>,
        urgent: bool,
    ) -> Guard<'_, T, W, WORDS> {
        loop {
            for _ in 0..SPINS {
                if let Some(guard) = self.try_lock(urgent) {
                    return guard;
                }
                core::hint::spin_loop();
            }
            sleepers.insert(processor);
            // Whoever releases it from here on sees that.
            let guard = self.try_lock(urgent);
            if guard.is_none() {
                W::sleep();
            }
            sleepers.remove(processor);
            if let Some(guard) = guard {
                return guard;
            }
        }
    }

    fn try_lock<W: Waiting>(&self, urgent: bool) -> Option<Guard<'_, T, W, WORDS>> {
        let admitted = urgent || self.urgent.load(Ordering::SeqCst) == 0;
        let free = admitted && !self.taken.load(Ordering::SeqCst) && !self.taken.swap(true, Ordering::SeqCst);
        // Not made for nothing: its end would release the lock.
        free.then(|| Guard {
            lock: self,
            waiting: core::marker::PhantomData,
        })
    }

    fn release<W: Waiting>(&self) {
        self.taken.store(false, Ordering::SeqCst);
        // One that is urgent and does not sleep takes the lock after this, and wakes one of the others when it releases it.
        let sleepers = match self.urgent.load(Ordering::SeqCst) {
            0 => &self.sleepers,
            _ => &self.urgent_sleepers,
        };
        if let Some(woken) = sleepers.next() {
            W::wake(woken);
        }
    }
}

/// Processors that sleep.
struct Sleepers<const WORDS: usize> {
    /// A bit each.
    words: [AtomicU64; WORDS],
    /// The one that was woken last.
    woken: AtomicUsize,
}

impl<const WORDS: usize> Sleepers<WORDS> {
    const fn new() -> Self {
        Self {
            words: [const { AtomicU64::new(0) }; WORDS],
            woken: AtomicUsize::new(0),
        }
    }

    fn insert(&self, processor: usize) {
        self.words[processor / 64].fetch_or(1 << (processor % 64), Ordering::SeqCst);
    }

    fn remove(&self, processor: usize) {
        self.words[processor / 64].fetch_and(!(1 << (processor % 64)), Ordering::SeqCst);
    }

    /// The one whose turn it is to be woken: the first behind the last, around the end.
    fn next(&self) -> Option<usize> {
        let last = self.woken.load(Ordering::Relaxed);
        let place =
            |index: usize, bits: u64| (bits != 0).then(|| index * 64 + bits.trailing_zeros() as usize);
        let behind = (!1_u64).checked_shl((last % 64) as u32).unwrap_or(0);
        let first = self.words[last / 64].load(Ordering::SeqCst);
        let found = place(last / 64, first & behind)
            .or_else(|| {
                (1..WORDS).find_map(|step| {
                    let index = (last / 64 + step) % WORDS;
                    place(index, self.words[index].load(Ordering::SeqCst))
                })
            })
            .or_else(|| place(last / 64, first));
        if let Some(processor) = found {
            self.woken.store(processor, Ordering::Relaxed);
        }
        found
    }
}

impl<T, W: Waiting, const WORDS: usize> Deref for Guard<'_, T, W, WORDS> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one, and lends the value for no longer than itself.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T, W: Waiting, const WORDS: usize> DerefMut for Guard<'_, T, W, WORDS> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T, W: Waiting, const WORDS: usize> Drop for Guard<'_, T, W, WORDS> {
    fn drop(&mut self) {
        self.lock.release::<W>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Mutex, thread, thread::Thread, vec::Vec};

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
                        let mut guard = LOCK.lock::<Parking>(index, index == 3);
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
        assert_eq!(*LOCK.lock::<Parking>(0, false), 4 * TURNS);
        assert_eq!(LOCK.sleepers.next().or(LOCK.urgent_sleepers.next()), None);
        assert_eq!(LOCK.urgent.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn admits_who_is_urgent_before_all_that_wait() {
        struct Yielding;
        impl Waiting for Yielding {
            fn sleep() {
                thread::yield_now();
            }
            fn wake(_: usize) {}
        }
        static ORDERS: Lock<Vec<bool>> = Lock::new(Vec::new());
        let guard = ORDERS.lock::<Yielding>(0, false);
        let wait = |processor, urgent| {
            thread::spawn(move || ORDERS.lock::<Yielding>(processor, urgent).push(urgent))
        };
        let mut threads: Vec<_> = (1..4).map(|processor| wait(processor, false)).collect();
        while (1..4).any(|processor| ORDERS.sleepers.words[0].load(Ordering::SeqCst) >> processor & 1 == 0) {
            thread::yield_now();
        }
        threads.push(wait(200, true));
        while ORDERS.urgent.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        drop(guard);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(*ORDERS.lock::<Yielding>(0, false), [true, false, false, false]);
    }

    #[test]
    fn one_that_is_urgent_is_woken_first_and_then_the_others_in_turn() {
        std::thread_local! {
            static WOKEN: core::cell::Cell<Option<usize>> = const { core::cell::Cell::new(None) };
        }
        struct Noting;
        impl Waiting for Noting {
            fn sleep() {}
            fn wake(processor: usize) {
                WOKEN.set(Some(processor));
            }
        }
        let lock: Lock<()> = Lock::new(());
        let woken = || {
            drop(lock.lock::<Noting>(0, false));
            WOKEN.take()
        };
        assert_eq!(woken(), None);
        [3, 64, 255]
            .iter()
            .for_each(|processor| lock.sleepers.insert(*processor));
        assert_eq!([woken(), woken(), woken(), woken()], [3, 64, 255, 3].map(Some));
        // Two that are urgent: one sleeps, the other is about to take the lock.
        let guard = lock.lock::<Noting>(0, false);
        lock.urgent.store(2, Ordering::SeqCst);
        lock.urgent_sleepers.insert(70);
        drop(guard);
        assert_eq!(WOKEN.take(), Some(70));
        assert!(lock.try_lock::<Noting>(false).is_none());
        lock.urgent_sleepers.remove(70);
        drop(lock.try_lock::<Noting>(true));
        assert_eq!(WOKEN.take(), None);
    }

    #[test]
    fn wakes_in_turn() {
        let sleepers = Sleepers::<4>::new();
        assert_eq!(sleepers.next(), None);
        [0, 1, 63, 64, 200, 255]
            .iter()
            .for_each(|processor| sleepers.insert(*processor));
        let woken: Vec<_> = core::iter::from_fn(|| sleepers.next()).take(8).collect();
        assert_eq!(woken, [1, 63, 64, 200, 255, 0, 1, 63]);
        sleepers.remove(64);
        assert_eq!(sleepers.next(), Some(200));
    }
}

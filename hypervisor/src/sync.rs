//! What processors and guests share: atomics, a lock for a moment, and waiting for another processor.
//!
//! In the machine these are the processor's own. Under test each access is a place at which `testing::interleave` may let another processor or guest
//! go on, so that the code above is run through every order of steps there is; outside of such a test they are the processor's own there, too.

pub use core::sync::atomic::Ordering;

#[cfg(not(test))]
pub use core::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, fence},
};

/// Bytes that others may share are about to be copied.
#[cfg(not(test))]
pub const fn touch(_: *const u8, _: usize) {}

/// What a slot was found to be.
#[cfg(not(test))]
const fn learn(_: bool) {}

#[cfg(not(test))]
const fn pause() {}

#[cfg(test)]
use crate::testing::interleave::{learn, pause};

#[cfg(test)]
pub use crate::testing::shared::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, fence, spin_loop, touch,
};

/// A place for one thing, which one processor leaves and another takes.
pub struct Slot<T>(spin::Mutex<Option<T>>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(spin::Mutex::new(None))
    }
}

impl<T> Slot<T> {
    /// Leaves something there.
    pub fn put(&self, value: T) {
        pause();
        *self.0.lock() = Some(value);
    }

    /// Takes what is there.
    pub fn take(&self) -> Option<T> {
        pause();
        let value = self.0.lock().take();
        learn(value.is_some());
        value
    }

    /// Whether something is there.
    pub fn is_filled(&self) -> bool {
        pause();
        let filled = self.0.lock().is_some();
        learn(filled);
        filled
    }
}

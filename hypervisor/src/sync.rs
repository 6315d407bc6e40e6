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
#[cfg(not(test))]
pub use spin::Mutex;

/// Bytes that others may share are about to be copied.
#[cfg(not(test))]
pub const fn touch(_: *const u8, _: usize) {}

#[cfg(test)]
pub use crate::testing::shared::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Mutex, fence, spin_loop, touch,
};

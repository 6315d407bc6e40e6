//! Death at any instruction, as far as others can tell: before any one of the writes to memory that outlives the domain.

extern crate std;

use core::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

std::thread_local! {
    /// How many writes are left to a domain that is to die.
    static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// What unwinds a domain that dies.
struct Death;

/// Whether the running code is to die.
pub(crate) fn awaited() -> bool {
    LEFT.get().is_some()
}

/// A write is about to be done.
pub(crate) fn step() {
    match LEFT.get() {
        None => {}
        Some(0) => {
            LEFT.set(None);
            resume_unwind(std::boxed::Box::new(Death));
        }
        Some(left) => LEFT.set(Some(left - 1)),
    }
}

/// Runs a domain until it has done so many writes to shared memory, of 8 bytes at most each, or all that it has to do. Answers whether it died; then forget
/// everything of it but what it shares.
pub fn after_writes(writes: u64, domain: impl FnOnce()) -> bool {
    LEFT.set(Some(writes));
    let outcome = catch_unwind(AssertUnwindSafe(domain));
    LEFT.set(None);
    match outcome {
        Ok(()) => false,
        Err(cause) if cause.is::<Death>() => true,
        Err(cause) => resume_unwind(cause),
    }
}

//! [`crate::sync`] under test: each access to a place that a model watches is a step of [`super::interleave`]; all others are what they say.
//!
//! Stores that are not sequentially consistent wait in the processor's store buffer until a later step of its own choosing, as x86 has it (AMD64 volume 2,
//! section 7.2): a later load of another place may come before them. Read-modify-write operations, sequentially consistent stores and fences empty
//! the buffer first.
#![allow(unsafe_code)] // Atomics over memory that is given by address.

use core::sync::atomic::{self, Ordering};

use super::interleave;

/// Writes a word of `size` bytes where a pointer to one was taken before.
pub(super) fn write_word(address: usize, size: usize, value: u64) {
    // SAFETY: `address` is that of an atomic of this size in a store buffer, and what a model watches lives as long as the path that is under way.
    unsafe {
        match size {
            1 => atomic::AtomicU8::from_ptr(address as *mut u8).store(value as u8, Ordering::SeqCst),
            2 => atomic::AtomicU16::from_ptr(address as *mut u16).store(value as u16, Ordering::SeqCst),
            4 => atomic::AtomicU32::from_ptr(address as *mut u32).store(value as u32, Ordering::SeqCst),
            _ => atomic::AtomicU64::from_ptr(address as *mut u64).store(value, Ordering::SeqCst),
        }
    }
}

/// The bytes of a place that a model watches, by words.
pub(super) fn read_words(address: usize, length: usize, mut each: impl FnMut(u64)) {
    let mut at = address;
    while at < address + length {
        let left = address + length - at;
        // SAFETY: the model that watches the place keeps it alive while a path is under way, and nobody writes between the steps of one.
        unsafe {
            if at.is_multiple_of(8) && left >= 8 {
                each((at as *const u64).read_volatile());
                at += 8;
            } else {
                each((at as *const u8).read_volatile().into());
                at += 1;
            }
        }
    }
}

trait Word: Copy {
    fn bits(self) -> u64;
    fn from_bits(bits: u64) -> Self;
}

impl Word for bool {
    fn bits(self) -> u64 {
        self.into()
    }
    fn from_bits(bits: u64) -> Self {
        bits != 0
    }
}

macro_rules! number {
    ($($word:ty),*) => {$(
        impl Word for $word {
            fn bits(self) -> u64 {
                self as u64
            }
            fn from_bits(bits: u64) -> Self {
                bits as $word
            }
        }
    )*};
}

number!(u8, u16, u32, u64, usize);

macro_rules! shared {
    ($name:ident, $word:ty) => {
        /// The atomic of that name.
        #[repr(transparent)]
        #[derive(Debug, Default)]
        pub struct $name(atomic::$name);

        impl $name {
            /// With a value.
            pub const fn new(value: $word) -> Self {
                Self(atomic::$name::new(value))
            }

            fn place(&self) -> (usize, usize) {
                (core::ptr::from_ref(self) as usize, size_of::<Self>())
            }

            /// Reads.
            pub fn load(&self, order: Ordering) -> $word {
                let Some(step) = interleave::step("load", self.place()) else {
                    return self.0.load(order);
                };
                let value = step
                    .buffered()
                    .unwrap_or_else(|| self.0.load(Ordering::SeqCst).bits());
                step.done(value);
                <$word>::from_bits(value)
            }

            /// Writes.
            pub fn store(&self, value: $word, order: Ordering) {
                if order != Ordering::SeqCst && interleave::buffer(self.place(), value.bits()) {
                    return;
                }
                let step = interleave::step("store", self.place());
                interleave::drain();
                self.0.store(value, order);
                if let Some(step) = step {
                    step.done(value.bits());
                }
            }

            #[allow(dead_code, reason = "not every width needs every operation")]
            fn modify(&self, what: &'static str, modify: impl FnOnce(&atomic::$name) -> $word) -> $word {
                let step = interleave::step(what, self.place());
                interleave::drain();
                let before = modify(&self.0);
                if let Some(step) = step {
                    step.done(before.bits());
                }
                before
            }

            /// Exchanges.
            pub fn swap(&self, value: $word, order: Ordering) -> $word {
                self.modify("swap", |word| word.swap(value, order))
            }

            /// Sets bits.
            pub fn fetch_or(&self, bits: $word, order: Ordering) -> $word {
                self.modify("fetch_or", |word| word.fetch_or(bits, order))
            }

            /// Keeps bits.
            pub fn fetch_and(&self, bits: $word, order: Ordering) -> $word {
                self.modify("fetch_and", |word| word.fetch_and(bits, order))
            }

            /// Exchanges if it is what is expected.
            pub fn compare_exchange(
                &self,
                current: $word,
                new: $word,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$word, $word> {
                let mut result = Err(current);
                self.modify("compare_exchange", |word| {
                    result = word.compare_exchange(current, new, success, failure);
                    result.unwrap_or_else(|seen| seen)
                });
                result
            }

            /// As [`Self::compare_exchange`]; fails for no other reason here.
            pub fn compare_exchange_weak(
                &self,
                current: $word,
                new: $word,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$word, $word> {
                self.compare_exchange(current, new, success, failure)
            }
        }
    };
}

macro_rules! word {
    ($name:ident, $word:ty) => {
        shared!($name, $word);

        impl $name {
            /// Over memory that is reached by address.
            ///
            /// # Safety
            /// As for the atomic of that name.
            pub const unsafe fn from_ptr<'a>(pointer: *mut $word) -> &'a Self {
                // SAFETY: the caller's promise; the layout is that of the word.
                unsafe { &*pointer.cast() }
            }

            /// Adds.
            pub fn fetch_add(&self, value: $word, order: Ordering) -> $word {
                self.modify("fetch_add", |word| word.fetch_add(value, order))
            }

            /// Subtracts.
            pub fn fetch_sub(&self, value: $word, order: Ordering) -> $word {
                self.modify("fetch_sub", |word| word.fetch_sub(value, order))
            }
        }
    };
}

shared!(AtomicBool, bool);
word!(AtomicU8, u8);
word!(AtomicU16, u16);
word!(AtomicU32, u32);
word!(AtomicU64, u64);
word!(AtomicUsize, usize);

/// A fence.
pub fn fence(order: Ordering) {
    if order == Ordering::SeqCst {
        if let Some(step) = interleave::step("fence", (0, 0)) {
            step.done(0);
        }
        interleave::drain();
    }
    atomic::fence(order);
}

/// Bytes are about to be copied: a step if a model watches any of them.
pub fn touch(address: *const u8, length: usize) {
    interleave::touch(address as usize, length);
}

/// Waits for another processor: goes on once somebody else has taken a step.
pub fn spin_loop() {
    if !interleave::spin() {
        core::hint::spin_loop();
    }
}

//! The copy routines between shared and private bytes: each shared byte is read or written exactly once.
#![allow(unsafe_code)] // Volatile accesses by pointer, and the string instruction for long ranges.

use core::arch::asm;
use core::ptr::NonNull;

/// From this length on the string instruction wins over the loop.
const LONG: usize = 256;

/// Copies out of shared memory.
///
/// # Safety
/// `source` must be readable and `target` writable for `length` bytes, with no Rust reference to the bytes at `source`.
pub unsafe fn from_shared(source: NonNull<u8>, target: *mut u8, length: usize) {
    let (mut source, mut target) = (source.as_ptr().cast_const(), target);
    let mut left = length;
    if left >= LONG {
        // SAFETY: both ranges hold for `length` bytes by this function's contract.
        unsafe { string_copy(source, target, left / 8) };
        let done = left & !7;
        // SAFETY: `done` is at most `length`.
        (source, target) = unsafe { (source.add(done), target.add(done)) };
        left -= done;
    }
    while left > 0 {
        // SAFETY: at least `step` bytes are left on both sides; the shared side is aligned for the access, and the private
        // side is written without a demand on alignment.
        let step = unsafe {
            match width(source as usize, left) {
                8 => target
                    .cast::<u64>()
                    .write_unaligned(source.cast::<u64>().read_volatile()),
                4 => target
                    .cast::<u32>()
                    .write_unaligned(source.cast::<u32>().read_volatile()),
                _ => target.write(source.read_volatile()),
            }
            width(source as usize, left)
        };
        // SAFETY: `step` is at most `left`.
        (source, target) = unsafe { (source.add(step), target.add(step)) };
        left -= step;
    }
}

/// Copies into shared memory.
///
/// # Safety
/// `source` must be readable and `target` writable for `length` bytes, with no Rust reference to the bytes at `target`.
pub unsafe fn to_shared(source: *const u8, target: NonNull<u8>, length: usize) {
    let (mut source, mut target) = (source, target.as_ptr());
    let mut left = length;
    if left >= LONG {
        // SAFETY: both ranges hold for `length` bytes by this function's contract.
        unsafe { string_copy(source, target, left / 8) };
        let done = left & !7;
        // SAFETY: `done` is at most `length`.
        (source, target) = unsafe { (source.add(done), target.add(done)) };
        left -= done;
    }
    while left > 0 {
        // SAFETY: at least `step` bytes are left on both sides; the shared side is aligned for the access, and the private
        // side is read without a demand on alignment.
        let step = unsafe {
            match width(target as usize, left) {
                8 => target
                    .cast::<u64>()
                    .write_volatile(source.cast::<u64>().read_unaligned()),
                4 => target
                    .cast::<u32>()
                    .write_volatile(source.cast::<u32>().read_unaligned()),
                _ => target.write_volatile(source.read()),
            }
            width(target as usize, left)
        };
        // SAFETY: `step` is at most `left`.
        (source, target) = unsafe { (source.add(step), target.add(step)) };
        left -= step;
    }
}

/// Copies from shared memory to shared memory.
///
/// # Safety
/// `source` must be readable and `target` writable for `length` bytes, with no Rust reference to the bytes at either.
pub unsafe fn between_shared(source: NonNull<u8>, target: NonNull<u8>, length: usize) {
    let (mut source, mut target) = (source.as_ptr().cast_const(), target.as_ptr());
    let mut left = length;
    if left >= LONG {
        // SAFETY: both ranges hold for `length` bytes by this function's contract.
        unsafe { string_copy(source, target, left / 8) };
        let done = left & !7;
        // SAFETY: `done` is at most `length`.
        (source, target) = unsafe { (source.add(done), target.add(done)) };
        left -= done;
    }
    while left > 0 {
        let step = width(source as usize | target as usize, left);
        // SAFETY: at least `step` bytes are left on both sides, and both are aligned for the access.
        unsafe {
            match step {
                8 => target
                    .cast::<u64>()
                    .write_volatile(source.cast::<u64>().read_volatile()),
                4 => target
                    .cast::<u32>()
                    .write_volatile(source.cast::<u32>().read_volatile()),
                _ => target.write_volatile(source.read_volatile()),
            }
            (source, target) = (source.add(step), target.add(step));
        }
        left -= step;
    }
}

/// The widest access that an address and the rest of a range allow.
fn width(address: usize, left: usize) -> usize {
    if address.is_multiple_of(8) && left >= 8 {
        8
    } else if address.is_multiple_of(4) && left >= 4 {
        4
    } else {
        1
    }
}

/// Copies words by one instruction that the compiler can neither split nor repeat.
///
/// # Safety
/// `source` must be readable and `target` writable for `8 * words` bytes.
unsafe fn string_copy(source: *const u8, target: *mut u8, words: usize) {
    // SAFETY: the instruction touches the two ranges of the contract; the direction flag is clear by the ABI.
    unsafe {
        asm!(
            "rep movsq",
            inout("rcx") words => _,
            inout("rsi") source => _,
            inout("rdi") target => _,
            options(nostack, preserves_flags)
        );
    }
}

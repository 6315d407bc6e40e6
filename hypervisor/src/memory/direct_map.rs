//! The hypervisor's window on all machine memory. In the machine it is the direct map that [`crate::boot`] builds; on the host a test makes
//! one over a heap buffer, so everything above runs unchanged under `cargo test`.
//!
//! Guests write the same memory at the same time, so bytes are copied through raw pointers and words are reached as atomics; no Rust
//! reference to guest memory is ever made.
#![allow(unsafe_code)] // Reaches machine memory by address.

use super::MachineAddress;
use crate::sync::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, touch};

/// Machine memory from address 0 to `size`, readable and writable at `base`.
///
/// Every access is checked against `size`: an address beyond it is a bug of the hypervisor, since guests' addresses have been translated before,
/// and panics.
#[derive(Clone, Copy, Debug)]
pub struct DirectMap {
    base: usize,
    size: u64,
}

impl DirectMap {
    /// # Safety
    /// `base .. base + size` stays mapped readable and writable for the life of every copy of the value, `base` is page-aligned, and no Rust reference
    /// to memory reached through it exists elsewhere while it is written here.
    pub const unsafe fn new(base: usize, size: u64) -> Self {
        Self { base, size }
    }

    /// Bytes covered.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Where the hypervisor reaches `address`, with `length` bytes checked to be covered.
    pub fn pointer(&self, address: MachineAddress, length: usize) -> *mut u8 {
        let end = address.0.checked_add(length as u64);
        assert!(
            end.is_some_and(|end| end <= self.size),
            "machine address {:#x} is outside memory",
            address.0
        );
        (self.base + address.0 as usize) as *mut u8
    }

    /// The machine address that the hypervisor reaches at `pointer`, if it lies in the map.
    pub fn machine_address(&self, pointer: *const u8) -> Option<MachineAddress> {
        let offset = (pointer as usize).checked_sub(self.base)? as u64;
        (offset < self.size).then_some(MachineAddress(offset))
    }

    /// Copies bytes out.
    pub fn read(&self, address: MachineAddress, into: &mut [u8]) {
        let from = self.pointer(address, into.len());
        touch(from, into.len());
        // SAFETY: `pointer` checked the range; `into` is a Rust reference and so, by the contract of `new`, does not overlap it.
        unsafe { core::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) }
    }

    /// Copies bytes in.
    pub fn write(&self, address: MachineAddress, from: &[u8]) {
        let into = self.pointer(address, from.len());
        touch(into, from.len());
        let words = from.len() / 8;
        // SAFETY: as in `read`; the words are the beginning of both ranges.
        unsafe {
            core::arch::asm!(
                "rep movsq",
                inout("rcx") words => _, inout("rdi") into => _, inout("rsi") from.as_ptr() => _,
                options(nostack, preserves_flags)
            );
            let done = words * 8;
            core::ptr::copy_nonoverlapping(from.as_ptr().add(done), into.add(done), from.len() - done);
        }
    }

    /// Copies between two places of machine memory, which may overlap.
    pub fn copy(&self, from: MachineAddress, into: MachineAddress, length: usize) {
        let (from, into) = (self.pointer(from, length), self.pointer(into, length));
        touch(from, length);
        touch(into, length);
        // SAFETY: `pointer` checked both ranges.
        unsafe { core::ptr::copy(from, into, length) }
    }

    /// Fills with zeros.
    pub fn zero(&self, address: MachineAddress, length: usize) {
        let into = self.pointer(address, length);
        let words = length / 8;
        // SAFETY: `pointer` checked the range, of which the words are the beginning.
        unsafe {
            // By words: processors do it as fast by bytes, emulators by far not.
            core::arch::asm!(
                "rep stosq",
                inout("rcx") words => _, inout("rdi") into => _, in("rax") 0u64,
                options(nostack, preserves_flags)
            );
            core::ptr::write_bytes(into.add(words * 8), 0, length % 8);
        }
    }

    /// A word shared with a guest. `address` is a multiple of its size.
    pub fn atomic_u64(&self, address: MachineAddress) -> &AtomicU64 {
        assert!(address.0.is_multiple_of(8));
        // SAFETY: in range and aligned; atomics are sound whoever else writes.
        unsafe { AtomicU64::from_ptr(self.pointer(address, 8).cast()) }
    }

    /// A word shared with a guest. `address` is a multiple of its size.
    pub fn atomic_u32(&self, address: MachineAddress) -> &AtomicU32 {
        assert!(address.0.is_multiple_of(4));
        // SAFETY: as in `atomic_u64`.
        unsafe { AtomicU32::from_ptr(self.pointer(address, 4).cast()) }
    }

    /// A word shared with a guest. `address` is a multiple of its size.
    pub fn atomic_u16(&self, address: MachineAddress) -> &AtomicU16 {
        assert!(address.0.is_multiple_of(2));
        // SAFETY: as in `atomic_u64`.
        unsafe { AtomicU16::from_ptr(self.pointer(address, 2).cast()) }
    }

    /// A byte shared with a guest.
    pub fn atomic_u8(&self, address: MachineAddress) -> &AtomicU8 {
        // SAFETY: as in `atomic_u64`.
        unsafe { AtomicU8::from_ptr(self.pointer(address, 1)) }
    }
}

#[cfg(test)]
impl DirectMap {
    /// A map over `pages` pages of the host's memory, zeroed and leaked: for tests.
    pub fn fake(pages: usize) -> Self {
        let layout = core::alloc::Layout::from_size_align(pages * 4096, 4096).unwrap();
        // SAFETY: the layout has a size above zero; the allocation is leaked, so it stays valid, and nobody else refers to it.
        unsafe { Self::new(std::alloc::alloc_zeroed(layout) as usize, layout.size() as u64) }
    }
}

//! The bus of the tests: on the host a bus address is an address of the test process, which fake devices follow.
#![allow(unsafe_code)] // Bus addresses are raw pointers here.

use alloc::vec::Vec;
use core::ptr;

/// Reads memory as a device does.
pub fn read(address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    assert!(address > 4096, "a device was sent to address {address:#x}");
    // SAFETY: the drivers under test name buffers that they own and keep, as pages of the test's heap; a test that names others
    // is wrong and may crash.
    unsafe { ptr::copy_nonoverlapping(address as *const u8, bytes.as_mut_ptr(), length) };
    bytes
}

/// Writes memory as a device does.
pub fn write(address: u64, bytes: &[u8]) {
    assert!(address > 4096, "a device was sent to address {address:#x}");
    // SAFETY: as for `read`.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
}

/// Reads a value as a device does.
pub fn read_value<T: zerocopy::FromBytes>(address: u64) -> T {
    match T::read_from_bytes(&read(address, size_of::<T>())) {
        Ok(value) => value,
        Err(_) => panic!("the length is the type's"),
    }
}

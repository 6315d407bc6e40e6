//! I/O ports of the machine.
#![allow(unsafe_code)] // IN and OUT.

use core::arch::asm;

/// Reads a byte.
pub fn read_u8(port: u16) -> u8 {
    let value: u8;
    // SAFETY: touches no memory of ours; the devices behind ports that the hypervisor uses do no DMA.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Reads two bytes.
pub fn read_u16(port: u16) -> u16 {
    let value: u16;
    // SAFETY: as in `read_u8`.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Reads four bytes.
pub fn read_u32(port: u16) -> u32 {
    let value: u32;
    // SAFETY: as in `read_u8`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes a byte.
pub fn write_u8(port: u16, value: u8) {
    // SAFETY: as in `read_u8`.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// Writes two bytes.
pub fn write_u16(port: u16, value: u16) {
    // SAFETY: as in `read_u8`.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags)) };
}

/// Writes four bytes.
pub fn write_u32(port: u16, value: u32) {
    // SAFETY: as in `read_u8`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags)) };
}

//! I/O ports.
//!
//! Safe to call: a port that was not assigned to this domain reads as ones and ignores writes, and none that a driver domain
//! can have (serial port, keyboard, configuration space) touches this domain's memory behind its back.
#![allow(unsafe_code)] // The instructions are reached through the crate `x86_64`.

use x86_64::instructions::port::Port;

/// A read and a write of each width.
macro_rules! widths {
    ($($read:ident $write:ident $type:ty, $bytes:literal;)*) => {
        $(
            #[doc = concat!("Reads ", $bytes, " from a port.")]
            pub fn $read(port: u16) -> $type {
                // SAFETY: by the module's head no port of a driver domain harms memory.
                unsafe { Port::new(port).read() }
            }

            #[doc = concat!("Writes ", $bytes, " to a port.")]
            pub fn $write(port: u16, value: $type) {
                // SAFETY: as for the read.
                unsafe { Port::new(port).write(value) }
            }
        )*
    };
}

widths! {
    read8 write8 u8, "a byte";
    read16 write16 u16, "two bytes";
    read32 write32 u32, "four bytes";
}

//! Where things are: the hypervisor's address space, slot by slot of its top-level table (512 GiB each), and the parts of its image.
//!
//! | slots | what | rights |
//! | --- | --- | --- |
//! | 0 … 255 | nothing | |
//! | 256 … 383 | the direct map: RAM at its machine address + [`DIRECT_MAP`] | read, write (the boot bundle: read) |
//! | 384 … 447 | devices at their machine address + [`DEVICES`] | read, write, uncached |
//! | 448 … 479 | firmware tables at their machine address + [`FIRMWARE`] | read |
//! | 480 | stacks, with unmapped pages between them | read, write |
//! | 511 | the image at [`IMAGE_OFFSET`] + its machine address | each section its own |
#![allow(unsafe_code)] // Takes the addresses of the linker's symbols.

use crate::memory::{MachineAddress, PAGE_SIZE};

/// What the image's addresses differ by from the machine's; the linker script has the same.
pub const IMAGE_OFFSET: u64 = 0xffff_ffff_8000_0000;
/// First slot of the direct map.
pub const DIRECT_MAP_SLOT: u64 = 256;
/// Where the direct map begins.
pub const DIRECT_MAP: u64 = slot(DIRECT_MAP_SLOT);
/// Where devices are mapped.
pub const DEVICES: u64 = slot(384);
/// Where firmware tables are mapped.
pub const FIRMWARE: u64 = slot(448);
/// Where stacks are mapped.
pub const STACKS: u64 = slot(480);
/// Machine addresses below this can be mapped in the direct map.
pub const RAM_LIMIT: u64 = 128 << 39;
/// Machine addresses below this can be mapped as devices.
pub const DEVICE_LIMIT: u64 = 64 << 39;
/// Machine addresses below this can be mapped as firmware tables.
pub const FIRMWARE_LIMIT: u64 = 32 << 39;
/// Bytes of the boot processor's stack, on which the hypervisor then runs.
pub const BOOT_STACK_SIZE: u64 = 64 << 10;

const fn slot(number: u64) -> u64 {
    0xffff_0000_0000_0000 | number << 39
}

/// A part of the image: addresses as the image sees them, from and until, whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
}

/// The parts of the image, by rights.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// Executable.
    pub text: Section,
    /// Readable.
    pub rodata: Section,
    /// Readable and writable, with [`Image::stack_guard`] inside.
    pub data: Section,
    /// The page below the boot stack, which is not mapped.
    pub stack_guard: u64,
}

impl Image {
    /// Machine addresses of the whole image, from and until.
    pub fn machine_range(&self) -> (MachineAddress, MachineAddress) {
        (
            MachineAddress(self.text.start - IMAGE_OFFSET),
            MachineAddress(self.data.end - IMAGE_OFFSET),
        )
    }

    /// Writable parts, whole pages, the guard left out.
    pub fn writable(&self) -> [Section; 2] {
        [
            Section {
                start: self.data.start,
                end: self.stack_guard,
            },
            Section {
                start: self.stack_guard + PAGE_SIZE,
                end: self.data.end,
            },
        ]
    }
}

/// The running image.
#[cfg(not(target_os = "none"))]
pub fn image() -> Image {
    unreachable!("only the machine has an image")
}

/// The running image.
#[cfg(target_os = "none")]
pub fn image() -> Image {
    unsafe extern "C" {
        static atoll_text_start: u8;
        static atoll_text_end: u8;
        static atoll_rodata_start: u8;
        static atoll_rodata_end: u8;
        static atoll_data_start: u8;
        static atoll_data_end: u8;
        static atoll_boot_stack_guard: u8;
    }
    let section = |start: *const u8, end: *const u8| Section {
        start: start as u64,
        end: end as u64,
    };
    Image {
        text: section(&raw const atoll_text_start, &raw const atoll_text_end),
        rodata: section(&raw const atoll_rodata_start, &raw const atoll_rodata_end),
        data: section(&raw const atoll_data_start, &raw const atoll_data_end),
        stack_guard: &raw const atoll_boot_stack_guard as u64,
    }
}

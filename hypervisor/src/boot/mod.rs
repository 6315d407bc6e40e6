//! From the boot loader to the first line of Rust that may use memory: the entry, the early tables, and what the loader passes on.
//!
//! Everything that the loader left is copied out here, once, into [`Information`]; afterwards its memory is as free as any other.

#[cfg(target_os = "none")]
mod entry;
pub mod layout;
pub mod memory_map;
pub mod multiboot2;
pub mod options;
pub mod pvh;
mod receive;

use alloc::{string::String, vec::Vec};

use crate::memory::MachineAddress;
use memory_map::{Entry, Region};

pub use receive::receive;

/// How the hypervisor was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// By GRUB or another Multiboot2 loader.
    Multiboot2,
    /// By QEMU or another PVH loader.
    Pvh,
}

/// Where the ACPI root pointer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rsdp {
    /// In memory.
    At(MachineAddress),
    /// Here, as the loader copied it.
    Copy(Vec<u8>),
}

/// The screen that the loader left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framebuffer {
    /// Characters with attributes, as VGA's text mode has them.
    Text {
        /// Where.
        address: MachineAddress,
        /// Characters in a row.
        columns: u32,
        /// Rows.
        rows: u32,
        /// Bytes from row to row.
        pitch: u32,
    },
    /// Pixels of red, green and blue.
    Pixels {
        /// Where.
        address: MachineAddress,
        /// Bytes from row to row.
        pitch: u32,
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// Bits of a pixel.
        bits_per_pixel: u8,
        /// Lowest bit of red; its field has 8 bits in practice.
        red: u8,
        /// Lowest bit of green.
        green: u8,
        /// Lowest bit of blue.
        blue: u8,
    },
}

/// What the loader passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Information {
    /// How we were loaded.
    pub protocol: Protocol,
    /// The loader's name, if it gives one.
    pub loader: String,
    /// The memory map, as it came.
    pub memory: Vec<Entry>,
    /// The modules; the first is the bundle.
    pub modules: Vec<Region>,
    /// The command line; [`options`] reads it.
    pub command_line: String,
    /// The ACPI root pointer, if the loader gives it.
    pub rsdp: Option<Rsdp>,
    /// The screen, if the loader gives one.
    pub framebuffer: Option<Framebuffer>,
}

impl Information {
    fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            loader: String::new(),
            memory: Vec::new(),
            modules: Vec::new(),
            command_line: String::new(),
            rsdp: None,
            framebuffer: None,
        }
    }
}

/// Why booting stops at the very beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    /// Neither magic number.
    #[error(
        "neither a Multiboot2 nor a PVH loader started this; boot it by GRUB's multiboot2 command or by QEMU's -kernel"
    )]
    Loader,
    /// Malformed information.
    #[error(
        "what the boot loader passed on cannot be read; it may be damaged, or of a version that nobody here knows"
    )]
    Information,
    /// `hvm_start_info` version 0 has no memory map.
    #[error(
        "the boot loader's start_info has version 0, which carries no memory map; use a loader that passes version 1"
    )]
    OldStartInfo,
    /// No RAM where the image is.
    #[error("the boot loader's memory map has no RAM where it loaded this hypervisor; it cannot be trusted")]
    MemoryMap,
}

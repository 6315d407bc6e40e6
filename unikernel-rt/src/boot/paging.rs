//! The page tables: identity, with no page both writable and executable.
//!
//! Built once from the memory map; later calls only add pages (device registers, special pages). Nothing is ever unmapped or
//! given other rights, so no stale translation can exist.
#![allow(unsafe_code)] // Page tables are raw memory that the processor reads.

use alloc::alloc::{Layout, alloc_zeroed};
use core::ops::Range;

use spin::Mutex;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::{PhysFrame, page_table::PageTableFlags as Flags};
use x86_64::{PhysAddr, VirtAddr};

use super::entry::Image;

const PAGE: u64 = 4096;
const LARGE: u64 = 2 << 20;
/// The address bits of an entry.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Data of our own.
pub(super) const DATA: Flags = Flags::PRESENT.union(Flags::WRITABLE).union(Flags::NO_EXECUTE);
/// Registers of devices: like data, uncached.
pub(super) const DEVICE: Flags = DATA.union(Flags::NO_CACHE).union(Flags::WRITE_THROUGH);
const CODE: Flags = Flags::PRESENT;
const CONSTANTS: Flags = Flags::PRESENT.union(Flags::NO_EXECUTE);

/// The root of the tables; 0 until they are built.
static ROOT: Mutex<u64> = Mutex::new(0);

/// Why a page was not mapped.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum MapError {
    #[error("no memory is left for page tables")]
    Exhausted,
    #[error("address {0:#x} is mapped already, with other rights")]
    Conflict(u64),
    #[error("address {0:#x} cannot be mapped")]
    Unreachable(u64),
}

/// Maps the memory that we were given, our image part by part, and the window for grants, and loads the tables.
/// Page 0 and the guard pages stay out.
pub(super) fn build(ram: &[Range<u64>], window: Range<u64>) -> Result<(), MapError> {
    let mut root = ROOT.lock();
    *root = new_table().ok_or(MapError::Exhausted)?;
    let image = Image::get();
    for region in ram {
        let region = region.start.max(PAGE).next_multiple_of(PAGE)..region.end & !(PAGE - 1);
        for part in [
            region.start..region.end.min(image.start),
            region.start.max(image.end)..region.end,
        ] {
            map_in(*root, part, DATA)?;
        }
    }
    map_in(*root, image.start..image.rodata, CODE)?;
    map_in(*root, image.rodata..image.data, CONSTANTS)?;
    map_in(*root, image.data..image.stack_guard, DATA)?;
    map_in(*root, image.stack_bottom..image.fault_stack_guard, DATA)?;
    map_in(
        *root,
        image.fault_stack_guard + PAGE..image.end.next_multiple_of(PAGE),
        DATA,
    )?;
    map_in(*root, window, DATA)?;
    // SAFETY: the tables map all code, data, and the stack in use at the addresses at which they are, with the rights that
    // they need; the memory of the tables is never freed.
    unsafe {
        Cr3::write(
            PhysFrame::containing_address(PhysAddr::new(*root)),
            Cr3Flags::empty(),
        );
    }
    Ok(())
}

/// Maps further pages.
pub(super) fn map(range: Range<u64>, flags: Flags) -> Result<(), MapError> {
    map_in(*ROOT.lock(), range, flags)
}

/// Maps a range onto itself, in large pages where they fit. Pages that are mapped with the same rights already stay.
fn map_in(root: u64, range: Range<u64>, flags: Flags) -> Result<(), MapError> {
    let mut address = range.start;
    while address < range.end {
        if VirtAddr::try_new(address).is_err() {
            return Err(MapError::Unreachable(address));
        }
        let large = address.is_multiple_of(LARGE) && range.end - address >= LARGE;
        address += map_page(root, address, flags, large)?;
    }
    Ok(())
}

/// Maps one page; answers how far that reached.
fn map_page(root: u64, address: u64, flags: Flags, large: bool) -> Result<u64, MapError> {
    let mut table = root;
    for level in [3, 2, 1] {
        let entry = entry(table, address, level);
        // SAFETY: `entry` answers a place in a table of ours, which only this module touches, under the lock.
        let value = unsafe { entry.read_volatile() };
        let present = value & Flags::PRESENT.bits() != 0;
        if present && value & Flags::HUGE_PAGE.bits() != 0 {
            let same = value & !ADDRESS & !MARKS == (flags | Flags::HUGE_PAGE).bits();
            return if same {
                Ok(LARGE - address % LARGE)
            } else {
                Err(MapError::Conflict(address))
            };
        }
        if level == 1 && large && !present {
            // SAFETY: as above; the entry was not present, so no translation of it can be cached.
            unsafe { entry.write_volatile(address | (flags | Flags::HUGE_PAGE).bits()) };
            return Ok(LARGE);
        }
        table = if present {
            value & ADDRESS
        } else {
            let next = new_table().ok_or(MapError::Exhausted)?;
            // Rights are those of the last entry; those above allow everything.
            // SAFETY: as above.
            unsafe { entry.write_volatile(next | (Flags::PRESENT | Flags::WRITABLE).bits()) };
            next
        };
    }
    let entry = entry(table, address, 0);
    // SAFETY: as above.
    let value = unsafe { entry.read_volatile() };
    if value & Flags::PRESENT.bits() == 0 {
        // SAFETY: as above.
        unsafe { entry.write_volatile(address | flags.bits()) };
    } else if value & !ADDRESS & !MARKS != flags.bits() {
        return Err(MapError::Conflict(address));
    }
    Ok(PAGE)
}

/// What the processor notes in an entry by itself.
const MARKS: u64 = Flags::ACCESSED.bits() | Flags::DIRTY.bits();

/// The place of an address's entry in a table of a level (0 is the lowest).
fn entry(table: u64, address: u64, level: u32) -> *mut u64 {
    let index = address >> (12 + 9 * level) & 511;
    (table + index * 8) as *mut u64
}

/// An empty table. Identity-mapped, so its address is what the processor needs.
fn new_table() -> Option<u64> {
    let layout = Layout::from_size_align(PAGE as usize, PAGE as usize).ok()?;
    // SAFETY: the layout's size is not zero.
    let table = unsafe { alloc_zeroed(layout) };
    (!table.is_null()).then_some(table as u64)
}

//! The hypervisor's address space, as [`layout`] lists it: nothing is both writable and executable, nothing is mapped twice with unlike rights, and
//! what is not RAM is not in the direct map.
#![allow(unsafe_code)] // Loads page tables and hands out what they map.

use alloc::vec::Vec;

use spin::{Mutex, Once};

use super::{
    Machine,
    cpu::Features,
    paging::{MapError, Rights, TableMemory, Tables},
    physical::{OutOfReach, PhysicalMemory},
};
use crate::{
    boot::{
        layout::{self, DEVICE_LIMIT, DEVICES, DIRECT_MAP, FIRMWARE, FIRMWARE_LIMIT, IMAGE_OFFSET},
        memory_map::{self, Entry, LOW_MEMORY_END, Region, without},
    },
    memory::{DirectMap, MachineAddress, PAGE_SIZE},
};

static TABLES: Mutex<Option<Tables<HeapTables>>> = Mutex::new(None);
static MAP: Once<Map> = Once::new();

/// What decides which place may be mapped how.
struct Map {
    ram: Vec<Region>,
    entries: Vec<Entry>,
}

/// Tables in the heap.
struct HeapTables;

impl HeapTables {
    fn pointer(table: MachineAddress, index: usize) -> *mut u64 {
        assert!(index < 512);
        ((table.0 + IMAGE_OFFSET) as *mut u64).wrapping_add(index)
    }
}

impl TableMemory for HeapTables {
    fn allocate(&mut self) -> Option<MachineAddress> {
        const PAGE: core::alloc::Layout = match core::alloc::Layout::from_size_align(4096, 4096) {
            Ok(layout) => layout,
            Err(_) => panic!("a page is a valid layout"),
        };
        // SAFETY: the layout has a size above zero.
        let page = unsafe { alloc::alloc::alloc_zeroed(PAGE) };
        (!page.is_null()).then(|| machine_address(page))
    }

    fn entry(&self, table: MachineAddress, index: usize) -> u64 {
        // SAFETY: tables come from `allocate` alone, whose pages are never freed; `pointer` checks the index; the lock around the only value keeps
        // others out, and the processor only sets accessed and dirty bits.
        unsafe { Self::pointer(table, index).read_volatile() }
    }

    fn set_entry(&mut self, table: MachineAddress, index: usize, value: u64) {
        // SAFETY: as in `entry`.
        unsafe { Self::pointer(table, index).write_volatile(value) }
    }
}

/// The machine address of something in the hypervisor's image: a static, the heap, the boot stack.
pub fn machine_address<T>(place: *const T) -> MachineAddress {
    let address = (place as u64).checked_sub(IMAGE_OFFSET);
    MachineAddress(address.expect("only the image, with its heap, has machine addresses by its offset"))
}

/// Builds the address space and enters it. `bundle` is mapped read-only; the image is mapped nowhere but at its own place.
pub fn enter(entries: &[Entry], bundle: Option<Region>, features: &Features) -> Result<(), MapError> {
    let ram = memory_map::ram(entries);
    let image = layout::image();
    let mut tables = Tables::new(HeapTables, features.gigabyte_pages, features.no_execute)?;
    let text = (image.text, Rights::empty());
    let rodata = (image.rodata, Rights::NO_EXECUTE);
    let data = image
        .writable()
        .map(|part| (part, Rights::WRITABLE | Rights::NO_EXECUTE));
    for (section, rights) in [text, rodata].into_iter().chain(data) {
        let machine = MachineAddress(section.start - IMAGE_OFFSET);
        tables.map(section.start, machine, section.end - section.start, rights)?;
    }
    let (start, end) = image.machine_range();
    let mut writable = without(&ram, Region { start, end });
    if let Some(bundle) = bundle.map(|bundle| bundle.outer_pages()) {
        writable = without(&writable, bundle);
        tables.map(
            DIRECT_MAP + bundle.start.0,
            bundle.start,
            bundle.length(),
            Rights::NO_EXECUTE,
        )?;
    }
    for region in &writable {
        let rights = Rights::WRITABLE | Rights::NO_EXECUTE;
        tables.map(DIRECT_MAP + region.start.0, region.start, region.length(), rights)?;
    }
    super::cpu::enable_protections(features);
    // SAFETY: the tables map the running code, its data and its stack at the same addresses as the early ones, and the rest as `layout` promises.
    unsafe {
        core::arch::asm!("mov cr3, {}", in(reg) tables.root().0, options(nostack, preserves_flags));
    }
    MAP.call_once(|| Map {
        ram,
        entries: entries.to_vec(),
    });
    *TABLES.lock() = Some(tables);
    Ok(())
}

/// All RAM, as far as the direct map reaches. Call after [`enter`].
pub fn direct_map() -> DirectMap {
    let end = MAP
        .get()
        .and_then(|map| map.ram.last())
        .map_or(0, |region| region.end.0);
    // SAFETY: `enter` mapped all RAM at its address from `DIRECT_MAP` on, for good, except the image, which is therefore out of the way of every
    // reference, and the bundle, which nobody writes. Frames that are not RAM are never given out as memory.
    unsafe { DirectMap::new(DIRECT_MAP as usize, end) }
}

/// The bytes of the bundle. Call after [`enter`].
pub fn bundle(machine: &Machine) -> &'static [u8] {
    let length = machine.bundle.length() as usize;
    let start = DIRECT_MAP + machine.bundle.start.0;
    // SAFETY: `discover` made sure that the bundle is memory and outside the image, `enter` mapped it read-only for good, and its pages are not among
    // the free ones, so nobody writes them. It need not be RAM as a whole, hence not by way of the direct map's value.
    unsafe { core::slice::from_raw_parts(start as *const u8, length) }
}

/// Whether a region is RAM as a whole or in part.
fn touches_ram(region: Region) -> bool {
    let Some(map) = MAP.get() else { return true };
    map.ram
        .iter()
        .any(|ram| ram.start < region.end && region.start < ram.end)
}

/// What CR3 holds. Call after [`enter`].
pub(super) fn root() -> u64 {
    TABLES.lock().as_ref().map_or(0, |tables| tables.root().0)
}

/// Maps device memory uncached; where it is from now on. RAM is refused: the same bytes must not be cached here and uncached there.
pub(super) fn map_device(region: Region) -> Result<usize, MapError> {
    let pages = region.outer_pages();
    if pages.end.0 > DEVICE_LIMIT || touches_ram(pages) {
        return Err(MapError::Refused(region.start.0));
    }
    let rights = Rights::WRITABLE | Rights::NO_EXECUTE | Rights::UNCACHED;
    let mut tables = TABLES.lock();
    let tables = tables.as_mut().ok_or(MapError::Refused(region.start.0))?;
    tables.map(DEVICES + pages.start.0, pages.start, pages.length(), rights)?;
    Ok((DEVICES + region.start.0) as usize)
}

/// What a stack is made of.
pub(super) enum Backing {
    /// Fresh memory of the heap.
    Heap,
    /// RAM that nobody uses, from a page boundary on.
    Memory(MachineAddress),
}

/// Maps `length` bytes, whole pages, at `address`: for stacks with unmapped pages around them.
pub(super) fn map_stack(address: u64, backing: Backing, length: u64) -> Result<(), MapError> {
    let memory = match backing {
        Backing::Memory(memory) => memory,
        Backing::Heap => {
            let layout = core::alloc::Layout::from_size_align(length as usize, PAGE_SIZE as usize)
                .map_err(|_| MapError::OutOfMemory)?;
            assert!(length > 0);
            // SAFETY: the layout has a size above zero.
            let memory = unsafe { alloc::alloc::alloc_zeroed(layout) };
            if memory.is_null() {
                return Err(MapError::OutOfMemory);
            }
            machine_address(memory)
        }
    };
    let mut tables = TABLES.lock();
    let tables = tables.as_mut().ok_or(MapError::Refused(address))?;
    tables.map(address, memory, length, Rights::WRITABLE | Rights::NO_EXECUTE)
}

/// What firmware left in memory: readable where the memory map has an entry, and in the first megabyte.
pub struct FirmwareMemory;

impl PhysicalMemory for FirmwareMemory {
    fn read(&self, at: MachineAddress, into: &mut [u8]) -> Result<(), OutOfReach> {
        let region = Region::new(at, into.len() as u64);
        let low = Region {
            start: MachineAddress(0),
            end: LOW_MEMORY_END,
        };
        let known = MAP
            .get()
            .is_some_and(|map| map.entries.iter().any(|entry| region.is_within(&entry.region)));
        let pages = region.outer_pages();
        if !(known || region.is_within(&low)) || pages.end.0 > FIRMWARE_LIMIT {
            return Err(OutOfReach(at));
        }
        let mut tables = TABLES.lock();
        let tables = tables.as_mut().ok_or(OutOfReach(at))?;
        for page in (pages.start.0..pages.end.0).step_by(PAGE_SIZE as usize) {
            tables
                .map(
                    FIRMWARE + page,
                    MachineAddress(page),
                    PAGE_SIZE,
                    Rights::NO_EXECUTE,
                )
                .map_err(|_| OutOfReach(at))?;
        }
        // SAFETY: mapped just now, readable, for good; `into` is memory of the image, which the map above does not alias unless firmware claims the
        // image for itself, and then bytes are read that are initialized all the same.
        unsafe {
            core::ptr::copy((FIRMWARE + at.0) as *const u8, into.as_mut_ptr(), into.len());
        }
        Ok(())
    }
}

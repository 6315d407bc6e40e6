//! The steps of a start, top to bottom.
#![allow(unsafe_code)] // The start info is foreign memory, and the entry is reached from assembly.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use core::ptr::{self, NonNull};

use xen_abi::arch_x86::hvm_start_info::{
    HvmMemmapTableEntry, HvmModlistEntry, HvmStartInfo, XEN_HVM_MEMMAP_TYPE_RAM, XEN_HVM_START_MAGIC_VALUE,
};
use zerocopy::FromBytes;

use super::entry::Image;
use super::{WINDOW, fault, heap, log, machine, paging};
use crate::hypercall::call;
use crate::memory::gaps;
use crate::{Module, Never, System};

/// Entries of the memory map that are looked at; more do not occur, and there is no heap yet to hold them.
const MAP_ENTRIES: usize = 32;
/// Modules that are looked at.
const MODULES: usize = 8;

unsafe extern "Rust" {
    /// The domain's function, defined by `entry!`.
    safe fn unikernel_run(system: System) -> Never;
}

/// The first Rust code: called once, by the entry, with the address of the start info.
#[unsafe(no_mangle)]
extern "C" fn unikernel_start(start_info: u64) -> ! {
    let found = call::detect();
    log::install();
    fault::install();
    let boot = BootInfo::read(start_info);
    boot.install_heap();
    let command_line = text(boot.command_line);
    let modules = boot.modules();
    boot.install_page_tables();
    if let Some(level) = command_line
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("log="))
    {
        log::set_level(level);
    }
    if !found {
        panic!("there is no hypervisor with Xen's interface");
    }
    let system = match machine::system(command_line, modules) {
        Ok(system) => system,
        Err(error) => panic!("{error}"),
    };
    match unikernel_run(system) {}
}

/// What the loader left in memory, copied out of it but for the modules' contents.
struct BootInfo {
    /// Usable memory.
    ram: [Range<u64>; MAP_ENTRIES],
    /// Modules: contents and command line.
    modules: [(Range<u64>, u64); MODULES],
    module_count: usize,
    command_line: u64,
    /// Where all of that lies.
    structures: [Range<u64>; 3],
}

impl BootInfo {
    fn read(address: u64) -> Self {
        let info: HvmStartInfo = fetch(address);
        if info.magic != XEN_HVM_START_MAGIC_VALUE || info.version == 0 || info.memmap_entries == 0 {
            panic!("the loader gave no memory map");
        }
        let map_size = size_of::<HvmMemmapTableEntry>() as u64;
        let module_size = size_of::<HvmModlistEntry>() as u64;
        let mut this = Self {
            ram: [const { 0..0 }; MAP_ENTRIES],
            modules: [const { (0..0, 0) }; MODULES],
            module_count: MODULES.min(info.nr_modules as usize),
            command_line: info.cmdline_paddr,
            structures: [
                address..address + size_of::<HvmStartInfo>() as u64,
                info.memmap_paddr..info.memmap_paddr + map_size * u64::from(info.memmap_entries),
                info.modlist_paddr..info.modlist_paddr + module_size * u64::from(info.nr_modules),
            ],
        };
        for (index, ram) in (0..u64::from(info.memmap_entries)).zip(&mut this.ram) {
            let entry: HvmMemmapTableEntry = fetch(info.memmap_paddr + index * map_size);
            if entry.r#type == XEN_HVM_MEMMAP_TYPE_RAM {
                *ram = entry.addr..entry.addr.saturating_add(entry.size).min(WINDOW.start);
            }
        }
        for (index, module) in (0..u64::from(info.nr_modules)).zip(&mut this.modules) {
            let entry: HvmModlistEntry = fetch(info.modlist_paddr + index * module_size);
            *module = (
                entry.paddr..entry.paddr.saturating_add(entry.size),
                entry.cmdline_paddr,
            );
        }
        this
    }

    fn install_heap(&self) {
        // Command lines are copied into the heap first thing, so a kilobyte or two of grace is all they need; but they may be
        // anywhere, so each keeps its page and the next.
        let text = |address: u64| address..if address == 0 { 0 } else { address + 2 * 4096 };
        let image = Image::get();
        let mut taken = [const { 0..0 }; 3 + 2 + 2 * MODULES];
        taken[0] = 0..image.end.next_multiple_of(4096);
        taken[1] = text(self.command_line);
        taken[2..5].clone_from_slice(&self.structures);
        for (index, (contents, command_line)) in self.modules.iter().enumerate() {
            taken[5 + index * 2] = contents.clone();
            taken[6 + index * 2] = text(*command_line);
        }
        let Some(gap) = gaps::largest(&self.ram, &taken) else {
            panic!("no memory is left for a heap")
        };
        // Identity-mapped by the entry's tables up to 1 GiB, by the later ones altogether; the heap must live under both.
        let gap = gap.start.next_multiple_of(16)..gap.end.min(1 << 30) & !15;
        // SAFETY: memory that the map calls usable, and that neither the image nor the loader's structures occupy.
        unsafe { heap::install(gap) };
    }

    fn install_page_tables(&self) {
        if let Err(error) = paging::build(&self.ram, WINDOW) {
            panic!("the page tables cannot be built: {error}");
        }
        for (contents, _) in &self.modules {
            // Most lie in usable memory and are mapped; a loader may put them elsewhere.
            let pages = contents.start & !4095..contents.end.next_multiple_of(4096);
            if let Err(error) = paging::map(pages, paging::DATA) {
                panic!("a module cannot be mapped: {error}");
            }
        }
    }

    fn modules(&self) -> Vec<Module> {
        let modules = &self.modules[..self.module_count];
        modules
            .iter()
            .map(|(contents, command_line)| Module {
                // SAFETY: the loader's module lies in our memory, which stays mapped; the heap leaves it out, and nobody
                // else writes it, so that it may be shared for ever.
                data: unsafe {
                    let length = (contents.end - contents.start) as usize;
                    match NonNull::new(contents.start as *mut u8) {
                        Some(data) => &*ptr::slice_from_raw_parts(data.as_ptr(), length),
                        None => &[],
                    }
                },
                command_line: text(*command_line),
            })
            .collect()
    }
}

/// Copies a structure out of what the loader left.
fn fetch<T: FromBytes>(address: u64) -> T {
    // SAFETY: the loader put the structure there, in memory that the current tables map and nobody writes meanwhile; any bytes are a
    // value of it.
    unsafe { (address as *const T).read_unaligned() }
}

/// Copies a text that ends with NUL into the heap, for ever. What is not text is left out.
fn text(address: u64) -> &'static str {
    let mut bytes = Vec::new();
    if address != 0 {
        for offset in 0..4096 {
            match fetch::<u8>(address + offset) {
                0 => break,
                byte => bytes.push(byte),
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned().leak()
}

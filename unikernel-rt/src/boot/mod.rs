//! From the first instruction to the domain's own function, on the machine.
//!
//! `start` reads as the list of steps. What is set up here stays for ever: the page tables, the descriptor tables, the
//! heap, and the pages shared with the hypervisor.

mod entry;
mod fault;
mod heap;
mod log;
mod machine;
mod paging;
mod report;
mod start;

use core::fmt::Display;
use core::ptr::NonNull;

use crate::memory::PAGE_SIZE;
use crate::pci::MmioRegion;

/// Where shared pages and mapped grants go: the first GiB behind the hole for devices.
pub(crate) const WINDOW: core::ops::Range<u64> = 4 << 30..5 << 30;

/// The most that is mapped of a device's registers. Register files are smaller; an address's alignment may promise far more.
const DEVICE_LIMIT: u64 = 16 << 20;

/// Maps registers of a device, uncached. What lies beyond [`DEVICE_LIMIT`] is left out.
#[allow(unsafe_code)] // The registers become an object here.
pub(crate) fn map_device(address: u64, size: u64) -> Option<MmioRegion> {
    let page = PAGE_SIZE as u64;
    let length = size.min(DEVICE_LIMIT);
    let range = address & !(page - 1)..address.checked_add(length)?.checked_next_multiple_of(page)?;
    if let Err(error) = paging::map(range, paging::DEVICE) {
        ::log::error!("registers at {address:#x}: {error}");
        return None;
    }
    let base = NonNull::new(address as *mut u8)?;
    // SAFETY: just mapped, for ever, with the rights of device registers: the tables refuse to map anything of ours that way.
    Some(unsafe { MmioRegion::new(base, length as usize) })
}

/// Ends the domain of its own accord, as a machine that powers off.
pub fn power_off() -> ! {
    report::shutdown(xen_abi::sched::SHUTDOWN_poweroff)
}

/// Bytes of the heap that are free, and that are in use.
pub fn heap_usage() -> (usize, usize) {
    heap::usage()
}

/// Ends the domain with what its function returned, which can only be an error.
#[doc(hidden)]
pub fn finish<E: Display>(outcome: Result<crate::Never, E>) -> ! {
    match outcome {
        Ok(never) => match never {},
        Err(error) => {
            ::log::error!("{error}");
            report::crash()
        }
    }
}

//! The machine's part of physical interrupts; on the host there is none, and everything works.

use super::interrupts::Source;
use crate::{Hypervisor, errno::Errno};

/// Whether the source exists: the function has MSI-X and an entry of that number.
pub(super) fn check(_hv: &Hypervisor, _source: Source) -> Result<(), Errno> {
    Ok(())
}

/// A vector of the processor that nothing uses.
pub(super) fn allocate_vector() -> Option<u8> {
    #[cfg(test)]
    return tests::allocate();
    #[cfg(not(test))]
    None
}

/// Gives one back.
pub(super) fn free_vector(_vector: u8) {}

/// Lets the source raise the vector.
pub(super) fn connect(_hv: &Hypervisor, _source: Source, _vector: u8) -> Result<(), Errno> {
    Ok(())
}

/// The source may raise nothing any more.
pub(super) fn disconnect(_hv: &Hypervisor, _source: Source) {}

/// Lets a line arrive that was masked.
pub(super) fn unmask(_gsi: u32) {}

/// A domain owns the operator's console now, or no longer: the hypervisor leaves the serial port to it, or writes to it again.
pub(super) fn leave_console(_owned: bool) {}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    std::thread_local!(static NEXT: Cell<u8> = const { Cell::new(0x30) });

    pub(super) fn allocate() -> Option<u8> {
        let vector = NEXT.get();
        NEXT.set(vector.checked_add(1)?);
        Some(vector)
    }
}

//! Intel VT-d (Intel Virtualization Technology for Directed I/O, Architecture Specification).

use alloc::boxed::Box;

use super::{Unit, UnitError, description, unit::Registers};
use crate::memory::DirectMap;

/// Takes a unit over that firmware describes, with its registers mapped ([`REGISTERS`] bytes); it does nothing yet.
pub fn take(
    _registers: Box<dyn Registers>,
    _described: &description::Unit,
    _memory: DirectMap,
) -> Result<Box<dyn Unit>, UnitError> {
    Err(UnitError::Lacks("a driver"))
}

/// Bytes of registers that the driver reaches.
pub const REGISTERS: usize = 0x1000;

//! MSI-X (PCI Local Bus Specification 3.0, 6.8.2): messages that a function sends to the local APIC as interrupts. Only the hypervisor writes the tables; with
//! what it writes, a message is one vector at one processor.

use super::{COMMAND, COMMAND_MEMORY, COMMAND_NO_LINE, PciFunction, read, write};
use crate::platform::{local_apic::BROADCAST_8_BIT, mmio, paging::MapError};

const CONTROL: u16 = 2;
const CONTROL_ENABLE: u32 = 1 << 15;
const CONTROL_MASK_ALL: u32 = 1 << 14;
const ENTRY_MASKED: u32 = 1;

/// Why an entry cannot be programmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MsixError {
    /// No capability.
    #[error("the function has no MSI-X")]
    None,
    /// Beyond the table.
    #[error("the function's MSI-X table has no entry {0}")]
    NoEntry(u16),
    /// The table's place makes no sense.
    #[error("the function's MSI-X table is outside its memory")]
    NoTable,
    /// It cannot be mapped.
    #[error("the function's MSI-X table cannot be mapped: {0}")]
    Map(#[from] MapError),
    /// Messages reach 255 local APICs without interrupt remapping.
    #[error("messages cannot reach the processor with local APIC id {0}")]
    Unreachable(u32),
}

/// Sends an entry's interrupts to a vector of the processor with this local APIC id, and lets them come. MSI-X as a whole is turned on by [`msix_enable`].
pub fn msix_program(function: &PciFunction, entry: u16, vector: u8, apic_id: u32) -> Result<(), MsixError> {
    let (address, data) = message(apic_id, vector).ok_or(MsixError::Unreachable(apic_id))?;
    with_entry(function, entry, |table, at| {
        table.write(at + 12, ENTRY_MASKED);
        table.write(at, address);
        table.write(at + 4, 0_u32);
        table.write(at + 8, data);
        table.write(at + 12, 0_u32);
    })
}

/// Keeps an entry's interrupts from coming, or lets them.
pub fn msix_set_masked(function: &PciFunction, entry: u16, masked: bool) -> Result<(), MsixError> {
    with_entry(function, entry, |table, at| {
        table.write(at + 12, if masked { ENTRY_MASKED } else { 0 })
    })
}

/// Turns MSI-X on, with every entry masked that is not programmed, and the legacy line off.
pub fn msix_enable(function: &PciFunction) -> Result<(), MsixError> {
    let msix = function.msix.ok_or(MsixError::None)?;
    let control = msix.offset + CONTROL;
    let value = read(function.address, control, 2);
    if value & (CONTROL_ENABLE | CONTROL_MASK_ALL) == CONTROL_ENABLE {
        return Ok(());
    }
    // What firmware left in the table must not come through.
    write(
        function.address,
        control,
        2,
        value | CONTROL_ENABLE | CONTROL_MASK_ALL,
    );
    for entry in 0..msix.entries {
        with_entry(function, entry, |table, at| {
            if table.read::<u32>(at) == 0 {
                table.write(at + 12, ENTRY_MASKED);
            }
        })?;
    }
    let command = read(function.address, COMMAND, 2);
    write(function.address, COMMAND, 2, command | COMMAND_NO_LINE);
    write(
        function.address,
        control,
        2,
        value & !CONTROL_MASK_ALL | CONTROL_ENABLE,
    );
    Ok(())
}

/// Holds all messages back and empties the table. MSI-X stays on where it is: a device that still has an interrupt to send must not turn to its line, and QEMU's e1000e ends the emulator if it finds
/// MSI-X off then.
pub fn msix_silence(function: &PciFunction) {
    let Some(msix) = function.msix else { return };
    let control = msix.offset + CONTROL;
    let value = read(function.address, control, 2);
    write(function.address, control, 2, value | CONTROL_MASK_ALL);
    for entry in 0..msix.entries {
        let cleared = with_entry(function, entry, |table, at| {
            table.write(at + 12, ENTRY_MASKED);
            table.write(at, 0_u32);
            table.write(at + 8, 0_u32);
        });
        if cleared.is_err() {
            break;
        }
    }
}

/// Address and data of the message that is this vector at this processor (AMD64 volume 2, 16.11).
fn message(apic_id: u32, vector: u8) -> Option<(u32, u32)> {
    (apic_id < BROADCAST_8_BIT).then(|| (0xfee0_0000 | apic_id << 12, vector.into()))
}

/// Runs `work` with the table and the offset of an entry, while the function decodes its memory.
fn with_entry(
    function: &PciFunction,
    entry: u16,
    work: impl FnOnce(mmio::Mmio, usize),
) -> Result<(), MsixError> {
    let msix = function.msix.ok_or(MsixError::None)?;
    if entry >= msix.entries {
        return Err(MsixError::NoEntry(entry));
    }
    let pages = function.msix_table().ok_or(MsixError::NoTable)?;
    let table = mmio::map(pages.start, pages.length() as usize)?;
    let first = msix.table_offset as usize % 4096;
    let command = read(function.address, COMMAND, 2);
    write(function.address, COMMAND, 2, command | COMMAND_MEMORY);
    work(table, first + 16 * usize::from(entry));
    write(function.address, COMMAND, 2, command);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_processor_and_vector() {
        assert_eq!(message(3, 0x41), Some((0xfee0_3000, 0x41)));
        assert_eq!((message(255, 0x41), message(256, 0x41)), (None, None));
    }
}

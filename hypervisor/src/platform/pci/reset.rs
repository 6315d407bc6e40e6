//! Quieting a function between two owners: at once by taking its way to memory away, and thoroughly by a reset of its own.

use alloc::vec::Vec;

use super::{COMMAND, COMMAND_MASTER, COMMAND_NO_LINE, PciFunction, msix_disable, read, write};

const STATUS_TRANSACTIONS_PENDING: u32 = 1 << 5;
/// Specifications give a function a tenth of a second after its reset.
const RESET_TIME: u64 = 100_000_000;
const HEADER_WORDS: u16 = 16;

/// Why a function is not reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the function has no reset of its own")]
pub struct ResetError;

/// What a reset wipes out and [`finish_reset`] restores.
#[derive(Clone, Debug)]
pub struct SavedConfig {
    header: Vec<u32>,
    /// The function can be used again after this many nanoseconds from the reset's beginning.
    pub ready_after: u64,
}

/// Takes the function's way to memory and its interrupts away. Cheap; done first whenever its owner stops. True once nothing of it is under way
/// any more; otherwise ask again a little later.
pub fn quiesce(function: &PciFunction) -> bool {
    let command = read(function.address, COMMAND, 2);
    write(
        function.address,
        COMMAND,
        2,
        command & !COMMAND_MASTER | COMMAND_NO_LINE,
    );
    msix_disable(function);
    let Some(express) = function.express else {
        return true;
    };
    read(function.address, express + 0x0a, 2) & STATUS_TRANSACTIONS_PENDING == 0
}

/// Begins a function-level reset. The function answers nothing until `ready_after`; then call [`finish_reset`].
pub fn begin_reset(function: &PciFunction) -> Result<SavedConfig, ResetError> {
    let at = function.address;
    let header = (0..HEADER_WORDS).map(|word| read(at, word * 4, 4)).collect();
    let saved = |ready_after| Ok(SavedConfig { header, ready_after });
    if let Some(express) = function.express
        && read(at, express + 4, 4) >> 28 & 1 != 0
    {
        let control = read(at, express + 8, 2);
        write(at, express + 8, 2, control | 1 << 15);
        return saved(RESET_TIME);
    }
    if let Some(features) = function.advanced_features
        && read(at, features + 3, 1) & 3 == 3
    {
        write(at, features + 4, 1, 1);
        return saved(RESET_TIME);
    }
    Err(ResetError)
}

/// Gives the function its addresses back after a reset. It can reach neither memory nor the processor until someone turns that on.
pub fn finish_reset(function: &PciFunction, saved: &SavedConfig) {
    for (word, &value) in saved.header.iter().enumerate().skip(3) {
        write(function.address, word as u16 * 4, 4, value);
    }
    let command = saved.header.get(1).map_or(0, |&word| word & 0xffff);
    write(
        function.address,
        COMMAND,
        2,
        command & !COMMAND_MASTER | COMMAND_NO_LINE,
    );
}

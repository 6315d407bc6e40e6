//! Quieting a function between two owners: at once by taking its way to memory away, and thoroughly by a reset of its own.

use alloc::vec::Vec;

use super::{
    COMMAND, COMMAND_MASTER, COMMAND_NO_LINE, PciFunction, Present, config::ConfigSpace, msix_silence, read,
    write,
};

const STATUS_TRANSACTIONS_PENDING: u32 = 1 << 5;
/// Specifications give a function a tenth of a second after its reset.
const RESET_TIME: u64 = 100_000_000;
const HEADER_WORDS: u16 = 16;
/// Registers of the PCI Express capability.
const DEVICE_CAPABILITIES: u16 = 4;
const DEVICE_CONTROL: u16 = 8;
const DEVICE_STATUS: u16 = 0x0a;
const CONTROL_RESET: u32 = 1 << 15;
/// Of the advanced features capability.
const FEATURES: u16 = 3;
const FEATURES_CONTROL: u16 = 4;

/// Why a function is not reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the function has no reset of its own")]
pub struct ResetError;

/// What a reset wipes out and [`finish_reset`] restores.
#[derive(Clone, Debug, Default)]
pub struct SavedConfig {
    header: Vec<u32>,
    /// Device control of the PCI Express capability, if there is one.
    control: Option<u32>,
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
    msix_silence(function);
    let Some(express) = function.express else {
        return true;
    };
    read(function.address, express + DEVICE_STATUS, 2) & STATUS_TRANSACTIONS_PENDING == 0
}

/// Begins a function-level reset. The function answers nothing until `ready_after`; then call [`finish_reset`].
pub fn begin_reset(function: &PciFunction) -> Result<SavedConfig, ResetError> {
    begin(&Present, function)
}

/// Gives the function its addresses back after a reset. It can reach neither memory nor the processor until someone turns that on.
pub fn finish_reset(function: &PciFunction, saved: &SavedConfig) {
    finish(&Present, function, saved);
}

fn begin(config: &impl ConfigSpace, function: &PciFunction) -> Result<SavedConfig, ResetError> {
    let at = function.address;
    let saved = SavedConfig {
        header: (0..HEADER_WORDS)
            .map(|word| config.read(at, word * 4, 4))
            .collect(),
        control: function
            .express
            .map(|express| config.read(at, express + DEVICE_CONTROL, 2)),
        ready_after: RESET_TIME,
    };
    if let (Some(express), Some(control)) = (function.express, saved.control)
        && config.read(at, express + DEVICE_CAPABILITIES, 4) >> 28 & 1 != 0
    {
        config.write(at, express + DEVICE_CONTROL, 2, control | CONTROL_RESET);
        return Ok(saved);
    }
    if let Some(features) = function.advanced_features
        && config.read(at, features + FEATURES, 1) & 3 == 3
    {
        config.write(at, features + FEATURES_CONTROL, 1, 1);
        return Ok(saved);
    }
    Err(ResetError)
}

fn finish(config: &impl ConfigSpace, function: &PciFunction, saved: &SavedConfig) {
    let at = function.address;
    for (word, &value) in saved.header.iter().enumerate().skip(3) {
        config.write(at, word as u16 * 4, 4, value);
    }
    if let (Some(express), Some(control)) = (function.express, saved.control) {
        config.write(at, express + DEVICE_CONTROL, 2, control & !CONTROL_RESET);
    }
    let command = saved.header.get(1).map_or(0, |&word| word & 0xffff);
    config.write(at, COMMAND, 2, command & !COMMAND_MASTER | COMMAND_NO_LINE);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::pci::{
        PciAddress,
        config::{FakeConfig, FakeFunction},
        scan,
    };

    const AT: PciAddress = PciAddress {
        segment: 0,
        bus: 0,
        device: 3,
        function: 0,
    };

    /// A function with an Express capability at 0x40, which offers a reset or does not.
    fn config(resets: bool) -> FakeConfig {
        let mut function = FakeFunction::new(0x1b36, 0x10);
        function.put(6, &[0x10, 0]);
        function.put(0x34, &[0x40]);
        function.put(0x40, &[0x10, 0]);
        function.put(0x44, &(u32::from(resets) << 28).to_le_bytes());
        function.put(0x48, &0x2810_u16.to_le_bytes());
        function.writable[0x48..0x4a].fill(0xff);
        function.put_bar(0, 0xfe00_0000, 0x4000, 0);
        function.put(4, &7_u16.to_le_bytes());
        let config = FakeConfig::default();
        config.functions.borrow_mut().insert(AT, function);
        config
    }

    #[test]
    fn a_reset_keeps_addresses_and_takes_the_way_to_memory() {
        let config = config(true);
        let function = scan::scan(&config, &[(0, 0, 0)]).remove(0);
        let saved = begin(&config, &function).unwrap();
        assert_eq!(config.read(AT, 0x48, 2), 0xa810);
        // What the reset does.
        for (offset, size) in [(4, 2), (0x10, 4), (0x48, 2)] {
            config.write(AT, offset, size, 0);
        }
        finish(&config, &function, &saved);
        assert_eq!(config.read(AT, 0x10, 4), 0xfe00_0000);
        assert_eq!(config.read(AT, 0x48, 2), 0x2810);
        assert_eq!(config.read(AT, 4, 2), 3 | COMMAND_NO_LINE);
    }

    #[test]
    fn a_function_without_a_reset_is_left_alone() {
        let config = config(false);
        let function = scan::scan(&config, &[(0, 0, 0)]).remove(0);
        assert_eq!(begin(&config, &function).unwrap_err(), ResetError);
        assert_eq!((config.read(AT, 0x48, 2), config.read(AT, 4, 2)), (0x2810, 7));
    }
}

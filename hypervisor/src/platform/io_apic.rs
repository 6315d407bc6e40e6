//! The I/O APICs: interrupt inputs of the machine ("GSIs"), each sent to one vector of one processor (ACPI 6.5, 5.2.12; the 82093AA data sheet).

use alloc::vec::Vec;

use spin::Mutex;

use super::{
    acpi::madt::{IoApicEntry, Override},
    mmio::{self, Mmio},
};
use crate::memory::MachineAddress;

const SELECT: usize = 0;
const WINDOW: usize = 0x10;
const VERSION: u32 = 1;
const REDIRECTION: u32 = 0x10;

const ACTIVE_LOW: u32 = 1 << 13;
const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;

/// No I/O APIC has an input of this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no I/O APIC has the interrupt input {0}")]
pub struct NoSuchInput(pub u32);

/// How an input signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Active low.
    pub low: bool,
    /// Level-triggered.
    pub level: bool,
}

struct IoApic {
    registers: Mmio,
    first: u32,
    count: u32,
}

struct IoApics {
    all: Vec<IoApic>,
    overrides: Vec<Override>,
}

static IO_APICS: Mutex<IoApics> = Mutex::new(IoApics {
    all: Vec::new(),
    overrides: Vec::new(),
});

impl IoApic {
    fn read(&self, register: u32) -> u32 {
        self.registers.write(SELECT, register);
        self.registers.read(WINDOW)
    }

    fn write(&self, register: u32, value: u32) {
        self.registers.write(SELECT, register);
        self.registers.write(WINDOW, value);
    }
}

impl IoApics {
    /// The I/O APIC of a GSI, and the register of the lower half of its redirection.
    fn find(&self, gsi: u32) -> Option<(&IoApic, u32)> {
        let apic = self
            .all
            .iter()
            .find(|apic| gsi.wrapping_sub(apic.first) < apic.count)?;
        Some((apic, REDIRECTION + 2 * (gsi - apic.first)))
    }
}

/// How a GSI signals: as an override says, or else as its bus does (ISA: edges, active high; PCI: levels, active low).
pub fn signal(gsi: u32, overrides: &[Override]) -> Signal {
    let usual = Signal {
        low: gsi >= 16,
        level: gsi >= 16,
    };
    overrides
        .iter()
        .find(|entry| entry.gsi == gsi)
        .map_or(usual, |entry| Signal {
            low: match entry.polarity() {
                1 => false,
                3 => true,
                _ => usual.low,
            },
            level: match entry.trigger() {
                1 => false,
                3 => true,
                _ => usual.level,
            },
        })
}

/// The GSI of an interrupt line of the ISA bus.
pub fn isa_gsi(line: u8, overrides: &[Override]) -> u32 {
    overrides
        .iter()
        .find(|entry| entry.line == line)
        .map_or(line.into(), |entry| entry.gsi)
}

/// Takes over the I/O APICs, with every input masked. One that cannot be mapped is reported and left out.
pub(super) fn initialize(found: &[IoApicEntry], overrides: &[Override]) {
    let mut apics = IO_APICS.lock();
    apics.overrides = overrides.to_vec();
    for entry in found {
        let registers = match mmio::map(MachineAddress(entry.address.into()), 0x20) {
            Ok(registers) => registers,
            Err(error) => {
                log::warn!("the I/O APIC at {:#x} is left out: {error}", entry.address);
                continue;
            }
        };
        let mut apic = IoApic {
            registers,
            first: entry.first_gsi,
            count: 0,
        };
        apic.count = (apic.read(VERSION) >> 16 & 0xff) + 1;
        for input in 0..apic.count {
            apic.write(REDIRECTION + 2 * input, MASKED);
        }
        apics.all.push(apic);
    }
}

/// Sends a GSI to a vector of the processor with this local APIC id, masked; whether it is level-triggered.
pub(super) fn route(gsi: u32, vector: u8, apic_id: u32) -> Result<bool, NoSuchInput> {
    let apics = IO_APICS.lock();
    let signal = signal(gsi, &apics.overrides);
    let (apic, register) = apics.find(gsi).ok_or(NoSuchInput(gsi))?;
    apic.write(register, MASKED);
    apic.write(register + 1, apic_id << 24);
    apic.write(register, redirection(vector, signal) | MASKED);
    Ok(signal.level)
}

fn redirection(vector: u8, signal: Signal) -> u32 {
    u32::from(vector) | if signal.low { ACTIVE_LOW } else { 0 } | if signal.level { LEVEL } else { 0 }
}

/// Sends a GSI to another processor, masked or not as it is; one that does not exist is passed over.
pub(super) fn retarget(gsi: u32, apic_id: u32) {
    let apics = IO_APICS.lock();
    if let Some((apic, register)) = apics.find(gsi) {
        // It holds still meanwhile; an edge that comes just then would be lost, so only levels, which wait, are masked.
        let entry = apic.read(register);
        if entry & LEVEL != 0 {
            apic.write(register, entry | MASKED);
        }
        apic.write(register + 1, apic_id << 24);
        apic.write(register, entry);
    }
}

/// Masks or unmasks a GSI; one that does not exist is passed over.
pub(super) fn set_masked(gsi: u32, masked: bool) {
    let apics = IO_APICS.lock();
    if let Some((apic, register)) = apics.find(gsi) {
        let entry = apic.read(register);
        apic.write(register, if masked { entry | MASKED } else { entry & !MASKED });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_move_lines_and_change_signals() {
        let overrides = [
            Override {
                line: 0,
                gsi: 2,
                flags: 0,
            },
            Override {
                line: 9,
                gsi: 9,
                flags: 3 << 2 | 3,
            },
            Override {
                line: 5,
                gsi: 20,
                flags: 1 << 2 | 1,
            },
        ];
        assert_eq!((isa_gsi(0, &overrides), isa_gsi(4, &overrides)), (2, 4));
        assert_eq!(
            signal(2, &overrides),
            Signal {
                low: false,
                level: false
            }
        );
        assert_eq!(
            signal(9, &overrides),
            Signal {
                low: true,
                level: true
            }
        );
        assert_eq!(
            signal(4, &overrides),
            Signal {
                low: false,
                level: false
            }
        );
        assert_eq!(
            signal(20, &overrides),
            Signal {
                low: false,
                level: false
            }
        );
        assert_eq!(
            signal(23, &overrides),
            Signal {
                low: true,
                level: true
            }
        );
        assert_eq!(redirection(0x41, signal(9, &overrides)), 0xa041);
    }
}

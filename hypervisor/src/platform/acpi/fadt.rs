//! The FADT: registers for power, reset and time (ACPI 6.5, 5.2.9), and the value that powers off, from the DSDT's `\_S5` package (7.4.2).

use super::HEADER;
use crate::{memory::MachineAddress, platform::physical::Fields};

/// Where a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// An I/O port.
    Port(u16),
    /// Memory.
    Memory(MachineAddress),
    /// Configuration space of a function of bus 0: device, function, offset.
    Pci {
        /// Device.
        device: u8,
        /// Function.
        function: u8,
        /// Offset.
        offset: u16,
    },
}

/// What the table says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fadt {
    /// Control registers of the power management block, A and B.
    pub control: [Option<Register>; 2],
    /// The register that resets, and what to write.
    pub reset: Option<(Register, u8)>,
    /// The timer of 3.579545 MHz, and whether it counts 32 bits (otherwise 24).
    pub timer: Option<(Register, bool)>,
    /// Where a write of `enable` turns ACPI mode on.
    pub command_port: Option<u16>,
    /// What turns ACPI mode on.
    pub enable: u8,
    /// The sleep control register of machines without the power management block.
    pub sleep_control: Option<Register>,
    /// Index of the century in the real-time clock's memory, or 0.
    pub century: u8,
    /// There is no PS/2 controller to look for, so it cannot reset the machine.
    pub legacy_free: bool,
}

const FLAG_TIMER_32: u32 = 1 << 8;
const FLAG_RESET: u32 = 1 << 10;
const FLAG_HARDWARE_REDUCED: u32 = 1 << 20;

/// Reads the table; fields behind its end are absent.
pub fn parse(table: &[u8]) -> Fadt {
    let flags = table.u32_at(112).unwrap_or(0);
    let reduced = flags & FLAG_HARDWARE_REDUCED != 0;
    let block = |old: usize, new: usize| {
        let old = table
            .u32_at(old)
            .and_then(|port| u16::try_from(port).ok())
            .filter(|&port| port != 0);
        generic_address(table, new)
            .or(old.map(Register::Port))
            .filter(|_| !reduced)
    };
    let reset = generic_address(table, 116).filter(|_| flags & FLAG_RESET != 0);
    Fadt {
        control: [block(64, 172), block(68, 184)],
        reset: reset.zip(table.u8_at(128)),
        timer: block(76, 208).map(|register| (register, flags & FLAG_TIMER_32 != 0)),
        command_port: table
            .u32_at(48)
            .and_then(|port| u16::try_from(port).ok())
            .filter(|&port| port != 0 && !reduced),
        enable: table.u8_at(52).unwrap_or(0),
        sleep_control: generic_address(table, 244).filter(|_| reduced),
        century: table.u8_at(108).unwrap_or(0),
        legacy_free: table.u16_at(109).is_some_and(|features| features & 2 == 0),
    }
}

/// Where the DSDT is.
pub fn dsdt_address(table: &[u8]) -> Option<MachineAddress> {
    let new = table.u64_at(140).filter(|&at| at != 0);
    let old = table.u32_at(40).filter(|&at| at != 0).map(u64::from);
    new.or(old).map(MachineAddress)
}

/// A generic address structure (5.2.3.2); an address of 0 means absent.
fn generic_address(table: &[u8], at: usize) -> Option<Register> {
    let address = table.u64_at(at + 4).filter(|&address| address != 0)?;
    match table.u8_at(at)? {
        0 => Some(Register::Memory(MachineAddress(address))),
        1 => u16::try_from(address).ok().map(Register::Port),
        2 => Some(Register::Pci {
            device: u8::try_from(address >> 32 & 0xffff)
                .ok()
                .filter(|&device| device < 32)?,
            function: u8::try_from(address >> 16 & 0xffff)
                .ok()
                .filter(|&function| function < 8)?,
            offset: address as u16,
        }),
        _ => None,
    }
}

/// The sleep types of soft off for the two control registers, from the package `Name (\_S5, Package {a, b, …})` of the DSDT or an SSDT. The bytes are
/// looked for as such; code that computes the package is not understood.
pub fn soft_off(table: &[u8]) -> Option<(u8, u8)> {
    const NAME: u8 = 0x08;
    const PACKAGE: u8 = 0x12;
    let code = table.get(HEADER..)?;
    let places = code
        .windows(4)
        .enumerate()
        .filter(|(_, window)| *window == b"_S5_")
        .map(|(at, _)| at);
    for at in places {
        let named = matches!(code[..at], [.., NAME] | [.., NAME, b'\\']);
        let Some([PACKAGE, content @ ..]) = code.get(at + 4..).filter(|_| named) else {
            continue;
        };
        // The package's length takes one byte and as many more as its upper two bits say; its number of elements follows.
        let Some(&lead) = content.first() else { continue };
        let Some([count, elements @ ..]) = content.get(1 + usize::from(lead >> 6)..) else {
            continue;
        };
        if let Some((first, rest)) = small_integer(elements).filter(|_| *count >= 1) {
            let second = small_integer(rest)
                .filter(|_| *count >= 2)
                .map_or(first, |(second, _)| second);
            return Some((first & 7, second & 7));
        }
    }
    None
}

/// An integer of AML (20.2.3), cut to its lowest byte, and what follows it.
fn small_integer(code: &[u8]) -> Option<(u8, &[u8])> {
    match *code {
        [0, ref rest @ ..] => Some((0, rest)),
        [1, ref rest @ ..] => Some((1, rest)),
        [0x0a, value, ref rest @ ..] => Some((value, rest)),
        [0x0b, value, _, ref rest @ ..] => Some((value, rest)),
        [0x0c, value, _, _, _, ref rest @ ..] => Some((value, rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::table, *};
    use alloc::{vec, vec::Vec};
    use proptest::prelude::*;

    fn fadt(fields: &[(usize, &[u8])]) -> Vec<u8> {
        let mut content = vec![0; 276 - HEADER];
        for (at, bytes) in fields {
            content[at - HEADER..][..bytes.len()].copy_from_slice(bytes);
        }
        table(b"FACP", &content)
    }

    #[test]
    fn reads_old_and_new_registers() {
        let table = fadt(&[
            (40, &[0, 0, 0x10, 0]),
            (48, &[0xb2, 0, 0, 0, 0xf1]),
            (64, &[4, 6, 0, 0]),
            (76, &[8, 6, 0, 0]),
            (108, &[0x32, 2, 0]),
            (112, &(FLAG_RESET | FLAG_TIMER_32).to_le_bytes()),
            (116, &[1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0, 0x0f]),
            (172, &[1, 16, 0, 2, 4, 8, 0, 0, 0, 0, 0, 0]),
        ]);
        let found = parse(&table);
        assert_eq!(found.control, [Some(Register::Port(0x804)), None]);
        assert_eq!(found.timer, Some((Register::Port(0x608), true)));
        assert_eq!(found.reset, Some((Register::Port(0xcf9), 0x0f)));
        assert_eq!(
            (found.command_port, found.enable, found.century),
            (Some(0xb2), 0xf1, 0x32)
        );
        assert!(!found.legacy_free);
        assert_eq!(dsdt_address(&table), Some(MachineAddress(0x10_0000)));
    }

    #[test]
    fn a_hardware_reduced_machine_has_only_the_sleep_register() {
        let table = fadt(&[
            (64, &[4, 6, 0, 0]),
            (112, &FLAG_HARDWARE_REDUCED.to_le_bytes()),
            (244, &[0, 8, 0, 1, 0, 0, 0, 0xfe, 0, 0, 0, 0]),
        ]);
        let found = parse(&table);
        assert_eq!(found.control, [None; 2]);
        assert_eq!(
            found.sleep_control,
            Some(Register::Memory(MachineAddress(0xfe00_0000)))
        );
    }

    #[test]
    fn finds_the_soft_off_package() {
        let code = |bytes: &[u8]| table(b"DSDT", bytes);
        let cases = [
            (&b"junk\x08_S5_\x12\x06\x04\x00\x00\x00\x00"[..], Some((0, 0))),
            (b"\x08\\_S5_\x12\x08\x04\x0a\x05\x0a\x07\x00\x00", Some((5, 7))),
            (b"\x08_S5_\x12\x06\x04\x01\x68\x00\x00", Some((1, 1))),
            (
                b"_S5_ mention \x08_S5_\x12\x40\x01\x02\x0b\x05\x00\x0a\x05",
                Some((5, 5)),
            ),
            (b"\x10_S5_\x12\x06\x04\x00\x00\x00\x00", None),
            (b"\x08_S5_\x12", None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(soft_off(&code(bytes)), expected, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(content in proptest::collection::vec(any::<u8>(), 0..300), tail in proptest::collection::vec(any::<u8>(), 0..12)) {
            let _ = parse(&content);
            let _ = dsdt_address(&content);
            let mut code = vec![0; HEADER];
            code.extend(b"\x08_S5_\x12");
            code.extend(tail);
            let _ = soft_off(&code);
        }
    }
}

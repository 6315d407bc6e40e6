//! PCI configuration space, ports, registers of the processor, instructions of virtualization, and accesses to the local APIC and to nothing. A chaosdom has no device, so
//! none must show.
//!
//! Left out, since they end the domain: IN and OUT of strings, HLT, registers that decide where code runs or whether its tables are used (EFER), and
//! the local APIC's command register, by which a vCPU could reset itself.

use core::arch::x86_64::__cpuid_count;
use core::hint::black_box;

use unikernel_rt::port;

use super::Chaos;
use crate::machine;

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;
/// The debug port, whose bytes become lines of the log; the hypercalls show that.
const DEBUG_PORT: u16 = 0xe9;
const EFER: u32 = 0xc000_0080;
/// The command registers of the local APIC, by memory and by MSR.
const COMMAND: core::ops::Range<u64> = 0x2f0..0x320;
const COMMAND_REGISTER: u32 = 0x830;
/// Registers of interest.
const REGISTERS: [u32; 24] = [
    0x10,
    0x1b,
    0x3a,
    0x8b,
    0xfe,
    0x174,
    0x175,
    0x176,
    0x179,
    0x17a,
    0x1a0,
    0x1d9,
    0x200,
    0x277,
    0x2ff,
    0x6e0,
    0x800,
    0x80b,
    0xc000_0081,
    0xc000_0103,
    0xc001_0114,
    0xc001_0117,
    0xc001_1029,
    0x4000_0000,
];

pub(super) fn run(chaos: &mut Chaos<'_>) {
    while chaos.tally.goes_on() {
        match chaos.random.below(8) {
            0..=1 => configuration(chaos),
            2 => ports(chaos),
            3..=4 => registers(chaos),
            5 => {
                let random = &mut chaos.random;
                let leaf = match random.below(4) {
                    0 => random.word() as u32,
                    1 => 0x4000_0000 + random.below(0x200) as u32,
                    2 => 0x8000_0000 + random.below(0x30) as u32,
                    _ => random.below(0x30) as u32,
                };
                black_box(__cpuid_count(leaf, random.word() as u32 & 0x3f));
                chaos.tally.count();
            }
            6 => {
                let random = &mut chaos.random;
                let done = machine::virtualize(random.word(), chaos.machine.wild.pointer(random));
                if done {
                    chaos
                        .tally
                        .violation(format_args!("an instruction of virtualization was carried out"));
                }
                chaos.tally.answer(if done { 0 } else { -1 });
            }
            _ => {
                let random = &mut chaos.random;
                let (offset, form, value) = (random.below(4096), random.word(), random.word());
                let apic = random.once_in(2) && !COMMAND.contains(&offset);
                let done = machine::reach(apic, offset, form, value);
                chaos.tally.answer(if done { 0 } else { -1 });
            }
        }
    }
}

/// Functions that are others', or nobody's.
fn configuration(chaos: &mut Chaos<'_>) {
    let random = &mut chaos.random;
    let place = (random.below(4) as u32) << 16 | random.word() as u32 & 0xffff;
    port::write32(ADDRESS, ENABLE | place);
    let port = DATA + random.below(4) as u16;
    match random.below(4) {
        0 => port::write32(DATA, random.word() as u32),
        1 => port::write8(port, random.word() as u8),
        2 => {
            black_box(port::read16(port));
        }
        _ => {
            let found = port::read32(DATA);
            if place & 0xfc == 0 && found != u32::MAX {
                chaos
                    .tally
                    .violation(format_args!("function {place:#x} shows itself: {found:#x}"));
            }
        }
    }
    chaos.tally.count();
}

fn ports(chaos: &mut Chaos<'_>) {
    let random = &mut chaos.random;
    let port = match random.below(3) {
        0 => random.one_of(&[
            0x20, 0x21, 0x40, 0x43, 0x60, 0x64, 0x70, 0x71, 0x80, 0x92, 0x3f8, 0x3fd, 0x604, 0xb2, 0xcf9,
        ]),
        _ => random.word() as u16,
    };
    let value = random.word() as u32;
    if !(DEBUG_PORT - 3..=DEBUG_PORT).contains(&port) {
        match random.below(6) {
            0 => port::write8(port, value as u8),
            1 => port::write16(port, value as u16),
            2 => port::write32(port, value),
            3 => {
                black_box(port::read8(port));
            }
            4 => {
                black_box(port::read16(port));
            }
            _ => {
                black_box(port::read32(port));
            }
        }
    }
    chaos.tally.count();
}

fn registers(chaos: &mut Chaos<'_>) {
    let random = &mut chaos.random;
    let number = match random.below(4) {
        0 => random.word() as u32,
        1 => random.below(0x1000) as u32,
        2 => 0xc000_0000 + random.below(0x200) as u32,
        _ => random.one_of(&REGISTERS),
    };
    let done = match random.below(8) {
        0 => machine::write_extended(random.below(3) as u32, random.word()),
        1..=3 if number != EFER && number != COMMAND_REGISTER => {
            machine::write_register(number, chaos.machine.wild.word(random))
        }
        _ => machine::read_register(number).is_some(),
    };
    chaos.tally.answer(if done { 0 } else { -1 });
}

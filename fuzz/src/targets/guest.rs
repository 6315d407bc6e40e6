//! What guests give the hypervisor to read: their images, their code, their accesses to configuration space.

use hypervisor::{
    domain::devices,
    guest::{
        instruction::{Memory, Mode, decode},
        pci::{ConfigurationSpace, PciView},
        pvh::Kernel,
    },
    platform::pci::{ConfigSpace, PciAddress, scan},
    virt::Registers,
};

use crate::Input;

/// A kernel with its notes; everything that is accepted lies in the file and in the memory.
pub(crate) fn kernel_image(bytes: &[u8]) {
    const MEMORY: u64 = 64 << 20;
    let Ok(kernel) = Kernel::parse(bytes, MEMORY) else {
        return;
    };
    for segment in &kernel.segments {
        assert!(segment.file.end <= bytes.len() && segment.file.len() as u64 <= segment.memory_size);
        assert!(segment.address.0 + segment.memory_size <= MEMORY);
    }
    assert!(kernel.entry.0 < MEMORY && kernel.end().0 <= MEMORY);
}

struct Operand(u64);

impl Memory for Operand {
    fn read(&mut self, size: u8) -> u64 {
        assert!(matches!(size, 1 | 2 | 4 | 8));
        self.0 & u64::MAX >> (64 - 8 * u32::from(size))
    }
    fn write(&mut self, size: u8, value: u64) {
        assert!(matches!(size, 1 | 2 | 4 | 8));
        self.0 = value;
    }
}

/// An instruction, decoded and carried out.
pub(crate) fn instruction(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mode = match input.byte() % 3 {
        0 => Mode::Bits16,
        1 => Mode::Bits32,
        _ => Mode::Bits64,
    };
    let mut memory = Operand(u64::from_le_bytes(input.array()));
    let registers = Registers {
        rax: u64::from_le_bytes(input.array()),
        rcx: input.byte().into(),
        rflags: input.half().into(),
        ..Registers::default()
    };
    let Ok(instruction) = decode(input.0, mode) else {
        return;
    };
    assert!((1..=15).contains(&instruction.length) && usize::from(instruction.length) <= input.0.len());
    for _ in 0..3 {
        let mut registers = registers;
        instruction.execute(&mut registers, &mut memory);
    }
}

/// Configuration space whose every byte is the fuzzer's.
struct Space<'a>(&'a [u8]);

impl Space<'_> {
    fn at(&self, address: PciAddress, offset: u16, size: u8) -> u32 {
        if address.device > 1 || address.function > 0 {
            return u32::MAX >> (32 - 8 * u32::from(size));
        }
        let start = usize::from(address.device) * 256 + usize::from(offset);
        (0..usize::from(size)).fold(0, |value, byte| {
            value | u32::from(self.0.get(start + byte).copied().unwrap_or(0xff)) << (8 * byte)
        })
    }
}

impl ConfigSpace for Space<'_> {
    fn read(&self, address: PciAddress, offset: u16, size: u8) -> u32 {
        self.at(address, offset, size)
    }
    fn write(&self, _: PciAddress, _: u16, _: u8, _: u32) {}
}

impl ConfigurationSpace for Space<'_> {
    fn read(&mut self, address: PciAddress, offset: u16, size: u8) -> u32 {
        self.at(address, offset, size)
    }
    fn write(&mut self, _: PciAddress, _: u16, _: u8, _: u32) {}
}

/// A device's capabilities, and a guest's accesses to it.
pub(crate) fn pci_configuration(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut space = Space(input.take(512));
    let functions = scan(&space, &[(0, 0, 0)]);
    assert!(functions.len() <= 2);
    let mine: Vec<PciAddress> = functions
        .iter()
        .map(|function| function.address)
        .take(1)
        .collect();
    let seen = functions
        .iter()
        .take(1)
        .map(|function| devices::view(function, &functions, &mine));
    let mut view = PciView::new(seen.collect());
    while input.any() {
        let (kind, port) = (input.byte(), 0xcf8 + u16::from(input.byte() % 8));
        let size = 1 << (kind % 3);
        if kind & 0x80 == 0 {
            view.write(&mut space, port, size, input.word());
        } else {
            let _ = view.read(&mut space, port, size);
        }
    }
}

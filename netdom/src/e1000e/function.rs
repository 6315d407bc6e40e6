//! The card behind a PCI function: its registers mapped, its rings allocated, its interrupt bound.

use core::time::Duration;

use unikernel_rt::{
    Failure, System,
    dma::DmaBuffer,
    event::Interrupt,
    memory::PAGE_SIZE,
    pci::{Command, Function, MmioRegion, Registers as _},
};

use super::{E1000e, RingMemory, Settings, registers::Registers};
use crate::{nic::Error, pool::Pool};

/// The 82574L and the parts with its registers.
const DEVICES: [u16; 3] = [0x10d3, 0x10f6, 0x150c];
/// How long a card may take for its reset.
const PATIENCE: Duration = Duration::from_millis(500);
/// Behind the last register that the driver uses.
const REGISTERS: usize = 0x5800;

/// The card's registers in its BAR 0.
pub struct Window(MmioRegion);

impl Registers for Window {
    fn read(&self, offset: u32) -> u32 {
        self.0.read32(offset as usize)
    }

    fn write(&self, offset: u32, value: u32) {
        self.0.write32(offset as usize, value);
    }
}

/// Whether this driver is for the function.
pub fn drives(function: &Function) -> bool {
    function.vendor == 0x8086 && DEVICES.contains(&function.device)
}

/// Brings the card up. It interrupts at the port of the interrupt, which stays bound as long as that lives.
pub fn open(
    system: &System,
    function: &Function,
    settings: Settings,
    pool: &mut Pool,
) -> Result<(E1000e<Window>, Interrupt), Failure> {
    function.enable(Command::MEMORY | Command::INTERRUPT_DISABLE);
    let window = function.map_bar(0).filter(|window| window.length() >= REGISTERS);
    let window = window.ok_or_else(|| Failure::new("its registers cannot be mapped"))?;
    let ring = || -> Result<RingMemory, Error> {
        let buffer = DmaBuffer::allocate(PAGE_SIZE).map_err(|_| Error::Memory)?;
        Ok(RingMemory {
            bus: buffer.bus_address(),
            memory: buffer.memory().clone(),
        })
    };
    let limit = system.events.now() + PATIENCE;
    let card = E1000e::start(
        Window(window),
        settings,
        ring()?,
        ring()?,
        pool,
        || system.events.now() < limit,
        || function.enable(Command::BUS_MASTER),
    )?;
    let interrupt = function.bind_interrupt(&system.events, 0)?;
    Ok((card, interrupt))
}

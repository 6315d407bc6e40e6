//! Power off and reset, by the ways that ACPI names and, where they fail, by those that PCs have always had.

use spin::Once;

use super::{
    acpi::fadt::{Fadt, Register},
    cpu, mmio,
    pci::{self, PciAddress},
    port, time,
};

static POWER: Once<Power> = Once::new();

#[derive(Clone, Copy, Debug)]
struct Power {
    fadt: Fadt,
    soft_off: Option<(u8, u8)>,
}

/// Remembers how. Registers in memory are mapped now, so that nothing has to be when it matters.
pub(super) fn initialize(fadt: &Fadt, soft_off: Option<(u8, u8)>) {
    let registers = fadt.control.iter().flatten().chain(&fadt.sleep_control);
    for register in registers.chain(fadt.reset.as_ref().map(|(register, _)| register)) {
        if let Register::Memory(address) = register
            && let Err(error) = mmio::map(*address, 4)
        {
            log::warn!("the power register at {:#x} cannot be used: {error}", address.0);
        }
    }
    if soft_off.is_none() {
        log::warn!("ACPI does not say how to power off; the machine will halt instead");
    }
    POWER.call_once(|| Power {
        fadt: *fadt,
        soft_off,
    });
}

/// Powers the machine off; halts if that does not work.
pub fn power_off() -> ! {
    super::log::show_all();
    if let Some(power) = POWER.get() {
        power.turn_acpi_on();
        power.sleep();
    }
    log::error!("the machine does not power off by itself; it can be switched off now");
    cpu::halt()
}

/// Resets the machine.
pub fn reboot() -> ! {
    super::log::show_all();
    const KEYBOARD_COMMAND: u16 = 0x64;
    const KEYBOARD_BUSY: u8 = 2;
    const RESET_CONTROL: u16 = 0xcf9;
    if let Some(Power {
        fadt: Fadt {
            reset: Some((register, value)),
            ..
        },
        ..
    }) = POWER.get()
    {
        write_byte(register, *value);
        time::spin_for(50_000_000);
    }
    port::write_u8(RESET_CONTROL, 0x02);
    port::write_u8(RESET_CONTROL, 0x06);
    time::spin_for(50_000_000);
    if POWER.get().is_none_or(|power| !power.fadt.legacy_free) {
        let _ = (0..100_000).find(|_| port::read_u8(KEYBOARD_COMMAND) & KEYBOARD_BUSY == 0);
        port::write_u8(KEYBOARD_COMMAND, 0xfe);
        time::spin_for(50_000_000);
    }
    cpu::triple_fault()
}

impl Power {
    /// Firmware may have left the machine in its legacy mode, where the control registers do nothing.
    fn turn_acpi_on(&self) {
        const ENABLED: u16 = 1;
        let (Some(command), Some(Register::Port(control))) = (self.fadt.command_port, self.fadt.control[0])
        else {
            return;
        };
        if port::read_u16(control) & ENABLED == 0 && self.fadt.enable != 0 {
            port::write_u8(command, self.fadt.enable);
            let _ = (0..300).find(|_| {
                time::spin_for(1_000_000);
                port::read_u16(control) & ENABLED != 0
            });
        }
    }

    fn sleep(&self) {
        const SLEEP_ENABLE: u16 = 1 << 13;
        let Some((a, b)) = self.soft_off else { return };
        for (register, kind) in self.fadt.control.iter().zip([a, b]) {
            let command = |old: u16| old & !(7 << 10) | u16::from(kind) << 10 | SLEEP_ENABLE;
            match register {
                Some(Register::Port(port)) => port::write_u16(*port, command(port::read_u16(*port))),
                Some(Register::Memory(at)) => {
                    if let Ok(register) = mmio::map(*at, 2) {
                        register.write(0, command(register.read(0)));
                    }
                }
                _ => {}
            }
        }
        if let Some(register) = &self.fadt.sleep_control {
            write_byte(register, a << 2 | 1 << 5);
        }
        time::spin_for(1_000_000_000);
    }
}

fn write_byte(register: &Register, value: u8) {
    match *register {
        Register::Port(port) => port::write_u8(port, value),
        Register::Memory(at) => {
            if let Ok(register) = mmio::map(at, 1) {
                register.write(0, value);
            }
        }
        Register::Pci {
            device,
            function,
            offset,
        } => {
            pci::write(
                PciAddress {
                    segment: 0,
                    bus: 0,
                    device,
                    function,
                },
                offset,
                1,
                value.into(),
            );
        }
    }
}

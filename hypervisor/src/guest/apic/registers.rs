//! The registers of a local APIC, reached by its page (xAPIC) or by model-specific registers (x2APIC).

use super::{
    Delivery, Destination, ERROR_SEND_ILLEGAL, FIRST_VECTOR, Fault, Ipi, LocalApic, SPURIOUS_ENABLED, Time,
    message::delivery, timer::Mode,
};

/// Registers by their number: offset in the page / 16, or model-specific register - 0x800.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    Id,
    Version,
    TaskPriority,
    ArbitrationPriority,
    ProcessorPriority,
    EndOfInterrupt,
    RemoteRead,
    LogicalDestination,
    DestinationFormat,
    Spurious,
    InService(u16),
    Level(u16),
    Requested(u16),
    Errors,
    Command,
    CommandHigh,
    LocalVector(Lvt),
    InitialCount,
    CurrentCount,
    Divide,
    SelfInterrupt,
}

/// Sources of local interrupts, in the order of their registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lvt {
    Timer,
    Thermal,
    Performance,
    Pin0,
    Pin1,
    Error,
}

impl Lvt {
    pub(super) const COUNT: usize = 6;
    pub(super) const MASKED: u32 = 1 << 16;

    /// Bits that a guest may set: the vector and the mask; for the timer its mode; for the others the delivery mode; for pins also the polarity
    /// and the trigger mode.
    fn writable(self) -> u32 {
        match self {
            Self::Timer => 0x7_00ff,
            Self::Error => 0x1_00ff,
            Self::Thermal | Self::Performance => 0x1_07ff,
            Self::Pin0 | Self::Pin1 => 0x1_a7ff,
        }
    }
}

/// Version 0x14 with six local vectors.
const VERSION: u32 = 0x14 | (Lvt::COUNT as u32 - 1) << 16;
/// What of the command register is kept: vector, delivery mode, destination mode, level, trigger mode, shorthand.
const COMMAND_WRITABLE: u32 = 0xc_cfff;

impl Register {
    fn new(number: u16) -> Option<Self> {
        Some(match number {
            0x02 => Self::Id,
            0x03 => Self::Version,
            0x08 => Self::TaskPriority,
            0x09 => Self::ArbitrationPriority,
            0x0a => Self::ProcessorPriority,
            0x0b => Self::EndOfInterrupt,
            0x0c => Self::RemoteRead,
            0x0d => Self::LogicalDestination,
            0x0e => Self::DestinationFormat,
            0x0f => Self::Spurious,
            0x10..=0x17 => Self::InService(number - 0x10),
            0x18..=0x1f => Self::Level(number - 0x18),
            0x20..=0x27 => Self::Requested(number - 0x20),
            0x28 => Self::Errors,
            0x30 => Self::Command,
            0x31 => Self::CommandHigh,
            0x32 => Self::LocalVector(Lvt::Timer),
            0x33 => Self::LocalVector(Lvt::Thermal),
            0x34 => Self::LocalVector(Lvt::Performance),
            0x35 => Self::LocalVector(Lvt::Pin0),
            0x36 => Self::LocalVector(Lvt::Pin1),
            0x37 => Self::LocalVector(Lvt::Error),
            0x38 => Self::InitialCount,
            0x39 => Self::CurrentCount,
            0x3e => Self::Divide,
            0x3f => Self::SelfInterrupt,
            _ => return None,
        })
    }

    /// Bits that a write in x2APIC mode may set; `None` if the register cannot be written there.
    fn wide_writable(self) -> Option<u64> {
        Some(match self {
            Self::TaskPriority | Self::SelfInterrupt => 0xff,
            Self::EndOfInterrupt | Self::Errors => 0,
            Self::Spurious => 0x1ff,
            Self::Command => 0xffff_ffff_0000_0000 | COMMAND_WRITABLE as u64,
            // Delivery status and remote IRR are read-only, not reserved.
            Self::LocalVector(source) => (source.writable() | 0x5000) as u64,
            Self::InitialCount => 0xffff_ffff,
            Self::Divide => 0xb,
            _ => return None,
        })
    }

    fn wide_readable(self) -> bool {
        !matches!(
            self,
            Self::ArbitrationPriority
                | Self::RemoteRead
                | Self::DestinationFormat
                | Self::EndOfInterrupt
                | Self::CommandHigh
                | Self::SelfInterrupt
        )
    }
}

impl LocalApic {
    /// A read of `size` bytes at `offset` in its page. Each register is 4 bytes at a multiple of 16; there are zeros between them.
    pub fn read_memory(&self, offset: u16, size: u8, time: Time) -> u64 {
        let register = match Register::new(offset / 16) {
            Some(Register::SelfInterrupt) | None => 0,
            Some(Register::CurrentCount) => self.current_count(time),
            Some(register) => self.register(register),
        };
        let value = u128::from(register) >> (8 * (offset % 16)).min(127);
        let mask = if size >= 8 {
            u64::MAX
        } else {
            (1 << (8 * size)) - 1
        };
        value as u64 & mask
    }

    /// A write of `size` bytes at `offset` in its page; only 4 bytes at the start of a register have an effect. Answers the message to send, if one.
    pub fn write_memory(&mut self, offset: u16, size: u8, value: u64, time: Time) -> Option<Ipi> {
        if size != 4 || !offset.is_multiple_of(16) {
            return None;
        }
        let value = value as u32;
        match Register::new(offset / 16)? {
            Register::LogicalDestination => self.logical_destination = value & 0xff00_0000,
            Register::DestinationFormat => self.destination_format = value | 0x0fff_ffff,
            Register::CommandHigh => {
                self.command = self.command & 0xffff_ffff | u64::from(value & 0xff00_0000) << 32
            }
            Register::Command => {
                self.command = self.command & !0xffff_ffff | u64::from(value & COMMAND_WRITABLE);
                return self.send();
            }
            Register::SelfInterrupt => {}
            register => return self.set_register(register, value, time),
        }
        None
    }

    /// RDMSR of 0x800 to 0x8ff.
    pub fn read_x2apic(&self, msr: u32, time: Time) -> Result<u64, Fault> {
        match self.wide_register(msr)? {
            register if !register.wide_readable() => Err(Fault),
            Register::Id => Ok(self.id.into()),
            Register::Command => Ok(self.command),
            Register::CurrentCount => Ok(self.current_count(time).into()),
            register => Ok(self.register(register).into()),
        }
    }

    /// WRMSR of 0x800 to 0x8ff. Answers the message to send, if one.
    pub fn write_x2apic(&mut self, msr: u32, value: u64, time: Time) -> Result<Option<Ipi>, Fault> {
        let register = self.wide_register(msr)?;
        if value & !register.wide_writable().ok_or(Fault)? != 0 {
            return Err(Fault);
        }
        Ok(match register {
            Register::Command => {
                self.command = value;
                self.send()
            }
            Register::SelfInterrupt => self.message(Delivery::Fixed(value as u8), Destination::Itself, false),
            register => self.set_register(register, value as u32, time),
        })
    }

    fn wide_register(&self, msr: u32) -> Result<Register, Fault> {
        if !self.is_x2apic() {
            return Err(Fault);
        }
        u16::try_from(msr.wrapping_sub(0x800))
            .ok()
            .and_then(Register::new)
            .ok_or(Fault)
    }

    fn current_count(&self, time: Time) -> u32 {
        self.timer.count(self.timer_mode(), time.nanoseconds)
    }

    /// The value of a register, as far as it does not depend on time.
    pub(super) fn register(&self, register: Register) -> u32 {
        match register {
            Register::Id => self.id << 24,
            Register::Version => VERSION,
            Register::TaskPriority => self.task_priority.into(),
            Register::ProcessorPriority | Register::ArbitrationPriority => self.processor_priority().into(),
            // In x2APIC mode it follows from the id: 16 processors a cluster, a bit each.
            Register::LogicalDestination if self.is_x2apic() => self.id >> 4 << 16 | 1 << (self.id & 15),
            Register::LogicalDestination => self.logical_destination,
            Register::DestinationFormat => self.destination_format,
            Register::Spurious => self.spurious,
            Register::InService(index) => self.in_service.word(index),
            Register::Level(index) => self.level.word(index),
            Register::Requested(index) => self.requested.word(index),
            Register::Errors => self.errors,
            Register::Command => self.command as u32,
            Register::CommandHigh => (self.command >> 32) as u32,
            Register::LocalVector(source) => self.local_vectors[source as usize],
            Register::InitialCount => self.timer.initial,
            Register::Divide => self.timer.divide,
            Register::EndOfInterrupt
            | Register::RemoteRead
            | Register::CurrentCount
            | Register::SelfInterrupt => 0,
        }
    }

    /// Writes a register that means the same in both modes; read-only ones stay.
    fn set_register(&mut self, register: Register, value: u32, time: Time) -> Option<Ipi> {
        let mode = self.timer_mode();
        match register {
            Register::TaskPriority => self.task_priority = value as u8,
            Register::EndOfInterrupt => self.end_of_interrupt(),
            Register::Spurious => {
                self.spurious = value & 0x1ff;
                if value & SPURIOUS_ENABLED == 0 {
                    self.local_vectors
                        .iter_mut()
                        .for_each(|entry| *entry |= Lvt::MASKED);
                }
            }
            Register::Errors => self.errors = core::mem::take(&mut self.new_errors),
            Register::LocalVector(source) => {
                let mask = if self.is_software_enabled() {
                    0
                } else {
                    Lvt::MASKED
                };
                self.local_vectors[source as usize] = value & source.writable() | mask;
                if source == Lvt::Timer {
                    self.timer.change_mode(mode, Mode::of_local_vector(value));
                }
            }
            Register::InitialCount => self.timer.start(mode, value, time.nanoseconds),
            Register::Divide => self.timer.set_divide(mode, value, time.nanoseconds),
            _ => {}
        }
        None
    }

    /// The message that the command register asks for.
    fn send(&mut self) -> Option<Ipi> {
        let low = self.command as u32;
        let logical = low >> 11 & 1 == 1;
        let (assert, level) = (low >> 14 & 1 == 1, low >> 15 & 1 == 1);
        let delivery = delivery(low)?;
        if delivery == Delivery::Init && level && !assert {
            return None; // The end of an INIT, which processors have ignored since the P6.
        }
        let wide = self.is_x2apic();
        let address = if wide {
            (self.command >> 32) as u32
        } else {
            (self.command >> 56) as u32
        };
        let destination = match low >> 18 & 3 {
            0 if logical => Destination::Logical { address, wide },
            0 => Destination::Physical { id: address, wide },
            1 => Destination::Itself,
            2 => Destination::All,
            _ => Destination::Others,
        };
        self.message(delivery, destination, level && assert)
    }

    fn message(&mut self, delivery: Delivery, destination: Destination, level: bool) -> Option<Ipi> {
        if matches!(delivery, Delivery::Fixed(vector) | Delivery::LowestPriority(vector) if vector < FIRST_VECTOR)
        {
            self.report(ERROR_SEND_ILLEGAL);
            return None;
        }
        Some(Ipi {
            delivery,
            destination,
            level,
        })
    }
}

//! The local APIC of a vCPU: xAPIC registers and the x2APIC view of them, priorities, inter-processor interrupts and the timer (Intel SDM 3A,
//! chapter 11; AMD APM 2, chapter 16).
//!
//! It injects nothing and reaches no other vCPU: the caller asks [`LocalApic::pending_vector`] before it enters the guest, hands an [`Ipi`] to the
//! APICs that it [reaches](Ipi::reaches), and calls [`LocalApic::expire`] at [`LocalApic::deadline`]. There is no I/O APIC and no PIC, so
//! level-triggered interrupts end like the others and nothing comes in by LINT0.

mod message;
mod registers;
#[cfg(test)]
mod tests;
mod timer;
mod vectors;

pub use message::{Delivery, Destination, Ipi};

use registers::{Lvt, Register};
use timer::{Mode, Timer};
use vectors::Vectors;

/// Now, by the clocks that the APIC's timer counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Nanoseconds of the machine's clock.
    pub nanoseconds: u64,
    /// The guest's time-stamp counter.
    pub guest_tsc: u64,
    /// Its frequency.
    pub tsc_khz: u32,
}

/// What a delivered message asks of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// Nothing: dropped, or already pending.
    Nothing,
    /// An interrupt is pending now; wake the vCPU.
    Interrupt,
    /// Inject a non-maskable interrupt, and wake the vCPU.
    NonMaskable,
    /// Take the vCPU down until a start-up arrives.
    Init,
    /// Start the vCPU at this page number if it waits for that; otherwise nothing.
    StartUp(u8),
}

/// A register access that the guest may not make: #GP in x2APIC mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

const BASE_ADDRESS: u64 = 0xfee0_0000;
const BASE_BOOTSTRAP: u64 = 1 << 8;
const BASE_X2APIC: u64 = 1 << 10;
const BASE_ENABLED: u64 = 1 << 11;

const SPURIOUS_ENABLED: u32 = 1 << 8;
const ERROR_SEND_ILLEGAL: u32 = 1 << 5;
const ERROR_RECEIVE_ILLEGAL: u32 = 1 << 6;
/// Vectors below are exceptions'; no interrupt may have one.
const FIRST_VECTOR: u8 = 16;

/// The local APIC of one vCPU.
#[derive(Clone, Debug)]
pub struct LocalApic {
    id: u32,
    base: u64,
    task_priority: u8,
    /// Vectors that wait to be taken.
    requested: Vectors,
    /// Vectors that were taken and not ended.
    in_service: Vectors,
    /// Vectors whose last message was level-triggered.
    level: Vectors,
    logical_destination: u32,
    destination_format: u32,
    spurious: u32,
    errors: u32,
    /// Errors since the guest last asked.
    new_errors: u32,
    command: u64,
    local_vectors: [u32; Lvt::COUNT],
    timer: Timer,
}

impl Default for LocalApic {
    fn default() -> Self {
        Self::new(0, false)
    }
}

impl LocalApic {
    /// The APIC of the processor with physical id `id`, after power-on: in xAPIC mode at 0xfee0_0000, disabled by software.
    pub fn new(id: u32, bootstrap: bool) -> Self {
        Self {
            id,
            base: BASE_ADDRESS | BASE_ENABLED | if bootstrap { BASE_BOOTSTRAP } else { 0 },
            task_priority: 0,
            requested: Vectors::default(),
            in_service: Vectors::default(),
            level: Vectors::default(),
            logical_destination: 0,
            destination_format: u32::MAX,
            spurious: 0xff,
            errors: 0,
            new_errors: 0,
            command: 0,
            local_vectors: [Lvt::MASKED; Lvt::COUNT],
            timer: Timer::default(),
        }
    }

    /// Its physical id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// IA32_APIC_BASE.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Writes IA32_APIC_BASE. Only the transitions between disabled, xAPIC and x2APIC that a processor has are taken; the address cannot be moved.
    pub fn set_base(&mut self, value: u64) -> Result<(), Fault> {
        const MODE: u64 = BASE_ENABLED | BASE_X2APIC;
        if (value ^ self.base) & !MODE & !BASE_BOOTSTRAP != 0 {
            return Err(Fault);
        }
        match (self.base & MODE, value & MODE) {
            (old, new) if old == new => {}
            // x2APIC is entered from xAPIC, and left by disabling.
            (_, BASE_X2APIC) | (0, MODE) | (MODE, BASE_ENABLED) => return Err(Fault),
            (_, MODE) => self.command &= 0xffff_ffff,
            (_, 0) => self.reset(),
            _ => {}
        }
        self.base = self.base & !MODE | value & MODE;
        Ok(())
    }

    fn is_enabled(&self) -> bool {
        self.base & BASE_ENABLED != 0
    }

    fn is_x2apic(&self) -> bool {
        self.base & BASE_X2APIC != 0
    }

    fn is_software_enabled(&self) -> bool {
        self.spurious & SPURIOUS_ENABLED != 0
    }

    /// Whether accesses to the page at 0xfee0_0000 reach it: enabled, not in x2APIC mode.
    pub fn is_memory_mapped(&self) -> bool {
        self.is_enabled() && !self.is_x2apic()
    }

    /// INIT: everything as after power-on, but for the id and IA32_APIC_BASE.
    pub fn reset(&mut self) {
        *self = Self {
            base: self.base,
            ..Self::new(self.id, false)
        };
    }

    /// Delivers a message that reaches this APIC.
    pub fn deliver(&mut self, ipi: Ipi) -> Delivered {
        if !self.is_enabled() {
            return Delivered::Nothing;
        }
        match ipi.delivery {
            Delivery::NonMaskable => Delivered::NonMaskable,
            Delivery::Init => Delivered::Init,
            Delivery::StartUp(page) => Delivered::StartUp(page),
            Delivery::Fixed(vector) | Delivery::LowestPriority(vector) => {
                if !self.is_software_enabled() {
                    return Delivered::Nothing;
                }
                if vector < FIRST_VECTOR {
                    return self.report(ERROR_RECEIVE_ILLEGAL);
                }
                match ipi.level {
                    true => _ = self.level.insert(vector),
                    false => self.level.remove(vector),
                }
                self.request(vector)
            }
        }
    }

    fn request(&mut self, vector: u8) -> Delivered {
        if self.requested.insert(vector) {
            Delivered::Interrupt
        } else {
            Delivered::Nothing
        }
    }

    /// Notes an error, and raises the interrupt for it where the guest has set one up.
    fn report(&mut self, error: u32) -> Delivered {
        let known = self.new_errors & error != 0;
        self.new_errors |= error;
        match self.local_vector(Lvt::Error) {
            Some(vector) if !known => self.request(vector),
            _ => Delivered::Nothing,
        }
    }

    /// The vector of a local source, if it is not masked and is one.
    fn local_vector(&self, source: Lvt) -> Option<u8> {
        let entry = self.local_vectors[source as usize];
        (entry & Lvt::MASKED == 0 && entry as u8 >= FIRST_VECTOR).then_some(entry as u8)
    }

    /// The vector to inject next, if its priority is above the processor's.
    pub fn pending_vector(&self) -> Option<u8> {
        let vector = self.requested.highest()?;
        (self.is_enabled() && self.is_software_enabled() && vector >> 4 > self.processor_priority() >> 4)
            .then_some(vector)
    }

    /// The processor took `vector`, the answer of `pending_vector`: it is in service until the guest ends it.
    pub fn accept(&mut self, vector: u8) {
        self.requested.remove(vector);
        self.in_service.insert(vector);
    }

    /// The guest ended the interrupt of highest priority that is in service.
    fn end_of_interrupt(&mut self) {
        if let Some(vector) = self.in_service.highest() {
            self.in_service.remove(vector);
        }
    }

    /// The task priority, as CR8 shows it (0 to 15).
    pub fn cr8(&self) -> u8 {
        self.task_priority >> 4
    }

    /// The guest wrote CR8. A write of what it reads keeps the lower half of the priority.
    pub fn set_cr8(&mut self, value: u8) {
        if value & 15 != self.cr8() {
            self.task_priority = (value & 15) << 4;
        }
    }

    /// The processor priority register: the higher class of the task and of what is in service.
    pub fn processor_priority(&self) -> u8 {
        let service = self.in_service.highest().unwrap_or(0) & 0xf0;
        if self.task_priority >> 4 >= service >> 4 {
            self.task_priority
        } else {
            service
        }
    }

    /// Whether the logical `address` of a message, not everyone's, names this processor.
    fn has_logical_address(&self, address: u32) -> bool {
        const CLUSTERS: u32 = 0;
        const FLAT: u32 = 0xf;
        if self.is_x2apic() {
            let own = self.register(Register::LogicalDestination);
            return own >> 16 == address >> 16 && own & address & 0xffff != 0;
        }
        let own = self.logical_destination >> 24;
        match self.destination_format >> 28 {
            _ if address > 0xff => false,
            FLAT => own & address != 0,
            CLUSTERS => own >> 4 == address >> 4 && own & address & 15 != 0,
            _ => false,
        }
    }

    fn timer_mode(&self) -> Mode {
        Mode::of_local_vector(self.local_vectors[Lvt::Timer as usize])
    }

    /// IA32_TSC_DEADLINE: 0 unless the timer waits for it.
    pub fn tsc_deadline(&self) -> u64 {
        self.timer.tsc_deadline
    }

    /// Writes IA32_TSC_DEADLINE; ignored unless the timer is in that mode.
    pub fn set_tsc_deadline(&mut self, value: u64, time: Time) {
        if self.timer_mode() == Mode::TscDeadline {
            self.timer.set_tsc_deadline(value, time);
        }
    }

    /// When the timer fires, in nanoseconds of the machine's clock; `None` if it does not.
    pub fn deadline(&self) -> Option<u64> {
        self.timer.deadline
    }

    /// Fires the timer if its deadline is past, and sets the next one of a periodic timer. Answers whether an interrupt is pending now that was
    /// not before.
    pub fn expire(&mut self, nanoseconds: u64) -> bool {
        if !self.timer.expire(self.timer_mode(), nanoseconds) || !self.is_enabled() {
            return false;
        }
        self.local_vector(Lvt::Timer)
            .is_some_and(|vector| self.request(vector) == Delivered::Interrupt)
    }
}

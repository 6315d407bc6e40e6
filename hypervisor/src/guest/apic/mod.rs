//! The local APIC of a vCPU: xAPIC registers and the x2APIC view of them, priorities, inter-processor interrupts and the timer.
//!
//! It injects nothing and reaches no other vCPU: the caller asks [`LocalApic::pending_vector`] before it enters the guest, hands an [`Ipi`] to the
//! APICs that it [reaches](Ipi::reaches), and calls [`LocalApic::expire`] at [`LocalApic::deadline`].

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

/// What an interrupt message delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// An interrupt with this vector to every processor reached.
    Fixed(u8),
    /// An interrupt with this vector to one of the processors reached.
    LowestPriority(u8),
    /// A non-maskable interrupt.
    NonMaskable,
    /// Resets the processor, which then waits for a start-up.
    Init,
    /// Starts the processor in real mode at this page number.
    StartUp(u8),
}

/// Whom an interrupt message reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The sender.
    Itself,
    /// Everyone.
    All,
    /// Everyone but the sender.
    Others,
    /// The processor with this physical id; 0xff in an xAPIC message (`wide` false) and 0xffff_ffff in a wide one are everyone.
    Physical { id: u32, wide: bool },
    /// The processors that this logical address names.
    Logical { address: u32, wide: bool },
}

/// A message between processors, or of a device (MSI).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipi {
    /// What.
    pub delivery: Delivery,
    /// To whom.
    pub destination: Destination,
    /// Level-triggered. Devices of guests have none such, but a message may say so.
    pub level: bool,
}

impl Ipi {
    /// The message that a device sends by writing `data` to `address` (Intel SDM 3A 11.11); `None` if the address is not one of the APIC's or the
    /// delivery mode has no meaning for a guest.
    pub fn from_msi(address: u64, data: u32) -> Option<Self> {
        let _ = (address, data);
        todo!()
    }

    /// Whether it reaches the processor with this APIC; `sender` says that it is the one that sent it. A lowest-priority message reaches several: the
    /// caller delivers it to the one of least [`LocalApic::processor_priority`].
    pub fn reaches(&self, target: &LocalApic, sender: bool) -> bool {
        let _ = (target, sender);
        todo!()
    }
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

/// The local APIC of one vCPU.
#[derive(Clone, Debug, Default)]
pub struct LocalApic {}

impl LocalApic {
    /// The APIC of the processor with physical id `id`, after power-on: in xAPIC mode at 0xfee0_0000, disabled by software.
    pub fn new(id: u32, bootstrap: bool) -> Self {
        let _ = (id, bootstrap);
        Self {}
    }

    /// Its physical id.
    pub fn id(&self) -> u32 {
        todo!()
    }

    /// IA32_APIC_BASE.
    pub fn base(&self) -> u64 {
        todo!()
    }

    /// Writes IA32_APIC_BASE. Only the transitions between disabled, xAPIC and x2APIC that a processor has are taken; the address cannot be moved.
    pub fn set_base(&mut self, value: u64) -> Result<(), Fault> {
        let _ = value;
        todo!()
    }

    /// Whether accesses to the page at 0xfee0_0000 reach it: enabled, not in x2APIC mode.
    pub fn is_memory_mapped(&self) -> bool {
        todo!()
    }

    /// A read of `size` bytes at `offset` in its page. Accesses of other than 4 aligned bytes read parts of the register.
    pub fn read_memory(&self, offset: u16, size: u8, time: Time) -> u64 {
        let _ = (offset, size, time);
        todo!()
    }

    /// A write of `size` bytes at `offset` in its page; only 4 aligned bytes have an effect. Answers the message to send, if one.
    pub fn write_memory(&mut self, offset: u16, size: u8, value: u64, time: Time) -> Option<Ipi> {
        let _ = (offset, size, value, time);
        todo!()
    }

    /// RDMSR of 0x800 to 0x8ff.
    pub fn read_x2apic(&self, msr: u32, time: Time) -> Result<u64, Fault> {
        let _ = (msr, time);
        todo!()
    }

    /// WRMSR of 0x800 to 0x8ff. Answers the message to send, if one.
    pub fn write_x2apic(&mut self, msr: u32, value: u64, time: Time) -> Result<Option<Ipi>, Fault> {
        let _ = (msr, value, time);
        todo!()
    }

    /// IA32_TSC_DEADLINE.
    pub fn tsc_deadline(&self) -> u64 {
        todo!()
    }

    /// Writes IA32_TSC_DEADLINE; ignored unless the timer is in that mode.
    pub fn set_tsc_deadline(&mut self, value: u64, time: Time) {
        let _ = (value, time);
        todo!()
    }

    /// Delivers a message that reaches this APIC.
    pub fn deliver(&mut self, ipi: Ipi) -> Delivered {
        let _ = ipi;
        todo!()
    }

    /// The vector to inject next, if its priority is above the processor's.
    pub fn pending_vector(&self) -> Option<u8> {
        None
    }

    /// The processor took `vector`, the answer of `pending_vector`: it is in service until the guest ends it.
    pub fn accept(&mut self, vector: u8) {
        let _ = vector;
        todo!()
    }

    /// The task priority, as CR8 shows it (0 to 15).
    pub fn cr8(&self) -> u8 {
        0
    }

    /// The guest wrote CR8.
    pub fn set_cr8(&mut self, value: u8) {
        let _ = value;
    }

    /// The processor priority register.
    pub fn processor_priority(&self) -> u8 {
        todo!()
    }

    /// When the timer fires, in nanoseconds of the machine's clock; `None` if it does not.
    pub fn deadline(&self) -> Option<u64> {
        None
    }

    /// Fires the timer if its deadline is past, and sets the next one of a periodic timer. Answers whether an interrupt is pending now that was
    /// not before.
    pub fn expire(&mut self, nanoseconds: u64) -> bool {
        let _ = nanoseconds;
        false
    }

    /// INIT: everything as after power-on, but for the id and IA32_APIC_BASE.
    pub fn reset(&mut self) {
        todo!()
    }
}

//! One IOMMU, whoever made it: what the hypervisor asks of its driver.
//!
//! A unit denies every device everything until the device is attached to a domain's tables. It takes the frames that it needs when it is enabled, and none
//! afterwards, so that nothing later fails for want of memory. Whatever changes what a unit may remember (detaching, unmapping, interrupts) is queued and has taken
//! effect when [`Unit::complete`] has answered. A unit that does not answer in time is broken for good: its driver says so once more at each further call, at once.

use super::{Format, description::Requester};
use crate::{
    memory::{FrameAllocator, GuestAddress, MachineAddress, OutOfMemory},
    platform::time,
};

/// What a unit can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// How the entries of the tables that it walks are written.
    pub format: Format,
    /// It walks tables of three levels (addresses of 39 bits).
    pub three_levels: bool,
    /// It walks tables of four levels (addresses of 48 bits).
    pub four_levels: bool,
    /// Pages of 2 MiB.
    pub large_pages: bool,
    /// Pages of 1 GiB.
    pub giant_pages: bool,
    /// It may remember that nothing was mapped at an address, so mappings are invalidated as well when they are made.
    pub remembers_absence: bool,
    /// Domains that it tells apart: tags are below it.
    pub tags: u32,
    /// It remaps interrupts.
    pub remaps_interrupts: bool,
    /// With interrupts remapped it reaches local APIC ids of 32 bits; otherwise those below 255.
    pub wide_destinations: bool,
}

/// What a unit is to do, told when it is enabled.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The devices that may be attached later, and those that send interrupts later: room for them is made now.
    pub requesters: &'a [Requester],
    /// Interrupts are remapped, and messages of the old form refused.
    pub remap_interrupts: bool,
    /// The processors' local APICs are in x2APIC mode.
    pub x2apic: bool,
}

/// Why a unit does not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// No room for its structures.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
    /// A capability that the hypervisor cannot do without.
    #[error("it lacks {0}")]
    Lacks(&'static str),
    /// Registers that make no sense or cannot be reached.
    #[error("its registers cannot be used: {0}")]
    Registers(&'static str),
    /// It did not do in time what it was told; it does nothing any more.
    #[error("it does not answer")]
    NoAnswer,
    /// A requester that was not in the plan, or a tag beyond its domains.
    #[error("it has no room for the device")]
    NoRoom,
}

/// The domain that a device is attached to, as a unit sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Names the domain: what units remember is marked with it. Above 0 and below [`Features::tags`].
    pub tag: u16,
    /// The domain's tables.
    pub root: MachineAddress,
    /// Their levels: 3 or 4.
    pub levels: u32,
}

/// A fixed interrupt at one processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// The vector.
    pub vector: u8,
    /// The processor's local APIC id.
    pub destination: u32,
    /// Level-triggered: a line of an I/O APIC.
    pub level: bool,
}

/// What a device has to send, or an I/O APIC's redirection has to hold, to raise a remapped interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Address of the message.
    pub address: u64,
    /// Its data.
    pub data: u32,
}

/// A remapping entry, by the requester that it is bound to and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterruptEntry {
    /// The only sender that it works for.
    pub requester: Requester,
    /// Its number in the table that it is in.
    pub index: u16,
}

/// What a device did that it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read memory.
    Read,
    /// Wrote memory.
    Write,
    /// Sent an interrupt; [`Fault::address`] is the message's, or the number of the entry.
    Interrupt,
}

/// An access that a unit refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Who.
    pub requester: Requester,
    /// What.
    pub access: Access,
    /// Where.
    pub address: u64,
    /// The unit's reason, for people who have its manual at hand.
    pub code: u16,
    /// The same in words.
    pub reason: &'static str,
}

/// An entry of a unit's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// A refused access.
    Fault(Fault),
    /// More happened than the log had room for.
    Lost,
    /// The unit found fault with its own structures or commands: what it says, and the number that it gives.
    Trouble(&'static str, u64),
}

/// One IOMMU. All methods do a bounded amount of work.
pub trait Unit: Send {
    /// Its name for people: maker, version, address of its registers.
    fn name(&self) -> &str;

    /// What it can do.
    fn features(&self) -> Features;

    /// Turns it on, whatever state it was left in. When this returns, no device behind it reaches memory, and no interrupt of a device or I/O APIC arrives if
    /// interrupts are remapped; what the unit knew before is forgotten. On an error it is turned off again, as far as it listens.
    fn enable(&mut self, frames: &mut FrameAllocator, plan: &Plan) -> Result<(), UnitError>;

    /// Lets a device reach what a domain's tables map. It is detached before.
    fn attach(&mut self, requester: Requester, context: Context) -> Result<(), UnitError>;

    /// A device reaches nothing any more, from [`Self::complete`] on. One that was not attached may be named.
    fn detach(&mut self, requester: Requester);

    /// Queues that the unit forgets what it knows of `count` pages from `first` of a domain; a driver may make it forget more.
    fn invalidate(&mut self, tag: u16, first: GuestAddress, count: u64);

    /// Queues that the unit forgets everything that it knows of a domain.
    fn invalidate_domain(&mut self, tag: u16);

    /// Waits until everything that was queued has happened, and the accesses that were under way by old translations are over. Bounded in time.
    fn complete(&mut self) -> Result<(), UnitError>;

    /// Reserves a remapping entry for interrupts of a requester; nothing comes through it yet. `None` if its table is full, or the requester not in the plan.
    fn allocate_interrupt(&mut self, requester: Requester) -> Option<InterruptEntry>;

    /// Says what comes through an entry, or that nothing does; from [`Self::complete`] on. What the sender has to send does not change with it.
    fn program_interrupt(&mut self, entry: InterruptEntry, interrupt: Option<Interrupt>);

    /// Gives an entry back, through which nothing comes any more.
    fn free_interrupt(&mut self, entry: InterruptEntry);

    /// The message that a device has to send for an entry.
    fn message(&self, entry: InterruptEntry) -> Message;

    /// What the redirection of an I/O APIC has to hold for an entry that lets this interrupt through, mask, polarity and trigger mode apart.
    fn redirection(&self, entry: InterruptEntry, interrupt: Interrupt) -> u64;

    /// Has the unit interrupt a processor when its log has something new. False if it cannot: then the log is looked at now and then.
    fn signal_faults(&mut self, vector: u8, destination: u32) -> bool;

    /// Takes the oldest entry out of the unit's log.
    fn next_report(&mut self) -> Option<Report>;
}

/// Registers of a unit; in the machine those of the device, in a test those of a model of it. Offsets are multiples of the width.
pub trait Registers: Send {
    /// Reads 32 bits.
    fn read32(&self, offset: usize) -> u32;
    /// Writes 32 bits.
    fn write32(&self, offset: usize, value: u32);
    /// Reads 64 bits.
    fn read64(&self, offset: usize) -> u64;
    /// Writes 64 bits.
    fn write64(&self, offset: usize, value: u64);
}

impl Registers for crate::platform::mmio::Mmio {
    fn read32(&self, offset: usize) -> u32 {
        self.read(offset)
    }

    fn write32(&self, offset: usize, value: u32) {
        self.write(offset, value);
    }

    fn read64(&self, offset: usize) -> u64 {
        self.read(offset)
    }

    fn write64(&self, offset: usize, value: u64) {
        self.write(offset, value);
    }
}

/// How long a unit is waited for: some hundred times as long as the slowest takes.
const PATIENCE: u64 = 50_000_000;
/// Looks at a unit after which it is given up even where no clock runs.
const MOST_LOOKS: u64 = if cfg!(test) { 1000 } else { 1 << 32 };

/// Waiting for a unit, which ends.
pub struct Patience {
    until: u64,
    looks: u64,
}

impl Patience {
    /// It begins.
    #[expect(
        clippy::new_without_default,
        reason = "a default that depends on the time surprises"
    )]
    pub fn new() -> Self {
        Self {
            until: time::now() + PATIENCE,
            looks: 0,
        }
    }

    /// Whether it has been long enough; otherwise a moment passes.
    pub fn is_over(&mut self) -> bool {
        self.looks += 1;
        core::hint::spin_loop();
        self.looks >= MOST_LOOKS || time::now() > self.until
    }

    /// Waits until `done`; false if it does not come.
    pub fn wait(mut self, mut done: impl FnMut() -> bool) -> bool {
        while !done() {
            if self.is_over() {
                return false;
            }
        }
        true
    }
}

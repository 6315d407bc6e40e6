//! The processor backends behind one trait: SVM today, VMX in the same place. Nothing outside this folder knows which one runs.
//!
//! A backend runs a vCPU until it exits and turns the exit into an [`Exit`]; what it means is decided elsewhere.

mod away;
mod extended;
mod start;
mod svm;

use alloc::boxed::Box;

pub use away::Away;
pub use extended::{ExtendedState, forget_branches, loaded_xcr0, offered as offered_xcr0, set_loaded_xcr0};
pub use start::{StartSegment, StartState};

use crate::memory::{DirectMap, FrameAllocator, GuestAddress, MachineAddress, OutOfMemory};

/// The general registers of a vCPU, its instruction pointer and its flags; exact whenever the vCPU is not running.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the processor's registers")]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rsp: u64,
    pub rip: u64,
    pub rflags: u64,
}

/// Why a vCPU stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A physical interrupt is pending; the caller opens the window in which it is taken.
    Interrupt,
    /// A non-maskable interrupt arrived.
    NonMaskableInterrupt,
    /// The guest can take an interrupt now ([`VirtualCpu::request_interrupt_window`]), or is about to end a non-maskable one.
    InterruptWindow,
    /// CPUID; answer in the registers, then [`VirtualCpu::skip_instruction`].
    Cpuid,
    /// HLT.
    Halt,
    /// VMMCALL or VMCALL.
    Hypercall,
    /// RDMSR of this register.
    ReadMsr(u32),
    /// WRMSR of this register, with the value.
    WriteMsr(u32, u64),
    /// XSETBV of this register, with the value.
    SetExtendedControl(u32, u64),
    /// IN, OUT, INS or OUTS.
    Port(PortAccess),
    /// The second stage refused an access.
    NestedFault(NestedFault),
    /// An instruction that guests do not have (VMRUN, INVLPGA, MONITOR …): the guest gets #UD.
    InvalidInstruction,
    /// An exception that was intercepted, or that answers an instruction which guests may not use: the guest gets it.
    Exception {
        /// Vector.
        vector: u8,
        /// Error code, where the exception has one.
        error: Option<u32>,
    },
    /// The machine reports broken hardware.
    MachineCheck,
    /// WBINVD or INVD; nothing is to be done, since the caches are coherent.
    FlushCaches,
    /// The guest shut its processor down.
    TripleFault,
    /// Anything else: the backend's code for it. The domain is stopped.
    Unexpected(u64),
}

/// An access to an I/O port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAccess {
    /// The first port.
    pub port: u16,
    /// 1, 2 or 4 bytes.
    pub size: u8,
    /// OUT.
    pub write: bool,
    /// INS or OUTS; no device of ours has a use for them.
    pub string: bool,
}

/// An access that the second stage refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NestedFault {
    /// What the guest, or its page walk, tried to reach.
    pub address: GuestAddress,
    /// It wrote.
    pub write: bool,
    /// It fetched an instruction.
    pub fetch: bool,
    /// The page is mapped, and forbids this access.
    pub present: bool,
}

/// What is put into a vCPU when it runs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injection {
    /// An external interrupt with this vector.
    Interrupt(u8),
    /// A non-maskable interrupt.
    NonMaskableInterrupt,
    /// An exception, with its error code where it has one.
    Exception {
        /// Vector.
        vector: u8,
        /// Error code, where the exception has one.
        error: Option<u32>,
    },
}

/// The mode that decides how instructions and addresses of a vCPU are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the processor's registers")]
pub struct Paging {
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    /// The current privilege level.
    pub privilege: u8,
    /// The code segment is a 64-bit one.
    pub long_code: bool,
    /// Base of the code segment (0 in 64-bit code).
    pub code_base: u64,
}

/// A vCPU as the processor's virtualization extension sees it. It goes where it is run.
pub trait VirtualCpu: Send {
    /// Runs the guest until it exits. `second_stage` is the root of the domain's second-stage tables. Called with interrupts off, returns with
    /// interrupts off.
    fn run(&mut self, registers: &mut Registers, second_stage: MachineAddress) -> Exit;
    /// Moves the instruction pointer behind the instruction that caused the last exit, and ends an interrupt shadow.
    fn skip_instruction(&mut self, registers: &mut Registers);
    /// Whether an external interrupt could be taken now: interrupts enabled, no shadow, nothing queued for injection.
    fn interruptible(&self, registers: &Registers) -> bool;
    /// Whether the guest stands behind an STI or MOV SS that holds interrupts off for one instruction. A window request would not let it go on
    /// everywhere, so the caller lets it run and looks again soon.
    fn in_interrupt_shadow(&self, registers: &Registers) -> bool;
    /// Whether an event is queued (ours, or one that an exit interrupted and that must be delivered again).
    fn injection_pending(&self) -> bool;
    /// Whether a non-maskable interrupt could be taken now: nothing is queued, and the last one is over.
    fn takes_non_maskable(&self, _registers: &Registers) -> bool {
        !self.injection_pending()
    }
    /// Whether the guest stands at the IRET that ends a non-maskable interrupt. Nothing tells when it is behind it, so the caller looks again soon.
    fn ends_non_maskable(&self, _registers: &Registers) -> bool {
        false
    }
    /// Queues an event for the next entry: an interrupt where [`Self::interruptible`], a non-maskable one where [`Self::takes_non_maskable`], and
    /// an exception behind the exit of the instruction that causes it.
    fn inject(&mut self, event: Injection);
    /// Exit with [`Exit::InterruptWindow`] as soon as the guest can take an interrupt. False if that cannot be had beside the interrupt that is
    /// queued; the caller looks again soon.
    fn request_interrupt_window(&mut self, wanted: bool) -> bool;
    /// What the guest put into CR8, which does not exit: the priority class below which it wants no interrupt.
    fn task_priority(&self) -> u8;
    /// Shows another value in CR8.
    fn set_task_priority(&mut self, priority: u8);
    /// The mode.
    fn paging(&self) -> Paging;
    /// The state that the PVH entry starts in: 32-bit flat protected mode without paging; `entry` and `start_info` go to the registers.
    fn enter_pvh(&mut self, registers: &mut Registers, entry: GuestAddress, start_info: GuestAddress);
    /// The state after a start-up IPI: real mode at `vector` << 12.
    fn enter_startup(&mut self, registers: &mut Registers, vector: u8);
    /// A state of the guest's choice, which the caller has checked; the general registers are the caller's, too.
    fn enter_at(&mut self, start: &StartState);
    /// Reads a model-specific register that the backend keeps per vCPU (EFER, the SYSCALL registers, FS/GS bases, PAT …); `None` if it is none of
    /// those.
    fn read_msr(&self, msr: u32) -> Option<u64>;
    /// Writes one; `None` if it is none of those, `Some(false)` if the value is refused (the guest gets #GP).
    fn write_msr(&mut self, msr: u32, value: u64) -> Option<bool>;
    /// The mappings of this guest changed so that old translations must go before the next entry.
    fn flush_translations(&mut self);
    /// What the time-stamp counter reads in the guest, minus the machine's.
    fn set_tsc_offset(&mut self, offset: u64);
    /// Gives its frames back.
    fn release(self: Box<Self>, frames: &mut FrameAllocator);
}

/// How often translations had to go on a processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushes {
    /// One vCPU's, because its memory changed.
    pub guest: u64,
    /// Everybody's, because the processor had no identifier left.
    pub all: u64,
}

/// A processor backend, enabled on the boot processor.
pub trait Backend: Send {
    /// Enables it on the running processor too, one of those that [`enable`] counted.
    fn enable_here(&self);
    /// For the log.
    fn name(&self) -> &'static str;
    /// The instruction that makes a hypercall, for the hypercall page.
    fn hypercall_instruction(&self) -> [u8; 3];
    /// How often translations were flushed on a processor.
    fn flushes(&self, _processor: usize) -> Flushes {
        Flushes::default()
    }
    /// A vCPU that may use the given I/O ports (first, count) directly.
    fn create(
        &self,
        memory: &DirectMap,
        frames: &mut FrameAllocator,
        ports: &[(u16, u16)],
    ) -> Result<Box<dyn VirtualCpu>, OutOfMemory>;
}

/// Why no guest can run on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// No SVM.
    #[error(
        "this processor has no AMD SVM (CPUID 0x80000001, ECX bit 2), which guests need; under QEMU add -cpu EPYC or -cpu max"
    )]
    Missing,
    /// Present but locked.
    #[error(
        "AMD SVM is locked off by the firmware (VM_CR.SVMDIS); enable virtualization (SVM) in the firmware's setup"
    )]
    LockedOff,
    /// SVM of the first generation.
    #[error(
        "this processor's SVM has no nested paging (CPUID 0x8000000a, EDX bit 0), which guests need; under QEMU add +npt"
    )]
    NoNestedPaging,
    /// No memory for the backend itself.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

/// Finds the processor's virtualization extension and enables it on this processor, the boot processor; `processors` is how many will run guests.
pub fn enable(
    memory: &DirectMap,
    frames: &mut FrameAllocator,
    processors: usize,
) -> Result<Box<dyn Backend>, Unsupported> {
    let backend = svm::Svm::find(memory, frames, processors)?;
    enable_here(&backend);
    Ok(Box::new(backend))
}

/// Makes the running processor ready for guests, which [`enable`] has done for the boot processor.
pub fn enable_here(backend: &dyn Backend) {
    backend.enable_here();
    extended::enable();
}

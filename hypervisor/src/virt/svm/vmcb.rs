//! The virtual machine control block: one page a vCPU, which the processor reads at VMRUN and fills at #VMEXIT (AMD64 Architecture
//! Programmer's Manual, volume 2, appendix B; the offsets below are held to it by assertions).

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A segment register as the VMCB holds it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Type, S, DPL, P, AVL, L, D/B, G from bit 0 on: the descriptor's attribute bits without the gap.
    pub attributes: u16,
    /// Limit in bytes.
    pub limit: u32,
    /// Base address.
    pub base: u64,
}

/// What is intercepted, what is injected, why the guest left.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Control {
    /// Reads (low half) and writes (high half) of control registers.
    pub intercept_control_registers: u32,
    /// Reads (low half) and writes (high half) of debug registers.
    pub intercept_debug_registers: u32,
    /// Exceptions, by vector.
    pub intercept_exceptions: u32,
    /// See [`intercept`].
    pub intercept: [u32; 3],
    /// Nothing yet.
    pub _pad0: [u8; 0x40 - 0x18],
    /// Machine address of the I/O permission map.
    pub port_map: u64,
    /// Machine address of the MSR permission map.
    pub msr_map: u64,
    /// Added to the time-stamp counter in the guest.
    pub tsc_offset: u64,
    /// Address-space identifier; not 0.
    pub asid: u32,
    /// One of `TLB_*`.
    pub tlb_control: u32,
    /// V_IRQ and its kin: [`virtual_interrupt`].
    pub virtual_interrupt: u64,
    /// Bit 0: interrupts are held off for one instruction.
    pub interrupt_shadow: u64,
    /// Why the guest left: [`exit_code`].
    pub exit_code: u64,
    /// Depends on the exit code.
    pub exit_info1: u64,
    /// Depends on the exit code.
    pub exit_info2: u64,
    /// The event whose delivery the exit interrupted, in the form of `event_injection`.
    pub exit_interrupt_info: u64,
    /// Bit 0: nested paging.
    pub nested: u64,
    /// Nothing of ours.
    pub _pad1: [u8; 0xa8 - 0x98],
    /// The event to deliver on entry.
    pub event_injection: u64,
    /// Machine address of the root of the nested page tables.
    pub nested_cr3: u64,
    /// Last-branch records.
    pub last_branch: u64,
    /// Which parts the processor may take from its cache; 0 is none.
    pub clean: u64,
    /// Next instruction, where the processor saves it; 0 where it does not.
    pub next_rip: u64,
    /// Nothing of ours.
    pub _pad2: [u8; 0x400 - 0xd0],
}

/// The state of the guest's processor.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Save {
    pub es: Segment,
    pub cs: Segment,
    pub ss: Segment,
    pub ds: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub gdtr: Segment,
    pub ldtr: Segment,
    pub idtr: Segment,
    pub tr: Segment,
    pub _pad0: [u8; 0xcb - 0xa0],
    /// Current privilege level.
    pub cpl: u8,
    pub _pad1: u32,
    pub efer: u64,
    pub _pad2: [u8; 0x148 - 0xd8],
    pub cr4: u64,
    pub cr3: u64,
    pub cr0: u64,
    pub dr7: u64,
    pub dr6: u64,
    pub rflags: u64,
    pub rip: u64,
    pub _pad3: [u8; 0x1d8 - 0x180],
    pub rsp: u64,
    pub _pad4: [u8; 0x1f8 - 0x1e0],
    pub rax: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub cr2: u64,
    pub _pad5: [u8; 0x268 - 0x248],
    /// The guest's page attribute table.
    pub pat: u64,
    pub _pad6: [u8; 0xc00 - 0x270],
}

/// The whole page.
#[repr(C, align(4096))]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Vmcb {
    /// Offset 0.
    pub control: Control,
    /// Offset 0x400.
    pub save: Save,
}

const _: () = {
    assert!(size_of::<Vmcb>() == 4096 && offset_of!(Vmcb, save) == 0x400);
    assert!(offset_of!(Control, intercept_exceptions) == 0x008);
    assert!(offset_of!(Control, intercept) == 0x00c);
    assert!(offset_of!(Control, port_map) == 0x040);
    assert!(offset_of!(Control, tsc_offset) == 0x050);
    assert!(offset_of!(Control, asid) == 0x058);
    assert!(offset_of!(Control, tlb_control) == 0x05c);
    assert!(offset_of!(Control, virtual_interrupt) == 0x060);
    assert!(offset_of!(Control, interrupt_shadow) == 0x068);
    assert!(offset_of!(Control, exit_code) == 0x070);
    assert!(offset_of!(Control, exit_interrupt_info) == 0x088);
    assert!(offset_of!(Control, nested) == 0x090);
    assert!(offset_of!(Control, event_injection) == 0x0a8);
    assert!(offset_of!(Control, nested_cr3) == 0x0b0);
    assert!(offset_of!(Control, clean) == 0x0c0);
    assert!(offset_of!(Control, next_rip) == 0x0c8);
    assert!(offset_of!(Save, tr) == 0x090);
    assert!(offset_of!(Save, cpl) == 0x0cb);
    assert!(offset_of!(Save, efer) == 0x0d0);
    assert!(offset_of!(Save, cr4) == 0x148);
    assert!(offset_of!(Save, cr0) == 0x158);
    assert!(offset_of!(Save, rflags) == 0x170);
    assert!(offset_of!(Save, rip) == 0x178);
    assert!(offset_of!(Save, rsp) == 0x1d8);
    assert!(offset_of!(Save, rax) == 0x1f8);
    assert!(offset_of!(Save, star) == 0x200);
    assert!(offset_of!(Save, kernel_gs_base) == 0x220);
    assert!(offset_of!(Save, cr2) == 0x240);
    assert!(offset_of!(Save, pat) == 0x268);
};

/// Bits of [`Control::intercept`]: word 0 at bits 0 to 31, word 1 from bit 32 on.
pub mod intercept {
    /// Physical interrupts.
    pub const INTERRUPT: u64 = 1 << 0;
    /// Non-maskable interrupts.
    pub const NON_MASKABLE: u64 = 1 << 1;
    /// INIT signals.
    pub const INIT: u64 = 1 << 3;
    /// The guest could take the virtual interrupt.
    pub const VIRTUAL_INTERRUPT: u64 = 1 << 4;
    pub const RDPMC: u64 = 1 << 15;
    pub const CPUID: u64 = 1 << 18;
    /// Only while a non-maskable interrupt is in service.
    pub const IRET: u64 = 1 << 20;
    pub const INVD: u64 = 1 << 22;
    pub const HLT: u64 = 1 << 24;
    pub const INVLPGA: u64 = 1 << 26;
    /// By the I/O permission map.
    pub const PORTS: u64 = 1 << 27;
    /// By the MSR permission map.
    pub const MSRS: u64 = 1 << 28;
    pub const FERR_FREEZE: u64 = 1 << 30;
    pub const SHUTDOWN: u64 = 1 << 31;
    pub const VMRUN: u64 = 1 << 32;
    pub const VMMCALL: u64 = 1 << 33;
    pub const VMLOAD: u64 = 1 << 34;
    pub const VMSAVE: u64 = 1 << 35;
    pub const STGI: u64 = 1 << 36;
    pub const CLGI: u64 = 1 << 37;
    pub const SKINIT: u64 = 1 << 38;
    pub const WBINVD: u64 = 1 << 41;
    pub const MONITOR: u64 = 1 << 42;
    pub const MWAIT: u64 = 1 << 43;
    pub const XSETBV: u64 = 1 << 45;
    pub const RDPRU: u64 = 1 << 46;

    /// What every vCPU has intercepted. Reads of control registers and of the time-stamp counter are left to the guest: TCG reports them wrongly.
    pub const ALWAYS: u64 = INTERRUPT
        | NON_MASKABLE
        | INIT
        | RDPMC
        | CPUID
        | INVD
        | HLT
        | INVLPGA
        | PORTS
        | MSRS
        | FERR_FREEZE
        | SHUTDOWN
        | VMRUN
        | VMMCALL
        | VMLOAD
        | VMSAVE
        | STGI
        | CLGI
        | SKINIT
        | WBINVD
        | MONITOR
        | MWAIT
        | XSETBV
        | RDPRU;

    /// #DB and #AC, since a guest can make their delivery loop without end inside the processor, and #MC, which is the machine's.
    pub const EXCEPTIONS: u32 = 1 << 1 | 1 << 17 | 1 << 18;
}

/// Bits of [`Control::virtual_interrupt`].
pub mod virtual_interrupt {
    /// CR8 of the guest.
    pub const TASK_PRIORITY: u64 = 0xf;
    /// An interrupt is pending; with the intercept of virtual interrupts it serves as the interrupt window.
    pub const PENDING: u64 = 1 << 8;
    /// Highest priority.
    pub const PRIORITY: u64 = 0xf << 16;
    /// Whatever the virtual task priority.
    pub const IGNORE_PRIORITY: u64 = 1 << 20;
    /// The guest's IF and CR8 concern virtual interrupts alone.
    pub const MASKING: u64 = 1 << 24;
    /// Where the vector of the pending interrupt begins.
    pub const VECTOR: u32 = 32;
}

/// Values of [`Control::exit_code`].
pub mod exit_code {
    pub const EXCEPTION: u64 = 0x40;
    pub const EXCEPTION_LAST: u64 = 0x5f;
    pub const INTERRUPT: u64 = 0x60;
    pub const NON_MASKABLE: u64 = 0x61;
    pub const INIT: u64 = 0x63;
    pub const VIRTUAL_INTERRUPT: u64 = 0x64;
    pub const RDPMC: u64 = 0x6f;
    pub const CPUID: u64 = 0x72;
    pub const IRET: u64 = 0x74;
    pub const INVD: u64 = 0x76;
    pub const HLT: u64 = 0x78;
    pub const INVLPGA: u64 = 0x7a;
    pub const PORT: u64 = 0x7b;
    pub const MSR: u64 = 0x7c;
    pub const SHUTDOWN: u64 = 0x7f;
    pub const VMRUN: u64 = 0x80;
    pub const VMMCALL: u64 = 0x81;
    pub const VMLOAD: u64 = 0x82;
    pub const SKINIT: u64 = 0x86;
    pub const WBINVD: u64 = 0x89;
    pub const MONITOR: u64 = 0x8a;
    pub const MWAIT_CONDITIONAL: u64 = 0x8c;
    pub const XSETBV: u64 = 0x8d;
    pub const RDPRU: u64 = 0x8e;
    pub const NESTED_FAULT: u64 = 0x400;
}

/// [`Control::tlb_control`]: flush nothing.
pub const TLB_KEEP: u32 = 0;
/// [`Control::tlb_control`]: flush every guest's and the host's translations.
pub const TLB_FLUSH_ALL: u32 = 1;
/// [`Control::tlb_control`]: flush this guest's; needs flush-by-ASID.
pub const TLB_FLUSH_GUEST: u32 = 3;

/// An event in the form of EVENTINJ and EXITINTINFO.
pub mod event {
    /// There is one.
    pub const VALID: u64 = 1 << 31;
    /// An error code is in the high half.
    pub const HAS_ERROR: u64 = 1 << 11;
    /// The type field.
    pub const TYPE: u64 = 7 << 8;
    /// External interrupt.
    pub const INTERRUPT: u64 = 0 << 8;
    /// Non-maskable interrupt.
    pub const NON_MASKABLE: u64 = 2 << 8;
    /// Exception.
    pub const EXCEPTION: u64 = 3 << 8;
    /// INTn instruction.
    pub const SOFTWARE: u64 = 4 << 8;
}

//! The registers that `VCPUOP_initialise` names (`hvm/hvm_vcpu.h`), checked: what is let through is a state that a processor can be in, in kernel mode.

use xen_abi::hvm::hvm_vcpu::{
    VCPU_HVM_MODE_32B, VCPU_HVM_MODE_64B, VcpuHvmContext, VcpuHvmX8632, VcpuHvmX8664,
};

use crate::{
    errno::Errno,
    virt::{Registers, StartSegment, StartState},
};

const CR0_PROTECTION: u64 = 1 << 0;
const CR0_NOT_WRITE_THROUGH: u64 = 1 << 29;
const CR0_NO_CACHE: u64 = 1 << 30;
const CR0_PAGING: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const CR4_PCID: u64 = 1 << 17;
/// Every bit of CR4 that says something to a guest's processor.
const CR4_BITS: u64 = 0x0077_0fff;
const EFER_LONG_MODE: u64 = 1 << 8;
/// System calls, long mode enabled and active, no-execute.
const EFER_BITS: u64 = 1 << 0 | EFER_LONG_MODE | 1 << 10 | 1 << 11;
/// Flags that a program can set, without those that ask for virtual-8086 mode.
const FLAGS: u64 = 0x0024_7fd5;
const FLAGS_FIXED: u64 = 1 << 1;

/// The attributes of a segment, in the bits of `*_ar`.
mod attribute {
    pub const TYPE: u16 = 0xf;
    pub const CODE: u16 = 1 << 3;
    /// Of code.
    pub const READABLE: u16 = 1 << 1;
    /// Of data.
    pub const WRITABLE: u16 = 1 << 1;
    pub const NOT_SYSTEM: u16 = 1 << 4;
    pub const PRIVILEGE: u16 = 3 << 5;
    pub const PRESENT: u16 = 1 << 7;
    pub const LONG: u16 = 1 << 9;
    pub const BIG: u16 = 1 << 10;
    pub const PAGES: u16 = 1 << 11;
    pub const UNUSED: u16 = 0xf000;
    pub const BUSY_TASK_16: u16 = 3;
    pub const BUSY_TASK_32: u16 = 11;
}

/// The registers and the state in which the vCPU starts, or `EINVAL`.
pub(super) fn checked(context: &VcpuHvmContext) -> Result<(Registers, StartState), Errno> {
    match context.mode {
        VCPU_HVM_MODE_32B => protected(&context.x86_32()),
        VCPU_HVM_MODE_64B => long(&context.x86_64()),
        _ => None,
    }
    .ok_or(Errno::INVAL)
}

fn long(given: &VcpuHvmX8664) -> Option<(Registers, StartState)> {
    let state = StartState::long_mode(given.cr0, given.cr3, given.cr4, given.efer);
    let canonical = given.rip as i64 >> 47;
    let fits = modes_fit(&state)? && matches!(canonical, 0 | -1);
    let registers = Registers {
        rax: given.rax,
        rbx: given.rbx,
        rcx: given.rcx,
        rdx: given.rdx,
        rsi: given.rsi,
        rdi: given.rdi,
        rbp: given.rbp,
        rsp: given.rsp,
        rip: given.rip,
        rflags: given.rflags & FLAGS | FLAGS_FIXED,
        ..Default::default()
    };
    fits.then_some((registers, state))
}

fn protected(given: &VcpuHvmX8632) -> Option<(Registers, StartState)> {
    let segment = |base, limit, attributes| StartSegment {
        base,
        limit,
        attributes,
    };
    let state = StartState {
        cr0: given.cr0.into(),
        cr3: given.cr3.into(),
        cr4: given.cr4.into(),
        efer: given.efer,
        cs: segment(given.cs_base, given.cs_limit, given.cs_ar),
        ds: segment(given.ds_base, given.ds_limit, given.ds_ar),
        ss: segment(given.ss_base, given.ss_limit, given.ss_ar),
        es: segment(given.es_base, given.es_limit, given.es_ar),
        tr: segment(given.tr_base, given.tr_limit, given.tr_ar),
    };
    // Long mode means compatibility mode here, so 64-bit code is asked for by the other structure.
    modes_fit(&state)?;
    let fits = code_fits(&state.cs, given.eip)
        && stack_fits(&state.ss)
        && data_fits(&state.ds)
        && data_fits(&state.es)
        && task_fits(&state.tr);
    let registers = Registers {
        rax: given.eax.into(),
        rbx: given.ebx.into(),
        rcx: given.ecx.into(),
        rdx: given.edx.into(),
        rsi: given.esi.into(),
        rdi: given.edi.into(),
        rbp: given.ebp.into(),
        rsp: given.esp.into(),
        rip: given.eip.into(),
        rflags: u64::from(given.eflags) & FLAGS | FLAGS_FIXED,
        ..Default::default()
    };
    fits.then_some((registers, state))
}

/// Whether the control registers agree with one another, and then whether long mode is what they make; `None` if they do not.
fn modes_fit(state: &StartState) -> Option<bool> {
    let is_set = |register: u64, bit: u64| register & bit != 0;
    let paging = is_set(state.cr0, CR0_PAGING);
    let long = is_set(state.efer, EFER_LONG_MODE);
    let fits = state.cr0 >> 32 == 0
        && (!paging || is_set(state.cr0, CR0_PROTECTION))
        && (!is_set(state.cr0, CR0_NOT_WRITE_THROUGH) || is_set(state.cr0, CR0_NO_CACHE))
        && state.cr4 & !CR4_BITS == 0
        && state.efer & !EFER_BITS == 0
        && (!(long && paging) || is_set(state.cr4, CR4_PAE))
        && (long && paging || !is_set(state.cr4, CR4_PCID))
        && state.cr3 >> 52 == 0;
    fits.then_some(long && paging)
}

/// What holds for every segment that is present.
fn is_sound(segment: &StartSegment) -> bool {
    let low = segment.limit & 0xfff;
    let limit = if segment.attributes & attribute::PAGES != 0 {
        low == 0xfff
    } else {
        segment.limit >> 20 == 0
    };
    segment.attributes & (attribute::UNUSED | attribute::PRIVILEGE) == 0 && limit
}

fn code_fits(segment: &StartSegment, instruction: u32) -> bool {
    use attribute::*;
    let needed = PRESENT | NOT_SYSTEM | CODE;
    segment.attributes & (needed | LONG) == needed && is_sound(segment) && instruction <= segment.limit
}

fn stack_fits(segment: &StartSegment) -> bool {
    use attribute::*;
    let needed = PRESENT | NOT_SYSTEM | WRITABLE;
    segment.attributes & (needed | CODE) == needed && is_sound(segment)
}

fn data_fits(segment: &StartSegment) -> bool {
    use attribute::*;
    let readable = segment.attributes & CODE == 0 || segment.attributes & READABLE != 0;
    segment.attributes & PRESENT == 0 || segment.attributes & NOT_SYSTEM != 0 && readable && is_sound(segment)
}

fn task_fits(segment: &StartSegment) -> bool {
    use attribute::*;
    let kind = segment.attributes & TYPE;
    segment.attributes & (PRESENT | NOT_SYSTEM | LONG | BIG) == PRESENT
        && matches!(kind, BUSY_TASK_16 | BUSY_TASK_32)
        && is_sound(segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flat 32-bit code without paging.
    fn flat() -> VcpuHvmX8632 {
        VcpuHvmX8632 {
            eip: 0x10_0000,
            esp: 0x8000,
            eflags: 0x202,
            cr0: 1,
            cs_limit: u32::MAX,
            ds_limit: u32::MAX,
            ss_limit: u32::MAX,
            es_limit: u32::MAX,
            tr_limit: 0x67,
            cs_ar: 0xc9b,
            ds_ar: 0xc93,
            ss_ar: 0xc93,
            es_ar: 0xc93,
            tr_ar: 0x8b,
            ..Default::default()
        }
    }

    fn long_state() -> VcpuHvmX8664 {
        VcpuHvmX8664 {
            rip: 0xffff_8000_0000_1000,
            rsp: 0x8000,
            cr0: 1 << 31 | 1,
            cr3: 0x9000,
            cr4: 1 << 5,
            efer: 0xd00,
            ..Default::default()
        }
    }

    #[test]
    fn a_start_in_32_bits_has_the_segments_that_were_asked_for() {
        let (registers, state) = checked(&flat().into()).unwrap();
        assert_eq!(
            (registers.rip, registers.rsp, registers.rflags),
            (0x10_0000, 0x8000, 0x202)
        );
        assert_eq!((state.cs.limit, state.cs.attributes), (u32::MAX, 0xc9b));
        assert_eq!((state.tr.limit, state.tr.attributes), (0x67, 0x8b));
        let real = VcpuHvmX8632 {
            cr0: 0,
            eip: 0xfff0,
            cs_base: 0x8_0000,
            cs_limit: 0xffff,
            cs_ar: 0x9b,
            // No segment at all is as good.
            es_ar: 0,
            es_limit: 0,
            ..flat()
        };
        let (_, state) = checked(&real.into()).unwrap();
        assert_eq!((state.cr0, state.cs.base), (0, 0x8_0000));
        let compatible = VcpuHvmX8632 {
            cr0: 1 << 31 | 1,
            cr4: 1 << 5,
            efer: 0x500,
            ..flat()
        };
        assert!(checked(&compatible.into()).is_ok());
    }

    #[test]
    fn what_no_processor_can_be_in_is_refused() {
        type Change = fn(&mut VcpuHvmX8632);
        let changes: [Change; 19] = [
            |state| state.cr0 = 1 << 31,
            |state| state.cr0 = 1 | 1 << 29,
            |state| state.cr4 = 1 << 31,
            |state| state.cr4 = 1 << 13,
            |state| state.cr4 = 1 << 17,
            |state| state.efer = 1 << 12,
            |state| (state.cr0, state.efer) = (1 << 31 | 1, 1 << 8),
            |state| state.cs_ar = 0xc93,
            |state| state.cs_ar = 0xc1b,
            |state| state.cs_ar = 0xa9b,
            |state| state.cs_ar = 0xcfb,
            |state| state.cs_ar |= 1 << 12,
            |state| state.cs_limit = 0xffff_f000,
            |state| (state.cs_ar, state.cs_limit) = (0x49b, 0xfff),
            |state| state.ss_ar = 0xc9b,
            |state| state.ss_ar = 0,
            |state| state.ds_ar = 0xc99,
            |state| state.es_ar = 0xc83,
            |state| state.tr_ar = 0x89,
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut state = flat();
            change(&mut state);
            assert_eq!(checked(&state.into()), Err(Errno::INVAL), "change {index}");
        }
    }

    #[test]
    fn a_start_in_64_bits_is_in_long_mode_and_nowhere_else() {
        let (registers, state) = checked(&long_state().into()).unwrap();
        assert_eq!((registers.rip, registers.rflags), (0xffff_8000_0000_1000, 2));
        assert_eq!(
            (state.cr3, state.efer, state.cs.attributes),
            (0x9000, 0xd00, 0xa9b)
        );
        for state in [
            VcpuHvmX8664 {
                rip: 1 << 47,
                ..long_state()
            },
            VcpuHvmX8664 {
                efer: 0,
                ..long_state()
            },
            VcpuHvmX8664 {
                cr0: 1,
                ..long_state()
            },
            VcpuHvmX8664 {
                cr0: 1 << 32 | 1 << 31 | 1,
                ..long_state()
            },
            VcpuHvmX8664 {
                cr4: 0,
                ..long_state()
            },
            VcpuHvmX8664 {
                cr3: 1 << 52,
                ..long_state()
            },
        ] {
            assert_eq!(checked(&state.into()), Err(Errno::INVAL), "{state:?}");
        }
        let unknown = VcpuHvmContext {
            mode: 2,
            ..long_state().into()
        };
        assert_eq!(checked(&unknown), Err(Errno::INVAL));
    }
}

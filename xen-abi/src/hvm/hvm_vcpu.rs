//! The register state with which an HVM guest starts a vCPU by `VCPUOP_initialise`, of `hvm/hvm_vcpu.h`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

consts! {
    u32, "[`VcpuHvmContext::mode`]." {
        /// Protected mode or real mode: the registers are a [`VcpuHvmX8632`].
        VCPU_HVM_MODE_32B = 0,
        /// Long mode with flat segments: the registers are a [`VcpuHvmX8664`].
        VCPU_HVM_MODE_64B = 1,
    }
}

/// Registers of a vCPU that starts in a 32-bit or 16-bit mode.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct VcpuHvmX8632 {
    /// General register.
    pub eax: u32,
    /// General register.
    pub ecx: u32,
    /// General register.
    pub edx: u32,
    /// General register.
    pub ebx: u32,
    /// General register.
    pub esp: u32,
    /// General register.
    pub ebp: u32,
    /// General register.
    pub esi: u32,
    /// General register.
    pub edi: u32,
    /// Instruction pointer.
    pub eip: u32,
    /// Flags.
    pub eflags: u32,
    /// Control register.
    pub cr0: u32,
    /// Control register.
    pub cr3: u32,
    /// Control register.
    pub cr4: u32,
    /// Padding.
    pub pad1: u32,
    /// Extended feature register.
    pub efer: u64,
    /// Segment base.
    pub cs_base: u32,
    /// Segment base.
    pub ds_base: u32,
    /// Segment base.
    pub ss_base: u32,
    /// Segment base.
    pub es_base: u32,
    /// Segment base.
    pub tr_base: u32,
    /// Segment limit.
    pub cs_limit: u32,
    /// Segment limit.
    pub ds_limit: u32,
    /// Segment limit.
    pub ss_limit: u32,
    /// Segment limit.
    pub es_limit: u32,
    /// Segment limit.
    pub tr_limit: u32,
    /// Segment attributes.
    pub cs_ar: u16,
    /// Segment attributes.
    pub ds_ar: u16,
    /// Segment attributes.
    pub ss_ar: u16,
    /// Segment attributes.
    pub es_ar: u16,
    /// Segment attributes.
    pub tr_ar: u16,
    /// Padding.
    pub pad2: [u16; 3],
}

/// Registers of a vCPU that starts in long mode.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct VcpuHvmX8664 {
    /// General register.
    pub rax: u64,
    /// General register.
    pub rcx: u64,
    /// General register.
    pub rdx: u64,
    /// General register.
    pub rbx: u64,
    /// General register.
    pub rsp: u64,
    /// General register.
    pub rbp: u64,
    /// General register.
    pub rsi: u64,
    /// General register.
    pub rdi: u64,
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Control register.
    pub cr0: u64,
    /// Control register.
    pub cr3: u64,
    /// Control register.
    pub cr4: u64,
    /// Extended feature register.
    pub efer: u64,
}

/// The state with which a vCPU starts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct VcpuHvmContext {
    /// `VCPU_HVM_MODE_*`.
    pub mode: u32,
    /// Padding.
    pub pad: u32,
    /// A union that `mode` selects; see the methods.
    pub cpu_regs: [u64; 15],
}

impl VcpuHvmContext {
    /// The registers for [`VCPU_HVM_MODE_32B`].
    pub const fn x86_32(&self) -> VcpuHvmX8632 {
        zerocopy::transmute!(self.cpu_regs)
    }

    /// The registers for [`VCPU_HVM_MODE_64B`].
    pub const fn x86_64(&self) -> VcpuHvmX8664 {
        let [registers @ .., _] = self.cpu_regs;
        zerocopy::transmute!(registers)
    }
}

impl From<VcpuHvmX8632> for VcpuHvmContext {
    fn from(registers: VcpuHvmX8632) -> Self {
        Self {
            mode: VCPU_HVM_MODE_32B,
            pad: 0,
            cpu_regs: zerocopy::transmute!(registers),
        }
    }
}

impl From<VcpuHvmX8664> for VcpuHvmContext {
    fn from(registers: VcpuHvmX8664) -> Self {
        let mut cpu_regs = [0; 15];
        let words: [u64; 14] = zerocopy::transmute!(registers);
        cpu_regs[..14].copy_from_slice(&words);
        Self {
            mode: VCPU_HVM_MODE_64B,
            pad: 0,
            cpu_regs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_survive_the_union() {
        let long = VcpuHvmX8664 {
            rax: 1,
            efer: 0x500,
            ..Default::default()
        };
        assert_eq!(VcpuHvmContext::from(long).x86_64(), long);
        let protected = VcpuHvmX8632 {
            eax: 7,
            tr_ar: 0x8b,
            ..Default::default()
        };
        assert_eq!(VcpuHvmContext::from(protected).x86_32(), protected);
    }
}

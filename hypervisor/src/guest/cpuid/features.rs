//! The allow-list: for each register of features, the bits that a guest may see if the host has them. A bit is listed when its instructions need
//! nothing from the hypervisor, or when the hypervisor carries what they need. (Intel SDM 2A, CPUID; AMD APM 3, appendix E.)
//!
//! Not listed, and why: MONITOR (the backend refuses it), VMX and SVM (no nesting), performance counters and tracing (not switched), SGX, TSX (can
//! be switched off by microcode), five-level paging (the page-table walker has four), speculation controls (their registers are not switched),
//! TSC_ADJUST, XSAVES (no supervisor state is switched), MPX, AMX, OS-visible workarounds, node ids, memory encryption.

/// A word with these bits set.
const fn bits(list: &[u32]) -> u32 {
    let (mut word, mut index) = (0, 0);
    while index < list.len() {
        word |= 1 << list[index];
        index += 1;
    }
    word
}

/// Leaf 1 ECX: SSE3, PCLMULQDQ, SSSE3, FMA, CMPXCHG16B, PCID, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE, AVX, F16C, RDRAND.
pub(super) const LEAF_1_ECX: u32 = bits(&[0, 1, 9, 12, 13, 17, 19, 20, 22, 23, 25, 26, 28, 29, 30]);
/// Leaf 1 ECX, whatever the host has: x2APIC, TSC deadline (the local APIC is ours), hypervisor present.
pub(super) const LEAF_1_ECX_ALWAYS: u32 = bits(&[21, 24, 31]);
/// Leaf 1 EDX: FPU, VME, DE, PSE, TSC, MSR, PAE, MCE, CX8, SEP, PGE, MCA, CMOV, PAT, PSE36, CLFLUSH, MMX, FXSR, SSE, SSE2.
pub(super) const LEAF_1_EDX: u32 = bits(&[
    0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26,
]);
/// Leaf 1 EDX, whatever the host has: APIC, MTRR.
pub(super) const LEAF_1_EDX_ALWAYS: u32 = bits(&[9, 12]);
/// The bits of leaf 1 EDX that AMD repeats in leaf 0x8000_0001 EDX.
pub(super) const COMMON_EDX: u32 = bits(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 23, 24]);

/// Leaf 7 EBX: FSGSBASE, BMI1, AVX2, FDP_EXCPTN_ONLY, SMEP, BMI2, ERMS, INVPCID, deprecated FPU CS/DS, AVX512F, AVX512DQ, RDSEED, ADX, SMAP,
/// AVX512_IFMA, CLFLUSHOPT, CLWB, AVX512CD, SHA, AVX512BW, AVX512VL.
pub(super) const LEAF_7_EBX: u32 = bits(&[
    0, 3, 5, 6, 7, 8, 9, 10, 13, 16, 17, 18, 19, 20, 21, 23, 24, 28, 29, 30, 31,
]);
/// Leaf 7 ECX: AVX512_VBMI, UMIP, PKU, AVX512_VBMI2, GFNI, VAES, VPCLMULQDQ, AVX512_VNNI, AVX512_BITALG, AVX512_VPOPCNTDQ, RDPID, MOVDIRI,
/// MOVDIR64B.
pub(super) const LEAF_7_ECX: u32 = bits(&[1, 2, 3, 6, 8, 9, 10, 11, 12, 14, 22, 27, 28]);
/// Leaf 7 EDX: AVX512_4VNNIW, AVX512_4FMAPS, FSRM, AVX512_VP2INTERSECT, SERIALIZE, AVX512_FP16.
pub(super) const LEAF_7_EDX: u32 = bits(&[2, 3, 4, 8, 14, 23]);
/// Leaf 7.1 EAX: AVX_VNNI, AVX512_BF16, FZRM, FSRS, FSRC.
pub(super) const LEAF_7_1_EAX: u32 = bits(&[4, 5, 10, 11, 12]);
/// Leaf 0xD.1 EAX: XSAVEOPT, XSAVEC, XGETBV with ECX = 1.
pub(super) const LEAF_D_1_EAX: u32 = bits(&[0, 1, 2]);

/// Leaf 0x8000_0001 ECX: LAHF, AltMovCr8, ABM, SSE4A, MisAlignSse, 3DNowPrefetch, XOP, FMA4, TBM, TopologyExtensions.
pub(super) const EXTENDED_1_ECX: u32 = bits(&[0, 4, 5, 6, 7, 8, 11, 16, 21, 22]);
/// Leaf 0x8000_0001 EDX, less what it has in common with leaf 1: SYSCALL, NX, MmxExt, FFXSR, 1 GiB pages, RDTSCP, long mode, 3DNowExt, 3DNow.
pub(super) const EXTENDED_1_EDX: u32 = bits(&[11, 20, 22, 25, 26, 27, 29, 30, 31]);
/// Leaf 0x8000_0007 EDX, whatever the host has: invariant TSC. The hypervisor's own clock rests on it, every processor with nested paging has it, and
/// emulators that do not say so have it too. With it Linux takes the counter for its clock, and does not calibrate a delay on every processor.
pub(super) const EXTENDED_7_EDX_ALWAYS: u32 = bits(&[8]);
/// Leaf 0x8000_0008 EBX: CLZERO, RstrFpErrPtrs, WBNOINVD.
pub(super) const EXTENDED_8_EBX: u32 = bits(&[0, 2, 9]);
/// Leaf 0x8000_0021 EAX: no nested data breakpoints, LFENCE always serializing, a null selector clears the base.
pub(super) const EXTENDED_21_EAX: u32 = bits(&[0, 2, 6]);

// What goes with a part of the extended state that is not switched.

/// Leaf 1 ECX that needs XSAVE: itself, and all of AVX.
pub(super) const NEEDS_XSAVE_1_ECX: u32 = bits(&[26]) | NEEDS_AVX_1_ECX;
/// Leaf 1 ECX that needs AVX state: FMA, AVX, F16C.
pub(super) const NEEDS_AVX_1_ECX: u32 = bits(&[12, 28, 29]);
/// Leaf 7 EBX that needs AVX state: AVX2.
pub(super) const NEEDS_AVX_7_EBX: u32 = bits(&[5]);
/// Leaf 7 ECX that needs AVX state: VAES, VPCLMULQDQ.
pub(super) const NEEDS_AVX_7_ECX: u32 = bits(&[9, 10]);
/// Leaf 7.1 EAX that needs AVX state: AVX_VNNI.
pub(super) const NEEDS_AVX_7_1_EAX: u32 = bits(&[4]);
/// Leaf 0x8000_0001 ECX that needs AVX state: XOP, FMA4.
pub(super) const NEEDS_AVX_EXTENDED_1_ECX: u32 = bits(&[11, 16]);
/// Leaf 7 EBX that needs AVX-512 state.
pub(super) const NEEDS_AVX512_7_EBX: u32 = bits(&[16, 17, 21, 28, 30, 31]);
/// Leaf 7 ECX that needs AVX-512 state.
pub(super) const NEEDS_AVX512_7_ECX: u32 = bits(&[1, 6, 11, 12, 14]);
/// Leaf 7 EDX that needs AVX-512 state.
pub(super) const NEEDS_AVX512_7_EDX: u32 = bits(&[2, 3, 8, 23]);
/// Leaf 7.1 EAX that needs AVX-512 state: AVX512_BF16.
pub(super) const NEEDS_AVX512_7_1_EAX: u32 = bits(&[5]);
/// Leaf 7 ECX that needs PKRU: PKU.
pub(super) const NEEDS_PKRU_7_ECX: u32 = bits(&[3]);

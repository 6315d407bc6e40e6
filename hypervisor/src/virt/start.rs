//! The state in which a vCPU begins when its guest chooses it: `VCPUOP_initialise` (hvm/hvm_vcpu.h).

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartSegment {
    /// Base address.
    pub base: u32,
    /// Limit in bytes.
    pub limit: u32,
    /// Type, S, DPL, P, AVL, L, D/B, G from bit 0 on.
    pub attributes: u16,
}

/// Control and segment registers; everything else is as after a reset. General registers are set beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the processor's registers")]
pub struct StartState {
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub cs: StartSegment,
    pub ds: StartSegment,
    pub ss: StartSegment,
    pub es: StartSegment,
    pub tr: StartSegment,
}

impl StartState {
    /// 64-bit code in flat segments, at the highest privilege.
    pub const fn long_mode(cr0: u64, cr3: u64, cr4: u64, efer: u64) -> Self {
        let data = StartSegment {
            base: 0,
            limit: u32::MAX,
            attributes: 0xc93,
        };
        Self {
            cr0,
            cr3,
            cr4,
            efer,
            cs: StartSegment {
                attributes: 0xa9b,
                ..data
            },
            ds: data,
            ss: data,
            es: data,
            tr: StartSegment {
                base: 0,
                limit: 0x67,
                attributes: 0x8b,
            },
        }
    }
}

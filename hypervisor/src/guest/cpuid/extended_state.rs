//! Leaf 0xD: which parts of the extended state (XCR0) a guest may use, and how large their areas are (Intel SDM 1, chapter 13).

use alloc::vec::Vec;

use super::{Host, Leaf, features};

/// x87 and SSE.
pub(super) const LEGACY: u64 = 3;
/// The upper halves of the YMM registers.
pub(super) const AVX: u64 = 1 << 2;
/// The opmasks, the upper halves of ZMM0–15, and ZMM16–31: all or none.
pub(super) const AVX512: u64 = 7 << 5;
/// PKRU.
pub(super) const PKRU: u64 = 1 << 9;

/// Bytes of the legacy region and the header of an XSAVE area.
const LEGACY_SIZE: u32 = 512 + 64;
/// Flag in ECX of a component: it starts at a multiple of 64 in the compacted format.
const ALIGNED: u32 = 1 << 1;

/// A part beyond x87 and SSE.
#[derive(Clone, Copy, Debug)]
struct Component {
    index: u32,
    size: u32,
    offset: u32,
    flags: u32,
}

/// The extended state of a guest.
#[derive(Clone, Debug, Default)]
pub(super) struct ExtendedState {
    /// Bits of XCR0 that it may set; 0 without XSAVE.
    pub(super) allowed: u64,
    components: Vec<Component>,
    instructions: u32,
}

impl ExtendedState {
    /// What `host` has (leaf 0xD exists), limited to the parts that `switched` names.
    pub(super) fn new(host: &impl Host, switched: u64) -> Self {
        let Leaf { eax, edx, .. } = host.cpuid(0xd, 0);
        let supported = (u64::from(edx) << 32 | u64::from(eax)) & switched;
        if supported & LEGACY != LEGACY {
            return Self::default();
        }
        let mut allowed = LEGACY | supported & (AVX | PKRU);
        if supported & (AVX | AVX512) == AVX | AVX512 {
            allowed |= AVX512;
        }
        let components = (2..63)
            .filter(|index| allowed >> index & 1 == 1)
            .map(|index| {
                let Leaf { eax, ebx, ecx, .. } = host.cpuid(0xd, index);
                // Nonsense of the host's is cut down rather than added up.
                Component {
                    index,
                    size: eax & 0xffff,
                    offset: ebx & 0xffff,
                    flags: ecx & ALIGNED,
                }
            })
            .collect();
        Self {
            allowed,
            components,
            instructions: host.cpuid(0xd, 1).eax & features::LEAF_D_1_EAX,
        }
    }

    /// Whether XSETBV may put `value` into XCR0.
    pub(super) fn is_valid(&self, value: u64) -> bool {
        value & !self.allowed == 0
            && value & 1 == 1
            && (value & AVX == 0 || value & LEGACY == LEGACY)
            && (value & AVX512 == 0 || value & (AVX | AVX512) == AVX | AVX512)
    }

    /// Bytes of an area that holds the parts of `xcr0` in the standard format.
    fn standard_size(&self, xcr0: u64) -> u32 {
        self.enabled(xcr0)
            .map(|component| component.offset + component.size)
            .fold(LEGACY_SIZE, u32::max)
    }

    /// Bytes of an area that holds the parts of `xcr0` in the compacted format.
    fn compacted_size(&self, xcr0: u64) -> u32 {
        self.enabled(xcr0).fold(LEGACY_SIZE, |size, component| {
            let start = if component.flags & ALIGNED == 0 {
                size
            } else {
                size.next_multiple_of(64)
            };
            start + component.size
        })
    }

    fn enabled(&self, xcr0: u64) -> impl Iterator<Item = &Component> {
        self.components
            .iter()
            .filter(move |component| xcr0 >> component.index & 1 == 1)
    }

    /// The answer to leaf 0xD for a vCPU with this XCR0.
    pub(super) fn leaf(&self, subleaf: u32, xcr0: u64) -> Leaf {
        match subleaf {
            _ if self.allowed == 0 => Leaf::default(),
            0 => Leaf {
                eax: self.allowed as u32,
                ebx: self.standard_size(xcr0),
                ecx: self.standard_size(self.allowed),
                edx: (self.allowed >> 32) as u32,
            },
            1 => {
                const XSAVEC: u32 = 1 << 1;
                let ebx = if self.instructions & XSAVEC == 0 {
                    0
                } else {
                    self.compacted_size(xcr0)
                };
                Leaf {
                    eax: self.instructions,
                    ebx,
                    ..Leaf::default()
                }
            }
            _ => self
                .components
                .iter()
                .find(|component| component.index == subleaf)
                .map_or(Leaf::default(), |component| Leaf {
                    eax: component.size,
                    ebx: component.offset,
                    ecx: component.flags,
                    edx: 0,
                }),
        }
    }
}

//! What CPUID answers: an allow-list over the host's leaves, so that a guest sees only features that the hypervisor carries for it, and Xen's own
//! leaves.
//!
//! A [`Policy`] is made once a domain (it asks the host then) and answers without asking again; what differs between vCPUs and over time comes in as
//! a [`View`]. The guest sees one package of as many single-threaded cores as it has vCPUs; vCPU `i` has the local APIC id `i`.

mod extended_state;
mod features;
#[cfg(test)]
mod tests;
mod xen;

use alloc::collections::BTreeMap;

use extended_state::ExtendedState;

/// The four registers of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// The processor's own CPUID.
pub trait Host {
    /// The answer for `leaf` (EAX) and `subleaf` (ECX).
    fn cpuid(&self, leaf: u32, subleaf: u32) -> Leaf;
}

impl<F: Fn(u32, u32) -> Leaf> Host for F {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> Leaf {
        self(leaf, subleaf)
    }
}

/// What the policy of a domain depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// The domain's id.
    pub domain: u16,
    /// How many vCPUs it has.
    pub vcpus: u32,
    /// Frequency of its time-stamp counter.
    pub tsc_khz: u32,
    /// Bits of XCR0 that the hypervisor saves and restores on a switch between domains; what the host has beyond them stays hidden.
    pub extended_features: u64,
    /// It has devices and an IOMMU maps the grants it maps.
    pub iommu_mappings: bool,
}

/// The state of the asking vCPU that shows in answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The vCPU's index.
    pub vcpu: u32,
    /// Its CR4 (OSXSAVE and PKE show).
    pub cr4: u64,
    /// Its XCR0.
    pub xcr0: u64,
}

/// The answers for a domain.
#[derive(Clone, Debug)]
pub struct Policy {
    configuration: Configuration,
    /// Answers that are the same for every vCPU, or need no more than the patches of `query`.
    leaves: BTreeMap<(u32, u32), Leaf>,
    extended_state: ExtendedState,
    intel: bool,
}

/// The highest basic leaf that has a meaning for guests.
const MAXIMUM_BASIC: u32 = 0xd;
/// The highest extended leaf that has a meaning for guests.
const MAXIMUM_EXTENDED: u32 = 0x8000_0021;
const FIRST_EXTENDED: u32 = 0x8000_0000;
/// More caches than any processor lists.
const MAXIMUM_CACHES: u32 = 8;

const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_PKE: u64 = 1 << 22;

impl Policy {
    /// Asks the host once.
    pub fn new(host: &impl Host, configuration: Configuration) -> Self {
        let basic = host.cpuid(0, 0).eax.min(MAXIMUM_BASIC);
        let extended = host.cpuid(FIRST_EXTENDED, 0).eax.min(MAXIMUM_EXTENDED);
        let has_xsave = basic >= 0xd && host.cpuid(1, 0).ecx >> 26 & 1 == 1;
        let extended_state = if has_xsave {
            ExtendedState::new(host, configuration.extended_features)
        } else {
            ExtendedState::default()
        };
        let intel = host.cpuid(0, 0).ebx == u32::from_le_bytes(*b"Genu");
        let mut policy = Self {
            configuration,
            leaves: BTreeMap::new(),
            extended_state,
            intel,
        };
        policy.add_basic(host, basic);
        if extended >= FIRST_EXTENDED {
            policy.add_extended(host, extended);
        }
        policy
    }

    fn add_basic(&mut self, host: &impl Host, maximum: u32) {
        let has = |part: u64| self.extended_state.allowed & part == part;
        let (xsave, avx) = (has(extended_state::LEGACY), has(extended_state::AVX));
        let (avx512, pkru) = (has(extended_state::AVX512), has(extended_state::PKRU));
        let without = |present: bool, mask: u32| if present { u32::MAX } else { !mask };

        let mut leaves = BTreeMap::new();
        leaves.insert(
            (0, 0),
            Leaf {
                eax: maximum,
                ..host.cpuid(0, 0)
            },
        );
        if maximum >= 1 {
            let host = host.cpuid(1, 0);
            leaves.insert(
                (1, 0),
                Leaf {
                    eax: host.eax,
                    ebx: host.ebx & 0xffff,
                    ecx: host.ecx
                        & features::LEAF_1_ECX
                        & without(xsave, features::NEEDS_XSAVE_1_ECX)
                        & without(avx, features::NEEDS_AVX_1_ECX)
                        | features::LEAF_1_ECX_ALWAYS,
                    edx: host.edx & features::LEAF_1_EDX | features::LEAF_1_EDX_ALWAYS,
                },
            );
        }
        if maximum >= 2 && self.intel {
            leaves.insert((2, 0), host.cpuid(2, 0));
        }
        if maximum >= 4 && self.intel {
            add_caches(&mut leaves, host, 4, self.configuration.vcpus);
        }
        if maximum >= 6 {
            const ARAT: u32 = 1 << 2;
            leaves.insert(
                (6, 0),
                Leaf {
                    eax: ARAT,
                    ..Leaf::default()
                },
            );
        }
        if maximum >= 7 {
            let main = host.cpuid(7, 0);
            leaves.insert(
                (7, 0),
                Leaf {
                    eax: main.eax.min(1),
                    ebx: main.ebx
                        & features::LEAF_7_EBX
                        & without(avx, features::NEEDS_AVX_7_EBX)
                        & without(avx512, features::NEEDS_AVX512_7_EBX),
                    ecx: main.ecx
                        & features::LEAF_7_ECX
                        & without(avx, features::NEEDS_AVX_7_ECX)
                        & without(avx512, features::NEEDS_AVX512_7_ECX)
                        & without(pkru, features::NEEDS_PKRU_7_ECX),
                    edx: main.edx & features::LEAF_7_EDX & without(avx512, features::NEEDS_AVX512_7_EDX),
                },
            );
            if main.eax >= 1 {
                let eax = host.cpuid(7, 1).eax
                    & features::LEAF_7_1_EAX
                    & without(avx, features::NEEDS_AVX_7_1_EAX)
                    & without(avx512, features::NEEDS_AVX512_7_1_EAX);
                leaves.insert(
                    (7, 1),
                    Leaf {
                        eax,
                        ..Leaf::default()
                    },
                );
            }
        }
        self.leaves.append(&mut leaves);
    }

    fn add_extended(&mut self, host: &impl Host, maximum: u32) {
        let vcpus = self.configuration.vcpus;
        let avx = self.extended_state.allowed & extended_state::AVX != 0;
        let at = |leaf: u32| host.cpuid(leaf, 0);
        let mut leaves = BTreeMap::new();
        leaves.insert(
            (FIRST_EXTENDED, 0),
            Leaf {
                eax: maximum,
                ..at(FIRST_EXTENDED)
            },
        );

        let host_features = at(0x8000_0001);
        let mut ecx = host_features.ecx & features::EXTENDED_1_ECX;
        if !avx {
            ecx &= !features::NEEDS_AVX_EXTENDED_1_ECX;
        }
        const CMP_LEGACY: u32 = 1 << 1;
        if !self.intel && vcpus > 1 {
            ecx |= CMP_LEGACY;
        }
        let common = if self.intel {
            0
        } else {
            self.leaves.get(&(1, 0)).map_or(0, |leaf| leaf.edx) & features::COMMON_EDX
        };
        let edx = host_features.edx & features::EXTENDED_1_EDX | common;
        leaves.insert(
            (0x8000_0001, 0),
            Leaf {
                eax: host_features.eax,
                ebx: host_features.ebx,
                ecx,
                edx,
            },
        );

        const TOPOLOGY_EXTENSIONS: u32 = 1 << 22;
        let topology = ecx & TOPOLOGY_EXTENSIONS != 0;
        // The name, caches and translation buffers, the latter for 1 GiB pages, and hints for optimisation.
        for leaf in [
            0x8000_0002,
            0x8000_0003,
            0x8000_0004,
            0x8000_0005,
            0x8000_0006,
            0x8000_0019,
            0x8000_001a,
        ] {
            leaves.insert((leaf, 0), at(leaf));
        }
        leaves.insert(
            (0x8000_0007, 0),
            Leaf {
                edx: features::EXTENDED_7_EDX_ALWAYS,
                ..Leaf::default()
            },
        );
        let sizes = at(0x8000_0008);
        // Address widths as the host's, but no five-level paging. Cores, and the bits of the APIC id that tell them apart, are AMD's.
        let widths = sizes.eax & 0xff | (sizes.eax >> 8 & 0xff).min(48) << 8;
        let cores = if self.intel {
            0
        } else {
            (vcpus.clamp(1, 256) - 1) | self.id_bits() << 12
        };
        leaves.insert(
            (0x8000_0008, 0),
            Leaf {
                eax: widths,
                ebx: sizes.ebx & features::EXTENDED_8_EBX,
                ecx: cores,
                edx: 0,
            },
        );
        if topology {
            add_caches(&mut leaves, host, 0x8000_001d, vcpus);
        }
        leaves.insert(
            (0x8000_0021, 0),
            Leaf {
                eax: at(0x8000_0021).eax & features::EXTENDED_21_EAX,
                ..Leaf::default()
            },
        );
        leaves.retain(|(leaf, _), _| *leaf <= maximum);
        self.leaves.append(&mut leaves);
    }

    /// How many low bits of the local APIC's id tell vCPUs apart.
    fn id_bits(&self) -> u32 {
        self.configuration
            .vcpus
            .clamp(1, 1 << 15)
            .next_power_of_two()
            .trailing_zeros()
    }

    /// The answer for `leaf` (EAX) and `subleaf` (ECX). A leaf that there is not answers zeros.
    pub fn query(&self, view: View, leaf: u32, subleaf: u32) -> Leaf {
        let maximum = self.leaves.get(&(0, 0)).map_or(0, |leaf| leaf.eax);
        // Only some leaves have subleaves; the others answer the same for each.
        let key = if matches!(leaf, 4 | 7 | 0x8000_001d) {
            subleaf
        } else {
            0
        };
        let mut answer = self.leaves.get(&(leaf, key)).copied().unwrap_or_default();
        let vcpus = self.configuration.vcpus;
        match leaf {
            1 => {
                const OSXSAVE: u32 = 1 << 27;
                const XSAVE: u32 = 1 << 26;
                const HTT: u32 = 1 << 28;
                answer.ebx |= vcpus.min(255) << 16 | view.vcpu << 24;
                if view.cr4 & CR4_OSXSAVE != 0 && answer.ecx & XSAVE != 0 {
                    answer.ecx |= OSXSAVE;
                }
                if vcpus > 1 {
                    answer.edx |= HTT;
                }
            }
            7 if subleaf == 0 => {
                const PKU: u32 = 1 << 3;
                const OSPKE: u32 = 1 << 4;
                if view.cr4 & CR4_PKE != 0 && answer.ecx & PKU != 0 {
                    answer.ecx |= OSPKE;
                }
            }
            0xb if maximum >= 0xb => answer = self.topology(view, subleaf),
            0xd if maximum >= 0xd => answer = self.extended_state.leaf(subleaf, view.xcr0),
            xen::FIRST..=xen::LAST => answer = xen::leaf(self, view, leaf, subleaf),
            // Extended APIC id; core id, one thread a core; node 0 of 1.
            0x8000_001e if self.leaves.contains_key(&(0x8000_001d, 0)) => {
                answer = Leaf {
                    eax: view.vcpu,
                    ebx: view.vcpu & 0xff,
                    ecx: 0,
                    edx: 0,
                };
            }
            _ => {}
        }
        answer
    }

    /// Leaf 0xB: level 0 is a thread of one, level 1 the package.
    fn topology(&self, view: View, subleaf: u32) -> Leaf {
        const THREADS: u32 = 1 << 8;
        const CORES: u32 = 2 << 8;
        let level = subleaf & 0xff;
        match subleaf {
            0 => Leaf {
                eax: 0,
                ebx: 1,
                ecx: THREADS | level,
                edx: view.vcpu,
            },
            1 => Leaf {
                eax: self.id_bits(),
                ebx: self.configuration.vcpus & 0xffff,
                ecx: CORES | level,
                edx: view.vcpu,
            },
            _ => Leaf {
                eax: 0,
                ebx: 0,
                ecx: level,
                edx: view.vcpu,
            },
        }
    }

    /// The bits of XCR0 that XSETBV of the guest may set; 0 if it has no XSAVE.
    pub fn allowed_xcr0(&self) -> u64 {
        self.extended_state.allowed
    }

    /// Whether XSETBV may put `value` into XCR0: a subset of the allowed bits that the processor accepts too; otherwise the guest gets #GP.
    pub fn xcr0_valid(&self, value: u64) -> bool {
        self.extended_state.is_valid(value)
    }

    fn has_rdtscp(&self) -> bool {
        self.leaves
            .get(&(0x8000_0001, 0))
            .is_some_and(|leaf| leaf.edx >> 27 & 1 == 1)
    }
}

/// Copies the list of caches of `leaf` (4 of Intel, 0x8000_001D of AMD have the same form) with the guest's number of sharers: the first two levels
/// are of one core, the third is of all.
fn add_caches(leaves: &mut BTreeMap<(u32, u32), Leaf>, host: &impl Host, leaf: u32, vcpus: u32) {
    for subleaf in 0..MAXIMUM_CACHES {
        let mut cache = host.cpuid(leaf, subleaf);
        let (kind, level) = (cache.eax & 0x1f, cache.eax >> 5 & 7);
        let sharers = if level < 3 {
            1
        } else {
            vcpus.clamp(1, 1 << 12).next_power_of_two()
        };
        cache.eax = cache.eax & 0x3fff | (sharers - 1) << 14;
        if leaf == 4 {
            cache.eax |= (vcpus.clamp(1, 1 << 6).next_power_of_two() - 1) << 26;
        }
        leaves.insert((leaf, subleaf), if kind == 0 { Leaf::default() } else { cache });
        if kind == 0 {
            return;
        }
    }
}

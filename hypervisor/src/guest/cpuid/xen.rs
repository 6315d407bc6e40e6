//! Xen's leaves (arch-x86/cpuid.h), by which a guest finds out where it runs, where its hypercall page comes from, and which vCPU it is.

use xen_abi::arch_x86::cpuid::{
    XEN_CPUID_FIRST_LEAF, XEN_CPUID_MAX_NUM_LEAVES, XEN_CPUID_SIGNATURE_EBX, XEN_CPUID_SIGNATURE_ECX,
    XEN_CPUID_SIGNATURE_EDX, XEN_HVM_CPUID_DOMID_PRESENT, XEN_HVM_CPUID_IOMMU_MAPPINGS,
    XEN_HVM_CPUID_VCPU_ID_PRESENT,
};

use super::{Leaf, Policy, View};
use crate::{guest::msr::HYPERCALL_PAGE, platform::time::Scale};

/// The first of them.
pub(super) const FIRST: u32 = XEN_CPUID_FIRST_LEAF;
/// The last of them.
pub(super) const LAST: u32 = XEN_CPUID_FIRST_LEAF + XEN_CPUID_MAX_NUM_LEAVES;

/// The version of Xen whose interface this is: 4.17.
const VERSION: u32 = 4 << 16 | 17;

/// The answer to one of them.
///
/// `XEN_HVM_CPUID_UPCALL_VECTOR` is left out on purpose: without it Linux asks for upcalls by the callback vector of the domain, whose delivery
/// leaves nothing to end in the local APIC, so that an event costs no exit.
pub(super) fn leaf(policy: &Policy, view: View, leaf: u32, subleaf: u32) -> Leaf {
    let configuration = &policy.configuration;
    match leaf - FIRST {
        0 => Leaf {
            eax: LAST,
            ebx: XEN_CPUID_SIGNATURE_EBX,
            ecx: XEN_CPUID_SIGNATURE_ECX,
            edx: XEN_CPUID_SIGNATURE_EDX,
        },
        1 => Leaf {
            eax: VERSION,
            ..Leaf::default()
        },
        // One hypercall page, written into this register.
        2 => Leaf {
            eax: 1,
            ebx: HYPERCALL_PAGE,
            ..Leaf::default()
        },
        3 => time(policy, subleaf),
        4 => {
            let iommu = if configuration.iommu_mappings {
                XEN_HVM_CPUID_IOMMU_MAPPINGS
            } else {
                0
            };
            Leaf {
                eax: XEN_HVM_CPUID_VCPU_ID_PRESENT | XEN_HVM_CPUID_DOMID_PRESENT | iommu,
                ebx: view.vcpu,
                ecx: configuration.domain.into(),
                edx: 0,
            }
        }
        _ => Leaf::default(),
    }
}

/// The counter is the processor's own, invariant and never emulated; where the mode says so Linux prefers it to the clock of the time page.
fn time(policy: &Policy, subleaf: u32) -> Leaf {
    const RELIABLE: u32 = 1 << 1;
    const RDTSCP: u32 = 1 << 2;
    const MODE_NEVER_EMULATE: u32 = 2;
    let khz = policy.configuration.tsc_khz;
    match subleaf {
        0 => {
            let rdtscp = if policy.has_rdtscp() { RDTSCP } else { 0 };
            Leaf {
                eax: RELIABLE | rdtscp,
                ebx: MODE_NEVER_EMULATE,
                ecx: khz,
                edx: 0,
            }
        }
        1 => {
            let scale = Scale::of_khz(khz.into());
            Leaf {
                eax: 0,
                ebx: 0,
                ecx: scale.multiplier,
                edx: scale.shift as u8 as u32,
            }
        }
        2 => Leaf {
            eax: khz,
            ..Leaf::default()
        },
        _ => Leaf::default(),
    }
}

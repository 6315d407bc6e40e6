//! What CPUID answers: an allow-list over the host's leaves, so that a guest sees only features that the hypervisor carries for it, and Xen's own
//! leaves.
//!
//! A [`Policy`] is made once a domain (it asks the host then) and answers without asking again; what differs between vCPUs and over time comes in as
//! a [`View`].

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
}

impl Policy {
    /// Asks the host once.
    pub fn new(host: &impl Host, configuration: Configuration) -> Self {
        let _ = host;
        Self { configuration }
    }

    /// The answer for `leaf` (EAX) and `subleaf` (ECX).
    pub fn query(&self, view: View, leaf: u32, subleaf: u32) -> Leaf {
        let _ = (view, leaf, subleaf, self.configuration);
        todo!()
    }

    /// The bits of XCR0 that XSETBV of the guest may set; 0 if it has no XSAVE.
    pub fn allowed_xcr0(&self) -> u64 {
        todo!()
    }

    /// Whether XSETBV may put `value` into XCR0: a subset of the allowed bits that the processor accepts too; otherwise the guest gets #GP.
    pub fn xcr0_valid(&self, value: u64) -> bool {
        let _ = value;
        todo!()
    }
}

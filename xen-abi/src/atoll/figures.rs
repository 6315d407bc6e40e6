//! What domains and processors have done with their time: `ATOLLOP_DOMAIN_FIGURES` and `ATOLLOP_PROCESSOR_FIGURES`.
//!
//! Times are nanoseconds, everything else counts since the domain was last built (for a processor: since power-on), and only grows unless it says
//! otherwise. A reader takes two readings and looks at the difference; `generation` tells whether the domain is still the same build.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How many reasons for an exit are told apart.
pub const EXIT_REASONS: usize = 11;
/// Index of [`DomainFigures::exits_by_reason`]: a physical interrupt, for whomever, or a non-maskable one.
pub const EXIT_INTERRUPT: usize = 0;
/// Index of [`DomainFigures::exits_by_reason`]: a hypercall.
pub const EXIT_HYPERCALL: usize = 1;
/// Index of [`DomainFigures::exits_by_reason`]: HLT.
pub const EXIT_HALT: usize = 2;
/// Index of [`DomainFigures::exits_by_reason`]: an access to an I/O port.
pub const EXIT_PORT: usize = 3;
/// Index of [`DomainFigures::exits_by_reason`]: a model-specific register, or XSETBV.
pub const EXIT_MSR: usize = 4;
/// Index of [`DomainFigures::exits_by_reason`]: CPUID.
pub const EXIT_CPUID: usize = 5;
/// Index of [`DomainFigures::exits_by_reason`]: a nested page fault at the local APIC's page.
pub const EXIT_FAULT_APIC: usize = 6;
/// Index of [`DomainFigures::exits_by_reason`]: a nested page fault where nothing is mapped.
pub const EXIT_FAULT_ABSENT: usize = 7;
/// Index of [`DomainFigures::exits_by_reason`]: a nested page fault at a page that forbids the access.
pub const EXIT_FAULT_PROTECTED: usize = 8;
/// Index of [`DomainFigures::exits_by_reason`]: the guest can take an interrupt that waited for that.
pub const EXIT_INTERRUPT_WINDOW: usize = 9;
/// Index of [`DomainFigures::exits_by_reason`]: anything else.
pub const EXIT_OTHER: usize = 10;

/// A word for each reason, by index.
pub const EXIT_NAMES: [&str; EXIT_REASONS] = [
    "interrupt",
    "hypercall",
    "halt",
    "port",
    "msr",
    "cpuid",
    "apic",
    "absent",
    "protected",
    "window",
    "other",
];

/// Buckets of [`DomainFigures::waits`].
pub const WAIT_BUCKETS: usize = 24;

/// The bucket of [`DomainFigures::waits`] for a wait of so many nanoseconds: the first has those below 256 ns, each further one those below
/// twice the limit of the one before, the last all that are longer (from about 1.07 s).
pub const fn wait_bucket(nanoseconds: u64) -> usize {
    let bucket = (nanoseconds | 0xff).ilog2() as usize - 7;
    if bucket < WAIT_BUCKETS {
        bucket
    } else {
        WAIT_BUCKETS - 1
    }
}

/// The limit, in nanoseconds, below which the waits of a bucket are; of the last bucket too, though its waits have none.
pub const fn wait_limit(bucket: usize) -> u64 {
    256 << bucket
}

/// [`DomainFigures::class`]: real-time.
pub const CLASS_REALTIME: u16 = 0;
/// [`DomainFigures::class`]: interactive.
pub const CLASS_INTERACTIVE: u16 = 1;
/// [`DomainFigures::class`]: shared.
pub const CLASS_SHARED: u16 = 2;

/// In: which domain (its id). Out: the rest. An id that no domain of the manifest has answers `-ESRCH`; a domain that is not built has zeros.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct DomainFigures {
    /// In: the domain's id; `DOMID_SELF` for the caller.
    pub domain: u16,
    /// One of the `CLASS_*` numbers.
    pub class: u16,
    /// vCPUs that are online.
    pub online: u16,
    /// All its vCPUs.
    pub vcpus: u16,
    /// How many times the domain has been built since power-on.
    pub generation: u32,
    /// Grants of others that it has mapped now.
    pub grants_mapped: u32,
    /// When these figures were read: nanoseconds since the hypervisor's first instruction.
    pub now: u64,
    /// Time on a processor, over all vCPUs: in the guest, and in the hypervisor on its behalf.
    pub running: u64,
    /// Time that vCPUs could run and waited for a processor, over all: steal time.
    pub runnable: u64,
    /// Time that vCPUs waited for an event, over all.
    pub blocked: u64,
    /// Time that vCPUs were offline, over all.
    pub offline: u64,
    /// Exits.
    pub exits: u64,
    /// Exits by reason (`EXIT_*`).
    pub exits_by_reason: [u64; EXIT_REASONS],
    /// Hypercalls that were answered; a multicall is one.
    pub hypercalls: u64,
    /// Interrupts and upcalls that were injected into its vCPUs.
    pub injected: u64,
    /// Events that it sent, to others and between its own vCPUs.
    pub events_sent: u64,
    /// Events that became pending at its ports, of whatever origin.
    pub events_received: u64,
    /// Times that a vCPU of it was blocked and woke.
    pub wakes: u64,
    /// Interrupts between its vCPUs: messages of local APICs, one for each vCPU that is reached, and events of IPI ports.
    pub ipis: u64,
    /// Grants of others that it mapped.
    pub grant_maps: u64,
    /// Grants of others that it unmapped.
    pub grant_unmaps: u64,
    /// Grant copies that it had carried out.
    pub grant_copies: u64,
    /// Bytes that those copied.
    pub bytes_copied: u64,
    /// Interrupts of its devices.
    pub device_interrupts: u64,
    /// Times that a real-time vCPU of it had used up its budget and was held back.
    pub budget_exhaustions: u64,
    /// Times that the domain had used up its cap and was held back.
    pub cap_throttlings: u64,
    /// The longest that a vCPU waited from its wake-up until it ran, since the domain was built.
    pub longest_wait: u64,
    /// Waits from wake-up until the vCPU ran, by length ([`wait_bucket`]).
    pub waits: [u64; WAIT_BUCKETS],
}

/// [`ProcessorFigures::flags`]: begin anew with [`ProcessorFigures::recent_stay`].
pub const PROCESSOR_FIGURES_RESTART: u32 = 1 << 0;
/// [`ProcessorFigures::flags`], out: the processor is exclusive to the domains that the manifest places on it.
pub const PROCESSOR_EXCLUSIVE: u32 = 1 << 1;

/// [`ProcessorFigures::recent_cause`], [`ProcessorFigures::longest_cause`]: the processor had been idle. Smaller numbers are `EXIT_*`.
pub const CAUSE_IDLE: u32 = EXIT_REASONS as u32;

/// In: which processor (its number, from 0), and [`PROCESSOR_FIGURES_RESTART`] or not. Out: the rest. A number that no processor has answers `-ENOENT`.
///
/// `guest + hypervisor + waiting + idle = now`, exactly, for every processor; what it did before it began to work counts as `hypervisor` for the
/// boot processor and as `idle` for the others. `now` is that sum, a few nanoseconds beside the clock. A part may be a moment less than in the reading
/// before: what the processor did then may turn out to have ended already.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct ProcessorFigures {
    /// In: its number.
    pub processor: u32,
    /// In: [`PROCESSOR_FIGURES_RESTART`]. Out: [`PROCESSOR_EXCLUSIVE`].
    pub flags: u32,
    /// Id of its local APIC.
    pub apic_id: u32,
    /// The domain whose vCPU it runs now; 0 for none.
    pub domain: u16,
    /// Which vCPU of it.
    pub vcpu: u16,
    /// When these figures were read: nanoseconds since the hypervisor's first instruction.
    pub now: u64,
    /// Time in guests.
    pub guest: u64,
    /// Time in the hypervisor, with its lock.
    pub hypervisor: u64,
    /// Time in the hypervisor, waiting for its lock.
    pub waiting: u64,
    /// Time with nothing to do.
    pub idle: u64,
    /// Exits that it handled.
    pub exits: u64,
    /// Times that another vCPU than before went on to it.
    pub switches: u64,
    /// Interrupts that it took: of devices, of its timer, from other processors.
    pub interrupts: u64,
    /// Interrupts that it sent to other processors.
    pub ipis: u64,
    /// The longest single stay in the hypervisor with the lock since it began to work.
    pub longest_stay: u64,
    /// The longest since [`PROCESSOR_FIGURES_RESTART`] was last given.
    pub recent_stay: u64,
    /// What [`Self::longest_stay`] began with: `EXIT_*` or [`CAUSE_IDLE`].
    pub longest_cause: u32,
    /// What [`Self::recent_stay`] began with.
    pub recent_cause: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wait_has_the_bucket_that_its_limits_say() {
        assert_eq!((wait_bucket(0), wait_bucket(255), wait_bucket(256)), (0, 0, 1));
        for bucket in 1..WAIT_BUCKETS {
            assert_eq!(wait_bucket(wait_limit(bucket - 1)), bucket);
            assert_eq!(wait_bucket(wait_limit(bucket - 1) - 1), bucket - 1);
        }
        assert_eq!(wait_bucket(u64::MAX), WAIT_BUCKETS - 1);
    }

    #[test]
    fn structures_have_no_holes() {
        // IntoBytes forbids padding; the sizes are what readers were built for.
        assert_eq!(
            size_of::<DomainFigures>(),
            16 + 8 * (6 + EXIT_REASONS + 14 + WAIT_BUCKETS)
        );
        assert_eq!(size_of::<ProcessorFigures>(), 112);
    }
}

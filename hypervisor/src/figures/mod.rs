//! Figures: what domains and processors did, and where the time went. The operator's `top` and the tests read them by `ATOLLOP_DOMAIN_FIGURES` and
//! `ATOLLOP_PROCESSOR_FIGURES`; what each means is said in `xen_abi::atoll`.
//!
//! Counting is plain addition by whoever has the lock. An exit costs about a hundred instructions for it, three readings of the time-stamp counter among
//! them; nothing is converted, divided or searched for until somebody reads.

mod account;

use xen_abi::atoll::{self, WAIT_BUCKETS, wait_bucket};

pub use account::{Account, Phase, Watch};

use crate::{
    Hypervisor,
    domain::{DomainId, layout},
    memory::PAGE_SIZE,
    virt::Exit,
};

/// What a domain did beyond running, since it was built.
#[derive(Clone, Debug, Default)]
pub struct DomainCounts {
    /// Events that it sent.
    pub events_sent: u64,
    /// Events that became pending at its ports.
    pub events_received: u64,
    /// Interrupts between its vCPUs.
    pub ipis: u64,
    /// Grants of others that it mapped.
    pub grant_maps: u64,
    /// Grants of others that it unmapped.
    pub grant_unmaps: u64,
    /// Grant copies.
    pub grant_copies: u64,
    /// Bytes of those.
    pub bytes_copied: u64,
    /// Interrupts of its devices.
    pub device_interrupts: u64,
}

/// What a vCPU did, since its domain was built.
#[derive(Clone, Debug, Default)]
pub struct VcpuCounts {
    /// Exits, by reason ([`reason`]).
    pub exits: [u64; atoll::EXIT_REASONS],
    /// Hypercalls that were answered.
    pub hypercalls: u64,
    /// Interrupts and upcalls that were injected.
    pub injected: u64,
    /// Times that it was blocked and woke.
    pub wakes: u64,
    /// When it woke, in nanoseconds of the machine's clock, until it runs.
    woken: Option<u64>,
    longest_wait: u64,
    waits: [u64; WAIT_BUCKETS],
}

impl VcpuCounts {
    /// It was blocked and may run from `now` on, in nanoseconds of the machine's clock.
    pub fn woke(&mut self, now: u64) {
        self.wakes += 1;
        self.woken = Some(now);
    }

    /// It runs.
    pub fn runs(&mut self, now: u64) {
        if let Some(woken) = self.woken.take() {
            let waited = now.saturating_sub(woken);
            self.longest_wait = self.longest_wait.max(waited);
            self.waits[wait_bucket(waited)] += 1;
        }
    }

    /// Adds what it did to the figures of its domain.
    pub fn add_to(&self, figures: &mut atoll::DomainFigures) {
        let add = |all: &mut [u64], own: &[u64]| all.iter_mut().zip(own).for_each(|(all, own)| *all += own);
        add(&mut figures.exits_by_reason, &self.exits);
        add(&mut figures.waits, &self.waits);
        figures.exits += self.exits.iter().sum::<u64>();
        figures.hypercalls += self.hypercalls;
        figures.injected += self.injected;
        figures.wakes += self.wakes;
        figures.longest_wait = figures.longest_wait.max(self.longest_wait);
    }
}

impl DomainCounts {
    /// Adds what it did to the domain's figures.
    pub fn add_to(&self, figures: &mut atoll::DomainFigures) {
        figures.events_sent += self.events_sent;
        figures.events_received += self.events_received;
        figures.ipis += self.ipis;
        figures.grant_maps += self.grant_maps;
        figures.grant_unmaps += self.grant_unmaps;
        figures.grant_copies += self.grant_copies;
        figures.bytes_copied += self.bytes_copied;
        figures.device_interrupts += self.device_interrupts;
    }
}

impl Hypervisor {
    /// Counts something that a domain did, if it is built.
    pub fn count(&mut self, domain: DomainId, change: impl FnOnce(&mut DomainCounts)) {
        if let Some(body) = self.body_mut(domain) {
            change(&mut body.counts);
        }
    }
}

/// The reason under which an exit is counted (`EXIT_*`).
pub fn reason(exit: &Exit) -> usize {
    let apic = layout::LOCAL_APIC.0;
    match exit {
        Exit::Interrupt | Exit::NonMaskableInterrupt => atoll::EXIT_INTERRUPT,
        Exit::Hypercall => atoll::EXIT_HYPERCALL,
        Exit::Halt => atoll::EXIT_HALT,
        Exit::Port(_) => atoll::EXIT_PORT,
        Exit::ReadMsr(_) | Exit::WriteMsr(..) | Exit::SetExtendedControl(..) => atoll::EXIT_MSR,
        Exit::Cpuid => atoll::EXIT_CPUID,
        Exit::NestedFault(fault) if fault.present => atoll::EXIT_FAULT_PROTECTED,
        Exit::NestedFault(fault) if (apic..apic + PAGE_SIZE).contains(&fault.address.0) => {
            atoll::EXIT_FAULT_APIC
        }
        Exit::NestedFault(_) => atoll::EXIT_FAULT_ABSENT,
        Exit::InterruptWindow => atoll::EXIT_INTERRUPT_WINDOW,
        Exit::FlushCaches
        | Exit::InvalidInstruction
        | Exit::Exception { .. }
        | Exit::TripleFault
        | Exit::MachineCheck
        | Exit::Unexpected(_) => atoll::EXIT_OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{memory::GuestAddress, virt::NestedFault};

    #[test]
    fn exits_are_told_apart() {
        let fault = |address, present| {
            Exit::NestedFault(NestedFault {
                address: GuestAddress(address),
                write: true,
                fetch: false,
                present,
            })
        };
        let named = |exit: Exit| atoll::EXIT_NAMES[reason(&exit)];
        assert_eq!(named(Exit::Interrupt), "interrupt");
        assert_eq!(named(Exit::Hypercall), "hypercall");
        assert_eq!(named(Exit::WriteMsr(1, 2)), "msr");
        assert_eq!(named(fault(0xfee0_00b0, false)), "apic");
        assert_eq!(named(fault(0xfee0_1000, false)), "absent");
        assert_eq!(named(fault(0xfee0_00b0, true)), "protected");
        assert_eq!(named(Exit::InterruptWindow), "window");
        assert_eq!(named(Exit::TripleFault), "other");
    }

    #[test]
    fn a_wait_ends_with_the_run_that_it_was_for() {
        let mut counts = VcpuCounts::default();
        counts.runs(50);
        counts.woke(100);
        counts.runs(1100);
        counts.runs(9000);
        counts.woke(10_000);
        counts.runs(10_010);
        let mut figures = atoll::DomainFigures::default();
        counts.add_to(&mut figures);
        counts.add_to(&mut figures);
        assert_eq!((figures.wakes, figures.longest_wait), (4, 1000));
        assert_eq!(figures.waits[..3], [2, 0, 2]);
        assert_eq!(figures.waits.iter().sum::<u64>(), figures.wakes);
    }
}

//! Who has the machine's memory. Every page is the hypervisor's, the boot bundle's, free, a domain's, or of a domain that is gone while others still
//! have it mapped; [`Hypervisor::check_accounts`] holds the parts against the allocator's books, which know nothing of domains.

use super::{Body, Domain, DomainId};
use crate::{
    Hypervisor,
    grant::Part,
    memory::{PAGE_SIZE, PageKind},
};

/// The machine's memory in pages of 4 KiB; the parts add up to the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Usable memory, as firmware told it.
    pub total: u64,
    /// What nobody holds.
    pub free: u64,
    /// The hypervisor's own: image, heap, tables, stacks.
    pub hypervisor: u64,
    /// The boot bundle, kept to rebuild domains from.
    pub bundle: u64,
    /// Pages of domains that are gone, which others still have mapped.
    pub held: u64,
    /// Memory of domains, with what is held for them.
    pub domains: u64,
}

impl Domain {
    /// Pages that are the domain's memory, also while it is being built or taken down.
    pub fn memory_pages(&self) -> u64 {
        match (&self.body, &self.building, &self.remains) {
            (Some(body), ..) => body.pages,
            (None, Some(build), _) => build.memory_pages(),
            (None, None, Some(remains)) => remains.pages(),
            (None, None, None) => 0,
        }
    }

    /// Pages that the hypervisor holds for the domain beside.
    pub fn overhead_pages(&self) -> u64 {
        let of_this_life = match (&self.body, &self.building, &self.remains) {
            (Some(body), ..) => body.overhead_pages(),
            (None, Some(build), _) => build.table_pages(),
            (None, None, Some(remains)) => remains.table_pages(),
            (None, None, None) => 0,
        };
        of_this_life + self.keep.pages()
    }
}

impl Body {
    /// Pages that the hypervisor holds for the domain: tables of its second stage, its grant table, its shared-info page, what its vCPUs need.
    pub fn overhead_pages(&self) -> u64 {
        let grants = [Part::Entries, Part::Status].map(|part| self.grants.frames(part).len() as u64);
        let io = self.io.as_ref().map_or(0, |io| io.table_pages());
        self.p2m.table_pages() + io + grants.iter().sum::<u64>() + 1 + self.processor_pages
    }
}

impl Hypervisor {
    /// Who has the machine's memory at this moment.
    pub fn accounts(&self) -> Accounts {
        let total = self.machine.ram_size() / PAGE_SIZE;
        let bundle = self.machine.bundle.length().div_ceil(PAGE_SIZE);
        Accounts {
            total,
            free: self.frames.free_pages(),
            // What domains are given from is neither the hypervisor's nor the bundle's.
            hypervisor: total.saturating_sub(self.frames.total_pages() + bundle) + self.own_pages,
            bundle,
            held: self.held.pages(),
            domains: self
                .domains
                .values()
                .map(|domain| domain.memory_pages() + domain.overhead_pages())
                .sum(),
        }
    }

    /// Whether every page that the allocator has given out is known to be somebody's. A difference is a leak, or a page that two believe to have.
    pub fn accounts_balance(&self) -> bool {
        let Accounts {
            free, held, domains, ..
        } = self.accounts();
        self.frames.total_pages() == free + held + domains + self.own_pages
    }

    /// In debug builds: panics if a page has got lost, or a domain's books differ from its tables.
    pub fn check_accounts(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        assert!(
            self.accounts_balance(),
            "memory is not anybody's, or two's: {:?}, {} own pages of {}",
            self.accounts(),
            self.own_pages,
            self.frames.total_pages()
        );
        for (id, body) in self.bodies() {
            let mut pages = 0;
            body.p2m.for_each(&self.memory, |_, mapping, count| {
                if mapping.kind == PageKind::Ram {
                    pages += count;
                }
            });
            assert_eq!(body.pages, pages, "domain {}'s pages are miscounted", id.0);
        }
    }

    fn bodies(&self) -> impl Iterator<Item = (DomainId, &Body)> {
        self.domains
            .iter()
            .filter_map(|(id, domain)| Some((*id, domain.body.as_ref()?)))
    }
}

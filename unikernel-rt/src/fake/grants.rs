//! Grant tables of the fakes of several domains: a mapping is the same memory.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use crate::DomainId;
use crate::grant::{
    Access, CopyEnd, CopyOperation, GrantError, GrantRef, Grants, MapRequest, Mapping, keeper,
};
use crate::memory::{PAGE_SIZE, SharedMemory};

/// The grant table of one domain. [`as_domain`](Self::as_domain) gives that of another one on the same machine: to act as
/// the peer in a test, grant there what is mapped here.
#[derive(Clone)]
pub struct FakeGrants {
    own: DomainId,
    machine: Rc<Machine>,
}

#[derive(Default)]
struct Machine {
    entries: RefCell<BTreeMap<(DomainId, GrantRef), Entry>>,
    last: Cell<u32>,
    calls: Cell<usize>,
}

struct Entry {
    peer: DomainId,
    page: SharedMemory,
    access: Access,
    mapped: Rc<Cell<usize>>,
}

const BAD_GRANT: i16 = -3;
const PERMISSION_DENIED: i16 = -8;
const BAD_COPY: i16 = -10;

impl FakeGrants {
    /// The grant table of a domain on a new machine.
    pub fn new(own: DomainId) -> Self {
        let machine = Machine {
            last: Cell::new(7),
            ..Machine::default()
        };
        Self {
            own,
            machine: Rc::new(machine),
        }
    }

    /// The grant table of another domain on the same machine.
    pub fn as_domain(&self, domain: DomainId) -> Self {
        Self {
            own: domain,
            machine: self.machine.clone(),
        }
    }

    /// How many mappings of pages exist on the machine.
    pub fn mapped_pages(&self) -> usize {
        self.machine
            .entries
            .borrow()
            .values()
            .map(|entry| entry.mapped.get())
            .sum()
    }

    /// How many hypercalls the calls so far would have been, unmapping left out.
    pub fn calls(&self) -> usize {
        self.machine.calls.get()
    }

    /// The page behind a grant of this domain: what a peer would see.
    pub fn page(&self, reference: GrantRef) -> Option<SharedMemory> {
        Some(
            self.machine
                .entries
                .borrow()
                .get(&(self.own, reference))?
                .page
                .clone(),
        )
    }

    /// Chooses the reference of a page, such as the reserved ones of console and xenstore.
    pub fn grant_as(
        &self,
        reference: GrantRef,
        domain: DomainId,
        memory: &SharedMemory,
        page: usize,
        access: Access,
    ) -> Result<(), GrantError> {
        let page = memory.part(page * PAGE_SIZE, PAGE_SIZE)?;
        let entry = Entry {
            peer: domain,
            page,
            access,
            mapped: Rc::default(),
        };
        self.machine
            .entries
            .borrow_mut()
            .insert((self.own, reference), entry);
        Ok(())
    }

    fn count(&self) {
        self.machine.calls.set(self.machine.calls.get() + 1);
    }

    /// The page that a reference names, if this domain may use it so.
    fn look_up(
        &self,
        domain: DomainId,
        reference: GrantRef,
        access: Access,
    ) -> Result<(SharedMemory, Rc<Cell<usize>>), GrantError> {
        let refused = |status| GrantError::Refused {
            domain,
            reference,
            status,
        };
        let entries = self.machine.entries.borrow();
        let entry = entries.get(&(domain, reference)).ok_or(refused(BAD_GRANT))?;
        if entry.peer != self.own || (access == Access::ReadWrite && entry.access == Access::ReadOnly) {
            return Err(refused(PERMISSION_DENIED));
        }
        Ok((entry.page.clone(), entry.mapped.clone()))
    }

    fn map_row(&self, requests: &[MapRequest]) -> Result<Mapping, GrantError> {
        let mut parts = Vec::new();
        let mut counters = Vec::new();
        for request in requests {
            let (page, counter) = self.look_up(request.domain, request.reference, request.access)?;
            parts.push(page);
            counters.push(counter);
        }
        counters.iter().for_each(|counter| counter.set(counter.get() + 1));
        let bus = parts
            .iter()
            .map(|page| page.address(0).map(|address| address.as_ptr() as u64))
            .collect::<Result<_, _>>()?;
        let release = keeper(move || counters.iter().for_each(|counter| counter.set(counter.get() - 1)));
        Ok(Mapping::new(SharedMemory::gather(&parts).kept_by(release), bus))
    }

    fn end_of_copy(
        &self,
        end: CopyEnd<'_>,
        length: u16,
        access: Access,
    ) -> Result<(SharedMemory, usize), GrantError> {
        match end {
            CopyEnd::Local { memory, offset } => Ok((memory.clone(), offset)),
            CopyEnd::Granted {
                domain,
                reference,
                offset,
            } => {
                if usize::from(offset) + usize::from(length) > PAGE_SIZE {
                    return Err(GrantError::Copy(BAD_COPY));
                }
                Ok((self.look_up(domain, reference, access)?.0, offset.into()))
            }
        }
    }

    fn copy_one(&self, operation: &CopyOperation<'_>) -> Result<(), GrantError> {
        let (source, from) = self.end_of_copy(operation.source, operation.length, Access::ReadOnly)?;
        let (target, to) = self.end_of_copy(operation.target, operation.length, Access::ReadWrite)?;
        Ok(source.copy_to(from, &target, to, operation.length.into())?)
    }
}

impl Grants for FakeGrants {
    fn grant(
        &self,
        domain: DomainId,
        memory: &SharedMemory,
        page: usize,
        access: Access,
    ) -> Result<GrantRef, GrantError> {
        let reference = GrantRef(self.machine.last.get() + 1);
        self.machine.last.set(reference.0);
        self.grant_as(reference, domain, memory, page, access)?;
        Ok(reference)
    }

    fn end(&self, reference: GrantRef) -> Result<(), GrantError> {
        let mut entries = self.machine.entries.borrow_mut();
        if entries
            .get(&(self.own, reference))
            .is_some_and(|entry| entry.mapped.get() > 0)
        {
            return Err(GrantError::InUse(reference));
        }
        entries.remove(&(self.own, reference));
        Ok(())
    }

    fn map(&self, requests: &[MapRequest]) -> Result<Mapping, GrantError> {
        self.count();
        self.map_row(requests)
    }

    fn map_each(&self, requests: &[MapRequest]) -> Vec<Result<Mapping, GrantError>> {
        self.count();
        requests
            .iter()
            .map(|request| self.map_row(core::slice::from_ref(request)))
            .collect()
    }

    fn unmap_all(&self, mappings: Vec<Mapping>) {
        drop(mappings);
    }

    fn copy(&self, operations: &[CopyOperation<'_>], results: &mut Vec<Result<(), GrantError>>) {
        self.count();
        results.clear();
        results.extend(operations.iter().map(|operation| self.copy_one(operation)));
    }
}

//! Grants: how domains let each other use their pages.
//!
//! A frontend *grants* its own pages and passes the references on; a backend *maps* them (for rings, and for data that a
//! device is to reach) or has the hypervisor *copy* (for packets). Calls take batches, since each is a hypercall.

#[cfg(target_os = "none")]
mod mapper;
mod window;
#[cfg(target_os = "none")]
pub(crate) mod xen;

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::fmt;

use thiserror::Error;

use crate::DomainId;
use crate::hypercall::Errno;
use crate::memory::{MemoryError, SharedMemory};

pub use window::Window;

/// A reference that a domain gave to one of its pages: as a peer names it, an allegation until it was mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantRef(pub u32);

impl fmt::Display for GrantRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "grant {}", self.0)
    }
}

/// What a page may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Looking only.
    ReadOnly,
    /// Looking and writing.
    ReadWrite,
}

/// Why a grant could not be used.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum GrantError {
    /// The hypervisor refused one grant of a batch (`GNTST_*`).
    #[error("{domain}'s {reference} was refused: {}", status_text(*status))]
    Refused {
        /// Who granted, allegedly.
        domain: DomainId,
        /// What was named.
        reference: GrantRef,
        /// The `GNTST_*` status.
        status: i16,
    },
    /// The hypervisor refused a copy (`GNTST_*`).
    #[error("a grant copy was refused: {}", status_text(*.0))]
    Copy(i16),
    /// The whole call failed.
    #[error("the grant table call failed: {0}")]
    Call(#[from] Errno),
    /// No room is left to map so many pages.
    #[error("the grant window has no room for {0} pages")]
    WindowFull(usize),
    /// All grant entries are in use.
    #[error("no grant entry is free")]
    TableFull,
    /// The peer still uses the page.
    #[error("{0} is still in use by the peer")]
    InUse(GrantRef),
    /// Our own side of a copy does not lie in its memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

fn status_text(status: i16) -> &'static str {
    match status {
        0 => "okay",
        -2 => "unrecognised domain",
        -3 => "bad grant reference",
        -4 => "bad mapping handle",
        -5 => "bad address to map at",
        -6 => "bad device address",
        -7 => "no space in the IOMMU",
        -8 => "permission denied",
        -9 => "bad page",
        -10 => "the copy crosses a page",
        -11 => "address too big",
        -12 => "try again",
        -13 => "out of space",
        _ => "undefined error",
    }
}

/// One grant to map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapRequest {
    /// Who granted the page.
    pub domain: DomainId,
    /// How it is called.
    pub reference: GrantRef,
    /// What for.
    pub access: Access,
    /// Whether devices of this domain are to reach it as well (then [`Mapping::bus_address`] is meaningful).
    pub device: bool,
}

/// Pages of another domain, mapped in a row. Unmapped when this and all clones of its memory are dropped.
#[derive(Clone, Debug)]
pub struct Mapping {
    memory: SharedMemory,
    bus: Rc<[u64]>,
}

impl Mapping {
    /// Puts together what an implementation of [`Grants`] mapped: `memory`, whose keeper unmaps, and a bus address a page.
    pub fn new(memory: SharedMemory, bus: Vec<u64>) -> Self {
        Self {
            memory,
            bus: bus.into(),
        }
    }

    /// The bytes. A mapping for [`Access::ReadOnly`] must not be written: the machine ends the domain that tries.
    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// The number of pages.
    pub fn pages(&self) -> usize {
        self.bus.len()
    }

    /// The address at which devices find a page (mapped with `device`). Neighbouring pages need not be neighbours there.
    pub fn bus_address(&self, page: usize) -> Option<u64> {
        self.bus.get(page).copied()
    }
}

/// One end of a copy.
#[derive(Clone, Copy, Debug)]
pub enum CopyEnd<'a> {
    /// Our own memory: pages of [`SharedMemory::allocate`] or of a DMA buffer.
    Local {
        /// The memory.
        memory: &'a SharedMemory,
        /// Where in it.
        offset: usize,
    },
    /// Another domain's page.
    Granted {
        /// Who granted it.
        domain: DomainId,
        /// How it is called.
        reference: GrantRef,
        /// Where in the page.
        offset: u16,
    },
}

/// A copy for the hypervisor to make. It must stay within a page on a granted side.
#[derive(Clone, Copy, Debug)]
pub struct CopyOperation<'a> {
    /// From where.
    pub source: CopyEnd<'a>,
    /// To where.
    pub target: CopyEnd<'a>,
    /// How many bytes.
    pub length: u16,
}

/// The grant tables: our own, and what others let us use.
pub trait Grants {
    /// Lets `domain` use a page of ours. It must be one of [`SharedMemory::allocate`], whose pages stay while granted if
    /// the caller keeps `memory` until [`end`](Self::end) succeeded.
    fn grant(
        &self,
        domain: DomainId,
        memory: &SharedMemory,
        page: usize,
        access: Access,
    ) -> Result<GrantRef, GrantError>;

    /// Takes a grant back. Fails with [`GrantError::InUse`] while the peer has it mapped.
    fn end(&self, reference: GrantRef) -> Result<(), GrantError>;

    /// Maps grants in a row, by one hypercall. All or nothing: the first that is refused is the error.
    fn map(&self, requests: &[MapRequest]) -> Result<Mapping, GrantError>;

    /// Maps grants apart from each other, by one hypercall: for pages that are kept and let go one by one.
    fn map_each(&self, requests: &[MapRequest]) -> Vec<Result<Mapping, GrantError>>;

    /// Lets go of mappings by as few hypercalls as possible. (Dropping each costs one.)
    fn unmap_all(&self, mappings: Vec<Mapping>);

    /// Copies, by one hypercall. `results` is cleared, and filled with the outcome of each operation.
    fn copy(&self, operations: &[CopyOperation<'_>], results: &mut Vec<Result<(), GrantError>>);
}

/// Several of our own pages, granted for as long as this lives. If the peer still maps one when it is dropped, the page
/// is leaked rather than reused.
pub struct GrantedPages {
    grants: Rc<dyn Grants>,
    memory: SharedMemory,
    references: Vec<GrantRef>,
}

impl GrantedPages {
    /// Allocates pages and grants each to `domain`.
    pub fn allocate(
        grants: &Rc<dyn Grants>,
        domain: DomainId,
        pages: usize,
        access: Access,
    ) -> Result<Self, GrantError> {
        let mut granted = Self {
            grants: grants.clone(),
            memory: SharedMemory::allocate(pages)?,
            references: Vec::with_capacity(pages),
        };
        for page in 0..pages {
            granted
                .references
                .push(grants.grant(domain, &granted.memory, page, access)?);
        }
        Ok(granted)
    }

    /// The bytes.
    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// The reference of each page.
    pub fn references(&self) -> &[GrantRef] {
        &self.references
    }
}

impl Drop for GrantedPages {
    fn drop(&mut self) {
        for reference in self.references.drain(..) {
            if let Err(error) = self.grants.end(reference) {
                log::warn!("{error}; its page is given up");
                core::mem::forget(self.memory.clone());
            }
        }
    }
}

#[cfg(any(target_os = "none", test, feature = "fake"))]
/// A keeper made of a closure that runs on drop: what implementations hang on a mapping's memory.
struct OnDrop<F: FnMut()>(F);

#[cfg(any(target_os = "none", test, feature = "fake"))]
impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Makes a keeper of a closure.
#[cfg(any(target_os = "none", test, feature = "fake"))]
pub(crate) fn keeper(action: impl FnMut() + 'static) -> Rc<dyn core::any::Any> {
    Rc::new(OnDrop(action))
}

//! Mapping on the machine: puts others' pages into the window, and lets go of them when nobody refers to them any more.
#![allow(unsafe_code)] // Mappings become memory here.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ptr::NonNull;

use xen_abi::grant_table::*;
use xen_abi::xen::__HYPERVISOR_grant_table_op;

use super::{Access, GrantError, GrantRef, MapRequest, Mapping, Window, keeper};
use crate::DomainId;
use crate::dma;
use crate::hypercall::{Errno, call};
use crate::memory::{PAGE_SIZE, SharedMemory};

/// Where others' pages are put. Every mapping holds on to it, to unmap itself.
pub(super) struct Mapper {
    base: NonNull<u8>,
    window: RefCell<Window>,
    /// While mappings are let go of together, what they leave to unmap.
    batch: RefCell<Option<Vec<GnttabUnmapGrantRef>>>,
}

impl Mapper {
    /// Uses an address range.
    ///
    /// # Safety
    /// `pages` pages at `base` must be mapped in the page tables for data, for ever, with no memory behind them, and be used by
    /// nobody else.
    pub unsafe fn new(base: NonNull<u8>, pages: usize) -> Self {
        Self {
            base,
            window: RefCell::new(Window::new(pages)),
            batch: RefCell::default(),
        }
    }

    /// Maps pages in a row; all or nothing.
    pub fn map_row(self: &Rc<Self>, requests: &[MapRequest]) -> Result<Mapping, GrantError> {
        let first = self.window.borrow_mut().take(requests.len());
        let first = first.ok_or(GrantError::WindowFull(requests.len()))?;
        let mut arguments: Vec<_> = (first..)
            .zip(requests)
            .map(|(place, request)| self.argument(request, place))
            .collect();
        let outcome = map_batch(&mut arguments);
        // What was mapped is let go of with the mapping, whether or not that is handed out.
        let mapping = self.mapping(first, &arguments);
        outcome?;
        match arguments.iter().find_map(refusal) {
            Some(error) => Err(error),
            None => Ok(mapping),
        }
    }

    /// Maps pages wherever there is room.
    pub fn map_each(self: &Rc<Self>, requests: &[MapRequest]) -> Vec<Result<Mapping, GrantError>> {
        let mut places = Vec::with_capacity(requests.len());
        let mut arguments = Vec::with_capacity(requests.len());
        for request in requests {
            let Some(place) = self.window.borrow_mut().take(1) else {
                break;
            };
            places.push(place);
            arguments.push(self.argument(request, place));
        }
        let outcome = map_batch(&mut arguments);
        let mut results: Vec<_> = places
            .iter()
            .zip(&arguments)
            .map(|(&place, argument)| {
                let mapping = self.mapping(place, core::slice::from_ref(argument));
                outcome?;
                refusal(argument).map_or(Ok(mapping), Err)
            })
            .collect();
        results.resize_with(requests.len(), || Err(GrantError::WindowFull(1)));
        results
    }

    /// Unmaps by one hypercall what `action` drops.
    pub fn unmap_together(&self, action: impl FnOnce()) {
        self.batch.replace(Some(Vec::new()));
        action();
        if let Some(mut batch) = self.batch.take() {
            self.unmap(&mut batch);
        }
    }

    fn argument(&self, request: &MapRequest, place: usize) -> GnttabMapGrantRef {
        let device = if request.device { GNTMAP_device_map } else { 0 };
        let read_only = if request.access == Access::ReadOnly {
            GNTMAP_readonly
        } else {
            0
        };
        GnttabMapGrantRef {
            host_addr: self.base.as_ptr() as u64 + (place * PAGE_SIZE) as u64,
            flags: GNTMAP_host_map | device | read_only,
            r#ref: request.reference.0,
            dom: request.domain.0,
            // What stays if the hypervisor does not come to it.
            status: GNTST_general_error,
            ..GnttabMapGrantRef::default()
        }
    }

    /// Makes memory of what was mapped in a row from `first` on; gaps (refused grants) make it unusable, but it still lets go.
    fn mapping(self: &Rc<Self>, first: usize, arguments: &[GnttabMapGrantRef]) -> Mapping {
        let bus = arguments.iter().map(|argument| argument.dev_bus_addr).collect();
        let mut mapped: Vec<_> = arguments
            .iter()
            .filter(|argument| argument.status == GNTST_okay)
            .map(|argument| GnttabUnmapGrantRef {
                host_addr: argument.host_addr,
                dev_bus_addr: if argument.flags & GNTMAP_device_map != 0 {
                    argument.dev_bus_addr
                } else {
                    0
                },
                handle: argument.handle,
                status: GNTST_general_error,
                ..GnttabUnmapGrantRef::default()
            })
            .collect();
        for (place, argument) in (first..).zip(arguments) {
            if argument.status != GNTST_okay {
                // A place that was never filled is free again at once.
                self.window.borrow_mut().give_back(place, 1);
            } else if argument.flags & GNTMAP_device_map != 0 {
                dma::set_granted(argument.host_addr as usize, Some(argument.dev_bus_addr));
            }
        }
        let mapper = self.clone();
        let release = keeper(move || mapper.release(core::mem::take(&mut mapped)));
        // SAFETY: the pages are mapped until `release` runs, which is when nobody refers to the memory any more; no reference to
        // them is ever made. Where a grant was refused, the mapping is dropped unused.
        let memory = unsafe {
            let base = self.base.add(first * PAGE_SIZE);
            SharedMemory::from_raw(base, arguments.len() * PAGE_SIZE, Some(release))
        };
        Mapping::new(memory, bus)
    }

    fn release(&self, mut handles: Vec<GnttabUnmapGrantRef>) {
        if let Some(batch) = self.batch.borrow_mut().as_mut() {
            batch.append(&mut handles);
            return;
        }
        self.unmap(&mut handles);
    }

    fn unmap(&self, handles: &mut [GnttabUnmapGrantRef]) {
        if handles.is_empty() {
            return;
        }
        if let Err(error) = call::batch(__HYPERVISOR_grant_table_op, GNTTABOP_unmap_grant_ref, handles) {
            log::error!("grants cannot be unmapped: {error}");
        }
        let mut window = self.window.borrow_mut();
        for handle in handles {
            dma::set_granted(handle.host_addr as usize, None);
            if handle.status == GNTST_okay {
                let offset = handle.host_addr - self.base.as_ptr() as u64;
                window.give_back(offset as usize / PAGE_SIZE, 1);
            } else {
                // Its place is lost: another page there would be somebody's memory under a stale address.
                log::error!(
                    "a grant mapped at {:#x} stays mapped: status {}",
                    handle.host_addr,
                    handle.status
                );
            }
        }
    }
}

fn map_batch(arguments: &mut [GnttabMapGrantRef]) -> Result<(), Errno> {
    if arguments.is_empty() {
        return Ok(());
    }
    call::batch(__HYPERVISOR_grant_table_op, GNTTABOP_map_grant_ref, arguments).map(drop)
}

/// The error of a grant that was refused.
fn refusal(argument: &GnttabMapGrantRef) -> Option<GrantError> {
    (argument.status != GNTST_okay).then_some(GrantError::Refused {
        domain: DomainId(argument.dom),
        reference: GrantRef(argument.r#ref),
        status: argument.status,
    })
}

//! The pages of requests: found among those that stay mapped, or mapped, all of a turn's by one hypercall.

use alloc::vec::Vec;

use unikernel_rt::grant::{Access, CopyEnd, CopyOperation, GrantRef, MapRequest, Mapping};
use unikernel_rt::memory::PAGE_SIZE;
use xen_abi::io::blkif::{BLKIF_SECTOR_SIZE, BLKIF_SEGMENTS_PER_INDIRECT_PAGE, BlkifRequestSegment};

use super::connection::Connection;
use super::pending::Pending;
use super::request::{self, Refusal};
use crate::device::{IoError, Operation, Segment};

/// A page that a request still lacks.
pub(super) struct Want {
    /// The request's place among those that are pending.
    place: usize,
    /// The segment that lies in the page.
    segment: usize,
    request: MapRequest,
}

impl Connection {
    /// Notes the segments of a request, and which of their pages are to be mapped.
    pub(super) fn add_segments(
        &mut self,
        pending: &mut Pending,
        place: usize,
        segments: &[BlkifRequestSegment],
        wants: &mut Vec<Want>,
    ) {
        // The frontend reuses persistent grants for reads and writes alike, and lets us map them for both.
        let writes_memory = pending.steps.contains(&Operation::Read) || self.persistent.is_some();
        let access = if writes_memory {
            Access::ReadWrite
        } else {
            Access::ReadOnly
        };
        pending.pages = segments.len();
        self.pages += segments.len();
        for (index, segment) in segments.iter().enumerate() {
            let reference = GrantRef(segment.gref);
            let offset = u64::from(segment.first_sect) * BLKIF_SECTOR_SIZE as u64;
            let sectors = u32::from(segment.last_sect - segment.first_sect) + 1;
            let mut address = offset;
            if let Some(page) = self
                .persistent
                .as_mut()
                .and_then(|grants| grants.acquire(reference))
            {
                pending.persistent.push(reference);
                address = page.wrapping_add(offset);
            } else {
                let request = MapRequest {
                    domain: self.id.peer,
                    reference,
                    access,
                    device: true,
                };
                wants.push(Want {
                    place,
                    segment: index,
                    request,
                });
            }
            pending.segments.push(Segment {
                address,
                length: sectors * BLKIF_SECTOR_SIZE as u32,
            });
        }
    }

    /// Maps what is wanted. A request whose page is refused is answered with an error.
    pub(super) fn map(&mut self, wants: &[Want], now: unikernel_rt::time::Instant) {
        if wants.is_empty() {
            return;
        }
        let requests: Vec<MapRequest> = wants.iter().map(|want| want.request).collect();
        for (want, result) in wants.iter().zip(self.grants.map_each(&requests)) {
            let Some(pending) = self.pending.get_mut(want.place) else {
                continue;
            };
            let reference = want.request.reference;
            let mapped = result.map_err(Refusal::from).and_then(|mapping| {
                let page = mapping.bus_address(0).ok_or(Refusal::Unreachable)?;
                Ok((mapping, page))
            });
            match mapped {
                Ok((mapping, page)) => {
                    if let Some(segment) = pending.segments.get_mut(want.segment) {
                        segment.address = segment.address.wrapping_add(page);
                    }
                    let kept = match &mut self.persistent {
                        Some(grants) => grants.insert(reference, mapping, page, &mut self.discarded),
                        None => Err(mapping),
                    };
                    match kept {
                        Ok(()) => pending.persistent.push(reference),
                        Err(mapping) => pending.mappings.push(mapping),
                    }
                }
                Err(refusal) => {
                    pending.refuse(&refusal);
                    self.log
                        .warn(now, format_args!("{}: a request is refused: {refusal}", self.id));
                }
            }
        }
    }

    /// Copies the segments of an indirect request out of their pages, once.
    pub(super) fn indirect_segments(
        &mut self,
        count: u16,
        pages: &[u32],
    ) -> Result<Vec<BlkifRequestSegment>, Refusal> {
        let mut segments = Vec::with_capacity(count.into());
        let mut bytes = alloc::vec![0; PAGE_SIZE];
        for &page in pages {
            let left = usize::from(count) - segments.len();
            let length = left.min(BLKIF_SEGMENTS_PER_INDIRECT_PAGE) * size_of::<BlkifRequestSegment>();
            self.copy_page(GrantRef(page), &mut bytes[..length])?;
            request::parse_page(&bytes[..length], left, &mut segments);
        }
        if segments.len() < usize::from(count) {
            return Err(Refusal::SegmentCount(count));
        }
        Ok(segments)
    }

    /// Copies the beginning of a granted page: from its mapping if it stays mapped, else by the hypervisor.
    fn copy_page(&mut self, reference: GrantRef, target: &mut [u8]) -> Result<(), Refusal> {
        let failed = |_| Refusal::Io(IoError::Device);
        let Some(grants) = &mut self.persistent else {
            let operation = CopyOperation {
                source: CopyEnd::Granted {
                    domain: self.id.peer,
                    reference,
                    offset: 0,
                },
                target: CopyEnd::Local {
                    memory: &self.scratch,
                    offset: 0,
                },
                length: target.len() as u16,
            };
            let mut results = Vec::with_capacity(1);
            self.grants.copy(&[operation], &mut results);
            results.into_iter().collect::<Result<(), _>>()?;
            return self.scratch.copy_out(0, target).map_err(failed);
        };
        if grants.acquire(reference).is_some() {
            let copied = grants.memory(reference).map(|memory| memory.copy_out(0, target));
            grants.release(reference);
            return copied.unwrap_or(Ok(())).map_err(failed);
        }
        let request = MapRequest {
            domain: self.id.peer,
            reference,
            access: Access::ReadWrite,
            device: true,
        };
        let mapping = self
            .grants
            .map_each(&[request])
            .pop()
            .unwrap_or(Err(unikernel_rt::grant::GrantError::TableFull))?;
        let page = mapping.bus_address(0).ok_or(Refusal::Unreachable)?;
        let copied = mapping.memory().copy_out(0, target);
        match grants.insert(reference, mapping, page, &mut self.discarded) {
            Ok(()) => grants.release(reference),
            Err(mapping) => self.discarded.push(mapping),
        }
        copied.map_err(failed)
    }

    /// Takes what a request held: to be unmapped, or in use once less.
    pub(super) fn take_grants(&mut self, pending: &mut Pending) -> Vec<Mapping> {
        if let Some(grants) = &mut self.persistent {
            pending
                .persistent
                .drain(..)
                .for_each(|reference| grants.release(reference));
        }
        core::mem::take(&mut pending.mappings)
    }
}

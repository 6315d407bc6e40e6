//! A request on its way.

use alloc::vec::Vec;

use unikernel_rt::grant::{GrantRef, Mapping};
use xen_abi::io::blkif::{BLKIF_RSP_OKAY, BlkifResponse};

use super::request::Refusal;
use crate::device::{Operation, Segment};

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Its next step is to be submitted.
    Ready,
    /// The disk has its step.
    Submitted,
    /// It will be answered with this status.
    Done(i16),
}

/// A request that was taken off the ring and not answered.
pub(super) struct Pending {
    pub(super) id: u64,
    /// The operation that the response names.
    pub(super) operation: u8,
    /// Nothing may be under way beside it.
    pub(super) exclusive: bool,
    pub(super) steps: &'static [Operation],
    pub(super) step: usize,
    /// The first sector on the volume.
    pub(super) sector: u64,
    pub(super) sectors: u64,
    pub(super) segments: Vec<Segment>,
    /// Pages that the frontend named: what counts against the connection's bound.
    pub(super) pages: usize,
    /// Grants that stay mapped, in use by this request.
    pub(super) persistent: Vec<GrantRef>,
    /// Grants that are mapped for this request.
    pub(super) mappings: Vec<Mapping>,
    pub(super) progress: Progress,
}

impl Pending {
    /// A request of which nothing is known but how to answer it.
    pub(super) fn new(id: u64, operation: u8) -> Self {
        Self {
            id,
            operation,
            exclusive: false,
            steps: &[],
            step: 0,
            sector: 0,
            sectors: 0,
            segments: Vec::new(),
            pages: 0,
            persistent: Vec::new(),
            mappings: Vec::new(),
            progress: Progress::Done(BLKIF_RSP_OKAY),
        }
    }

    /// Whether it is to be answered.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.progress, Progress::Done(_))
    }

    /// Ends it with an error.
    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        self.progress = Progress::Done(refusal.status());
    }

    /// A step has succeeded; answers whether there is another.
    pub(super) fn next_step(&mut self) -> bool {
        self.step += 1;
        let more = self.step < self.steps.len();
        self.progress = if more {
            Progress::Ready
        } else {
            Progress::Done(BLKIF_RSP_OKAY)
        };
        more
    }

    /// The answer.
    pub(super) fn response(&self) -> BlkifResponse {
        let status = match self.progress {
            Progress::Done(status) => status,
            Progress::Ready | Progress::Submitted => xen_abi::io::blkif::BLKIF_RSP_ERROR,
        };
        BlkifResponse {
            id: self.id,
            operation: self.operation,
            status,
            ..BlkifResponse::default()
        }
    }

    /// Joins segments that are neighbours on the bus: a guest's pages often are.
    pub(super) fn join_segments(&mut self) {
        self.segments.dedup_by(|next, previous| {
            let joined = previous.address.checked_add(previous.length.into()) == Some(next.address);
            if joined {
                previous.length += next.length;
            }
            joined
        });
    }
}

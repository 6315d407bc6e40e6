//! A disk in memory. It completes requests when the test says so, in the order that the test says.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use unikernel_rt::time::Instant;

use super::bus;
use crate::device::{
    BlockDevice, Completion, DiscardLimits, IoError, Operation, Properties, Request, SECTOR, Segment,
    SubmitError, Tag,
};

/// What the test and the disk share.
pub struct State {
    /// The content.
    pub data: Vec<u8>,
    /// Requests that were begun and not completed: operation, first sector, sectors, segments, tag.
    pub pending: VecDeque<(Operation, u64, u64, Vec<Segment>, Tag)>,
    /// What was executed, in order.
    pub executed: Vec<(Operation, u64, u64)>,
    /// Whether polling completes everything.
    pub automatic: bool,
    /// Fails whatever touches this sector.
    pub bad_sector: Option<u64>,
    /// How many requests it takes.
    pub room: usize,
    completed: Vec<Completion>,
}

/// The disk; clones are the same one.
#[derive(Clone)]
pub struct MemoryDisk {
    properties: Properties,
    /// What the test looks at.
    pub state: Rc<RefCell<State>>,
}

impl MemoryDisk {
    /// An empty disk of 512-byte blocks.
    pub fn new(sectors: u64) -> Self {
        Self::with(Properties {
            sectors,
            logical_block: 512,
            physical_block: 4096,
            volatile_cache: true,
            discard: Some(DiscardLimits {
                granularity: 4096,
                alignment: 0,
            }),
            max_transfer: 1 << 20,
            read_only: false,
        })
    }

    /// A disk with properties.
    pub fn with(properties: Properties) -> Self {
        let state = State {
            data: vec![0; (properties.sectors * SECTOR) as usize],
            pending: VecDeque::new(),
            executed: Vec::new(),
            automatic: true,
            bad_sector: None,
            room: 256,
            completed: Vec::new(),
        };
        Self {
            properties,
            state: Rc::new(RefCell::new(state)),
        }
    }

    /// Executes and completes the pending request at a place.
    pub fn complete(&self, place: usize) {
        let mut state = self.state.borrow_mut();
        let (operation, first, sectors, segments, tag) =
            state.pending.remove(place).expect("there is such a request");
        state.executed.push((operation, first, sectors));
        let bad = state
            .bad_sector
            .is_some_and(|bad| sectors > 0 && (first..first + sectors).contains(&bad));
        let mut at = (first * SECTOR) as usize;
        for segment in segments.iter().filter(|_| !bad) {
            let range = at..at + segment.length as usize;
            match operation {
                Operation::Read => bus::write(segment.address, &state.data[range.clone()]),
                Operation::Write => {
                    let bytes = bus::read(segment.address, segment.length as usize);
                    state.data[range.clone()].copy_from_slice(&bytes);
                }
                Operation::Flush | Operation::Discard => {}
            }
            at = range.end;
        }
        if operation == Operation::Discard && !bad {
            state.data[at..at + (sectors * SECTOR) as usize].fill(0);
        }
        let result = if bad { Err(IoError::Media) } else { Ok(()) };
        state.completed.push(Completion { tag, result });
    }
}

impl BlockDevice for MemoryDisk {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn submit(&mut self, request: &Request<'_>, tag: Tag, _now: Instant) -> Result<(), SubmitError> {
        self.properties.check(request)?;
        let mut state = self.state.borrow_mut();
        if state.pending.len() >= state.room {
            return Err(SubmitError::Full);
        }
        let Request {
            operation,
            first,
            sectors,
            segments,
        } = *request;
        state
            .pending
            .push_back((operation, first, sectors, segments.to_vec(), tag));
        Ok(())
    }

    fn kick(&mut self) {}

    fn poll(&mut self, _now: Instant, completions: &mut Vec<Completion>) {
        while self.state.borrow().automatic && !self.state.borrow().pending.is_empty() {
            self.complete(0);
        }
        completions.append(&mut self.state.borrow_mut().completed);
    }

    fn outstanding(&self) -> usize {
        self.state.borrow().pending.len()
    }
}

//! One frontend's ring, and what is under way on it.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;

use unikernel_rt::event::Channel;
use unikernel_rt::grant::{Grants, Mapping};
use unikernel_rt::memory::SharedMemory;
use unikernel_rt::ring::{BackRing, RingError};
use unikernel_rt::time::Instant;
use unikernel_rt::xenbus::{DeviceError, DeviceId, Numbers};
use xen_abi::io::blkif::{
    BLKIF_OP_READ, BLKIF_OP_WRITE, BLKIF_OP_WRITE_BARRIER, BLKIF_RSP_OKAY, BlkifRequest, BlkifResponse,
};

use super::answers::{Answers, BATCH};
use super::grants::Want;
use super::pending::{Pending, Progress};
use super::persistent::PersistentGrants;
use super::request::{self, Decoded, Kind, Refusal, Segments, Work};
use crate::device::{Completion, Operation, Request, SubmitError, Tag};
use crate::log_limit::LogLimit;
use crate::volume::{Disks, Volume};

/// Requests that one connection takes in a turn, so that the others have theirs.
const BUDGET: usize = 64;
/// Grants that stay mapped: a ring of 32 requests with 32 pages each, and their indirect pages.
const MAX_PERSISTENT: usize = 32 * 33;
/// Pages of requests that are under way, beyond which no request is taken: what a frontend names costs memory of ours.
const MAX_PAGES: usize = 4096;
/// Bytes of the sectors that the protocol counts in.
const SECTOR: u64 = 512;

/// A connection to a frontend.
pub struct Connection {
    pub(super) id: DeviceId,
    /// The upper half of its requests' tags.
    number: u32,
    volume: Volume,
    ring: BackRing<BlkifRequest, BlkifResponse>,
    channel: Channel,
    pub(super) grants: Rc<dyn Grants>,
    pub(super) persistent: Option<PersistentGrants>,
    /// Mappings that made room, to be unmapped with the next others.
    pub(super) discarded: Vec<Mapping>,
    /// A page to copy indirect pages to.
    pub(super) scratch: SharedMemory,
    /// The requests that are not answered, in the order of the ring.
    pub(super) pending: VecDeque<Pending>,
    /// The sequence number of the first of them: the lower half of its tag.
    first: u32,
    /// The sequence numbers of those with a step to submit.
    waiting: VecDeque<u32>,
    in_flight: usize,
    /// Pages of the requests that are not answered.
    pub(super) pages: usize,
    pub(super) log: LogLimit,
    counts: Numbers,
    /// Where it is said what is about to be answered; `None` if the keep region has no room.
    answers: Option<Answers>,
    /// It was taken over from a predecessor, and nothing is answered yet.
    resumed: bool,
}

impl Connection {
    /// A connection over a ring that was mapped.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        id: DeviceId,
        number: u32,
        volume: Volume,
        ring: BackRing<BlkifRequest, BlkifResponse>,
        channel: Channel,
        grants: Rc<dyn Grants>,
        persistent: bool,
        answers: Option<Answers>,
    ) -> Result<Self, DeviceError> {
        Ok(Self {
            id,
            number,
            volume,
            ring,
            channel,
            grants,
            persistent: persistent.then(|| PersistentGrants::new(MAX_PERSISTENT)),
            discarded: Vec::new(),
            scratch: SharedMemory::allocate(1).map_err(RingError::from)?,
            pending: VecDeque::new(),
            first: 0,
            waiting: VecDeque::new(),
            in_flight: 0,
            pages: 0,
            log: LogLimit::default(),
            counts: Numbers::default(),
            answers,
            resumed: false,
        })
    }

    /// What its frontend did: reads, bytes read, writes, bytes written, requests that were answered with an error.
    pub fn counts(&self) -> Numbers {
        self.counts
    }

    /// Whether a completion is one of this connection's.
    pub fn owns(&self, tag: Tag) -> bool {
        (tag.0 >> 32) as u32 == self.number
    }

    /// How many requests the disk has.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// It is a predecessor's, who may have published responses and not lived to say so.
    pub(super) fn resume(&mut self) {
        self.resumed = true;
        self.channel.notify();
    }

    /// The disk has ended a step of a request.
    pub fn complete(&mut self, completion: &Completion, now: Instant) {
        let sequence = completion.tag.0 as u32;
        let place = sequence.wrapping_sub(self.first) as usize;
        let Some(pending) = self.pending.get_mut(place) else {
            return;
        };
        if pending.progress != Progress::Submitted {
            return;
        }
        self.in_flight -= 1;
        match completion.result {
            Ok(()) => {
                if pending.next_step() {
                    self.waiting.push_front(sequence);
                }
            }
            Err(error) => {
                let (first, sectors) = (pending.sector, pending.sectors);
                pending.refuse(&Refusal::Io(error));
                let line = format_args!(
                    "{}: the request for sectors {first}+{sectors} failed: {error}",
                    self.id
                );
                self.log.warn(now, line);
            }
        }
    }

    /// Works for a while: answers what is done, takes new requests, hands them to the disk. Answers whether there is more to do at
    /// once. An error ends the connection.
    pub fn run(&mut self, disks: &mut Disks, now: Instant) -> Result<bool, DeviceError> {
        self.answer()?;
        let taken = self.take(now)?;
        self.submit(disks, now);
        // What was refused is answered in the same turn; that may bring a request that waits to be alone to the front.
        self.answer()?;
        self.submit(disks, now);
        if taken == BUDGET {
            return Ok(true);
        }
        if self.holds_back() {
            // Its completion brings us back, whatever the frontend says meanwhile.
            return Ok(false);
        }
        Ok(self.ring.final_check()?)
    }

    /// Whether a request must end before another one is taken: the newest, or any because they hold so many pages.
    fn holds_back(&self) -> bool {
        self.pages >= MAX_PAGES
            || self
                .pending
                .back()
                .is_some_and(|last| last.exclusive && !last.is_done())
    }

    /// Takes requests off the ring; answers how many.
    fn take(&mut self, now: Instant) -> Result<usize, DeviceError> {
        let (start, mut wants) = (self.pending.len(), Vec::new());
        let mut taken = 0;
        while taken < BUDGET && !self.holds_back() {
            let Some(slot) = self.ring.pop()? else { break };
            taken += 1;
            let decoded = request::decode(&slot);
            let mut pending = Pending::new(decoded.id, decoded.operation);
            if let Err(refusal) = self.prepare(&decoded, &mut pending, &mut wants) {
                pending.refuse(&refusal);
                self.log
                    .warn(now, format_args!("{}: a request is refused: {refusal}", self.id));
            }
            self.pending.push_back(pending);
        }
        self.map(&wants, now);
        for place in start..self.pending.len() {
            let pending = &mut self.pending[place];
            if pending.progress == Progress::Ready {
                pending.join_segments();
                self.waiting.push_back(self.first.wrapping_add(place as u32));
            }
        }
        Ok(taken)
    }

    /// Checks a request, and finds out which pages it lacks.
    fn prepare(
        &mut self,
        decoded: &Decoded,
        pending: &mut Pending,
        wants: &mut Vec<Want>,
    ) -> Result<(), Refusal> {
        let volume = self.volume.properties;
        match decoded.work? {
            Work::Discard { sectors: 0, .. } => {}
            Work::Discard { sector, sectors } => {
                (pending.steps, pending.sector, pending.sectors) = (&[Operation::Discard], sector, sectors);
                request::check(&volume, pending.steps, sector, sectors)?;
                pending.progress = Progress::Ready;
            }
            Work::Data {
                kind,
                sector,
                segments,
            } => {
                let indirect;
                let segments = match &segments {
                    Segments::Direct { count, list } => &list[..usize::from(*count).min(list.len())],
                    Segments::Indirect { count, pages } => {
                        indirect = self.indirect_segments(*count, request::indirect_pages(*count, pages))?;
                        &indirect[..]
                    }
                };
                let sectors = request::count_sectors(segments)?;
                pending.steps = kind.steps(sectors > 0, volume.volatile_cache);
                (pending.sector, pending.sectors) = (sector, sectors);
                request::check(&volume, pending.steps, sector, sectors)?;
                if !pending.steps.is_empty() {
                    pending.exclusive = kind == Kind::Barrier;
                    pending.progress = Progress::Ready;
                    self.add_segments(pending, self.pending.len(), segments, wants);
                }
            }
        }
        Ok(())
    }

    /// Hands steps to the disk, until it has no more room.
    fn submit(&mut self, disks: &mut Disks, now: Instant) {
        while let Some(&sequence) = self.waiting.front() {
            let place = sequence.wrapping_sub(self.first) as usize;
            let Some(pending) = self.pending.get_mut(place) else {
                self.waiting.pop_front();
                continue;
            };
            if pending.exclusive && place > 0 {
                // What was before it is not answered yet.
                return;
            }
            let operation = pending
                .steps
                .get(pending.step)
                .copied()
                .unwrap_or(Operation::Flush);
            // The flushes around a barrier's data have none of it.
            let (first, sectors, segments) = match operation {
                Operation::Flush => (0, 0, &[][..]),
                _ => (pending.sector, pending.sectors, &pending.segments[..]),
            };
            let outcome = self
                .volume
                .translate(first, sectors)
                .map_err(SubmitError::from)
                .and_then(|first| {
                    let request = Request {
                        operation,
                        first,
                        sectors,
                        segments,
                    };
                    let tag = Tag(u64::from(self.number) << 32 | u64::from(sequence));
                    disks.device(self.volume.disk).submit(&request, tag, now)
                });
            match outcome {
                Ok(()) => {
                    pending.progress = Progress::Submitted;
                    self.in_flight += 1;
                }
                Err(SubmitError::Full) => return,
                Err(SubmitError::Refused(error)) => {
                    pending.refuse(&error.into());
                    self.log
                        .warn(now, format_args!("{}: a request is refused: {error}", self.id));
                }
            }
            self.waiting.pop_front();
        }
    }

    /// Answers what is done, in the order of the requests.
    fn answer(&mut self) -> Result<(), RingError> {
        let count = self
            .pending
            .iter()
            .take_while(|pending| pending.is_done())
            .count();
        if count == 0 {
            return Ok(());
        }
        if core::mem::take(&mut self.resumed) {
            log::info!("{}: the first request of this life is completed", self.id);
        }
        let mut answered: Vec<Pending> = self.pending.drain(..count).collect();
        self.first = self.first.wrapping_add(count as u32);
        let mut mappings = core::mem::take(&mut self.discarded);
        for pending in &mut answered {
            self.pages -= pending.pages;
            mappings.append(&mut self.take_grants(pending));
        }
        // Once the response is there, the frontend may end its grants.
        if !mappings.is_empty() {
            self.grants.unmap_all(mappings);
        }
        for batch in answered.chunks(BATCH) {
            let responses: Vec<BlkifResponse> = batch.iter().map(Pending::response).collect();
            // Before the first slot is no request any more.
            if let Some(answers) = &mut self.answers {
                answers.announce(self.ring.answered(), &responses);
            }
            for (pending, response) in batch.iter().zip(&responses) {
                tally(&mut self.counts, response, pending.sectors);
                self.ring.push(response)?;
            }
            if self.ring.publish()? {
                self.channel.notify();
            }
        }
        Ok(())
    }

    /// Nothing new is submitted from here on; wait until nothing is in flight, then [`release`](Self::release).
    pub(super) fn stop(&mut self) {
        self.waiting.clear();
    }

    /// Answers what is done, and lets go of every page. Nothing must be in flight. Gives back where it said what it would answer.
    pub(super) fn release(mut self) -> Option<Answers> {
        if let Err(error) = self.answer() {
            log::debug!("{}: the last responses were not published: {error}", self.id);
        }
        let mut mappings = core::mem::take(&mut self.discarded);
        for mut pending in core::mem::take(&mut self.pending) {
            mappings.append(&mut self.take_grants(&mut pending));
        }
        if let Some(grants) = &mut self.persistent {
            mappings.extend(grants.drain());
        }
        if !mappings.is_empty() {
            self.grants.unmap_all(mappings);
        }
        self.answers
    }
}

/// Adds an answered request to the counts.
fn tally(counts: &mut Numbers, response: &BlkifResponse, sectors: u64) {
    let [reads, read, writes, written, errors] = counts;
    match (response.status, response.operation) {
        (BLKIF_RSP_OKAY, BLKIF_OP_READ) => (*reads, *read) = (*reads + 1, *read + sectors * SECTOR),
        (BLKIF_RSP_OKAY, BLKIF_OP_WRITE | BLKIF_OP_WRITE_BARRIER) => {
            (*writes, *written) = (*writes + 1, *written + sectors * SECTOR);
        }
        (BLKIF_RSP_OKAY, _) => {}
        _ => *errors += 1,
    }
}

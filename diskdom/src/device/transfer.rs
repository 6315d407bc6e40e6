//! The requests that a driver has accepted: each is issued as one command or several, in order of arrival, as the device has
//! room, and completes when its last command has.
//!
//! A driver keeps one [`Transfers`] a controller. The segments are kept until the end, so that after a reset of the
//! device everything can be issued anew.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::carve::{Cursor, Limits, carve};
use super::{Completion, IoError, Operation, Request, SECTOR, Segment, SubmitError, Tag};

/// Requests that one controller keeps.
const SLOTS: usize = 256;
/// How often a request is issued before resets of the device are held against it.
const TRIES: u8 = 3;

/// One command's part of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which transfer: for [`Transfers::part_done`].
    pub transfer: usize,
    /// What to do.
    pub operation: Operation,
    /// The disk of the controller.
    pub unit: u32,
    /// The first sector.
    pub first: u64,
    /// How many sectors.
    pub sectors: u64,
}

#[derive(Debug)]
struct Transfer {
    tag: Tag,
    operation: Operation,
    unit: u32,
    first: u64,
    sectors: u64,
    segments: Vec<Segment>,
    cursor: Cursor,
    /// Sectors that commands were issued for.
    issued: u64,
    /// All commands were issued, or the rest is given up.
    complete: bool,
    /// Commands in flight.
    parts: u32,
    failure: Option<IoError>,
    tries: u8,
    used: bool,
}

/// The accepted requests of a controller.
#[derive(Debug, Default)]
pub struct Transfers {
    slots: Vec<Transfer>,
    free: Vec<usize>,
    /// Those with commands to be issued, oldest first.
    waiting: VecDeque<usize>,
    finished: VecDeque<(u32, Completion)>,
    outstanding: usize,
}

impl Transfers {
    /// Accepts a request that was checked.
    pub fn begin(&mut self, request: &Request<'_>, unit: u32, tag: Tag) -> Result<(), SubmitError> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < SLOTS => {
                self.slots.push(Transfer::unused());
                self.slots.len() - 1
            }
            None => return Err(SubmitError::Full),
        };
        let transfer = &mut self.slots[index];
        transfer.segments.clear();
        transfer.segments.extend_from_slice(request.segments);
        *transfer = Transfer {
            tag,
            operation: request.operation,
            unit,
            first: request.first,
            sectors: request.sectors,
            segments: core::mem::take(&mut transfer.segments),
            used: true,
            ..Transfer::unused()
        };
        self.waiting.push_back(index);
        self.outstanding += 1;
        Ok(())
    }

    /// The next command to issue, with its memory in `pieces`. Ask only when there is room for a command: it counts as issued.
    pub fn next_part(&mut self, limits: impl Fn(u32) -> Limits, pieces: &mut Vec<Segment>) -> Option<Part> {
        while let Some(&index) = self.waiting.front() {
            let transfer = &mut self.slots[index];
            let part = transfer.carve(index, &limits(transfer.unit), pieces);
            if transfer.complete {
                self.waiting.pop_front();
            }
            if part.is_some() {
                return part;
            }
            self.finish_if_done(index);
        }
        None
    }

    /// A command has ended.
    pub fn part_done(&mut self, index: usize, result: Result<(), IoError>) {
        let Some(transfer) = self.slots.get_mut(index).filter(|transfer| transfer.used) else {
            return;
        };
        transfer.parts = transfer.parts.saturating_sub(1);
        if let Err(error) = result {
            transfer.failure.get_or_insert(error);
            if !transfer.complete {
                transfer.complete = true;
                self.waiting.retain(|&waiting| waiting != index);
            }
        }
        self.finish_if_done(index);
    }

    /// The device was reset, and nothing is in flight any more: issue everything anew, but fail what was there too often.
    pub fn restart(&mut self) {
        self.waiting.clear();
        for index in 0..self.slots.len() {
            let transfer = &mut self.slots[index];
            if !transfer.used {
                continue;
            }
            // A transfer that no command was issued for is not to blame.
            let begun = transfer.issued > 0 || transfer.complete;
            transfer.tries += u8::from(begun);
            transfer.parts = 0;
            if transfer.failure.is_none() && transfer.tries >= TRIES {
                transfer.failure = Some(IoError::Gone);
            }
            if transfer.failure.is_some() {
                transfer.complete = true;
                self.finish_if_done(index);
            } else {
                (transfer.cursor, transfer.issued, transfer.complete) = (Cursor::default(), 0, false);
                self.waiting.push_back(index);
            }
        }
    }

    /// Nothing will be done any more: everything fails.
    pub fn fail_all(&mut self, error: IoError) {
        self.waiting.clear();
        for index in 0..self.slots.len() {
            let transfer = &mut self.slots[index];
            if transfer.used {
                (transfer.parts, transfer.complete) = (0, true);
                transfer.failure.get_or_insert(error);
                self.finish_if_done(index);
            }
        }
    }

    /// Appends the completions of one disk.
    pub fn take_finished(&mut self, unit: u32, completions: &mut Vec<Completion>) {
        self.finished.retain(|&(of, completion)| {
            if of == unit {
                completions.push(completion);
            }
            of != unit
        });
    }

    /// How many requests were accepted and are not finished.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    fn finish_if_done(&mut self, index: usize) {
        let transfer = &mut self.slots[index];
        if transfer.used && transfer.complete && transfer.parts == 0 {
            transfer.used = false;
            let result = transfer.failure.map_or(Ok(()), Err);
            self.finished.push_back((
                transfer.unit,
                Completion {
                    tag: transfer.tag,
                    result,
                },
            ));
            self.free.push(index);
            self.outstanding -= 1;
        }
    }
}

impl Transfer {
    fn unused() -> Self {
        Self {
            tag: Tag(0),
            operation: Operation::Flush,
            unit: 0,
            first: 0,
            sectors: 0,
            segments: Vec::new(),
            cursor: Cursor::default(),
            issued: 0,
            complete: false,
            parts: 0,
            failure: None,
            tries: 0,
            used: false,
        }
    }

    /// The next part; none if the rest cannot be carved, which fails the transfer.
    fn carve(&mut self, index: usize, limits: &Limits, pieces: &mut Vec<Segment>) -> Option<Part> {
        pieces.clear();
        let sectors = match self.operation {
            Operation::Flush => 0,
            Operation::Discard => (self.sectors - self.issued).min(limits.discard_sectors),
            Operation::Read | Operation::Write => {
                match carve(&self.segments, &mut self.cursor, limits, pieces) {
                    Ok(bytes) => u64::from(bytes) / SECTOR,
                    Err(error) => {
                        self.failure = Some(error);
                        self.complete = true;
                        return None;
                    }
                }
            }
        };
        let part = Part {
            transfer: index,
            operation: self.operation,
            unit: self.unit,
            first: self.first + self.issued,
            sectors,
        };
        self.issued += sectors;
        self.parts += 1;
        self.complete = self.operation == Operation::Flush || self.issued >= self.sectors;
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(_unit: u32) -> Limits {
        Limits {
            bytes: 4096,
            pieces: 2,
            piece_bytes: 4096,
            page_list: true,
            block: 512,
            discard_sectors: 64,
        }
    }

    fn read(transfers: &mut Transfers, pages: u32, tag: u64) {
        let segments = [Segment {
            address: 0x1000,
            length: pages * 4096,
        }];
        let request = Request {
            operation: Operation::Read,
            first: 100,
            sectors: u64::from(pages) * 8,
            segments: &segments,
        };
        transfers.begin(&request, 7, Tag(tag)).unwrap();
    }

    fn parts(transfers: &mut Transfers) -> Vec<Part> {
        let mut pieces = Vec::new();
        core::iter::from_fn(|| transfers.next_part(limits, &mut pieces)).collect()
    }

    fn finished(transfers: &mut Transfers) -> Vec<Completion> {
        let mut completions = Vec::new();
        transfers.take_finished(7, &mut completions);
        completions
    }

    #[test]
    fn a_transfer_ends_with_its_last_part_whatever_the_order() {
        let mut transfers = Transfers::default();
        read(&mut transfers, 3, 1);
        let parts = parts(&mut transfers);
        assert_eq!(
            parts
                .iter()
                .map(|part| (part.first, part.sectors))
                .collect::<Vec<_>>(),
            [(100, 8), (108, 8), (116, 8)]
        );
        transfers.part_done(parts[2].transfer, Ok(()));
        transfers.part_done(parts[0].transfer, Err(IoError::Media));
        assert!(finished(&mut transfers).is_empty());
        transfers.part_done(parts[1].transfer, Ok(()));
        assert_eq!(
            finished(&mut transfers),
            [Completion {
                tag: Tag(1),
                result: Err(IoError::Media)
            }]
        );
        assert_eq!(transfers.outstanding(), 0);
        // A stray completion of the device changes nothing.
        transfers.part_done(0, Ok(()));
        transfers.part_done(99, Ok(()));
        assert!(finished(&mut transfers).is_empty());
    }

    #[test]
    fn a_failed_part_saves_the_device_the_rest() {
        let mut transfers = Transfers::default();
        read(&mut transfers, 3, 1);
        let first = transfers.next_part(limits, &mut Vec::new()).unwrap();
        transfers.part_done(first.transfer, Err(IoError::Media));
        assert_eq!(transfers.next_part(limits, &mut Vec::new()), None);
        assert_eq!(finished(&mut transfers).len(), 1);
    }

    #[test]
    fn a_reset_issues_everything_anew_but_not_for_ever() {
        let mut transfers = Transfers::default();
        read(&mut transfers, 2, 1);
        for _ in 0..TRIES {
            assert_eq!(parts(&mut transfers).len(), 2);
            transfers.restart();
        }
        assert_eq!(parts(&mut transfers).len(), 0);
        assert_eq!(
            finished(&mut transfers),
            [Completion {
                tag: Tag(1),
                result: Err(IoError::Gone)
            }]
        );
    }

    #[test]
    fn the_table_is_bounded_and_reused() {
        let mut transfers = Transfers::default();
        let flush = Request {
            operation: Operation::Flush,
            first: 0,
            sectors: 0,
            segments: &[],
        };
        for round in 0..3 {
            for tag in 0..SLOTS as u64 {
                transfers.begin(&flush, 7, Tag(tag)).unwrap();
            }
            assert_eq!(transfers.begin(&flush, 7, Tag(0)), Err(SubmitError::Full));
            if round == 2 {
                transfers.fail_all(IoError::Gone);
            } else {
                parts(&mut transfers)
                    .iter()
                    .for_each(|part| transfers.part_done(part.transfer, Ok(())));
            }
            assert_eq!(finished(&mut transfers).len(), SLOTS);
        }
    }
}

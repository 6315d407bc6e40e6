//! A controller at work: commands out, completions in, and what happens when it fails.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use unikernel_rt::memory::MemoryError;
use unikernel_rt::pci::Registers;
use unikernel_rt::time::Instant;

use super::bring_up::NvmeError;
use super::command::{Command, Completion, DEALLOCATE, DatasetRange, nvm};
use super::prp::{MAX_BYTES, MAX_PIECES, PrpPool};
use super::queue::QueuePair;
use super::registers::{ABSENT, Capabilities, FATAL, STATUS};
use super::status::Status;
use crate::device::carve::{DISCARD_SECTORS, Limits, PAGE};
use crate::device::transfer::{Part, Transfers};
use crate::device::{self, IoError, Operation, Pause, Request, SECTOR, Segment, SubmitError, Tag};
use crate::log_limit::LogLimit;

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the controller's status is looked at while commands are in flight and none completes.
const LOOK: Duration = Duration::from_millis(100);
/// Resets without a completion in between after which the controller is given up.
const MAX_RESETS: u32 = 3;

/// A command that the controller has.
#[derive(Clone, Copy, Debug)]
struct Flight {
    part: Part,
    since: Instant,
}

/// A controller.
pub struct Controller<R: Registers> {
    pub(super) name: String,
    pub(super) registers: R,
    /// Allows the controller to reach memory, or takes that away from one that cannot be stopped otherwise.
    pub(super) access: Box<dyn Fn(bool)>,
    pub(super) clock: Rc<dyn Pause>,
    pub(super) capabilities: Capabilities,
    pub(super) admin: QueuePair,
    pub(super) io: QueuePair,
    pub(super) last_admin: u16,
    pub(super) max_transfer: u32,
    /// The namespaces in use: number, bytes of a block.
    pub(super) blocks: Vec<(u32, u32)>,
    pool: PrpPool,
    flights: Vec<Option<Flight>>,
    /// Identifiers of no command in flight: one less than the queue has entries, so that it cannot overflow.
    free: Vec<u16>,
    transfers: Transfers,
    pieces: Vec<Segment>,
    out_of_order: bool,
    resets: u32,
    looked: Instant,
    log: LogLimit,
}

impl<R: Registers> Controller<R> {
    /// A controller that was not touched yet.
    pub(super) fn new(
        name: String,
        registers: R,
        access: Box<dyn Fn(bool)>,
        clock: Rc<dyn Pause>,
        capabilities: Capabilities,
        admin: QueuePair,
        io: QueuePair,
    ) -> Result<Self, MemoryError> {
        let commands = io.entries() - 1;
        Ok(Self {
            pool: PrpPool::allocate(commands)?,
            flights: alloc::vec![None; commands.into()],
            free: (0..commands).rev().collect(),
            transfers: Transfers::default(),
            pieces: Vec::with_capacity(MAX_PIECES),
            out_of_order: false,
            resets: 0,
            looked: clock.now(),
            log: LogLimit::default(),
            last_admin: 0,
            max_transfer: MAX_BYTES,
            blocks: Vec::new(),
            name,
            registers,
            access,
            clock,
            capabilities,
            admin,
            io,
        })
    }

    /// What it is called in the log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Accepts a request that was checked against the namespace.
    pub(super) fn submit(
        &mut self,
        request: &Request<'_>,
        unit: u32,
        tag: Tag,
        now: Instant,
    ) -> Result<(), SubmitError> {
        if self.out_of_order {
            return Err(IoError::Gone.into());
        }
        self.transfers.begin(request, unit, tag)?;
        self.issue(now);
        Ok(())
    }

    /// Tells the controller of new commands.
    pub(super) fn ring(&mut self) {
        self.io.ring(&self.registers);
    }

    /// Takes completions, looks after the controller, and issues what waited for room.
    pub(super) fn poll(&mut self, now: Instant) {
        if self.out_of_order {
            return;
        }
        let progress = self.take_completions(now);
        if progress {
            self.looked = now;
        } else if self.transfers.outstanding() > 0 && now - self.looked >= LOOK {
            self.looked = now;
            if let Some(trouble) = self.trouble(now) {
                self.recover(&trouble);
            }
        }
        self.issue(now);
        self.ring();
    }

    /// Appends what has completed on a namespace.
    pub(super) fn take_finished(&mut self, unit: u32, completions: &mut Vec<device::Completion>) {
        self.transfers.take_finished(unit, completions);
    }

    /// How many requests were accepted and are not finished, on all namespaces.
    pub(super) fn outstanding(&self) -> usize {
        self.transfers.outstanding()
    }

    fn take_completions(&mut self, now: Instant) -> bool {
        let mut progress = false;
        // One round of the queue a turn: a controller that completes without end must not keep us.
        for _ in 0..self.io.entries() {
            let Ok(Some(completion)) = self.io.pop() else {
                break;
            };
            progress = true;
            self.complete(&completion, now);
        }
        self.io.acknowledge(&self.registers);
        progress
    }

    fn complete(&mut self, completion: &Completion, now: Instant) {
        let identifier = completion.identifier;
        let Some(flight) = self
            .flights
            .get_mut(usize::from(identifier))
            .and_then(Option::take)
        else {
            let name = &self.name;
            self.log.warn(
                now,
                format_args!("{name} completed command {identifier}, which it was not given"),
            );
            return;
        };
        self.free.push(identifier);
        let result = match Status::of(completion.status) {
            None => {
                self.resets = 0;
                Ok(())
            }
            Some(status) => {
                let Part {
                    operation,
                    unit,
                    first,
                    sectors,
                    ..
                } = flight.part;
                let name = &self.name;
                self.log.warn(
                    now,
                    format_args!(
                        "{name} namespace {unit}: {operation:?} of sectors {first}+{sectors}: {status}"
                    ),
                );
                Err(status.error())
            }
        };
        self.transfers.part_done(flight.part.transfer, result);
    }

    /// Issues commands while there are identifiers for them.
    fn issue(&mut self, now: Instant) {
        while let Some(&identifier) = self.free.last() {
            let (blocks, bytes) = (&self.blocks, self.max_transfer);
            let limits = |unit| Limits {
                bytes,
                pieces: MAX_PIECES,
                piece_bytes: PAGE,
                page_list: true,
                block: block_of(blocks, unit),
                discard_sectors: DISCARD_SECTORS,
            };
            let Some(part) = self.transfers.next_part(limits, &mut self.pieces) else {
                break;
            };
            match self.push(identifier, &part) {
                Ok(()) => {
                    self.free.pop();
                    self.flights[usize::from(identifier)] = Some(Flight { part, since: now });
                }
                Err(error) => {
                    log::error!("{}: {error}", self.name);
                    self.transfers.part_done(part.transfer, Err(IoError::Device));
                }
            }
        }
    }

    fn push(&mut self, identifier: u16, part: &Part) -> Result<(), MemoryError> {
        let sectors_a_block = u64::from(block_of(&self.blocks, part.unit)) / SECTOR;
        let (first, blocks) = (
            part.first / sectors_a_block,
            (part.sectors / sectors_a_block) as u32,
        );
        let mut command = match part.operation {
            Operation::Flush => Command::new(nvm::FLUSH, part.unit),
            Operation::Discard => {
                let address = self.pool.range(
                    identifier,
                    &DatasetRange {
                        attributes: 0,
                        blocks,
                        first,
                    },
                )?;
                // Dword 10 counts ranges from 0.
                Command::new(nvm::DATASET_MANAGEMENT, part.unit)
                    .dword(11, DEALLOCATE)
                    .memory(address, 0)
            }
            Operation::Read | Operation::Write => {
                let opcode = if part.operation == Operation::Read {
                    nvm::READ
                } else {
                    nvm::WRITE
                };
                let (prp1, prp2) = self.pool.list(identifier, &self.pieces)?;
                Command::new(opcode, part.unit)
                    .blocks(first, blocks)
                    .memory(prp1, prp2)
            }
        };
        command.identifier = identifier;
        self.io.push(&command)
    }

    /// What is wrong with the controller, if something is.
    fn trouble(&self, now: Instant) -> Option<String> {
        let status = self.registers.read32(STATUS);
        if status == ABSENT {
            return Some("answers no register any more".into());
        }
        if status & FATAL != 0 {
            return Some("reports a fatal status".into());
        }
        let late = self
            .flights
            .iter()
            .flatten()
            .find(|flight| now - flight.since >= PATIENCE)?;
        let Part { operation, first, .. } = late.part;
        Some(alloc::format!(
            "left a {operation:?} at sector {first} unanswered for {} s",
            PATIENCE.as_secs()
        ))
    }

    fn recover(&mut self, trouble: &str) {
        self.resets += 1;
        log::error!("{} {trouble}; it is reset", self.name);
        let outcome = if self.resets > MAX_RESETS {
            Err(NvmeError::Hopeless)
        } else {
            self.restart()
        };
        self.flights.fill(None);
        self.free = (0..self.flights.len() as u16).rev().collect();
        match outcome {
            Ok(()) => self.transfers.restart(),
            Err(error) => {
                log::error!("{} is given up: {error}", self.name);
                self.stop();
                self.out_of_order = true;
                self.transfers.fail_all(IoError::Gone);
            }
        }
    }
}

impl<R: Registers> Drop for Controller<R> {
    /// The queues are about to be freed, so the controller must know them no more.
    fn drop(&mut self) {
        self.stop();
    }
}

fn block_of(blocks: &[(u32, u32)], unit: u32) -> u32 {
    blocks
        .iter()
        .find(|&&(number, _)| number == unit)
        .map_or(SECTOR as u32, |&(_, block)| block)
}

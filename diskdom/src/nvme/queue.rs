//! A pair of queues: commands go in by the tail, completions come out by the phase bit.
//!
//! Whoever uses it keeps at most `entries - 1` commands in flight, so that the submission queue cannot overflow; the completion
//! queue is as long, so that neither can it.

use core::sync::atomic::{Ordering, fence};

use unikernel_rt::dma::DmaBuffer;
use unikernel_rt::memory::MemoryError;
use unikernel_rt::pci::Registers;

use super::command::{Command, Completion};

const COMMAND: usize = size_of::<Command>();
const COMPLETION: usize = size_of::<Completion>();
/// Offset in a completion of the dword that holds the phase: what the controller writes last.
const PHASE_DWORD: usize = 12;
/// The phase bit in that dword.
const PHASE: u32 = 1 << 16;

/// A submission queue and its completion queue.
#[derive(Debug)]
pub struct QueuePair {
    submission: DmaBuffer,
    completion: DmaBuffer,
    entries: u16,
    tail: u16,
    head: u16,
    /// The phase of completions that are new.
    phase: bool,
    /// Commands were pushed, completions popped, that the controller was not told of.
    rung: bool,
    acknowledged: bool,
    tail_doorbell: usize,
    head_doorbell: usize,
}

impl QueuePair {
    /// Allocates queues of `entries`, from 2 up.
    pub fn allocate(
        entries: u16,
        (tail_doorbell, head_doorbell): (usize, usize),
    ) -> Result<Self, MemoryError> {
        Ok(Self {
            submission: DmaBuffer::allocate(usize::from(entries) * COMMAND)?,
            completion: DmaBuffer::allocate(usize::from(entries) * COMPLETION)?,
            entries,
            tail: 0,
            head: 0,
            phase: true,
            rung: true,
            acknowledged: true,
            tail_doorbell,
            head_doorbell,
        })
    }

    /// Makes the queues new, for a controller that was reset.
    pub fn reset(&mut self) -> Result<(), MemoryError> {
        self.completion.memory().fill(0, self.completion.len(), 0)?;
        (self.tail, self.head, self.phase) = (0, 0, true);
        (self.rung, self.acknowledged) = (true, true);
        Ok(())
    }

    /// The number of entries.
    pub fn entries(&self) -> u16 {
        self.entries
    }

    /// Where the controller finds the submission queue and the completion queue.
    pub fn addresses(&self) -> (u64, u64) {
        (self.submission.bus_address(), self.completion.bus_address())
    }

    /// Puts a command on; the controller hears of it by [`ring`](Self::ring).
    pub fn push(&mut self, command: &Command) -> Result<(), MemoryError> {
        self.submission
            .memory()
            .write(usize::from(self.tail) * COMMAND, command)?;
        self.tail = (self.tail + 1) % self.entries;
        self.rung = false;
        Ok(())
    }

    /// Tells the controller of the commands.
    pub fn ring(&mut self, registers: &impl Registers) {
        if !self.rung {
            // The commands must be in memory before the doorbell.
            fence(Ordering::SeqCst);
            registers.write32(self.tail_doorbell, self.tail.into());
            self.rung = true;
        }
    }

    /// Takes the next completion off.
    pub fn pop(&mut self) -> Result<Option<Completion>, MemoryError> {
        let offset = usize::from(self.head) * COMPLETION;
        let memory = self.completion.memory();
        // The phase first and by itself: once it is new, the rest is.
        if (memory.load(offset + PHASE_DWORD)? & PHASE != 0) != self.phase {
            return Ok(None);
        }
        let completion = memory.read(offset)?;
        self.head = (self.head + 1) % self.entries;
        self.phase ^= self.head == 0;
        self.acknowledged = false;
        Ok(Some(completion))
    }

    /// Gives the entries of popped completions back to the controller.
    pub fn acknowledge(&mut self, registers: &impl Registers) {
        if !self.acknowledged {
            registers.write32(self.head_doorbell, self.head.into());
            self.acknowledged = true;
        }
    }
}

//! A controller in memory, after QEMU's model: doorbell stride 0, queues of up to 2048 entries, transfers of up to 512 KiB.
//! Doorbells take effect at once, unless the test holds the commands back.

mod execute;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use unikernel_rt::pci::Registers;
use zerocopy::IntoBytes;

use super::command::{Command, Completion};
use super::registers::{
    ADMIN_ATTRIBUTES, ADMIN_COMPLETION, ADMIN_SUBMISSION, CAPABILITIES, CONFIGURATION, DOORBELLS, ENABLE,
    FATAL, READY, STATUS, VERSION,
};
use super::status::Status;
use crate::testing::bus;

/// A namespace of the fake.
pub struct FakeNamespace {
    /// Bytes of a block, as a power of two.
    pub shift: u8,
    /// Bytes of metadata.
    pub metadata: u16,
    /// The content.
    pub data: Vec<u8>,
}

/// What the test sets, and what it finds.
pub struct FakeState {
    /// The namespaces, from number 1 on.
    pub namespaces: Vec<FakeNamespace>,
    /// The largest transfer, as Identify has it.
    pub max_transfer: u8,
    /// Commands wait in `held` until the test executes them.
    pub hold: bool,
    /// I/O commands that wait.
    pub held: VecDeque<Command>,
    /// I/O commands that were executed.
    pub executed: Vec<Command>,
    /// Bytes that I/O commands transferred, command by command.
    pub transferred: Vec<usize>,
    /// Statuses of the next I/O commands; nothing is executed for them.
    pub failures: VecDeque<Status>,
    /// Enabling has no effect.
    pub never_ready: bool,
    /// Reads as ones.
    pub absent: bool,
    /// How often it was enabled.
    pub enabled: u32,
    /// How often the completion queue overflowed.
    pub overflows: u32,
    fatal: bool,
    registers: BTreeMap<usize, u32>,
    queues: BTreeMap<u16, FakeQueue>,
}

#[derive(Clone, Copy, Default)]
struct FakeQueue {
    submission: u64,
    submission_entries: u16,
    head: u16,
    completion: u64,
    completion_entries: u16,
    tail: u16,
    acknowledged: u16,
    phase: bool,
}

/// The fake controller; clones are the same one.
#[derive(Clone)]
pub struct FakeController(pub Rc<RefCell<FakeState>>);

impl FakeController {
    /// A controller with a namespace of each size, in blocks of 1 << shift bytes.
    pub fn new(namespaces: &[(u64, u8)]) -> Self {
        let namespaces = namespaces
            .iter()
            .map(|&(blocks, shift)| FakeNamespace {
                shift,
                metadata: 0,
                data: vec![0; (blocks << shift) as usize],
            })
            .collect();
        let mut registers = BTreeMap::new();
        // 2048 entries, contiguous queues required, half a second, NVM commands.
        registers.insert(CAPABILITIES, 0x0101_07ff);
        registers.insert(CAPABILITIES + 4, 0x20);
        registers.insert(VERSION, 0x1_0400);
        Self(Rc::new(RefCell::new(FakeState {
            namespaces,
            max_transfer: 7,
            hold: false,
            held: VecDeque::new(),
            executed: Vec::new(),
            transferred: Vec::new(),
            failures: VecDeque::new(),
            never_ready: false,
            absent: false,
            enabled: 0,
            overflows: 0,
            fatal: false,
            registers,
            queues: BTreeMap::new(),
        })))
    }

    /// Sets a register.
    pub fn set(&self, offset: usize, value: u32) {
        self.0.borrow_mut().registers.insert(offset, value);
    }

    /// Has the controller report a fatal status, and do nothing more.
    pub fn die(&self) {
        let mut state = self.0.borrow_mut();
        state.fatal = true;
        state.hold = true;
    }

    /// Executes a command that was held back.
    pub fn execute(&self, place: usize) {
        let mut state = self.0.borrow_mut();
        let command = state.held.remove(place).expect("there is such a command");
        state.finish(1, &command);
    }

    /// Completes a command that the driver never gave.
    pub fn complete_unknown(&self, identifier: u16) {
        let command = Command {
            identifier,
            ..Command::default()
        };
        self.0.borrow_mut().complete(1, &command, 0);
    }
}

impl FakeState {
    fn write(&mut self, offset: usize, value: u32) {
        if offset >= DOORBELLS {
            return self.doorbell((offset - DOORBELLS) / 4, value as u16);
        }
        self.registers.insert(offset, value);
        if offset == CONFIGURATION {
            if value & ENABLE == 0 {
                self.queues.clear();
                self.held.clear();
                self.fatal = false;
            } else {
                assert_eq!(value >> 16, 0x46, "entries of 64 and 16 bytes");
                self.enabled += 1;
                let register = |offset| u64::from(self.registers.get(&offset).copied().unwrap_or(0));
                let base = |offset| register(offset + 4) << 32 | register(offset);
                let attributes = register(ADMIN_ATTRIBUTES);
                let queue = FakeQueue {
                    submission: base(ADMIN_SUBMISSION),
                    submission_entries: (attributes & 0xfff) as u16 + 1,
                    completion: base(ADMIN_COMPLETION),
                    completion_entries: (attributes >> 16 & 0xfff) as u16 + 1,
                    phase: true,
                    ..FakeQueue::default()
                };
                self.queues.insert(0, queue);
            }
        }
    }

    fn doorbell(&mut self, number: usize, value: u16) {
        let id = (number / 2) as u16;
        let Some(queue) = self.queues.get_mut(&id) else {
            panic!("doorbell of queue {id}, which is not there")
        };
        if number % 2 == 1 {
            assert!(value < queue.completion_entries);
            queue.acknowledged = value;
            return;
        }
        assert!(value < queue.submission_entries);
        while let Some(queue) = self.queues.get_mut(&id)
            && queue.head != value
        {
            let command: Command = bus::read_value(queue.submission + u64::from(queue.head) * 64);
            queue.head = (queue.head + 1) % queue.submission_entries;
            if id == 0 {
                let (result, status) = self.admin(&command);
                self.complete_with(0, &command, result, status);
            } else if self.hold {
                self.held.push_back(command);
            } else {
                self.finish(id, &command);
            }
        }
    }

    fn finish(&mut self, queue: u16, command: &Command) {
        let status = match self.failures.pop_front() {
            Some(status) => status.field(),
            None => {
                self.executed.push(*command);
                self.io(command)
            }
        };
        self.complete(queue, command, status);
    }

    fn complete(&mut self, id: u16, command: &Command, status: u16) {
        self.complete_with(id, command, 0, status);
    }

    fn complete_with(&mut self, id: u16, command: &Command, result: u32, status: u16) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let next = (queue.tail + 1) % queue.completion_entries;
        if next == queue.acknowledged {
            self.overflows += 1;
        }
        let completion = Completion {
            result,
            reserved: 0,
            submission_head: queue.head,
            submission_queue: id,
            identifier: command.identifier,
            status: status & !1 | u16::from(queue.phase),
        };
        bus::write(
            queue.completion + u64::from(queue.tail) * 16,
            completion.as_bytes(),
        );
        queue.tail = next;
        queue.phase ^= next == 0;
    }
}

impl Registers for FakeController {
    fn length(&self) -> usize {
        0x4000
    }

    fn read32(&self, offset: usize) -> u32 {
        let state = self.0.borrow();
        if state.absent {
            return u32::MAX;
        }
        let configuration = state.registers.get(&CONFIGURATION).copied().unwrap_or(0);
        match offset {
            STATUS => {
                let ready = configuration & ENABLE != 0 && !state.never_ready;
                (READY * u32::from(ready)) | (FATAL * u32::from(state.fatal))
            }
            offset => state.registers.get(&offset).copied().unwrap_or(0),
        }
    }

    fn write32(&self, offset: usize, value: u32) {
        self.0.borrow_mut().write(offset, value);
    }

    fn read8(&self, _offset: usize) -> u8 {
        panic!("the registers are of four bytes")
    }
    fn read16(&self, _offset: usize) -> u16 {
        panic!("the registers are of four bytes")
    }
    fn read64(&self, _offset: usize) -> u64 {
        panic!("the registers are of four bytes")
    }
    fn write8(&self, _offset: usize, _value: u8) {
        panic!("the registers are of four bytes")
    }
    fn write16(&self, _offset: usize, _value: u16) {
        panic!("the registers are of four bytes")
    }
    fn write64(&self, _offset: usize, _value: u64) {
        panic!("the registers are of four bytes")
    }
}

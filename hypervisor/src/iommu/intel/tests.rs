use super::*;
use alloc::vec::Vec;
use std::sync::{Arc, Mutex};

/// A unit's registers, and as much of its behaviour as the driver relies on.
#[derive(Clone)]
struct Model {
    memory: DirectMap,
    state: Arc<Mutex<State>>,
}

struct State {
    registers: Vec<u8>,
    head: u64,
    commands: Vec<(u64, u64)>,
    deaf: bool,
}

/// 65536 domains, tables of 3 levels, pages of 2 MiB, by address up to 2^18 pages, one record at 0x220; a queue, remapping.
const BASIC: u64 = 6 | 1 << 9 | 1 << 34 | 1 << 39 | 18 << 48 | 0x22 << 24;
const EXTENDED: u64 = 1 << 1 | 1 << 3;

impl Model {
    fn new(memory: DirectMap) -> Self {
        let mut registers = alloc::vec![0; REGISTERS];
        registers[0] = 0x10;
        registers[8..16].copy_from_slice(&BASIC.to_le_bytes());
        registers[16..24].copy_from_slice(&EXTENDED.to_le_bytes());
        Self {
            memory,
            state: Arc::new(Mutex::new(State {
                registers,
                head: 0,
                commands: Vec::new(),
                deaf: false,
            })),
        }
    }

    fn word(&self, at: u64) -> u64 {
        self.memory.atomic_u64(MachineAddress(at)).load(Ordering::SeqCst)
    }

    fn put(&self, offset: usize, bytes: &[u8]) {
        self.state.lock().unwrap().registers[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn carry_out(&self) {
        let tail = self.read64(QUEUE_TAIL) / 16;
        let queue = self.read64(QUEUE_ADDRESS);
        loop {
            let mut state = self.state.lock().unwrap();
            if state.head == tail || state.deaf {
                return;
            }
            let at = queue + state.head * 16;
            let (low, high) = (self.word(at), self.word(at + 8));
            state.head = (state.head + 1) % 256;
            state.commands.push((low, high));
            if low & 15 == 5 && low & 1 << 5 != 0 {
                self.memory
                    .atomic_u32(MachineAddress(high))
                    .store((low >> 32) as u32, Ordering::SeqCst);
            }
        }
    }

    fn commands(&self) -> Vec<(u64, u64)> {
        core::mem::take(&mut self.state.lock().unwrap().commands)
    }
}

impl Registers for Model {
    fn read32(&self, offset: usize) -> u32 {
        let state = self.state.lock().unwrap();
        u32::from_le_bytes(state.registers[offset..offset + 4].try_into().unwrap())
    }

    fn read64(&self, offset: usize) -> u64 {
        u64::from(self.read32(offset)) | u64::from(self.read32(offset + 4)) << 32
    }

    fn write32(&self, offset: usize, value: u32) {
        match offset {
            COMMAND if !self.state.lock().unwrap().deaf => {
                self.put(STATUS, &(value & !FLUSH_WRITES).to_le_bytes());
            }
            COMMAND => {}
            FAULT_STATUS => {
                let left = self.read32(FAULT_STATUS) & !value;
                self.put(offset, &left.to_le_bytes());
            }
            // The only record.
            0x22c => {
                self.put(0x220, &[0; 16]);
                let left = self.read32(FAULT_STATUS) & !FAULT_PENDING;
                self.put(FAULT_STATUS, &left.to_le_bytes());
            }
            _ => self.put(offset, &value.to_le_bytes()),
        }
    }

    fn write64(&self, offset: usize, value: u64) {
        self.put(offset, &value.to_le_bytes());
        if offset == QUEUE_TAIL {
            self.carry_out();
        }
    }
}

const DEVICE: Requester = Requester(0x0118);

fn enabled() -> (Model, Driver) {
    let memory = DirectMap::fake(64);
    let mut frames = FrameAllocator::new(&[(Frame(1), 32)]);
    let model = Model::new(memory);
    let described = description::Unit {
        registers: MachineAddress(0xfed9_0000),
        segment: 0,
        function: None,
        scopes: Vec::new(),
        senders: Vec::new(),
    };
    let mut driver = Driver::new(Box::new(model.clone()), &described, memory).unwrap();
    let plan = Plan {
        requesters: &[DEVICE],
        remap_interrupts: true,
        x2apic: false,
    };
    driver.enable(&mut frames, &plan).unwrap();
    (model, driver)
}

#[test]
fn a_unit_is_on_and_denies_until_a_device_is_attached() {
    let (model, mut driver) = enabled();
    assert_eq!(driver.name(), "Intel VT-d 1.0 at 0xfed90000");
    assert_eq!(
        model.read32(STATUS) & (TRANSLATION | REMAPPING | QUEUE),
        TRANSLATION | REMAPPING | QUEUE
    );
    assert_eq!(model.read32(STATUS) & COMPATIBLE_MESSAGES, 0);
    let root = model.read64(ROOT_TABLE);
    let contexts = model.word(root + 16) & !0xfff;
    let entry = contexts + 0x18 * 16;
    assert_eq!((model.word(root), model.word(entry)), (0, 0));
    let context = Context {
        tag: 5,
        root: MachineAddress(0x7000),
        levels: 3,
    };
    driver.attach(DEVICE, context).unwrap();
    assert_eq!((model.word(entry), model.word(entry + 8)), (0x7001, 0x501));
    assert_eq!(driver.attach(Requester(0x0218), context), Err(UnitError::NoRoom));
    model.commands();
    driver.detach(DEVICE);
    driver.complete().unwrap();
    assert_eq!((model.word(entry), model.word(entry + 8)), (0, 0));
    let commands = model.commands();
    assert_eq!((commands[0], commands[2]), ((0x0118_0005_0031, 0), (0x5_0022, 0)));
    // A wait that says something: QEMU knows no other.
    assert_eq!(commands[1].0, 0x65);
}

#[test]
fn ranges_are_forgotten_by_powers_of_two() {
    let (model, mut driver) = enabled();
    model.commands();
    driver.invalidate(3, GuestAddress(0x3000), 6);
    driver.complete().unwrap();
    let pages: Vec<u64> = model
        .commands()
        .iter()
        .filter(|(low, _)| low & 15 == 2)
        .map(|(_, high)| *high)
        .collect();
    assert_eq!(pages, [0x3000, 0x4002, 0x8000]);
    for _ in 0..1000 {
        driver.invalidate(3, GuestAddress(0x1000), 1);
    }
    driver.complete().unwrap();
    let pages = model.commands().iter().filter(|(low, _)| low & 15 == 2).count();
    assert_eq!(pages, 1000);
}

#[test]
fn a_unit_that_does_not_answer_is_given_up_once() {
    let (model, mut driver) = enabled();
    model.state.lock().unwrap().deaf = true;
    driver.invalidate(3, GuestAddress(0), 1);
    assert_eq!(driver.complete(), Err(UnitError::NoAnswer));
    model.state.lock().unwrap().deaf = false;
    assert_eq!(driver.complete(), Err(UnitError::NoAnswer));
}

#[test]
fn faults_come_with_their_device_and_reason() {
    let (model, mut driver) = enabled();
    assert_eq!(driver.next_report(), None);
    model.put(0x220, &0x1234_5000_u64.to_le_bytes());
    model.put(0x228, &(1_u64 << 63 | 5 << 32 | 0x0118).to_le_bytes());
    model.put(FAULT_STATUS, &(FAULT_PENDING | FAULT_OVERFLOW).to_le_bytes());
    let fault = Fault {
        requester: DEVICE,
        access: Access::Write,
        address: 0x1234_5000,
        code: 5,
        reason: "no write permission",
    };
    assert_eq!(driver.next_report(), Some(Report::Fault(fault)));
    assert_eq!(driver.next_report(), Some(Report::Lost));
    assert_eq!(driver.next_report(), None);
}

#[test]
fn an_interrupt_entry_is_bound_to_its_sender() {
    let (model, mut driver) = enabled();
    let entry = driver.allocate_interrupt(DEVICE).unwrap();
    let second = driver.allocate_interrupt(DEVICE).unwrap();
    assert_eq!((entry.index, second.index), (0, 1));
    let interrupt = Interrupt {
        vector: 0x41,
        destination: 3,
        level: false,
    };
    driver.program_interrupt(second, Some(interrupt));
    let at = (model.read64(INTERRUPT_TABLE) & !0xfff) + 16;
    assert_eq!(
        (model.word(at), model.word(at + 8)),
        (0x0300_0041_0001, 1 << 18 | 0x0118)
    );
    assert_eq!(driver.message(second).address, 0xfee0_0030);
    assert_eq!(driver.redirection(second, interrupt), 1 << 49 | 1 << 48 | 0x41);
    driver.program_interrupt(second, None);
    driver.free_interrupt(second);
    assert_eq!(
        (model.word(at), driver.allocate_interrupt(DEVICE)),
        (0, Some(second))
    );
}

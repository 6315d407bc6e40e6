//! The 16550 serial port: 115200 baud, eight bits, FIFOs on, an interrupt for received bytes.
//!
//! Registers and their bits: National Semiconductor PC16550D, section 8. Sending does not use the interrupt: the loop tops the FIFO up whenever it
//! comes round, and asks to be woken soon while bytes wait.

/// The port's eight registers.
pub trait Registers {
    /// Reads the register at `offset` (0 to 7).
    fn read(&mut self, offset: u16) -> u8;
    /// Writes the register at `offset` (0 to 7).
    fn write(&mut self, offset: u16, value: u8);
}

const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const SCRATCH: u16 = 7;

const FIFO_DEPTH: usize = 16;
const DATA_READY: u8 = 1 << 0;
const TRANSMITTER_EMPTY: u8 = 1 << 5;

/// A serial port in use.
pub struct Uart<R> {
    registers: R,
}

impl<R: Registers> Uart<R> {
    /// Sets the port up; `None` if no port answers there.
    pub fn open(mut registers: R) -> Option<Self> {
        for probe in [0x5a, 0xa5] {
            registers.write(SCRATCH, probe);
            if registers.read(SCRATCH) != probe {
                return None;
            }
        }
        registers.write(INTERRUPT_ENABLE, 0);
        registers.write(LINE_CONTROL, 0x80);
        registers.write(DATA, 1); // Divisor 1: 115200 baud.
        registers.write(INTERRUPT_ENABLE, 0);
        registers.write(LINE_CONTROL, 0x03);
        // Enable the FIFOs without clearing them: a key that is already there counts.
        registers.write(FIFO_CONTROL, 0x01);
        registers.write(MODEM_CONTROL, 0x0b); // DTR, RTS, and OUT2, which gates the interrupt on a PC.
        registers.write(INTERRUPT_ENABLE, 0x01);
        Some(Self { registers })
    }

    /// The next received byte.
    pub fn receive(&mut self) -> Option<u8> {
        (self.registers.read(LINE_STATUS) & DATA_READY != 0).then(|| self.registers.read(DATA))
    }

    /// Sends bytes from `next` until it has no more or the port takes no more.
    pub fn send(&mut self, mut next: impl FnMut() -> Option<u8>) {
        while self.registers.read(LINE_STATUS) & TRANSMITTER_EMPTY != 0 {
            for _ in 0..FIFO_DEPTH {
                match next() {
                    Some(byte) => self.registers.write(DATA, byte),
                    None => return,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::RefCell, collections::VecDeque, rc::Rc};

    #[derive(Default)]
    struct Chip {
        scratch: u8,
        divisor_access: bool,
        input: VecDeque<u8>,
        output: Vec<u8>,
        fifo_room: usize,
        absent: bool,
    }

    #[derive(Clone, Default)]
    struct Fake(Rc<RefCell<Chip>>);

    impl Registers for Fake {
        fn read(&mut self, offset: u16) -> u8 {
            let mut chip = self.0.borrow_mut();
            match offset {
                _ if chip.absent => 0xff,
                DATA => chip.input.pop_front().unwrap_or(0),
                SCRATCH => chip.scratch,
                LINE_STATUS => {
                    let empty = if chip.fifo_room >= FIFO_DEPTH {
                        TRANSMITTER_EMPTY
                    } else {
                        0
                    };
                    empty | u8::from(!chip.input.is_empty())
                }
                _ => 0,
            }
        }

        fn write(&mut self, offset: u16, value: u8) {
            let mut chip = self.0.borrow_mut();
            match offset {
                DATA if !chip.divisor_access => {
                    assert!(chip.fifo_room > 0, "the FIFO overflows");
                    chip.fifo_room -= 1;
                    chip.output.push(value);
                }
                LINE_CONTROL => chip.divisor_access = value & 0x80 != 0,
                SCRATCH => chip.scratch = value,
                _ => {}
            }
        }
    }

    #[test]
    fn sends_no_more_than_the_fifo_takes() {
        let fake = Fake::default();
        let mut uart = Uart::open(fake.clone()).unwrap();
        fake.0.borrow_mut().fifo_room = 40;
        let mut bytes = 0..100u8;
        uart.send(|| bytes.next());
        assert_eq!(fake.0.borrow().output, (0..32).collect::<Vec<u8>>());
    }

    #[test]
    fn receives_what_came() {
        let fake = Fake::default();
        let mut uart = Uart::open(fake.clone()).unwrap();
        fake.0.borrow_mut().input.extend(b"ab");
        assert_eq!(
            [uart.receive(), uart.receive(), uart.receive()],
            [Some(b'a'), Some(b'b'), None]
        );
    }

    #[test]
    fn a_port_that_is_not_there_is_noticed() {
        let fake = Fake::default();
        fake.0.borrow_mut().absent = true;
        assert!(Uart::open(fake).is_none());
    }
}

//! A 16550 serial port, written to and never read: 115200 baud, 8 bits, no parity. Its interrupts stay off.

use crate::platform::port;

const DATA: u16 = 0;
const INTERRUPTS: u16 = 1;
const FIFO: u16 = 2;
const LINE: u16 = 3;
const MODEM: u16 = 4;
const LINE_STATUS: u16 = 5;
const SCRATCH: u16 = 7;

const DIVISOR_ACCESS: u8 = 0x80;
const EIGHT_BITS: u8 = 3;
const TRANSMITTER_EMPTY: u8 = 0x20;
const FIFO_LENGTH: usize = 16;
/// How often the line status is read before a port that does not get rid of its bytes is given up.
const PATIENCE: u32 = 200_000;

/// A port that is there.
#[derive(Debug)]
pub struct Uart {
    base: u16,
}

impl Uart {
    /// Sets up the port at this I/O address; `None` if there is none.
    pub fn new(base: u16) -> Option<Self> {
        let write = |register, value| port::write_u8(base + register, value);
        for pattern in [0x5a, 0xa5] {
            write(SCRATCH, pattern);
            if port::read_u8(base + SCRATCH) != pattern {
                return None;
            }
        }
        write(INTERRUPTS, 0);
        write(LINE, DIVISOR_ACCESS);
        write(DATA, 1);
        write(INTERRUPTS, 0);
        write(LINE, EIGHT_BITS);
        write(FIFO, 0x07); // on, both emptied
        write(MODEM, 0x03); // ready
        Some(Self { base })
    }

    /// Its I/O address.
    pub fn base(&self) -> u16 {
        self.base
    }

    /// Sends bytes, waiting for the line; a newline goes out as carriage return and newline. False if the port does not take them.
    pub fn send(&self, bytes: &[u8]) -> bool {
        let mut room = 0;
        for &byte in bytes {
            let pair = [b'\r', byte];
            for &byte in if byte == b'\n' { &pair[..] } else { &pair[1..] } {
                if room == 0 {
                    let ready = |_: &u32| port::read_u8(self.base + LINE_STATUS) & TRANSMITTER_EMPTY != 0;
                    if (0..PATIENCE).find(ready).is_none() {
                        return false;
                    }
                    room = FIFO_LENGTH;
                }
                port::write_u8(self.base + DATA, byte);
                room -= 1;
            }
        }
        true
    }
}

//! Byte rings: the console's and xenstore's pages, each with one ring a direction.
//!
//! Both interfaces are a page with two byte arrays whose sizes are powers of two, and four free-running indices. The same
//! types serve both sides: a client or frontend takes [`ByteChannel::console_frontend`] or
//! [`ByteChannel::store_client`], a server or backend the mirror image.

use super::RingError;
use crate::memory::{MemoryError, SharedMemory};

/// Where one direction lies in the page.
#[derive(Clone, Copy, Debug)]
struct Direction {
    data: usize,
    size: u32,
    cons: usize,
    prod: usize,
}

const CONSOLE_IN: Direction = Direction {
    data: 0,
    size: 1024,
    cons: 3072,
    prod: 3076,
};
const CONSOLE_OUT: Direction = Direction {
    data: 1024,
    size: 2048,
    cons: 3080,
    prod: 3084,
};
const STORE_REQUEST: Direction = Direction {
    data: 0,
    size: 1024,
    cons: 2048,
    prod: 2052,
};
const STORE_RESPONSE: Direction = Direction {
    data: 1024,
    size: 1024,
    cons: 2056,
    prod: 2060,
};

/// One end of a page of two byte rings. It never blocks, and notifies nobody: that is its owner's affair.
#[derive(Clone, Debug)]
pub struct ByteChannel {
    memory: SharedMemory,
    input: Direction,
    output: Direction,
}

impl ByteChannel {
    /// The domain's end of its console page: reads what the operator typed, writes what it prints.
    pub fn console_frontend(memory: SharedMemory) -> Result<Self, RingError> {
        Self::new(memory, CONSOLE_IN, CONSOLE_OUT)
    }

    /// The console domain's end of another domain's console page.
    pub fn console_backend(memory: SharedMemory) -> Result<Self, RingError> {
        Self::new(memory, CONSOLE_OUT, CONSOLE_IN)
    }

    /// The domain's end of its xenstore page: writes requests, reads responses and watch events.
    pub fn store_client(memory: SharedMemory) -> Result<Self, RingError> {
        Self::new(memory, STORE_RESPONSE, STORE_REQUEST)
    }

    /// The control domain's end of another domain's xenstore page.
    pub fn store_server(memory: SharedMemory) -> Result<Self, RingError> {
        Self::new(memory, STORE_REQUEST, STORE_RESPONSE)
    }

    fn new(memory: SharedMemory, input: Direction, output: Direction) -> Result<Self, RingError> {
        if memory.len() < crate::memory::PAGE_SIZE {
            return Err(RingError::TooSmall { bytes: memory.len() });
        }
        Ok(Self {
            memory,
            input,
            output,
        })
    }

    /// The page, for the fields behind the indices (`connection`, `server_features`, `error` of xenstore's).
    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// How many bytes wait to be read.
    pub fn readable(&self) -> Result<usize, RingError> {
        Ok(self.filled(&self.input)?.2 as usize)
    }

    /// How many bytes can be written.
    pub fn writable(&self) -> Result<usize, RingError> {
        Ok((self.output.size - self.filled(&self.output)?.2) as usize)
    }

    /// Reads as many bytes as there are and fit; answers how many. When it took some, the peer may wait for the room: notify.
    pub fn read(&self, target: &mut [u8]) -> Result<usize, RingError> {
        let (cons, _, filled) = self.filled(&self.input)?;
        let length = target.len().min(filled as usize);
        let (first, second) = target[..length].split_at_mut(self.input.until_wrap(cons).min(length));
        self.memory.copy_out(self.input.offset(cons), first)?;
        self.memory.copy_out(self.input.data, second)?;
        if length > 0 {
            self.memory
                .store(self.input.cons, cons.wrapping_add(length as u32))?;
        }
        Ok(length)
    }

    /// Copies what waits to be read behind the next `skip` bytes, as far as it fits, and takes nothing; answers how many bytes.
    pub fn peek(&self, skip: usize, target: &mut [u8]) -> Result<usize, RingError> {
        let (cons, _, filled) = self.filled(&self.input)?;
        let skip = skip.min(filled as usize);
        let from = cons.wrapping_add(skip as u32);
        let length = target.len().min(filled as usize - skip);
        let (first, second) = target[..length].split_at_mut(self.input.until_wrap(from).min(length));
        self.memory.copy_out(self.input.offset(from), first)?;
        self.memory.copy_out(self.input.data, second)?;
        Ok(length)
    }

    /// Takes bytes that were looked at by [`peek`](Self::peek), as far as they are there. The peer may wait for the room: notify.
    pub fn take(&self, count: usize) -> Result<(), RingError> {
        let (cons, _, filled) = self.filled(&self.input)?;
        let count = count.min(filled as usize);
        Ok(self
            .memory
            .store(self.input.cons, cons.wrapping_add(count as u32))?)
    }

    /// The index of the next byte to be read.
    pub fn position(&self) -> Result<u32, RingError> {
        Ok(self.memory.load(self.input.cons)?)
    }

    /// The index of the next byte to be written.
    pub fn written(&self) -> Result<u32, RingError> {
        Ok(self.memory.load(self.output.prod)?)
    }

    /// Writes as many bytes as there is room for; answers how many. When it wrote some, notify the peer.
    pub fn write(&self, source: &[u8]) -> Result<usize, RingError> {
        let (_, prod, filled) = self.filled(&self.output)?;
        let length = source.len().min((self.output.size - filled) as usize);
        let (first, second) = source[..length].split_at(self.output.until_wrap(prod).min(length));
        self.memory.copy_in(self.output.offset(prod), first)?;
        self.memory.copy_in(self.output.data, second)?;
        if length > 0 {
            self.memory
                .store(self.output.prod, prod.wrapping_add(length as u32))?;
        }
        Ok(length)
    }

    /// The consumer's and the producer's index, and the bytes between them if there can be so many.
    ///
    /// Each of a channel's indices is believed only within the ring's size: our own index is read from the page too, so that
    /// a server that was rebuilt goes on where its predecessor stood, and a peer that forges it harms its own stream.
    fn filled(&self, direction: &Direction) -> Result<(u32, u32, u32), RingError> {
        let cons = self.memory.load(direction.cons)?;
        let prod = self.memory.load(direction.prod)?;
        let filled = prod.wrapping_sub(cons);
        if filled > direction.size {
            return Err(RingError::Index {
                claimed: filled,
                capacity: direction.size,
            });
        }
        Ok((cons, prod, filled))
    }
}

impl Direction {
    fn offset(&self, index: u32) -> usize {
        self.data + (index & (self.size - 1)) as usize
    }

    fn until_wrap(&self, index: u32) -> usize {
        (self.size - (index & (self.size - 1))) as usize
    }
}

impl embedded_io::Error for RingError {
    fn kind(&self) -> embedded_io::ErrorKind {
        match self {
            RingError::Index { .. } => embedded_io::ErrorKind::InvalidData,
            RingError::Full { .. }
            | RingError::TooSmall { .. }
            | RingError::Memory(MemoryError::Exhausted { .. }) => embedded_io::ErrorKind::OutOfMemory,
            RingError::Memory(_) => embedded_io::ErrorKind::InvalidInput,
        }
    }
}

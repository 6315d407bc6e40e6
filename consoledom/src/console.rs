//! The backend of one domain's console ring (io/console.h): two byte streams in a page that the domain writes as it likes.
//!
//! Our own index of each stream is kept here and only published, never read back; the domain's is read once per turn and checked: one that
//! claims more than the ring holds disables the console until the domain is built anew.

use alloc::collections::VecDeque;

use thiserror::Error;
use unikernel_rt::memory::{MemoryError, SharedMemory};
use xen_abi::io::console::XenconsInterface;

/// Keys that wait for a domain which does not read; more are dropped, as a terminal does.
const KEYS: usize = 4096;

/// Why a console cannot be served any more.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// An index that no honest domain writes.
    #[error("its console ring claims {claimed} bytes, and holds {size}")]
    Index {
        /// What the index says.
        claimed: u32,
        /// What the ring holds.
        size: u32,
    },
    /// The mapping is smaller than the ring.
    #[error("its console ring is not a page: {0}")]
    Memory(#[from] MemoryError),
}

/// The console ring of a domain.
pub struct Console {
    ring: SharedMemory,
    read: u32,
    written: u32,
    keys: VecDeque<u8>,
}

impl Console {
    /// Goes on where the ring's indices stand: at 0 in a new ring, and where a predecessor left them in an old one.
    pub fn attach(ring: SharedMemory) -> Result<Self, Error> {
        let read = ring.load(XenconsInterface::OUT_CONS_OFFSET)?;
        let written = ring.load(XenconsInterface::IN_PROD_OFFSET)?;
        Ok(Self {
            ring,
            read,
            written,
            keys: VecDeque::new(),
        })
    }

    /// Queues a key for the domain.
    pub fn key(&mut self, key: u8) {
        if self.keys.len() < KEYS {
            self.keys.push_back(key);
        }
    }

    /// The ring's index of keys.
    pub fn written(&self) -> u32 {
        self.written
    }

    /// How many keys wait for room in the ring.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Moves what can be moved: what the domain printed goes to `print`, queued keys go to the ring. Answers whether anything moved, so that the
    /// domain must be notified.
    ///
    /// Before keys can be seen in the ring `types` hears where its index will be, and how many keys still wait.
    pub fn serve(
        &mut self,
        print: &mut impl FnMut(&[u8]),
        types: &mut impl FnMut(u32, usize),
    ) -> Result<bool, Error> {
        let printed = self.take_output(print)?;
        let typed = self.put_keys(types)?;
        Ok(printed || typed)
    }

    fn take_output(&mut self, print: &mut impl FnMut(&[u8])) -> Result<bool, Error> {
        const SIZE: u32 = XenconsInterface::OUT_SIZE;
        let produced = self.ring.load(XenconsInterface::OUT_PROD_OFFSET)?;
        let length = produced.wrapping_sub(self.read);
        if length > SIZE {
            return Err(Error::Index {
                claimed: length,
                size: SIZE,
            });
        }
        let mut bytes = [0; SIZE as usize];
        let bytes = &mut bytes[..length as usize];
        let start = self.read % SIZE;
        let (first, second) = bytes.split_at_mut(length.min(SIZE - start) as usize);
        self.ring
            .copy_out(XenconsInterface::OUT_OFFSET + start as usize, first)?;
        self.ring.copy_out(XenconsInterface::OUT_OFFSET, second)?;
        self.read = produced;
        if !bytes.is_empty() {
            // What is not in safe hands is not taken: the domain may put something else in its place.
            print(bytes);
            self.ring.store(XenconsInterface::OUT_CONS_OFFSET, self.read)?;
        }
        Ok(length > 0)
    }

    fn put_keys(&mut self, types: &mut impl FnMut(u32, usize)) -> Result<bool, Error> {
        const SIZE: u32 = XenconsInterface::IN_SIZE;
        if self.keys.is_empty() {
            return Ok(false);
        }
        let consumed = self.ring.load(XenconsInterface::IN_CONS_OFFSET)?;
        let waiting = self.written.wrapping_sub(consumed);
        if waiting > SIZE {
            return Err(Error::Index {
                claimed: waiting,
                size: SIZE,
            });
        }
        let mut moved = false;
        for _ in waiting..SIZE {
            let Some(key) = self.keys.pop_front() else { break };
            self.ring.copy_in(
                XenconsInterface::IN_OFFSET + (self.written % SIZE) as usize,
                &[key],
            )?;
            self.written = self.written.wrapping_add(1);
            moved = true;
        }
        if moved {
            types(self.written, self.keys.len());
            self.ring.store(XenconsInterface::IN_PROD_OFFSET, self.written)?;
        }
        Ok(moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest_prints(ring: &SharedMemory, bytes: &[u8]) {
        let mut produced = ring.load(XenconsInterface::OUT_PROD_OFFSET).unwrap();
        for &byte in bytes {
            let at = XenconsInterface::OUT_OFFSET + (produced % XenconsInterface::OUT_SIZE) as usize;
            ring.copy_in(at, &[byte]).unwrap();
            produced = produced.wrapping_add(1);
        }
        ring.store(XenconsInterface::OUT_PROD_OFFSET, produced).unwrap();
    }

    fn guest_reads(ring: &SharedMemory) -> Vec<u8> {
        let produced = ring.load(XenconsInterface::IN_PROD_OFFSET).unwrap();
        let mut consumed = ring.load(XenconsInterface::IN_CONS_OFFSET).unwrap();
        let mut bytes = Vec::new();
        while consumed != produced {
            let at = XenconsInterface::IN_OFFSET + (consumed % XenconsInterface::IN_SIZE) as usize;
            bytes.push(ring.read::<u8>(at).unwrap());
            consumed = consumed.wrapping_add(1);
        }
        ring.store(XenconsInterface::IN_CONS_OFFSET, consumed).unwrap();
        bytes
    }

    fn served(console: &mut Console) -> (Vec<u8>, bool) {
        let mut printed = Vec::new();
        let moved = console
            .serve(
                &mut |bytes: &[u8]| printed.extend_from_slice(bytes),
                &mut |_, _| {},
            )
            .unwrap();
        (printed, moved)
    }

    #[test]
    fn bytes_go_both_ways_and_round_the_ring() {
        let ring = SharedMemory::allocate(1).unwrap();
        let mut console = Console::attach(ring.clone()).unwrap();
        for round in 0..10u8 {
            guest_prints(&ring, &[round; 1500]);
            "typed".bytes().for_each(|key| console.key(key));
            assert_eq!(served(&mut console), (vec![round; 1500], true));
            assert_eq!(guest_reads(&ring), b"typed");
        }
        assert_eq!(served(&mut console), (vec![], false));
    }

    #[test]
    fn keys_wait_for_room() {
        let ring = SharedMemory::allocate(1).unwrap();
        let mut console = Console::attach(ring.clone()).unwrap();
        (0..1500).for_each(|_| console.key(b'k'));
        assert!(served(&mut console).1);
        assert_eq!(guest_reads(&ring).len(), 1024);
        assert!(served(&mut console).1);
        assert_eq!(guest_reads(&ring).len(), 476);
    }

    #[test]
    fn a_successor_goes_on_where_the_indices_stand() {
        let ring = SharedMemory::allocate(1).unwrap();
        let mut console = Console::attach(ring.clone()).unwrap();
        guest_prints(&ring, b"before ");
        served(&mut console);
        guest_prints(&ring, b"after");
        let mut successor = Console::attach(ring).unwrap();
        assert_eq!(served(&mut successor).0, b"after");
    }

    #[test]
    fn a_lying_index_is_an_error() {
        let ring = SharedMemory::allocate(1).unwrap();
        let mut console = Console::attach(ring.clone()).unwrap();
        ring.store(XenconsInterface::OUT_PROD_OFFSET, 2049).unwrap();
        assert_eq!(
            console.serve(&mut |_: &[u8]| {}, &mut |_, _| {}),
            Err(Error::Index {
                claimed: 2049,
                size: 2048
            })
        );
        ring.store(XenconsInterface::OUT_PROD_OFFSET, 0).unwrap();
        ring.store(XenconsInterface::IN_CONS_OFFSET, 7).unwrap();
        console.key(b'k');
        assert!(console.serve(&mut |_: &[u8]| {}, &mut |_, _| {}).is_err());
    }
}

//! The journal's place: two halves of the keep region, of which one counts.
//!
//! A half has a head, and batches behind each other, each with its length and a checksum. A batch counts once its length is there, which is written last; behind the last batch
//! stands the length 0. When a half is full, everything is written anew into the other one, whose head is written last and has a higher number.

use alloc::{vec, vec::Vec};
use core::sync::atomic::{Ordering, compiler_fence};

use unikernel_rt::{
    crc32,
    memory::{MemoryError, SharedMemory},
};

const MAGIC: u32 = u32::from_le_bytes(*b"jrnl");
/// Another layout of the entries is another version.
const VERSION: u32 = 1;
/// Words of the head: magic number, version, sequence number, checksum of those.
const HEAD: usize = 16;
/// Words before each batch: length, checksum.
const BATCH: usize = 8;
const WORD: usize = 4;

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Nobody has written anything.
    Nothing,
    /// Batches, oldest first.
    Batches(Vec<Vec<u8>>),
    /// Nothing that can be believed.
    Corrupt,
}

/// The journal.
#[derive(Debug)]
pub struct Journal {
    halves: [SharedMemory; 2],
    current: usize,
    sequence: u32,
    position: usize,
}

impl Journal {
    /// Opens the journal in an area, and finds what is there. It takes no further batch before [`Journal::begin_anew`].
    pub fn open(area: &SharedMemory) -> Result<(Self, Found), MemoryError> {
        let half = (area.len() / 2) & !63;
        let mut journal = Self {
            halves: [area.part(0, half)?, area.part(half, half)?],
            current: 0,
            sequence: 0,
            position: half,
        };
        let mut newest = None;
        let mut corrupt = false;
        for index in 0..2 {
            match journal.head(index)? {
                Head::Empty => {}
                Head::Corrupt => corrupt = true,
                Head::Sequence(sequence) => newest = newest.max(Some((sequence, index))),
            }
        }
        let Some((sequence, index)) = newest.filter(|_| !corrupt) else {
            return Ok((journal, if corrupt { Found::Corrupt } else { Found::Nothing }));
        };
        (journal.sequence, journal.current) = (sequence, index);
        let found = journal.batches()?.map_or(Found::Corrupt, Found::Batches);
        Ok((journal, found))
    }

    fn head(&self, index: usize) -> Result<Head, MemoryError> {
        let half = &self.halves[index];
        if half.len() < HEAD + WORD {
            return Ok(Head::Empty);
        }
        let mut head = [0; HEAD];
        half.copy_out(0, &mut head)?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        Ok(match word(0) {
            0 => Head::Empty,
            MAGIC if word(4) == VERSION && word(12) == crc32::checksum(&head[..12]) => {
                Head::Sequence(word(8))
            }
            _ => Head::Corrupt,
        })
    }

    fn batches(&self) -> Result<Option<Vec<Vec<u8>>>, MemoryError> {
        let half = &self.halves[self.current];
        let (mut at, mut batches) = (HEAD, Vec::new());
        loop {
            let length = half.load(at)? as usize;
            if length == 0 {
                return Ok(Some(batches));
            }
            // Behind it is room for the next length.
            let end = length
                .checked_add(at + BATCH)
                .map(|end| end.next_multiple_of(WORD));
            let Some(end) = end.filter(|end| end + WORD <= half.len()) else {
                return Ok(None);
            };
            let mut bytes = vec![0; length];
            half.copy_out(at + BATCH, &mut bytes)?;
            if half.load(at + WORD)? != crc32::checksum(&bytes) {
                return Ok(None);
            }
            batches.push(bytes);
            at = end;
        }
    }

    /// Adds a batch. False if there is no room: then begin anew.
    pub fn append(&mut self, batch: &[u8]) -> Result<bool, MemoryError> {
        if batch.is_empty() {
            return Ok(true);
        }
        let half = &self.halves[self.current];
        let Some(end) = put(half, self.position, batch)? else {
            return Ok(false);
        };
        half.store(self.position, batch.len() as u32)?;
        self.position = end;
        Ok(true)
    }

    /// Begins anew in the other half, with everything in one batch. False if it does not fit, and nothing has changed.
    pub fn begin_anew(&mut self, everything: &[u8]) -> Result<bool, MemoryError> {
        let next = 1 - self.current;
        let half = &self.halves[next];
        if half.len() < HEAD + 2 * BATCH {
            return Ok(false);
        }
        // It counts no more, if it did.
        half.store(0, 0)?;
        compiler_fence(Ordering::SeqCst);
        let position = match everything {
            [] => {
                half.store(HEAD, 0)?;
                HEAD
            }
            _ => {
                let Some(end) = put(half, HEAD, everything)? else {
                    return Ok(false);
                };
                half.store(HEAD, everything.len() as u32)?;
                end
            }
        };
        let sequence = self.sequence.wrapping_add(1);
        let mut head = Vec::with_capacity(HEAD);
        for word in [MAGIC, VERSION, sequence] {
            head.extend_from_slice(&word.to_le_bytes());
        }
        half.store(12, crc32::checksum(&head))?;
        half.store(8, sequence)?;
        half.store(4, VERSION)?;
        compiler_fence(Ordering::SeqCst);
        half.store(0, MAGIC)?;
        (self.current, self.sequence, self.position) = (next, sequence, position);
        Ok(true)
    }

    /// Nothing in it counts any more.
    pub fn clear(&mut self) -> Result<(), MemoryError> {
        for half in self.halves.iter().filter(|half| half.len() >= HEAD) {
            half.store(0, 0)?;
        }
        Ok(())
    }
}

enum Head {
    Empty,
    Corrupt,
    Sequence(u32),
}

/// Puts a batch and the end behind it, but for its length. Answers where the next one goes.
fn put(half: &SharedMemory, at: usize, batch: &[u8]) -> Result<Option<usize>, MemoryError> {
    let end = (at + BATCH + batch.len()).next_multiple_of(WORD);
    if end + WORD > half.len() {
        return Ok(None);
    }
    half.copy_in(at + BATCH, batch)?;
    half.store(at + WORD, crc32::checksum(batch))?;
    half.store(end, 0)?;
    compiler_fence(Ordering::SeqCst);
    Ok(Some(end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unikernel_rt::fake::death::after_writes;

    use super::*;

    fn area() -> SharedMemory {
        SharedMemory::allocate(1).unwrap()
    }

    fn found(area: &SharedMemory) -> Found {
        Journal::open(area).unwrap().1
    }

    fn batches(all: &[&[u8]]) -> Found {
        Found::Batches(all.iter().map(|batch| batch.to_vec()).collect())
    }

    #[test]
    fn batches_are_found_in_order_and_a_new_beginning_replaces_them() {
        let area = area();
        let (mut journal, nothing) = Journal::open(&area).unwrap();
        assert_eq!(nothing, Found::Nothing);
        assert!(!journal.append(b"too early").unwrap());
        assert!(journal.begin_anew(b"all").unwrap());
        assert!(
            journal.append(b"one").unwrap()
                && journal.append(b"").unwrap()
                && journal.append(b"three").unwrap()
        );
        assert_eq!(found(&area), batches(&[b"all", b"one", b"three"]));
        assert!(!journal.append(&[1; 2048]).unwrap());
        assert!(journal.begin_anew(b"other").unwrap());
        assert_eq!(found(&area), batches(&[b"other"]));
        assert!(!journal.begin_anew(&[1; 2048]).unwrap());
        journal.clear().unwrap();
        assert_eq!(found(&area), Found::Nothing);
    }

    #[test]
    fn a_death_at_any_write_leaves_what_was_before_or_after() {
        let (old, new) = ([7; 100], [9; 300]);
        for writes in 0.. {
            let area = area();
            let (mut journal, _) = Journal::open(&area).unwrap();
            journal.begin_anew(&old).unwrap();
            let died = after_writes(writes, || {
                journal.append(b"more").unwrap();
                journal.begin_anew(&new).unwrap();
            });
            let all = [batches(&[&old]), batches(&[&old, b"more"]), batches(&[&new])];
            let now = found(&area);
            assert!(all.contains(&now), "after {writes} writes: {now:?}");
            if !died {
                assert_eq!(now, batches(&[&new]));
                break;
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_taken_for_more_than_they_are(bytes in prop::collection::vec(any::<u8>(), 4096), head: bool) {
            let area = area();
            area.copy_in(0, &bytes).unwrap();
            if head {
                let mut journal = Journal { halves: [area.part(0, 2048).unwrap(), area.part(2048, 2048).unwrap()], current: 1, sequence: 0, position: 2048 };
                journal.begin_anew(b"good").unwrap();
                area.store(2048, 0).unwrap();
                area.copy_in(100, &bytes[..200]).unwrap();
            }
            let _ = found(&area);
        }

        #[test]
        fn a_changed_byte_is_noticed_or_lies_beyond(at in 0usize..400, bit in 0u8..8) {
            let area = area();
            let (mut journal, _) = Journal::open(&area).unwrap();
            journal.begin_anew(&[7; 64]).unwrap();
            journal.append(&[8; 64]).unwrap();
            let before = found(&area);
            let at = 2048 + at;
            let byte: u8 = area.read(at).unwrap();
            area.copy_in(at, &[byte ^ 1 << bit]).unwrap();
            let after = found(&area);
            let shorter = batches(&[&[7; 64]]);
            prop_assert!(after == Found::Corrupt || after == before || after == shorter || after == batches(&[]) || after == Found::Nothing, "{after:?}");
        }
    }
}

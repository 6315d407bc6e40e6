//! A record: bytes that are found whole or not at all.
//!
//! An area has room for two copies, each with a head. A store goes over the older one: it is marked as being written first, gets its bytes, then its
//! head, whose last word is the checksum over all before. So there are four things that a copy can be: empty, being written (its life ended there; the other copy
//! counts), whole, or corrupt, which nobody's death explains: then neither copy is believed.

use alloc::{vec, vec::Vec};
use core::{
    marker::PhantomData,
    sync::atomic::{Ordering, compiler_fence},
};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::KeepError;
use crate::{crc32, memory::SharedMemory};

/// What stands before the bytes of a copy.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Head {
    /// The record's magic number, or [`WRITING`]; 0 in an empty copy.
    magic: u32,
    version: u16,
    _pad: u16,
    /// The later one of two copies has the higher number; from 1 on.
    sequence: u64,
    length: u32,
    /// Of the bytes above, and of the record's.
    checksum: u32,
}

const HEAD: usize = size_of::<Head>();
/// The magic number of a copy that is being written.
const WRITING: u32 = u32::from_le_bytes(*b"~wr~");

impl Head {
    fn checksum_with(&self, bytes: &[u8]) -> u32 {
        let head = self.as_bytes();
        crc32::extend(crc32::checksum(&head[..HEAD - 4]), bytes)
    }
}

/// What a record was found to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing was ever stored.
    Nothing,
    /// What was stored last.
    Bytes(Vec<u8>),
    /// What a program of another version stored last.
    OtherVersion(u16, Vec<u8>),
    /// Nothing that can be believed.
    Corrupt,
}

/// Bytes that survive the domain's end. What was not found cleanly is overwritten by the next store.
#[derive(Debug)]
pub struct Record {
    memory: SharedMemory,
    magic: u32,
    version: u16,
    /// Of the copy that counts.
    sequence: u64,
    /// Which copy the next store goes to.
    next: usize,
}

/// One copy, as it was found.
enum Copy {
    Empty,
    Torn,
    Whole(Head, Vec<u8>),
    Corrupt,
}

impl Record {
    /// How long an area has to be for records of up to `capacity` bytes.
    pub const fn length(capacity: usize) -> usize {
        2 * (HEAD + capacity.next_multiple_of(8))
    }

    /// Opens the record in an area, and finds what was stored. `name` is for the log, to which goes what is corrupt or of another version; `magic` tells the record from
    /// all others, so that an area that had another purpose before is not mistaken.
    pub fn open(
        area: SharedMemory,
        name: &str,
        magic: u32,
        version: u16,
    ) -> Result<(Self, Found), KeepError> {
        let (record, found) = Self::open_one_of_many(area, magic, version)?;
        match &found {
            Found::Corrupt => log::warn!("{name}: the keep region is corrupt; starting as if it was empty"),
            Found::OtherVersion(other, _) => {
                log::info!("{name}: what was kept is of version {other}, and this is {version}");
            }
            Found::Nothing | Found::Bytes(_) => {}
        }
        Ok((record, found))
    }

    /// The same without a word: whoever has many says it once.
    pub fn open_one_of_many(
        area: SharedMemory,
        magic: u32,
        version: u16,
    ) -> Result<(Self, Found), KeepError> {
        let mut record = Self {
            memory: area,
            magic,
            version,
            sequence: 0,
            next: 0,
        };
        let copies = [record.copy(0)?, record.copy(1)?];
        let found = record.judge(copies);
        Ok((record, found))
    }

    fn judge(&mut self, copies: [Copy; 2]) -> Found {
        let mut newest: Option<(usize, Head, Vec<u8>)> = None;
        for (index, copy) in copies.into_iter().enumerate() {
            match copy {
                Copy::Empty | Copy::Torn => {}
                Copy::Corrupt => {
                    (self.sequence, self.next) = (0, 0);
                    // The other one must not count beside what is stored next.
                    return if self.clear().is_ok() {
                        Found::Corrupt
                    } else {
                        Found::Nothing
                    };
                }
                Copy::Whole(head, bytes) => {
                    if newest
                        .as_ref()
                        .is_none_or(|(_, other, _)| other.sequence < head.sequence)
                    {
                        newest = Some((index, head, bytes));
                    }
                }
            }
        }
        let Some((index, head, bytes)) = newest else {
            return Found::Nothing;
        };
        (self.sequence, self.next) = (head.sequence, 1 - index);
        if head.version == self.version {
            Found::Bytes(bytes)
        } else {
            Found::OtherVersion(head.version, bytes)
        }
    }

    /// How many bytes fit.
    pub fn capacity(&self) -> usize {
        (self.memory.len() / 2).saturating_sub(HEAD) & !7
    }

    fn offset(&self, copy: usize) -> usize {
        copy * (HEAD + self.capacity())
    }

    fn copy(&self, index: usize) -> Result<Copy, KeepError> {
        let offset = self.offset(index);
        let head: Head = self.memory.read(offset)?;
        if head == Head::default() {
            return Ok(Copy::Empty);
        }
        if head.magic == WRITING {
            return Ok(Copy::Torn);
        }
        let length = head.length as usize;
        if head.magic != self.magic || length > self.capacity() || head.sequence == 0 {
            return Ok(Copy::Corrupt);
        }
        let mut bytes = vec![0; length];
        self.memory.copy_out(offset + HEAD, &mut bytes)?;
        Ok(if head.checksum == head.checksum_with(&bytes) {
            Copy::Whole(head, bytes)
        } else {
            Copy::Corrupt
        })
    }

    /// Stores bytes in place of what was stored before.
    pub fn store(&mut self, bytes: &[u8]) -> Result<(), KeepError> {
        let capacity = self.capacity();
        let length = u32::try_from(bytes.len())
            .ok()
            .filter(|_| bytes.len() <= capacity);
        let length = length.ok_or(KeepError::TooLong {
            length: bytes.len(),
            capacity,
        })?;
        if self.sequence == u64::MAX {
            // Nobody counts so far, but what was found may claim to.
            self.clear()?;
            self.sequence = 0;
        }
        let offset = self.offset(self.next);
        let mut head = Head {
            magic: self.magic,
            version: self.version,
            sequence: self.sequence + 1,
            length,
            ..Head::default()
        };
        head.checksum = head.checksum_with(bytes);
        self.memory.store(offset, WRITING)?;
        compiler_fence(Ordering::SeqCst);
        self.memory.copy_in(offset + HEAD, bytes)?;
        self.memory.copy_in(offset + 4, &head.as_bytes()[4..])?;
        compiler_fence(Ordering::SeqCst);
        self.memory.store(offset, self.magic)?;
        (self.sequence, self.next) = (head.sequence, 1 - self.next);
        Ok(())
    }

    /// Forgets what was stored.
    pub fn clear(&mut self) -> Result<(), KeepError> {
        for copy in [self.next, 1 - self.next] {
            let offset = self.offset(copy);
            self.memory.store(offset, WRITING)?;
            compiler_fence(Ordering::SeqCst);
        }
        Ok(())
    }
}

/// One value that survives the domain's end.
#[derive(Debug)]
pub struct Stored<T> {
    record: Record,
    value: PhantomData<fn() -> T>,
}

impl<T: FromBytes + IntoBytes + Immutable> Stored<T> {
    /// How long its area has to be.
    pub const LENGTH: usize = Record::length(size_of::<T>());

    /// Opens it, and finds what was stored; `None` if that is nothing, corrupt, or of another version.
    pub fn open(
        area: SharedMemory,
        name: &str,
        magic: u32,
        version: u16,
    ) -> Result<(Self, Option<T>), KeepError> {
        let (record, found) = Record::open(area, name, magic, version)?;
        let value = match found {
            Found::Bytes(bytes) => T::read_from_bytes(&bytes).ok(),
            _ => None,
        };
        let stored = Self {
            record,
            value: PhantomData,
        };
        Ok((stored, value))
    }

    /// Stores a value in place of the one before.
    pub fn store(&mut self, value: &T) -> Result<(), KeepError> {
        self.record.store(value.as_bytes())
    }

    /// Forgets the value.
    pub fn clear(&mut self) -> Result<(), KeepError> {
        self.record.clear()
    }
}

#[cfg(test)]
mod tests;

//! What outlives this domain: where the operator is, what he has typed of a line, and what domains have printed.
//!
//! The hypervisor keeps the log itself, so that is read anew. What comes through a domain's ring exists nowhere else: it is written here before the ring is told that it was taken.

use alloc::{
    collections::{BTreeMap, VecDeque},
    vec,
    vec::Vec,
};

use unikernel_rt::{
    keep::{Keep, KeepError, Stored},
    memory::SharedMemory,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a line that is being typed.
pub const LINE: usize = 256;
const VERSION: u16 = 1;

/// Where the operator is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Place {
    /// The number of the command that controldom has not answered; 0 is none.
    pub waiting: u64,
    /// The domain whose console is shown; 0 is the shell.
    pub attached: u16,
    /// Where in the line the cursor is.
    pub cursor: u16,
    /// How long the line is.
    pub length: u16,
    /// Zero.
    pub _pad: u16,
    /// The line.
    pub line: [u8; LINE],
}

impl Default for Place {
    fn default() -> Self {
        Self {
            waiting: 0,
            attached: 0,
            cursor: 0,
            length: 0,
            _pad: 0,
            line: [0; LINE],
        }
    }
}

impl Place {
    /// The line that is being typed, and where the cursor is.
    pub fn typed(&self) -> (&[u8], usize) {
        let line = &self.line[..usize::from(self.length).min(LINE)];
        (line, usize::from(self.cursor).min(line.len()))
    }
}

/// Whose printed bytes are kept somewhere, and how many there were.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Tape {
    domain: u64,
    total: u64,
}

/// The bytes that a domain printed last.
#[derive(Debug)]
struct Printed {
    head: Stored<Tape>,
    tape: Tape,
    bytes: SharedMemory,
}

const PLACE: u32 = u32::from_le_bytes(*b"cons");
const TAPE: u32 = u32::from_le_bytes(*b"tape");
/// Bytes that are kept of each domain.
pub const PRINTED: usize = 8 * 1024;

/// Keys that were taken from the port, until what they do is done.
///
/// Words of 32 bits: magic number, how many were taken, how many are done; then the keys.
#[derive(Debug)]
struct Keys {
    area: SharedMemory,
    taken: u32,
    /// How many the session was told of.
    told: u32,
    done: u32,
}

const KEYS: u32 = 1024;
const KEYS_MAGIC: u32 = u32::from_le_bytes(*b"keys");
const TAKEN: usize = 4;
const DONE: usize = 8;
const FIRST_KEY: usize = 16;

impl Keys {
    fn open(keep: &Keep) -> Result<Self, KeepError> {
        let area = keep.area(FIRST_KEY + KEYS as usize)?;
        let (mut taken, mut done) = (area.load(TAKEN)?, area.load(DONE)?);
        if area.load(0)? != KEYS_MAGIC || taken.wrapping_sub(done) > KEYS {
            (taken, done) = (0, 0);
            area.store(0, 0)?;
            area.store(TAKEN, 0)?;
            area.store(DONE, 0)?;
            area.store(0, KEYS_MAGIC)?;
        }
        Ok(Self {
            area,
            taken,
            told: done,
            done,
        })
    }

    fn push(&mut self, key: u8) -> Result<(), KeepError> {
        self.area
            .copy_in(FIRST_KEY + (self.taken % KEYS) as usize, &[key])?;
        self.taken = self.taken.wrapping_add(1);
        Ok(self.area.store(TAKEN, self.taken)?)
    }

    fn next(&mut self) -> Option<u8> {
        if self.told == self.taken {
            return None;
        }
        let key = self.area.read(FIRST_KEY + (self.told % KEYS) as usize).ok()?;
        self.told = self.told.wrapping_add(1);
        Some(key)
    }

    fn done_but(&self, last: usize) -> u32 {
        let open = self.told.wrapping_sub(self.done);
        self.told
            .wrapping_sub(u32::try_from(last).unwrap_or(u32::MAX).min(open))
    }

    fn done(&mut self, but: usize) -> Result<(), KeepError> {
        let done = self.done_but(but);
        if self.done != done {
            self.done = done;
            self.area.store(DONE, done)?;
        }
        Ok(())
    }
}

/// Keys are about to come into a domain's ring: once its index is there, so many keys are done.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Typing {
    domain: u32,
    index: u32,
    done: u32,
    _pad: u32,
}

const TYPING: u32 = u32::from_le_bytes(*b"type");

/// Everything that is kept.
pub struct Kept {
    typing: Option<(Stored<Typing>, Option<Typing>)>,
    keys: Option<Keys>,
    /// Where there is no room to keep them.
    mortal_keys: VecDeque<u8>,
    place: Option<(Stored<Place>, Option<Place>)>,
    printed: Vec<Printed>,
}

impl Kept {
    /// What a predecessor has left. The keep region bounds of how many domains it can be.
    pub fn open(keep: &Keep) -> Self {
        let place = keep
            .area(Stored::<Place>::LENGTH)
            .and_then(|area| Stored::open(area, "the operator's place", PLACE, VERSION));
        if let Err(error) = &place {
            log::warn!("the operator's place is not kept: {error}");
        }
        let typing = keep
            .area(Stored::<Typing>::LENGTH)
            .and_then(|area| Stored::open(area, "what was being typed", TYPING, VERSION))
            .ok();
        let keys = Keys::open(keep).ok();
        let printed = core::iter::from_fn(|| Printed::open(keep).ok());
        Self {
            typing,
            keys,
            mortal_keys: VecDeque::new(),
            place: place.ok(),
            printed: printed.collect(),
        }
    }

    /// Where the operator was.
    pub fn place(&self) -> Option<Place> {
        self.place.as_ref().and_then(|(_, place)| *place)
    }

    /// The operator is elsewhere, or has typed.
    pub fn store_place(&mut self, place: Place) {
        if let Some((stored, known)) = &mut self.place
            && *known != Some(place)
        {
            *known = Some(place);
            if let Err(error) = stored.store(&place) {
                log::error!("the operator's place is not kept: {error}");
                self.place = None;
            }
        }
    }

    /// How many further keys can be taken from the port.
    pub fn room_for_keys(&self) -> usize {
        let waiting = |keys: &Keys| KEYS - keys.taken.wrapping_sub(keys.done);
        self.keys.as_ref().map_or(KEYS, waiting) as usize
    }

    /// A key was taken from the port.
    pub fn take_key(&mut self, key: u8) {
        let kept = self.keys.as_mut().map(|keys| keys.push(key));
        if !matches!(kept, Some(Ok(()))) {
            self.keys = None;
            self.mortal_keys.push_back(key);
        }
    }

    /// The next key that the session is to be told of. One that a predecessor has not come to do comes first.
    pub fn next_key(&mut self) -> Option<u8> {
        match &mut self.keys {
            Some(keys) => keys.next(),
            None => self.mortal_keys.pop_front(),
        }
    }

    /// Keys are about to come into a domain's ring, whose index will be `index`; the last few of those that the session was told of still wait.
    pub fn types(&mut self, domain: u16, index: u32, last: usize) {
        if let (Some((stored, _)), Some(keys)) = (&mut self.typing, &self.keys) {
            let typing = Typing {
                domain: domain.into(),
                index,
                done: keys.done_but(last),
                _pad: 0,
            };
            if let Err(error) = stored.store(&typing) {
                log::error!("keys may come twice: {error}");
                self.typing = None;
            }
        }
    }

    /// Finds out whether the predecessor's last keys came into their ring; `index` says where a domain's ring is now. Before the first key.
    pub fn settle(&mut self, index: impl FnOnce(u16) -> Option<u32>) {
        let typing = self.typing.as_mut().and_then(|(_, typing)| typing.take());
        let (Some(typing), Some(keys)) = (typing, &mut self.keys) else {
            return;
        };
        let came = u16::try_from(typing.domain).ok().and_then(index) == Some(typing.index);
        let ahead = typing.done.wrapping_sub(keys.done);
        if came && ahead <= keys.taken.wrapping_sub(keys.done) {
            keys.told = typing.done;
            self.keys_are_done_but(0);
        }
    }

    /// What the keys do that the session was told of is done, but for the last few.
    pub fn keys_are_done_but(&mut self, last: usize) {
        if let Some(keys) = &mut self.keys
            && let Err(error) = keys.done(last)
        {
            log::error!("keys are not kept: {error}");
            self.keys = None;
        }
    }

    /// What every domain has printed.
    pub fn printed(&self) -> BTreeMap<u16, Vec<u8>> {
        let of = |printed: &Printed| {
            let domain = u16::try_from(printed.tape.domain)
                .ok()
                .filter(|domain| *domain != 0)?;
            Some((domain, printed.read()))
        };
        self.printed.iter().filter_map(of).collect()
    }

    /// A domain has printed.
    pub fn print(&mut self, domain: u16, bytes: &[u8]) {
        let wanted = u64::from(domain);
        let find = |whose| {
            self.printed
                .iter()
                .position(|printed| printed.tape.domain == whose)
        };
        let Some(index) = find(wanted).or_else(|| find(0)) else {
            return;
        };
        if let Err(error) = self.printed[index].push(wanted, bytes) {
            log::error!("what domains print is not kept: {error}");
            self.printed.swap_remove(index);
        }
    }
}

impl Printed {
    fn open(keep: &Keep) -> Result<Self, KeepError> {
        let (head, tape) = Stored::open(
            keep.area(Stored::<Tape>::LENGTH)?,
            "what a domain printed",
            TAPE,
            VERSION,
        )?;
        Ok(Self {
            head,
            tape: tape.unwrap_or_default(),
            bytes: keep.area(PRINTED)?,
        })
    }

    fn push(&mut self, domain: u64, bytes: &[u8]) -> Result<(), KeepError> {
        let mut total = self.tape.total;
        for piece in bytes.chunks(PRINTED) {
            let at = (total % PRINTED as u64) as usize;
            let (first, second) = piece.split_at(piece.len().min(PRINTED - at));
            self.bytes.copy_in(at, first)?;
            self.bytes.copy_in(0, second)?;
            total += piece.len() as u64;
        }
        self.tape = Tape { domain, total };
        self.head.store(&self.tape)
    }

    /// From the oldest on. Any bytes are what a domain might have printed.
    fn read(&self) -> Vec<u8> {
        let length = self.tape.total.min(PRINTED as u64) as usize;
        let start = ((self.tape.total - length as u64) % PRINTED as u64) as usize;
        let mut bytes = vec![0; length];
        let (first, second) = bytes.split_at_mut(length.min(PRINTED - start));
        let copied = self
            .bytes
            .copy_out(start, first)
            .and_then(|()| self.bytes.copy_out(0, second));
        if copied.is_ok() { bytes } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_life_finds_what_this_one_left() {
        let keep = Keep::fake(16);
        let mut kept = Kept::open(&keep);
        assert!(kept.place().is_none() && kept.printed().is_empty());
        let place = Place {
            attached: 5,
            length: 2,
            cursor: 9,
            ..Place::default()
        };
        kept.store_place(place);
        kept.print(5, b"hello ");
        kept.print(6, b"other");
        kept.print(5, b"world");
        let kept = Kept::open(&keep.next_life());
        assert_eq!(kept.place(), Some(place));
        assert_eq!(place.typed(), (&[0, 0][..], 2));
        let expected = [(5, b"hello world".to_vec()), (6, b"other".to_vec())];
        assert_eq!(kept.printed(), expected.into());
    }

    #[test]
    fn of_much_the_end_is_kept() {
        let keep = Keep::fake(16);
        let mut kept = Kept::open(&keep);
        let all: Vec<u8> = (0..3 * PRINTED + 77).map(|at| (at % 251) as u8).collect();
        all.chunks(1000).for_each(|piece| kept.print(5, piece));
        assert_eq!(
            Kept::open(&keep.next_life()).printed()[&5],
            all[all.len() - PRINTED..]
        );
        kept.print(6, &all);
        assert_eq!(
            Kept::open(&keep.next_life()).printed()[&6],
            all[all.len() - PRINTED..]
        );
    }

    #[test]
    fn keys_that_have_not_done_what_they_do_come_again() {
        let keep = Keep::fake(16);
        let mut kept = Kept::open(&keep);
        b"abcd".iter().for_each(|key| kept.take_key(*key));
        let keys: Vec<u8> = core::iter::from_fn(|| kept.next_key()).collect();
        assert_eq!(keys, b"abcd");
        kept.keys_are_done_but(2);
        let mut kept = Kept::open(&keep.next_life());
        kept.take_key(b'e');
        let keys: Vec<u8> = core::iter::from_fn(|| kept.next_key()).collect();
        assert_eq!(keys, b"cde");
        kept.keys_are_done_but(0);
        assert_eq!(Kept::open(&keep.next_life()).next_key(), None);
        // Round the end, and never more than fit.
        for round in 0..3 {
            let mut kept = Kept::open(&keep.next_life());
            let room = kept.room_for_keys();
            (0..room).for_each(|at| kept.take_key((at + round) as u8));
            assert_eq!((room, kept.room_for_keys()), (KEYS as usize, 0));
            let mut kept = Kept::open(&keep.next_life());
            assert_eq!(core::iter::from_fn(|| kept.next_key()).count(), room);
            kept.keys_are_done_but(0);
        }
        keep.next_life().area(8192).unwrap().fill(0, 8192, 0x5a).unwrap();
        assert_eq!(Kept::open(&keep.next_life()).next_key(), None);
    }

    #[test]
    fn keys_that_came_into_their_ring_do_not_come_again() {
        let begin = || {
            let keep = Keep::fake(16);
            let mut kept = Kept::open(&keep);
            b"abcd".iter().for_each(|key| kept.take_key(*key));
            while kept.next_key().is_some() {}
            kept.types(5, 77, 1);
            keep
        };
        let rest = |keep: &Keep, index: Option<u32>| -> Vec<u8> {
            let mut kept = Kept::open(&keep.next_life());
            kept.settle(|domain| index.filter(|_| domain == 5));
            core::iter::from_fn(|| kept.next_key()).collect()
        };
        assert_eq!(rest(&begin(), Some(77)), b"d");
        assert_eq!(rest(&begin(), Some(74)), b"abcd");
        assert_eq!(rest(&begin(), None), b"abcd");
    }

    #[test]
    fn without_room_nothing_is_kept_and_nothing_fails() {
        let mut kept = Kept::open(&Keep::new(None));
        kept.store_place(Place::default());
        kept.print(5, b"x");
        assert!(kept.place().is_none() && kept.printed().is_empty());
        kept.take_key(b'k');
        assert_eq!((kept.next_key(), kept.next_key()), (Some(b'k'), None));
    }
}

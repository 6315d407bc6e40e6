//! Answers that outlive us: what is about to be put on a ring is kept until the frontend can see it.
//!
//! An answer overwrites the request in whose place it stands. If this domain ends between that and the moment at which the ring's index shows the answers, the
//! requests are gone and seem unanswered: a successor would take answers for requests, copy from wherever they happen to point, and find extra slots where there are none. So a turn's
//! answers are kept together with the index at which they begin, before the first of them is written. A successor that finds the ring's index still there puts
//! them on itself, and no packet is copied twice; if the index is elsewhere they were shown, or never begun.

use alloc::vec::Vec;
use core::marker::PhantomData;

use unikernel_rt::{
    keep::{Found, Keep, KeepError, Record, Stored},
    ring::{BackRing, RingError},
    xenbus::DeviceId,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::ReceiveSlot;
use xen_abi::io::netif::NetifTxResponse;

/// Responses of one turn at most: a whole ring.
const MOST: usize = 256;
const INDEX: usize = size_of::<u32>();
const OWNER: u32 = u32::from_le_bytes(*b"vifo");
const TRANSMIT: u32 = u32::from_le_bytes(*b"vift");
const RECEIVE: u32 = u32::from_le_bytes(*b"vifr");
const VERSION: u16 = 1;

/// The answers on their way to one ring. Without a place to keep them (the default) they are as mortal as we are.
#[derive(Debug)]
pub struct Answers<P> {
    record: Option<Record>,
    last: Option<(u32, Vec<P>)>,
    types: PhantomData<P>,
}

impl<P> Default for Answers<P> {
    fn default() -> Self {
        Self {
            record: None,
            last: None,
            types: PhantomData,
        }
    }
}

impl<P: FromBytes + IntoBytes + Immutable> Answers<P> {
    const CAPACITY: usize = INDEX + MOST * size_of::<P>();

    fn open(keep: &Keep, name: &str, magic: u32) -> Result<Self, KeepError> {
        let area = keep.area(Record::length(Self::CAPACITY))?;
        let (record, found) = Record::open(area, name, magic, VERSION)?;
        let last = match found {
            Found::Bytes(bytes) => u32::read_from_prefix(&bytes).ok().map(|(start, rest)| {
                let answers = rest.chunks_exact(size_of::<P>());
                (
                    start,
                    answers
                        .filter_map(|bytes| P::read_from_bytes(bytes).ok())
                        .collect(),
                )
            }),
            _ => None,
        };
        Ok(Self {
            record: Some(record),
            last,
            types: PhantomData,
        })
    }

    fn clear(&mut self) {
        self.last = None;
        if let Some(record) = &mut self.record
            && let Err(error) = record.clear()
        {
            log::error!("answers are not kept: {error}");
            self.record = None;
        }
    }

    /// Puts a turn's answers on the ring. Answers whether the frontend wants to be notified.
    pub fn put<Q: FromBytes>(&mut self, ring: &mut BackRing<Q, P>, answers: &[P]) -> Result<bool, RingError> {
        if let Some(record) = &mut self.record {
            let mut bytes = Vec::with_capacity(INDEX + size_of_val(answers));
            bytes.extend_from_slice(&ring.answered().to_le_bytes());
            bytes.extend_from_slice(answers.as_bytes());
            if let Err(error) = record.store(&bytes) {
                log::error!("answers are not kept any more: {error}");
                self.record = None;
            }
        }
        answers.iter().try_for_each(|answer| ring.push(answer))?;
        ring.publish()
    }

    /// Puts on what a predecessor was about to, if it did not come to show it. The ring has just been taken over.
    pub fn resume<Q: FromBytes>(&mut self, ring: &mut BackRing<Q, P>) -> Result<usize, RingError> {
        let Some((start, answers)) = self.last.take() else {
            return Ok(0);
        };
        if start != ring.answered() || answers.len() > ring.available()? as usize {
            return Ok(0);
        }
        for answer in &answers {
            ring.pop()?;
            ring.push(answer)?;
        }
        // The frontend is notified in any case.
        let _ = ring.publish()?;
        Ok(answers.len())
    }
}

/// Whose answers a place holds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Owner {
    domain: u32,
    device: u32,
}

impl Owner {
    const NOBODY: Self = Self { domain: 0, device: 0 };

    fn of(id: &DeviceId) -> Self {
        Self {
            domain: id.peer.0.into(),
            device: id.index,
        }
    }
}

/// The place in the keep region of one interface's answers.
#[derive(Debug)]
pub struct Place {
    owner: Option<(Stored<Owner>, Owner)>,
    /// To the ring on which the domain sends.
    pub transmit: Answers<NetifTxResponse>,
    /// To the ring on which it receives.
    pub receive: Answers<ReceiveSlot>,
}

/// The places of all interfaces.
#[derive(Debug, Default)]
pub struct Places {
    free: Vec<Place>,
}

impl Places {
    /// As many as the keep region has room for.
    pub fn open(keep: &Keep) -> Self {
        let places = core::iter::from_fn(|| Place::open(keep).ok());
        Self {
            free: places.collect(),
        }
    }

    /// The place of an interface; `resume` if a predecessor served it, which may have left answers there.
    pub fn take(&mut self, id: &DeviceId, resume: bool) -> Place {
        let owner = Owner::of(id);
        let find = |wanted| {
            let of = |place: &Place| place.owner.as_ref().map(|(_, owner)| *owner);
            self.free.iter().position(|place| of(place) == Some(wanted))
        };
        let Some(index) = find(owner).or_else(|| find(Owner::NOBODY)) else {
            log::warn!("{id}: the keep region has no room for its answers; give this domain a larger `keep`");
            return Place::mortal();
        };
        let mut place = self.free.swap_remove(index);
        if !resume {
            place.transmit.clear();
            place.receive.clear();
        }
        place.claim(owner);
        place
    }

    /// An interface is gone.
    pub fn give_back(&mut self, mut place: Place) {
        place.transmit.clear();
        place.receive.clear();
        place.claim(Owner::NOBODY);
        if place.owner.is_some() {
            self.free.push(place);
        }
    }
}

impl Place {
    fn open(keep: &Keep) -> Result<Self, KeepError> {
        let (stored, found) = Stored::open(
            keep.area(Stored::<Owner>::LENGTH)?,
            "an interface's owner",
            OWNER,
            VERSION,
        )?;
        Ok(Self {
            owner: Some((stored, found.unwrap_or(Owner::NOBODY))),
            transmit: Answers::open(keep, "answers to sent packets", TRANSMIT)?,
            receive: Answers::open(keep, "answers to received packets", RECEIVE)?,
        })
    }

    /// Of an interface that there is no room for.
    pub fn mortal() -> Self {
        Self {
            owner: None,
            transmit: Answers::default(),
            receive: Answers::default(),
        }
    }

    fn claim(&mut self, owner: Owner) {
        if let Some((stored, known)) = &mut self.owner
            && *known != owner
        {
            *known = owner;
            if let Err(error) = stored.store(&owner) {
                log::error!("answers are not kept: {error}");
                *self = Self::mortal();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use unikernel_rt::{DomainId, memory::SharedMemory, ring::FrontRing};

    use super::*;

    type Front = FrontRing<[u8; 12], NetifTxResponse>;
    type Back = BackRing<[u8; 12], NetifTxResponse>;

    fn answer(id: u16) -> NetifTxResponse {
        NetifTxResponse { id, status: 0 }
    }

    fn ring(requests: u8) -> (SharedMemory, Front) {
        let memory = SharedMemory::allocate(1).unwrap();
        let mut front = Front::create(memory.clone()).unwrap();
        (0..requests).for_each(|request| front.push(&[request; 12]).unwrap());
        let _ = front.publish().unwrap();
        (memory, front)
    }

    fn id(domain: u16) -> DeviceId {
        DeviceId {
            peer: DomainId(domain),
            index: 0,
        }
    }

    fn places(keep: &Keep) -> Places {
        Places::open(&keep.next_life())
    }

    /// A life that takes all requests, and ends after it has kept its answers and written the first `written` of them.
    fn ends_after(keep: &Keep, memory: &SharedMemory, ids: &[u16], written: usize) {
        let mut place = places(keep).take(&id(7), true);
        let mut back = Back::attach(memory.clone()).unwrap();
        let answers: Vec<_> = ids.iter().map(|id| answer(*id)).collect();
        ids.iter().for_each(|_| assert!(back.pop().unwrap().is_some()));
        let mut scratch = Back::attach(ring(ids.len() as u8).0).unwrap();
        ids.iter().for_each(|_| assert!(scratch.pop().unwrap().is_some()));
        assert_eq!(scratch.answered(), back.answered());
        let _ = place.transmit.put(&mut scratch, &answers).unwrap();
        answers[..written]
            .iter()
            .for_each(|answer| back.push(answer).unwrap());
    }

    #[test]
    fn what_was_written_and_not_shown_is_shown_by_the_successor() {
        for written in 0..=3 {
            let keep = Keep::fake(4);
            let (memory, mut front) = ring(4);
            ends_after(&keep, &memory, &[30, 31, 32], written);
            let mut place = places(&keep).take(&id(7), true);
            let mut back = Back::attach(memory).unwrap();
            assert_eq!(place.transmit.resume(&mut back), Ok(3));
            let seen: Vec<_> = core::iter::from_fn(|| front.pop().unwrap()).collect();
            assert_eq!(seen, [answer(30), answer(31), answer(32)]);
            assert_eq!(back.pop(), Ok(Some([3; 12])), "the next one is a request still");
        }
    }

    #[test]
    fn what_was_shown_is_not_shown_again_nor_is_anything_of_another_connection() {
        let keep = Keep::fake(4);
        let (memory, _front) = ring(4);
        let mut place = places(&keep).take(&id(7), false);
        let mut back = Back::attach(memory.clone()).unwrap();
        for number in 0..2 {
            back.pop().unwrap();
            let _ = place.transmit.put(&mut back, &[answer(number)]).unwrap();
        }
        let mut next = places(&keep).take(&id(7), true);
        assert_eq!(next.transmit.resume(&mut Back::attach(memory).unwrap()), Ok(0));
        // As if the ring was where the last answer began.
        let (memory, _front) = ring(4);
        memory.store(12, 1).unwrap();
        let mut anew = places(&keep).take(&id(7), false);
        assert_eq!(
            anew.transmit.resume(&mut Back::attach(memory.clone()).unwrap()),
            Ok(0)
        );
        let mut other = places(&keep).take(&id(8), true);
        assert_eq!(other.transmit.resume(&mut Back::attach(memory).unwrap()), Ok(0));
    }

    #[test]
    fn more_answers_than_requests_are_not_believed() {
        let keep = Keep::fake(4);
        let (memory, _front) = ring(3);
        ends_after(&keep, &memory, &[1, 2, 3], 0);
        let (memory, _front) = ring(2);
        let mut place = places(&keep).take(&id(7), true);
        assert_eq!(place.transmit.resume(&mut Back::attach(memory).unwrap()), Ok(0));
    }

    #[test]
    fn places_are_found_again_and_given_back() {
        let keep = Keep::fake(4);
        let mut all = places(&keep);
        let count = all.free.len();
        assert!(count >= 2);
        let taken: Vec<Place> = (0..count)
            .map(|number| all.take(&id(number as u16 + 1), false))
            .collect();
        assert!(taken.iter().all(|place| place.owner.is_some()));
        assert!(all.take(&id(99), false).owner.is_none());
        // The next life's new interface does not take the place of one that is yet to be found.
        assert!(places(&keep).take(&id(99), false).owner.is_none());
        taken.into_iter().for_each(|place| all.give_back(place));
        assert_eq!(all.free.len(), count);
        assert!(places(&keep).take(&id(99), false).owner.is_some());
    }
}

//! What is about to be answered, in the keep region.
//!
//! A response overwrites the slot of its request, and becomes one by the index that is published afterwards. A domain that dies in between leaves slots that are
//! neither. So before the first slot of a batch is written the whole batch goes into a record: a successor that finds the ring's index at the record's
//! beginning puts the same responses into the same slots again, whatever is there, and publishes them. Where the index is behind the batch,
//! all of it was published; where the record is torn, no slot was touched yet, and the last batch before was published.
//!
//! A region that is corrupt, too small or not there costs this alone: requests without a published response are executed again as far as the slots still are
//! requests.

use alloc::{collections::BTreeMap, vec::Vec};

use unikernel_rt::{
    crc32,
    keep::{Found, Keep, Record},
    xenbus::DeviceId,
};
use xen_abi::io::blkif::BlkifResponse;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Responses that one record holds, and that are published together at most.
pub(super) const BATCH: usize = 64;
/// Connections that have a record at most.
const CONNECTIONS: usize = 64;
const MAGIC: u32 = u32::from_le_bytes(*b"blka");
const VERSION: u16 = 1;
const CAPACITY: usize = size_of::<Head>() + BATCH * size_of::<BlkifResponse>();

/// What stands before the responses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Head {
    /// The frontend's domain.
    peer: u16,
    _pad: u16,
    /// Its device.
    device: u32,
    /// Which ring of it, by [`ring_name`].
    ring: u32,
    /// The index of the first response.
    from: u32,
}

/// A batch that a predecessor was about to publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// The index of the first response.
    pub from: u32,
    /// The responses.
    pub responses: Vec<BlkifResponse>,
}

/// The record of one connection.
#[derive(Debug)]
pub(super) struct Answers {
    record: Record,
    head: Head,
    bytes: Vec<u8>,
}

impl Answers {
    /// Says what is going to be written into the slots from index `from` on: at most [`BATCH`] responses. An error means that it is not said.
    pub fn announce(&mut self, from: u32, responses: &[BlkifResponse]) {
        self.head.from = from;
        self.bytes.clear();
        self.bytes.extend_from_slice(self.head.as_bytes());
        self.bytes.extend_from_slice(responses.as_bytes());
        if let Err(error) = self.record.store(&self.bytes) {
            log::error!("a batch of {} responses is not kept: {error}", responses.len());
        }
    }
}

/// The records of all connections.
#[derive(Debug, Default)]
pub(super) struct AnswersPool {
    free: Vec<Record>,
    /// What predecessors left.
    left: BTreeMap<DeviceId, (Record, Head, Vec<BlkifResponse>)>,
}

impl AnswersPool {
    /// Takes what the region has room for.
    pub fn open(keep: &Keep) -> Self {
        let mut pool = Self::default();
        let mut unusable = 0;
        for _ in 0..CONNECTIONS {
            let Ok(area) = keep.area(Record::length(CAPACITY)) else {
                break;
            };
            match Record::open_one_of_many(area, MAGIC, VERSION) {
                Ok((record, found)) => {
                    unusable += u32::from(matches!(found, Found::Corrupt | Found::OtherVersion(..)));
                    pool.sort_in(record, found);
                }
                Err(error) => log::error!("{error}"),
            }
        }
        if unusable > 0 {
            log::warn!(
                "{unusable} records of the keep region are corrupt or of another version; what was being answered is taken from the rings alone"
            );
        }
        pool
    }

    fn sort_in(&mut self, record: Record, found: Found) {
        let Found::Bytes(bytes) = found else {
            self.free.push(record);
            return;
        };
        let Ok((head, rest)) = Head::read_from_prefix(&bytes) else {
            self.free.push(record);
            return;
        };
        let responses = rest
            .chunks_exact(size_of::<BlkifResponse>())
            .filter_map(|bytes| BlkifResponse::read_from_bytes(bytes).ok());
        let id = DeviceId {
            peer: unikernel_rt::DomainId(head.peer),
            index: head.device,
        };
        let earlier = self.left.insert(id, (record, head, responses.collect()));
        self.free.extend(earlier.map(|(record, ..)| record));
    }

    /// The record for a connection, and what its predecessor was about to publish on the same ring.
    pub fn take(&mut self, id: &DeviceId, ring: u32) -> (Option<Answers>, Option<Batch>) {
        let (record, batch) = match self.left.remove(id) {
            Some((record, head, responses)) => {
                let batch = Batch {
                    from: head.from,
                    responses,
                };
                (Some(record), Some(batch).filter(|_| head.ring == ring))
            }
            None => (
                self.free
                    .pop()
                    .or_else(|| self.left.pop_first().map(|(_, (record, ..))| record)),
                None,
            ),
        };
        if record.is_none() {
            log::warn!("{id}: the keep region has no room for its answers; give this domain a larger `keep`");
        }
        let answers = record.map(|record| Answers {
            record,
            head: Head {
                peer: id.peer.0,
                device: id.index,
                ring,
                ..Head::default()
            },
            bytes: Vec::with_capacity(CAPACITY),
        });
        (answers, batch)
    }

    /// The connection is over.
    pub fn give_back(&mut self, answers: Answers) {
        let mut record = answers.record;
        if let Err(error) = record.clear() {
            log::error!("{error}");
        }
        self.free.push(record);
    }
}

/// A number for a ring, by the references of its pages and its port: a frontend that connects anew has others, or the same ones for a ring whose record was made anew.
pub(super) fn ring_name(references: &[u32], port: u32) -> u32 {
    crc32::extend(crc32::checksum(references.as_bytes()), port.as_bytes())
}

//! A block device at work.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use thiserror::Error;
use unikernel_rt::memory::MemoryError;
use unikernel_rt::time::Instant;
use virtio_drivers::transport::{DeviceStatus, DeviceType, Transport};

use super::features::{Config, Features};
use super::queue::{DiscardRange, Header, Payload, Queue, Used};
use crate::device::carve::Limits;
use crate::device::transfer::{Part, Transfers};
use crate::device::{
    BlockDevice, Completion, IoError, Operation, Pause, Properties, Request, Segment, SubmitError, Tag,
};
use crate::log_limit::LogLimit;

/// The only queue that is used.
const QUEUE: u16 = 0;
/// Commands, as the header names them.
const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 4;
const DISCARD: u32 = 11;
/// Status bytes.
const OKAY: u8 = 0;
const UNSUPPORTED: u8 = 2;
/// How long a request may take, a reset may take, and how often the device is looked at in between.
const PATIENCE: Duration = Duration::from_secs(30);
const RESET_PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(100);
/// Resets without a completion in between after which the device is given up.
const MAX_RESETS: u32 = 3;

/// Why a device cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum VirtioError {
    /// Another kind of device.
    #[error("the device is a {0:?}, not a disk")]
    NotADisk(DeviceType),
    /// From before the standard.
    #[error("the device is of the time before virtio 1.0, which this driver does not speak")]
    Legacy,
    /// It refuses the features.
    #[error("the device does not accept the features {0:?}")]
    Features(Features),
    /// It does not reset.
    #[error("the device did not reset within {RESET_PATIENCE:?}")]
    Reset,
    /// Its queue is too short.
    #[error("the device's queue has {0} entries, which are too few")]
    Queue(u32),
    /// Blocks of an impossible size.
    #[error("the device's blocks have {0} bytes, and this driver knows 512 to 4096")]
    BlockSize(u32),
    /// No block, or more than can be counted.
    #[error("a disk of {0} sectors cannot be")]
    Capacity(u64),
    /// A bound that no block keeps.
    #[error("the device takes segments of {0} bytes, which are less than a block")]
    SegmentSize(u32),
    /// It fails again after every reset.
    #[error("it fails again after every reset")]
    Hopeless,
    /// The transport failed.
    #[error("the transport failed: {0}")]
    Transport(#[from] virtio_drivers::Error),
    /// Memory is short.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A request that the device has.
#[derive(Clone, Copy, Debug)]
struct Flight {
    part: Part,
    since: Instant,
}

/// A disk.
pub struct VirtioDisk<T: Transport> {
    name: String,
    transport: T,
    clock: Rc<dyn Pause>,
    /// Gives the queue its interrupt; called after every reset, before the queue is enabled.
    route_interrupt: Box<dyn FnMut()>,
    /// Takes the device's access to memory away.
    cut_off: Box<dyn Fn()>,
    queue: Queue,
    config: Config,
    flights: Vec<Option<Flight>>,
    free: Vec<u16>,
    transfers: Transfers,
    pieces: Vec<Segment>,
    out_of_order: bool,
    resets: u32,
    looked: Instant,
    log: LogLimit,
}

impl<T: Transport> VirtioDisk<T> {
    /// Starts a device.
    pub fn start(
        name: &str,
        mut transport: T,
        route_interrupt: Box<dyn FnMut()>,
        cut_off: Box<dyn Fn()>,
        clock: Rc<dyn Pause>,
    ) -> Result<Self, VirtioError> {
        if transport.device_type() != DeviceType::Block {
            return Err(VirtioError::NotADisk(transport.device_type()));
        }
        let features = negotiate(&mut transport, &*clock)?;
        let max_entries = transport.max_queue_size(QUEUE);
        let queue = Queue::allocate(max_entries, features.contains(Features::INDIRECT))?
            .ok_or(VirtioError::Queue(max_entries))?;
        let config = Config::read(&transport, features, queue.chain())?;
        log::info!(
            "{name}: queue of {}, {} requests of {} segments, features {features:?}",
            queue.entries(),
            queue.requests(),
            config.pieces
        );
        let mut disk = Self {
            name: name.into(),
            flights: alloc::vec![None; queue.requests().into()],
            free: (0..queue.requests()).rev().collect(),
            pieces: Vec::with_capacity(config.pieces),
            looked: clock.now(),
            transport,
            clock,
            route_interrupt,
            cut_off,
            queue,
            config,
            transfers: Transfers::default(),
            out_of_order: false,
            resets: 0,
            log: LogLimit::default(),
        };
        disk.enable();
        Ok(disk)
    }

    /// Gives the device its queue. The features were negotiated.
    fn enable(&mut self) {
        (self.route_interrupt)();
        let [descriptors, available, used] = self.queue.addresses();
        self.transport
            .queue_set(QUEUE, self.queue.entries().into(), descriptors, available, used);
        self.transport.finish_init();
    }

    fn restart(&mut self) -> Result<(), VirtioError> {
        negotiate(&mut self.transport, &*self.clock)?;
        self.queue.reset()?;
        self.enable();
        Ok(())
    }

    fn take_used(&mut self, now: Instant) -> bool {
        let mut progress = false;
        for _ in 0..self.queue.entries() {
            let Ok(Some(used)) = self.queue.pop() else { break };
            progress = true;
            let (flight, request, status) = match used {
                Used::Request(request, status) => (
                    self.flights.get_mut(usize::from(request)).and_then(Option::take),
                    u32::from(request),
                    status,
                ),
                Used::Unknown(id) => (None, id, 0),
            };
            let Some(flight) = flight else {
                let name = &self.name;
                self.log.warn(
                    now,
                    format_args!("{name} completed request {request}, which it was not given"),
                );
                continue;
            };
            self.free.push(request as u16);
            let Part {
                operation,
                first,
                sectors,
                transfer,
                ..
            } = flight.part;
            let result = match status {
                OKAY => {
                    self.resets = 0;
                    Ok(())
                }
                status => {
                    let name = &self.name;
                    self.log.warn(
                        now,
                        format_args!(
                            "{name}: {operation:?} of sectors {first}+{sectors} failed (status {status})"
                        ),
                    );
                    Err(if status == UNSUPPORTED {
                        IoError::Unsupported
                    } else {
                        IoError::Device
                    })
                }
            };
            self.transfers.part_done(transfer, result);
        }
        progress
    }

    fn issue(&mut self, now: Instant) {
        while let Some(&request) = self.free.last() {
            let config = self.config;
            let limits = |_| Limits {
                bytes: config.properties.max_transfer,
                pieces: config.pieces,
                piece_bytes: config.piece_bytes,
                page_list: false,
                block: config.properties.logical_block,
                discard_sectors: config.discard_sectors,
            };
            let Some(part) = self.transfers.next_part(limits, &mut self.pieces) else {
                break;
            };
            let (kind, sector, payload) = match part.operation {
                Operation::Read => (READ, part.first, Payload::FromDevice(&self.pieces)),
                Operation::Write => (WRITE, part.first, Payload::ToDevice(&self.pieces)),
                Operation::Flush => (FLUSH, 0, Payload::None),
                Operation::Discard => {
                    let range = DiscardRange {
                        sector: part.first,
                        sectors: part.sectors as u32,
                        flags: 0,
                    };
                    (DISCARD, 0, Payload::Range(range))
                }
            };
            match self.queue.add(
                request,
                &Header {
                    kind,
                    reserved: 0,
                    sector,
                },
                payload,
            ) {
                Ok(()) => {
                    self.free.pop();
                    self.flights[usize::from(request)] = Some(Flight { part, since: now });
                }
                Err(error) => {
                    log::error!("{}: {error}", self.name);
                    self.transfers.part_done(part.transfer, Err(IoError::Device));
                }
            }
        }
    }

    fn trouble(&self, now: Instant) -> Option<String> {
        if self
            .transport
            .get_status()
            .contains(DeviceStatus::DEVICE_NEEDS_RESET)
        {
            return Some("asks to be reset".into());
        }
        let late = self
            .flights
            .iter()
            .flatten()
            .find(|flight| now - flight.since >= PATIENCE)?;
        let Part { operation, first, .. } = late.part;
        Some(alloc::format!(
            "left a {operation:?} at sector {first} unanswered for {} s",
            PATIENCE.as_secs()
        ))
    }

    fn recover(&mut self, trouble: &str) {
        self.resets += 1;
        log::error!("{} {trouble}; it is reset", self.name);
        let outcome = if self.resets > MAX_RESETS {
            Err(VirtioError::Hopeless)
        } else {
            self.restart()
        };
        self.flights.fill(None);
        self.free = (0..self.queue.requests()).rev().collect();
        match outcome {
            Ok(()) => self.transfers.restart(),
            Err(error) => {
                log::error!("{} is given up: {error}", self.name);
                (self.cut_off)();
                self.out_of_order = true;
                self.transfers.fail_all(IoError::Gone);
            }
        }
    }
}

/// Resets a device and agrees with it on features.
fn negotiate<T: Transport>(transport: &mut T, clock: &dyn Pause) -> Result<Features, VirtioError> {
    transport.set_status(DeviceStatus::empty());
    let deadline = clock.now() + RESET_PATIENCE;
    while transport.get_status() != DeviceStatus::empty() {
        if clock.now() >= deadline {
            return Err(VirtioError::Reset);
        }
        clock.pause(Duration::from_micros(100));
    }
    let features = transport.begin_init(Features::all());
    if !features.contains(Features::VERSION_1) {
        return Err(VirtioError::Legacy);
    }
    if !transport.get_status().contains(DeviceStatus::FEATURES_OK) {
        return Err(VirtioError::Features(features));
    }
    Ok(features)
}

impl<T: Transport> BlockDevice for VirtioDisk<T> {
    fn properties(&self) -> &Properties {
        &self.config.properties
    }

    fn submit(&mut self, request: &Request<'_>, tag: Tag, now: Instant) -> Result<(), SubmitError> {
        self.config.properties.check(request)?;
        if self.out_of_order {
            return Err(IoError::Gone.into());
        }
        self.transfers.begin(request, 0, tag)?;
        self.issue(now);
        Ok(())
    }

    fn kick(&mut self) {
        if !self.out_of_order && self.queue.needs_notify().unwrap_or(true) {
            self.transport.notify(QUEUE);
        }
    }

    fn poll(&mut self, now: Instant, completions: &mut Vec<Completion>) {
        if !self.out_of_order {
            if self.take_used(now) {
                self.looked = now;
            } else if self.transfers.outstanding() > 0 && now - self.looked >= LOOK {
                self.looked = now;
                if let Some(trouble) = self.trouble(now) {
                    self.recover(&trouble);
                }
            }
            self.issue(now);
            self.kick();
        }
        self.transfers.take_finished(0, completions);
    }

    fn outstanding(&self) -> usize {
        self.transfers.outstanding()
    }
}

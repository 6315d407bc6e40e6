//! Reading a few blocks and waiting for them: for partition tables, while nothing else is under way on the disk.

use alloc::vec::Vec;
use core::time::Duration;

use unikernel_rt::dma::DmaBuffer;

use super::{BlockDevice, IoError, Operation, Pause, Request, SECTOR, Segment, SubmitError, Tag};

/// A device resets itself if it must before this is over.
const PATIENCE: Duration = Duration::from_secs(120);
/// Nobody else uses it: the backend's tags begin with the number of a connection.
const TAG: Tag = Tag(u64::MAX);

/// Reads `sectors` into the start of a buffer, and waits for it.
pub fn read(
    device: &mut dyn BlockDevice,
    clock: &dyn Pause,
    first: u64,
    sectors: u32,
    buffer: &DmaBuffer,
) -> Result<(), IoError> {
    let length = sectors * SECTOR as u32;
    if length as usize > buffer.len() {
        return Err(IoError::Length {
            bytes: buffer.len() as u64,
            sectors: sectors.into(),
        });
    }
    let segments = [Segment {
        address: buffer.bus_address(),
        length,
    }];
    let request = Request {
        operation: Operation::Read,
        first,
        sectors: sectors.into(),
        segments: &segments,
    };
    match device.submit(&request, TAG, clock.now()) {
        Ok(()) => {}
        Err(SubmitError::Refused(error)) => return Err(error),
        Err(SubmitError::Full) => return Err(IoError::Device),
    }
    device.kick();
    let deadline = clock.now() + PATIENCE;
    let mut completions = Vec::new();
    while clock.now() < deadline {
        device.poll(clock.now(), &mut completions);
        if let Some(completion) = completions.iter().find(|completion| completion.tag == TAG) {
            return completion.result;
        }
        clock.pause(Duration::from_micros(50));
    }
    Err(IoError::Gone)
}

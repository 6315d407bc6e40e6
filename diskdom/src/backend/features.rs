//! What a frontend can read of a volume before it connects, as Linux's backend has it.
//!
//! `sectors` counts units of 512 bytes whatever `sector-size` says, as do the sectors of requests: so do Linux's
//! front- and backend.

use unikernel_rt::xenbus::Device;
use unikernel_rt::xenstore::StoreError;
use xen_abi::io::blkif::VDISK_READONLY;

use super::connect::MAX_RING_ORDER;
use super::request::MAX_INDIRECT_SEGMENTS;
use crate::device::Properties;

/// Writes the nodes.
pub(super) fn publish(device: &Device, volume: &Properties) -> Result<(), StoreError> {
    let cache = u32::from(volume.volatile_cache && !volume.read_only);
    let wanted = device
        .read_optional("discard-enable")?
        .is_none_or(|value| value.trim() != "0");
    let discard = volume.discard.filter(|_| wanted && !volume.read_only);
    device.write("max-ring-page-order", MAX_RING_ORDER)?;
    device.write("multi-queue-max-queues", 1)?;
    device.write("feature-max-indirect-segments", MAX_INDIRECT_SEGMENTS)?;
    device.write("feature-persistent", 1)?;
    device.write("feature-flush-cache", cache)?;
    device.write("feature-barrier", cache)?;
    device.write("feature-discard", u32::from(discard.is_some()))?;
    if let Some(limits) = discard {
        device.write("discard-granularity", limits.granularity)?;
        device.write("discard-alignment", limits.alignment)?;
        device.write("discard-secure", 0)?;
    }
    device.write("info", if volume.read_only { VDISK_READONLY } else { 0 })?;
    device.write("sector-size", volume.logical_block)?;
    device.write("physical-sector-size", volume.physical_block)?;
    device.write("sectors", volume.sectors)
}

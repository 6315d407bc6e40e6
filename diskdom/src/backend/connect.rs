//! Connecting to a frontend: reading what it wrote, mapping its ring, binding its event channel.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use unikernel_rt::event::{Channel, Events};
use unikernel_rt::grant::{Access, GrantRef, Grants, MapRequest};
use unikernel_rt::ring::BackRing;
use unikernel_rt::xenbus::{Attach, Device, DeviceError, DeviceId};
use xen_abi::io::blkif::{BlkifRequest, BlkifResponse};
use xen_abi::io::protocols::{XEN_IO_PROTO_ABI_NATIVE, XEN_IO_PROTO_ABI_X86_64};

use super::Connection;
use super::answers::{AnswersPool, Batch, ring_name};
use crate::volume::Volume;

/// The largest ring: 1 << 4 pages, 512 requests.
pub(super) const MAX_RING_ORDER: u32 = 4;

/// Connects.
pub(super) fn connect(
    device: &Device,
    volume: Volume,
    number: u32,
    events: &Events,
    grants: &Rc<dyn Grants>,
    pool: &mut AnswersPool,
    attach: Attach,
) -> Result<Connection, DeviceError> {
    let protocol: Option<String> = device.read_peer_optional("protocol")?;
    if let Some(protocol) = protocol
        && protocol != XEN_IO_PROTO_ABI_NATIVE
        && protocol != XEN_IO_PROTO_ABI_X86_64
    {
        return Err(DeviceError::other(format!(
            "the frontend speaks the protocol {protocol:?}, and this backend {XEN_IO_PROTO_ABI_X86_64}"
        )));
    }
    if let Some(queues @ 2..) = device.read_peer_optional::<u32>("multi-queue-num-queues")? {
        return Err(DeviceError::other(format!(
            "the frontend wants {queues} queues, and was offered one"
        )));
    }
    let references = ring_references(device)?;
    let requests: Vec<MapRequest> = references
        .iter()
        .map(|&reference| MapRequest {
            domain: device.id.peer,
            reference,
            access: Access::ReadWrite,
            device: false,
        })
        .collect();
    let mut ring = BackRing::attach(grants.map(&requests)?.memory().clone())?;
    let port = device.peer_port("event-channel")?;
    let channel = Channel::bind_interdomain(events, device.id.peer, port)?;
    let persistent = device.peer_has("feature-persistent")?;
    log::info!(
        "{}: a ring of {} requests{}, {} sectors",
        device.id,
        ring.capacity(),
        if persistent { ", persistent grants" } else { "" },
        volume.properties.sectors
    );
    let references: Vec<u32> = references.iter().map(|reference| reference.0).collect();
    let (mut answers, batch) = pool.take(&device.id, ring_name(&references, port.0));
    if let Some(batch) = batch.filter(|_| attach == Attach::Resume) {
        finish(&mut ring, &batch, &device.id)?;
    } else if let Some(answers) = &mut answers {
        // From here on the record is of this ring, whatever one with the same name left.
        answers.announce(ring.answered(), &[]);
    }
    Connection::new(
        device.id.clone(),
        number,
        volume,
        ring,
        channel,
        grants.clone(),
        persistent,
        answers,
    )
}

/// Publishes what a predecessor was about to publish, if it did not.
fn finish(
    ring: &mut BackRing<BlkifRequest, BlkifResponse>,
    batch: &Batch,
    id: &DeviceId,
) -> Result<(), DeviceError> {
    let published = ring.answered().wrapping_sub(batch.from) as usize;
    let Some(left @ [_, ..]) = batch.responses.get(published..) else {
        return Ok(());
    };
    ring.skip_to(ring.answered().wrapping_add(left.len() as u32))?;
    for response in left {
        ring.push(response)?;
    }
    // The frontend is notified in any case.
    let _ = ring.publish()?;
    log::info!("{id}: {} responses of the last life are published", left.len());
    Ok(())
}

/// The references of the ring's pages. One page is called `ring-ref`, several `ring-ref0` and so on.
fn ring_references(device: &Device) -> Result<Vec<GrantRef>, DeviceError> {
    let order: u32 = device.read_peer_optional("ring-page-order")?.unwrap_or(0);
    if order > MAX_RING_ORDER {
        return Err(DeviceError::other(format!(
            "the frontend's ring has 2^{order} pages, and at most 2^{MAX_RING_ORDER} were offered"
        )));
    }
    if order == 0
        && let Some(reference) = device.read_peer_optional("ring-ref")?
    {
        return Ok(alloc::vec![GrantRef(reference)]);
    }
    (0..1 << order)
        .map(|page| Ok(device.peer_grant(&format!("ring-ref{page}"))?))
        .collect()
}

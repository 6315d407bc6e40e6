//! Connecting to a frontend: reading what it wrote, mapping its ring, binding its event channel.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use unikernel_rt::event::{Channel, Events};
use unikernel_rt::grant::{Access, GrantRef, Grants, MapRequest};
use unikernel_rt::ring::BackRing;
use unikernel_rt::xenbus::{Device, DeviceError};
use xen_abi::io::protocols::{XEN_IO_PROTO_ABI_NATIVE, XEN_IO_PROTO_ABI_X86_64};

use super::Connection;
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
    let requests: Vec<MapRequest> = ring_references(device)?
        .into_iter()
        .map(|reference| MapRequest {
            domain: device.id.peer,
            reference,
            access: Access::ReadWrite,
            device: false,
        })
        .collect();
    let ring = BackRing::attach(grants.map(&requests)?.memory().clone())?;
    let channel = Channel::bind_interdomain(events, device.id.peer, device.peer_port("event-channel")?)?;
    let persistent = device.peer_has("feature-persistent")?;
    log::info!(
        "{}: a ring of {} requests{}, {} sectors",
        device.id,
        ring.capacity(),
        if persistent { ", persistent grants" } else { "" },
        volume.properties.sectors
    );
    Connection::new(
        device.id.clone(),
        number,
        volume,
        ring,
        channel,
        grants.clone(),
        persistent,
    )
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

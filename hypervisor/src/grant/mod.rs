//! Grants: what a domain lets others map and copy, and what it has mapped of theirs.

use crate::{Hypervisor, domain::DomainId, errno::Errno, memory::Frame};

/// The grants of a domain and its maps of others' grants.
#[derive(Default)]
pub struct GrantTable {}

/// Frames of destroyed domains that others still have mapped.
#[derive(Default)]
pub struct HeldFrames {}

/// Fills an entry of a new domain's table: `to` may map the guest frame `frame` for writing. Makes the table's first page if need be.
pub fn offer(
    _hv: &mut Hypervisor,
    _domain: DomainId,
    _reference: u32,
    _to: DomainId,
    _frame: u64,
) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

/// Unwinds everything between a domain and the others: its maps of their pages are taken down, the pages that they have mapped of its are
/// held back until they let go (see [`free_frames`]), and the frames of its table are freed. Call it before the domain's body goes.
pub fn release_all(_hv: &mut Hypervisor, _domain: DomainId) {}

/// Gives frames of a domain back to the allocator, after [`release_all`]: at once those that nobody has mapped, the others when the last map goes.
pub fn free_frames(hv: &mut Hypervisor, first: Frame, count: u64) {
    hv.frames.free(first, count);
}

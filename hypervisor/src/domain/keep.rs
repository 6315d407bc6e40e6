//! The keep region of a domain: a few pages that it finds again in its next life, as it left them. Everything else of a life is built anew from the pristine
//! image.
//!
//! The pages belong to the domain as the manifest names it, not to one of its lives: they are taken and zeroed when it is built for the first time, and never given back.
//! In its memory they are pages of the hypervisor ([`PageKind::Special`]), so they can neither be granted nor given back, and no device reaches them. Nothing
//! in them is believed here; the domain checks what it finds.

use alloc::vec::Vec;

use super::{DomainId, layout};
use crate::{
    Hypervisor,
    memory::{Frame, GuestAddress, Mapping, OutOfMemory, P2m, PAGE_SIZE, PageKind},
};

/// A domain's keep region.
#[derive(Default)]
pub struct Keep {
    frames: Vec<Frame>,
    /// The next life finds it garbled, by this seed.
    garble: Option<u64>,
}

impl Keep {
    /// How many pages it has; none before the domain is built for the first time.
    pub fn pages(&self) -> u64 {
        self.frames.len() as u64
    }

    /// Has the next life find it garbled.
    pub fn garble_next(&mut self, seed: u64) {
        self.garble = Some(seed);
    }
}

/// Takes and zeroes the pages that the manifest gives the domain, unless it has them.
pub(super) fn provide(hv: &mut Hypervisor, id: DomainId) -> Result<(), OutOfMemory> {
    let Some(domain) = hv.domains.get_mut(&id) else {
        return Ok(());
    };
    let wanted = domain.spec.keep.min(manifest::MOST_KEEP) / PAGE_SIZE;
    while domain.keep.pages() < wanted {
        let frame = hv.frames.allocate_zeroed(&hv.memory).ok_or(OutOfMemory)?;
        domain.keep.frames.push(frame);
    }
    Ok(())
}

/// Puts the region into the memory of a life that begins.
pub(super) fn map(hv: &mut Hypervisor, id: DomainId, p2m: &mut P2m) -> Result<(), OutOfMemory> {
    let Some(domain) = hv.domains.get_mut(&id) else {
        return Ok(());
    };
    for (page, &machine) in domain.keep.frames.iter().enumerate() {
        let at = GuestAddress(layout::KEEP.0 + page as u64 * PAGE_SIZE);
        let mapping = Mapping {
            machine,
            writable: true,
            kind: PageKind::Special,
        };
        p2m.map(&hv.memory, &mut hv.frames, at, mapping)?;
    }
    if let Some(mut seed) = domain.keep.garble.take() {
        log::warn!(
            "{} finds its keep region garbled, as was asked for",
            domain.spec.name
        );
        // One byte of each line of 64 becomes another one: nothing of any length stays whole, and lengths and indices become absurd.
        for &frame in &domain.keep.frames {
            for line in 0..PAGE_SIZE / 64 {
                seed = next(seed);
                let at = crate::memory::MachineAddress(frame.address().0 + line * 64 + (seed >> 8) % 64);
                let mut byte = [0];
                hv.memory.read(at, &mut byte);
                hv.memory.write(at, &[byte[0] ^ (seed as u8 | 1)]);
            }
        }
    }
    Ok(())
}

/// Zeroes it.
pub fn discard(hv: &Hypervisor, id: DomainId) {
    let frames = hv.domain(id).map_or(&[][..], |domain| &domain.keep.frames);
    for frame in frames {
        hv.memory.zero(frame.address(), PAGE_SIZE as usize);
    }
}

/// The next of a row of numbers without a pattern that matters here (xorshift).
fn next(seed: u64) -> u64 {
    let mut next = seed | 1 << 63;
    next ^= next << 13;
    next ^= next >> 7;
    next ^ next << 17
}

//! The memory of a domain in the making: allocated, then zeroed and filled piece by piece.

use alloc::{collections::VecDeque, vec::Vec};

use super::{Failure, PIECE};
use crate::{
    Hypervisor,
    guest::pvh,
    memory::{Frame, GuestAddress, MachineAddress, Mapping, P2m, PAGE_SIZE, PageKind},
};

/// Frames that are allocated in one piece at most, where memory need not be contiguous.
const RUN: u64 = (64 << 20) / PAGE_SIZE;
/// Frames in 1 GiB, for which a piece is looked for where the domain's memory has such a page.
const GIANT_PAGE: u64 = (1 << 30) / PAGE_SIZE;
/// Small pages in a large one.
pub(super) const LARGE_PAGE: u64 = 512;

/// Its memory, and what is still to be done in it.
pub(super) struct Memory {
    pub(super) p2m: P2m,
    pub(super) contiguous_base: Option<MachineAddress>,
    pub(super) pages: u64,
    pub(super) map: pvh::MemoryMap,
    pub(super) kernel: pvh::Kernel,
    pub(super) modules: Vec<pvh::Module>,
    pub(super) to_zero: VecDeque<(MachineAddress, u64)>,
    pub(super) to_copy: VecDeque<(GuestAddress, &'static [u8])>,
}

impl Memory {
    /// Backs the memory map's RAM with frames.
    pub(super) fn allocate(
        &mut self,
        hv: &mut Hypervisor,
        contiguous: bool,
        mebibytes: u64,
    ) -> Result<(), Failure> {
        let ranges: Vec<(GuestAddress, u64)> = self.map.ram().collect();
        for (start, length) in ranges {
            let mut at = start.frame_number();
            let end = at + length / PAGE_SIZE;
            if contiguous && (start.0 != 0 || length / PAGE_SIZE != self.pages) {
                return Err(Failure::Contiguous(mebibytes));
            }
            let mut run = if contiguous { end - at } else { GIANT_PAGE };
            while at < end {
                let giant = at.is_multiple_of(GIANT_PAGE) && end - at >= GIANT_PAGE;
                if !contiguous && !giant {
                    run = run.min(RUN);
                }
                let count = run.min(end - at);
                let align = match count {
                    GIANT_PAGE if giant => GIANT_PAGE,
                    LARGE_PAGE.. => LARGE_PAGE,
                    _ => 1,
                };
                let Some(first) = hv.frames.allocate_contiguous(count, align) else {
                    if contiguous {
                        return Err(Failure::Contiguous(mebibytes));
                    }
                    if count == 1 {
                        return Err(Failure::Memory(mebibytes, hv.frames.free_pages() >> 8));
                    }
                    run = count / 2;
                    continue;
                };
                let mapping = Mapping {
                    machine: first,
                    writable: true,
                    kind: PageKind::Ram,
                };
                let guest = GuestAddress::of_frame(at);
                if let Err(error) = self
                    .p2m
                    .map_range(&hv.memory, &mut hv.frames, guest, count, mapping)
                {
                    // Pages that did get mapped are given back through the p2m, the others here.
                    for page in 0..count {
                        if self
                            .p2m
                            .translate(&hv.memory, GuestAddress::of_frame(at + page))
                            .is_none()
                        {
                            hv.frames.free(Frame(first.0 + page), 1);
                        }
                    }
                    return Err(error.into());
                }
                if contiguous {
                    self.contiguous_base = Some(first.address());
                }
                self.note_dirty(hv, first, count);
                at += count;
                if !contiguous && run == RUN {
                    run = GIANT_PAGE;
                }
            }
        }
        Ok(())
    }

    /// Notes down what of a new run has to be zeroed.
    fn note_dirty(&mut self, hv: &Hypervisor, first: Frame, count: u64) {
        let mut dirty: Option<(Frame, u64)> = None;
        for frame in (first.0..first.0 + count).map(Frame) {
            if hv.frames.was_clean(frame) {
                continue;
            }
            dirty = match dirty {
                Some((start, length)) if start.0 + length == frame.0 => Some((start, length + 1)),
                other => {
                    self.to_zero
                        .extend(other.map(|(start, length)| (start.address(), length * PAGE_SIZE)));
                    Some((frame, 1))
                }
            };
        }
        self.to_zero
            .extend(dirty.map(|(start, length)| (start.address(), length * PAGE_SIZE)));
    }

    /// Zeroes or copies the next piece; false if nothing is left.
    pub(super) fn fill(&mut self, hv: &mut Hypervisor) -> bool {
        let mut left = PIECE as u64;
        while left > 0
            && let Some((start, length)) = self.to_zero.front_mut()
        {
            let now = (*length).min(left);
            hv.memory.zero(*start, now as usize);
            (start.0, *length, left) = (start.0 + now, *length - now, left - now);
            if *length == 0 {
                self.to_zero.pop_front();
            }
        }
        if left < PIECE as u64 {
            return true;
        }
        let Some((at, bytes)) = self.to_copy.front().copied() else {
            return false;
        };
        let (now, later) = bytes.split_at(bytes.len().min(PIECE));
        self.write(hv, at, now);
        if later.is_empty() {
            self.to_copy.pop_front();
        } else {
            self.to_copy[0] = (GuestAddress(at.0 + now.len() as u64), later);
        }
        true
    }

    /// Writes into the domain's memory; what lies outside was refused by the layout.
    pub(super) fn write(&self, hv: &Hypervisor, at: GuestAddress, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let here = GuestAddress(at.0 + done as u64);
            let part = (bytes.len() - done).min((PAGE_SIZE - here.page_offset()) as usize);
            if let Some(machine) = self.p2m.machine_address(&hv.memory, here, true) {
                hv.memory.write(machine, &bytes[done..done + part]);
            }
            done += part;
        }
    }

    /// Gives everything back.
    pub(super) fn release(self, hv: &mut Hypervisor) {
        self.p2m.for_each(&hv.memory, |_, mapping, count| {
            if mapping.kind == PageKind::Ram {
                hv.frames.free(mapping.machine, count);
            }
        });
        self.p2m.release(&hv.memory, &mut hv.frames);
    }
}

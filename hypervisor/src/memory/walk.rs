//! How a guest's virtual address becomes memory: its own page tables first, then its second stage; and the copies in and out that hypercalls
//! are made of.
//!
//! A guest pointer is an allegation: it is walked with the rights that the guest's kernel has there. A copy that meets a page that is absent, forbidden
//! or not memory fails; what it has copied until then stays copied.
//!
//! What was walked during a hypercall is remembered until its end ([`Walks`]), as a processor remembers translations until it is told otherwise: no guest
//! can have told the vCPU meanwhile. The second stage is asked anew each time.

use core::{cell::Cell, marker::PhantomData, sync::atomic::Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{DirectMap, GuestAddress, GuestVirtual, MachineAddress, P2m, PAGE_SIZE};
use crate::{errno::Errno, virt::Paging};

/// A guest page cannot be reached; hypercalls answer it as `EFAULT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

impl From<Fault> for Errno {
    fn from(_: Fault) -> Self {
        Self::FAULT
    }
}

/// What an access wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Write.
    pub write: bool,
    /// Fetch an instruction.
    pub fetch: bool,
    /// With the rights of user mode.
    pub user: bool,
}

impl Access {
    /// A read by the guest's kernel.
    pub const READ: Self = Self {
        write: false,
        fetch: false,
        user: false,
    };
    /// A write by the guest's kernel.
    pub const WRITE: Self = Self {
        write: true,
        ..Self::READ
    };
    /// An instruction fetch by the guest's kernel.
    pub const FETCH: Self = Self {
        fetch: true,
        ..Self::READ
    };
}

/// A guest's claim that a `T` is at an address of its own.
#[derive(Debug)]
pub struct GuestPointer<T> {
    address: u64,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for GuestPointer<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for GuestPointer<T> {}

impl<T> GuestPointer<T> {
    /// A pointer as a register or a structure carried it.
    pub const fn new(address: u64) -> Self {
        Self {
            address,
            kind: PhantomData,
        }
    }

    /// Its address.
    pub const fn address(self) -> GuestVirtual {
        GuestVirtual(self.address)
    }

    /// The element at `index` of the array that it points to.
    pub fn element(self, index: u64) -> Result<Self, Fault> {
        let offset = index.checked_mul(size_of::<T>() as u64).ok_or(Fault)?;
        self.address.checked_add(offset).map(Self::new).ok_or(Fault)
    }
}

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const CR0_WRITE_PROTECT: u64 = 1 << 16;
const CR0_PAGING: u64 = 1 << 31;
const CR4_PAGE_SIZE_EXTENSIONS: u64 = 1 << 4;
const CR4_PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
const CR4_FIVE_LEVELS: u64 = 1 << 12;
const EFER_LONG_MODE_ACTIVE: u64 = 1 << 10;
const EFER_NO_EXECUTE: u64 = 1 << 11;

/// Pages that the kernel of one vCPU reached during its hypercall, and where they were.
#[derive(Default)]
pub struct Walks {
    /// Page with [`KNOWN`] and [`WRITES`] in its low bits, and the guest-physical page.
    pages: [Cell<(u64, u64)>; WALKS],
    next: Cell<usize>,
}

const WALKS: usize = 4;
const KNOWN: u64 = 1;
/// A write needs no other walk: it is allowed, and all marks are set.
const WRITES: u64 = 2;

impl Walks {
    /// Forgets everything.
    pub fn forget(&self) {
        self.pages.iter().for_each(|page| page.set((0, 0)));
    }

    fn find(&self, page: u64, write: bool) -> Option<u64> {
        self.pages.iter().map(Cell::get).find_map(|(known, physical)| {
            let same = known & !WRITES == page | KNOWN && (known & WRITES != 0 || !write);
            same.then_some(physical)
        })
    }

    fn note(&self, page: u64, physical: u64, writes: bool) {
        let next = self.next.get();
        self.pages[next].set((page | KNOWN | if writes { WRITES } else { 0 }, physical));
        self.next.set((next + 1) % WALKS);
    }
}

/// A guest's virtual address space at this moment.
#[derive(Clone, Copy)]
pub struct GuestSpace<'a> {
    memory: &'a DirectMap,
    p2m: &'a P2m,
    paging: Paging,
    walks: Option<&'a Walks>,
}

/// Where a walk ended.
struct Walked {
    at: GuestAddress,
    /// The kernel may write there, and the page is marked as written.
    writes: bool,
}

/// One entry of a guest's page tables and where it is.
struct Entry {
    value: u64,
    at: GuestAddress,
    wide: bool,
}

impl<'a> GuestSpace<'a> {
    /// The address space of a vCPU in this mode.
    pub const fn new(memory: &'a DirectMap, p2m: &'a P2m, paging: Paging) -> Self {
        Self {
            memory,
            p2m,
            paging,
            walks: None,
        }
    }

    /// The same, with what was walked since the hypercall began.
    pub const fn remembering(self, walks: Option<&'a Walks>) -> Self {
        Self { walks, ..self }
    }

    /// Where the guest's page tables say that an address is. Sets accessed and dirty bits as the processor would.
    pub fn translate(&self, address: GuestVirtual, access: Access) -> Result<GuestAddress, Fault> {
        self.walk(address, access).map(|walked| walked.at)
    }

    fn walk(&self, address: GuestVirtual, access: Access) -> Result<Walked, Fault> {
        let Paging {
            cr0, cr3, cr4, efer, ..
        } = self.paging;
        if cr0 & CR0_PAGING == 0 {
            return Ok(Walked {
                at: GuestAddress(address.0 & 0xffff_ffff),
                writes: true,
            });
        }
        if efer & EFER_LONG_MODE_ACTIVE != 0 {
            let levels = if cr4 & CR4_FIVE_LEVELS != 0 { 5 } else { 4 };
            let unused = 64 - (12 + 9 * levels);
            if ((address.0 << unused) as i64 >> unused) as u64 != address.0 {
                return Err(Fault);
            }
            self.descend(cr3 & ADDRESS, levels, address.0, access, true)
        } else if address.0 > 0xffff_ffff {
            Err(Fault)
        } else if cr4 & CR4_PHYSICAL_ADDRESS_EXTENSION != 0 {
            // The four top entries have no rights of their own.
            let top = self.entry((cr3 & 0xffff_ffe0) + (address.0 >> 30) * 8, true)?;
            if top.value & PRESENT == 0 {
                return Err(Fault);
            }
            self.descend(top.value & ADDRESS, 2, address.0, access, true)
        } else {
            self.descend(cr3 & 0xffff_f000, 2, address.0, access, false)
        }
    }

    /// Walks `levels` tables from `table`; `wide` entries have eight bytes, the others four.
    fn descend(
        &self,
        mut table: u64,
        levels: u32,
        address: u64,
        access: Access,
        wide: bool,
    ) -> Result<Walked, Fault> {
        let (index_bits, size) = if wide { (9, 8) } else { (10, 4) };
        let mut rights = WRITABLE | USER;
        let mut executable = true;
        for level in (1..=levels).rev() {
            let shift = 12 + index_bits * (level - 1);
            let index = address >> shift & ((1 << index_bits) - 1);
            let entry = self.entry(table + index * size, wide)?;
            if entry.value & PRESENT == 0 {
                return Err(Fault);
            }
            rights &= entry.value;
            executable &= !(wide && self.paging.efer & EFER_NO_EXECUTE != 0 && entry.value & NO_EXECUTE != 0);
            let large = level > 1
                && entry.value & LARGE != 0
                && (wide || self.paging.cr4 & CR4_PAGE_SIZE_EXTENSIONS != 0);
            if level > 1 && !large {
                self.mark(&entry, ACCESSED);
                table = entry.value & ADDRESS;
                continue;
            }
            if level > 3 {
                return Err(Fault); // No page is that large.
            }
            let write_protected = access.user || self.paging.cr0 & CR0_WRITE_PROTECT != 0;
            let refused = access.user && rights & USER == 0
                || access.write && write_protected && rights & WRITABLE == 0
                || access.fetch && !executable;
            if refused {
                return Err(Fault);
            }
            self.mark(&entry, if access.write { ACCESSED | DIRTY } else { ACCESSED });
            let offset = (1 << shift) - 1;
            // A 4 MiB page keeps address bits 32 to 39 in its bits 13 to 20.
            let high = if wide || level == 1 {
                0
            } else {
                (entry.value >> 13 & 0xff) << 32
            };
            let dirty = access.write || entry.value & DIRTY != 0;
            return Ok(Walked {
                at: GuestAddress(entry.value & ADDRESS & !offset | high | address & offset),
                writes: dirty && (rights & WRITABLE != 0 || self.paging.cr0 & CR0_WRITE_PROTECT == 0),
            });
        }
        Err(Fault)
    }

    fn entry(&self, at: u64, wide: bool) -> Result<Entry, Fault> {
        let at = GuestAddress(at);
        let machine = self.p2m.machine_address(self.memory, at, false).ok_or(Fault)?;
        let value = if wide {
            self.memory.atomic_u64(machine).load(Ordering::Acquire)
        } else {
            self.memory.atomic_u32(machine).load(Ordering::Acquire).into()
        };
        Ok(Entry { value, at, wide })
    }

    /// Sets bits in an entry unless the guest has changed it since it was read.
    fn mark(&self, entry: &Entry, bits: u64) {
        let (old, new) = (entry.value, entry.value | bits);
        if old == new {
            return;
        }
        let Some(machine) = self.p2m.machine_address(self.memory, entry.at, true) else {
            return;
        };
        let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
        let _ = if entry.wide {
            self.memory
                .atomic_u64(machine)
                .compare_exchange(old, new, success, failure)
                .is_ok()
        } else {
            let word = self.memory.atomic_u32(machine);
            word.compare_exchange(old as u32, new as u32, success, failure)
                .is_ok()
        };
    }

    /// The memory behind an address, for an access up to the end of its page.
    pub fn backing(&self, at: GuestVirtual, access: Access) -> Result<MachineAddress, Fault> {
        let page = at.0 & !(PAGE_SIZE - 1);
        let walks = self.walks.filter(|_| !access.user && !access.fetch);
        let physical = match walks.and_then(|walks| walks.find(page, access.write)) {
            Some(physical) => GuestAddress(physical | (at.0 % PAGE_SIZE)),
            None => {
                let walked = self.walk(at, access)?;
                if let Some(walks) = walks {
                    walks.note(page, walked.at.0 & !(PAGE_SIZE - 1), walked.writes);
                }
                walked.at
            }
        };
        self.p2m
            .machine_address(self.memory, physical, access.write)
            .ok_or(Fault)
    }

    /// Calls `copy` for each page's part of a range: where it is, and which bytes of the whole they are.
    fn pieces(
        &self,
        at: GuestVirtual,
        length: usize,
        access: Access,
        mut copy: impl FnMut(MachineAddress, core::ops::Range<usize>),
    ) -> Result<(), Fault> {
        let mut done = 0;
        while done < length {
            let here = at.0.checked_add(done as u64).ok_or(Fault)?;
            let in_page = (PAGE_SIZE - here % PAGE_SIZE) as usize;
            let end = length.min(done + in_page);
            copy(self.backing(GuestVirtual(here), access)?, done..end);
            done = end;
        }
        Ok(())
    }

    /// Copies bytes out of the guest, with the rights of its kernel.
    pub fn read_bytes(&self, at: GuestVirtual, into: &mut [u8]) -> Result<(), Fault> {
        self.pieces(at, into.len(), Access::READ, |machine, range| {
            self.memory.read(machine, &mut into[range])
        })
    }

    /// Copies bytes to be executed, as far as they are mapped: how many.
    pub fn fetch_bytes(&self, at: GuestVirtual, into: &mut [u8]) -> usize {
        let mut fetched = 0;
        let _ = self.pieces(at, into.len(), Access::FETCH, |machine, range| {
            fetched = range.end;
            self.memory.read(machine, &mut into[range]);
        });
        fetched
    }

    /// Copies bytes into the guest, with the rights of its kernel.
    pub fn write_bytes(&self, at: GuestVirtual, from: &[u8]) -> Result<(), Fault> {
        self.pieces(at, from.len(), Access::WRITE, |machine, range| {
            self.memory.write(machine, &from[range])
        })
    }

    /// Copies a value out of the guest.
    pub fn read<T: FromBytes + IntoBytes>(&self, at: GuestPointer<T>) -> Result<T, Fault> {
        let mut value = T::new_zeroed();
        self.read_bytes(at.address(), value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies a value into the guest.
    pub fn write<T: IntoBytes + Immutable>(&self, at: GuestPointer<T>, value: &T) -> Result<(), Fault> {
        self.write_bytes(at.address(), value.as_bytes())
    }
}

#[cfg(test)]
mod tests;

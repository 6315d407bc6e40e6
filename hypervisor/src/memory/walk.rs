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
mod tests {
    use super::*;
    use crate::memory::{Frame, FrameAllocator, Mapping, PageKind};
    use proptest::prelude::*;

    const LONG_MODE: Paging = Paging {
        cr0: CR0_PAGING | CR0_WRITE_PROTECT | 1,
        cr3: 0x1000,
        cr4: CR4_PHYSICAL_ADDRESS_EXTENSION,
        efer: EFER_LONG_MODE_ACTIVE | EFER_NO_EXECUTE | 1 << 8,
        privilege: 0,
        long_code: true,
        code_base: 0,
    };

    /// Memory of 64 pages; guest frame `n` below 32 is machine frame `n + 16`, frame 40 is read-only, frame 41 a device.
    struct Fixture {
        memory: DirectMap,
        p2m: P2m,
    }

    impl Fixture {
        fn new() -> Self {
            let memory = DirectMap::fake(64);
            let mut frames = FrameAllocator::new(&[(Frame(0), 16)]);
            let mut p2m = P2m::new(&memory, &mut frames).unwrap();
            let mut map = |at: u64, machine, count, writable, kind| {
                let mapping = Mapping {
                    machine: Frame(machine),
                    writable,
                    kind,
                };
                p2m.map_range(&memory, &mut frames, GuestAddress::of_frame(at), count, mapping)
                    .unwrap();
            };
            map(0, 16, 32, true, PageKind::Ram);
            map(40, 50, 1, false, PageKind::Ram);
            map(41, 0xfe_0000, 1, true, PageKind::Device);
            Self { memory, p2m }
        }

        fn space(&self, paging: Paging) -> GuestSpace<'_> {
            GuestSpace::new(&self.memory, &self.p2m, paging)
        }

        fn set(&self, at: u64, value: u64) {
            let at = self
                .p2m
                .machine_address(&self.memory, GuestAddress(at), true)
                .unwrap();
            self.memory.write(at, &value.to_le_bytes());
        }

        fn get(&self, at: u64) -> u64 {
            let mut bytes = [0; 8];
            let at = self
                .p2m
                .machine_address(&self.memory, GuestAddress(at), false)
                .unwrap();
            self.memory.read(at, &mut bytes);
            u64::from_le_bytes(bytes)
        }

        /// Four levels at frames 1 to 4, all rights; the last level maps `pages` from virtual `base`.
        fn four_levels(&self, base: u64, pages: &[u64]) {
            for (level, table) in [(4, 1u64), (3, 2), (2, 3)] {
                let index = base >> (12 + 9 * (level - 1)) & 511;
                self.set(
                    table * 4096 + index * 8,
                    (table + 1) << 12 | PRESENT | WRITABLE | USER,
                );
            }
            for (page, entry) in pages.iter().enumerate() {
                self.set(4 * 4096 + (base >> 12 & 511) * 8 + page as u64 * 8, *entry);
            }
        }
    }

    const KERNEL: u64 = 0xffff_8880_0020_0000;
    const ALL: u64 = PRESENT | WRITABLE | USER;

    #[test]
    fn walks_four_levels_and_marks_them() {
        let fixture = Fixture::new();
        fixture.four_levels(KERNEL, &[9 << 12 | ALL, 5 << 12 | ALL]);
        let space = fixture.space(LONG_MODE);
        assert_eq!(
            space.translate(GuestVirtual(KERNEL + 0x123), Access::READ),
            Ok(GuestAddress(0x9123))
        );
        assert_eq!(fixture.get(0x4000) & (ACCESSED | DIRTY), ACCESSED);
        space
            .write(GuestPointer::new(KERNEL + 0xffc), &0x1122_3344_5566_7788u64)
            .unwrap();
        assert_eq!(fixture.get(0x4000) & (ACCESSED | DIRTY), ACCESSED | DIRTY);
        assert_eq!(
            (fixture.get(0x9ff8) >> 32, fixture.get(0x5000)),
            (0x5566_7788, 0x1122_3344)
        );
        assert_eq!(
            space.read(GuestPointer::<u64>::new(KERNEL + 0xffc)),
            Ok(0x1122_3344_5566_7788)
        );
        // The third page is absent: the copy fails, and the fetch gets what there is.
        assert_eq!(
            space.read_bytes(GuestVirtual(KERNEL + 0x1ff8), &mut [0; 9]),
            Err(Fault)
        );
        assert_eq!(space.fetch_bytes(GuestVirtual(KERNEL + 0x1ff8), &mut [0; 15]), 8);
        assert_eq!(
            space.translate(GuestVirtual(KERNEL & !(1 << 63)), Access::READ),
            Err(Fault)
        );
    }

    #[test]
    fn keeps_to_the_rights() {
        let fixture = Fixture::new();
        let read_only = 9 << 12 | PRESENT;
        let pages = [
            read_only,
            10 << 12 | ALL | NO_EXECUTE,
            40 << 12 | ALL,
            41 << 12 | ALL,
            45 << 12 | ALL,
        ];
        fixture.four_levels(KERNEL, &pages);
        let space = fixture.space(LONG_MODE);
        let page = |number: u64| GuestVirtual(KERNEL + number * 4096);
        let user = Access {
            user: true,
            ..Access::READ
        };
        assert_eq!(space.translate(page(0), Access::WRITE), Err(Fault));
        assert_eq!(space.translate(page(0), user), Err(Fault));
        assert!(space.translate(page(0), Access::FETCH).is_ok());
        assert!(space.translate(page(1), user).is_ok());
        assert_eq!(space.translate(page(1), Access::FETCH), Err(Fault));
        let unprotected = fixture.space(Paging {
            cr0: CR0_PAGING,
            ..LONG_MODE
        });
        assert!(unprotected.write_bytes(page(0), &[1]).is_ok());
        // The second stage has the last word: a read-only page, a device, nothing.
        assert!(space.read_bytes(page(2), &mut [0]).is_ok());
        assert_eq!(space.write_bytes(page(2), &[0]), Err(Fault));
        assert_eq!(space.read_bytes(page(3), &mut [0]), Err(Fault));
        assert_eq!(space.read_bytes(page(4), &mut [0]), Err(Fault));
    }

    #[test]
    fn knows_large_pages_and_older_formats() {
        let fixture = Fixture::new();
        fixture.set(0x1000, 2 << 12 | ALL);
        fixture.set(0x2000, 3 << 12 | ALL);
        fixture.set(0x3008, 0x60_0000 | LARGE | ALL);
        fixture.set(0x2008, 0x8000_0000 | LARGE | ALL);
        let space = fixture.space(LONG_MODE);
        let at = |address| space.translate(GuestVirtual(address), Access::WRITE);
        assert_eq!(at(0x20_1234), Ok(GuestAddress(0x60_1234)));
        assert_eq!(at(0x7fff_ffff), Ok(GuestAddress(0xbfff_ffff)));
        fixture.set(0x1008, LARGE | ALL);
        assert_eq!(at(0x80_0000_0000), Err(Fault));

        let five = Paging {
            cr4: CR4_FIVE_LEVELS | CR4_PHYSICAL_ADDRESS_EXTENSION,
            cr3: 0x8000,
            ..LONG_MODE
        };
        fixture.set(0x8000, 1 << 12 | ALL);
        let found = fixture
            .space(five)
            .translate(GuestVirtual(0x20_1234), Access::READ);
        assert_eq!(found, Ok(GuestAddress(0x60_1234)));

        let pae = Paging {
            efer: 0,
            cr3: 0x6020,
            ..LONG_MODE
        };
        fixture.set(0x6020 + 8, 3 << 12 | PRESENT);
        let found = fixture
            .space(pae)
            .translate(GuestVirtual(0x4020_1234), Access::WRITE);
        assert_eq!(found, Ok(GuestAddress(0x60_1234)));

        let old = Paging {
            efer: 0,
            cr3: 0x7000,
            cr4: CR4_PAGE_SIZE_EXTENSIONS,
            ..LONG_MODE
        };
        fixture.set(0x7000, (0xc0_0000 | 2 << 13 | LARGE | ALL) << 32 | 5 << 12 | ALL);
        fixture.set(0x5008, 9 << 12 | ALL);
        let old = fixture.space(old);
        assert_eq!(
            old.translate(GuestVirtual(0x40_1234), Access::READ),
            Ok(GuestAddress(0x2_00c0_1234))
        );
        assert_eq!(
            old.translate(GuestVirtual(0x2345), Access::WRITE),
            Ok(GuestAddress(0x9345))
        );
        assert_eq!(old.translate(GuestVirtual(1 << 32), Access::READ), Err(Fault));
        assert_eq!(fixture.get(0x5008), 9 << 12 | ALL | ACCESSED | DIRTY);

        let none = fixture.space(Paging { cr0: 1, ..LONG_MODE });
        assert_eq!(
            none.translate(GuestVirtual(0x9345), Access::WRITE),
            Ok(GuestAddress(0x9345))
        );
    }

    #[test]
    fn walks_are_remembered_until_the_hypercall_ends() {
        let fixture = Fixture::new();
        let writable = ALL & !DIRTY;
        fixture.four_levels(KERNEL, &[9 << 12 | writable, 10 << 12 | PRESENT, 40 << 12 | ALL]);
        let walks = Walks::default();
        let space = fixture.space(LONG_MODE).remembering(Some(&walks));
        let page = |number: u64| GuestVirtual(KERNEL + number * 4096);
        let leaf = 0x4000 + (KERNEL >> 12 & 511) * 8;
        assert!(space.read_bytes(page(0), &mut [0]).is_ok());
        // Read only, it is not marked as written; a write walks again, and marks it.
        assert_eq!(fixture.get(leaf) & (ACCESSED | DIRTY), ACCESSED);
        assert!(space.write_bytes(page(0), &[1]).is_ok());
        assert_eq!(fixture.get(leaf) & DIRTY, DIRTY);
        // What is not writable stays so, and the second stage is asked all the same.
        assert!(space.read_bytes(page(1), &mut [0]).is_ok());
        assert_eq!(space.write_bytes(page(1), &[1]), Err(Fault));
        assert!(space.read_bytes(page(2), &mut [0]).is_ok());
        assert_eq!(space.write_bytes(page(2), &[1]), Err(Fault));
        // The guest changes its tables: seen by the next hypercall.
        fixture.set(leaf, 11 << 12 | ALL);
        fixture.set(11 << 12, 0x77);
        let mut byte = [0];
        space.read_bytes(page(0), &mut byte).unwrap();
        assert_eq!(byte, [1]);
        walks.forget();
        space.read_bytes(page(0), &mut byte).unwrap();
        assert_eq!(byte, [0x77]);
        fixture.set(leaf, 0);
        walks.forget();
        assert_eq!(space.read_bytes(page(0), &mut byte), Err(Fault));
        // A page that was marked as written before needs one walk for both.
        fixture.set(leaf, 9 << 12 | ALL | DIRTY);
        space.read_bytes(page(0), &mut byte).unwrap();
        assert_eq!(walks.find(page(0).0, true), Some(9 << 12));
    }

    #[test]
    fn arrays_that_leave_the_address_space_fault() {
        let pointer = GuestPointer::<u64>::new(u64::MAX - 15);
        assert_eq!(pointer.element(1).map(|end| end.address().0), Ok(u64::MAX - 7));
        assert!(pointer.element(2).is_err() && pointer.element(u64::MAX).is_err());
    }

    proptest! {
        #[test]
        fn any_tables_any_address_no_panic(
            words in proptest::collection::vec((0u64..0x9000, any::<u64>()), 0..60),
            paging: [u64; 4], address: u64, length in 0usize..9000, bits: u8,
        ) {
            let fixture = Fixture::new();
            for (at, value) in words {
                fixture.set(at & !7, value);
                fixture.set(at & !7 & 0xff8 | 0x1000, value & 0xffff | PRESENT);
            }
            let paging = Paging { cr0: paging[0], cr3: paging[1] & 0xffff, cr4: paging[2], efer: paging[3], ..LONG_MODE };
            let space = fixture.space(paging);
            let access = Access { write: bits & 1 != 0, fetch: bits & 2 != 0, user: bits & 4 != 0 };
            let address = if bits & 8 != 0 { address & 0xffff_ffff } else { address };
            let _ = space.translate(GuestVirtual(address), access);
            let mut buffer = vec![0; length];
            let _ = space.read_bytes(GuestVirtual(address), &mut buffer);
            let _ = space.write_bytes(GuestVirtual(address), &buffer);
            let _ = space.fetch_bytes(GuestVirtual(address), &mut buffer);
        }
    }
}

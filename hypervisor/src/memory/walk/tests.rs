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

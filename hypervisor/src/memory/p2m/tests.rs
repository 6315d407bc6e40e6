use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn setup() -> (DirectMap, FrameAllocator, P2m) {
    let memory = DirectMap::fake(64);
    let mut frames = FrameAllocator::new(&[(Frame(0), 64)]);
    let p2m = P2m::new(&memory, &mut frames).unwrap();
    (memory, frames, p2m)
}

/// Frames in 1 GiB.
const GIANT: u64 = 512 * 512;

fn ram(frame: u64) -> Mapping {
    Mapping {
        machine: Frame(frame),
        writable: true,
        kind: PageKind::Ram,
    }
}

#[test]
fn tables_are_given_back_piece_by_piece() {
    let (memory, mut frames, mut p2m) = setup();
    p2m.allow_giant_pages();
    let before = frames.free_pages() + 1;
    for (at, count) in [(0, 512 + 7), (GIANT, GIANT), (3 * GIANT - 1, 2)] {
        let guest = GuestAddress::of_frame(at);
        p2m.map_range(&memory, &mut frames, guest, count, ram(0x10_0000 + at))
            .unwrap();
    }
    // One large page, seven small ones, a giant one, two that lie apart.
    let mut seen = Vec::new();
    let mut calls = 1;
    while !p2m.release_some(&memory, &mut frames, 3, |_, mapping, count| {
        seen.push((mapping.machine.0 - 0x10_0000, count));
    }) {
        assert_eq!(seen.len(), 3 * calls);
        // What holds a table is told as long as it does.
        assert_eq!(frames.free_pages() + p2m.table_pages(), before);
        calls += 1;
    }
    let mut expected = vec![(0, 512)];
    expected.extend((512..519).map(|page| (page, 1)));
    expected.extend([(GIANT, GIANT), (3 * GIANT - 1, 1), (3 * GIANT, 1)]);
    assert_eq!(seen, expected);
    assert_eq!((frames.free_pages(), p2m.table_pages()), (before, 0));
    assert!(p2m.release_some(&memory, &mut frames, 3, |_, _, _| panic!("nothing is left")));
}

#[test]
fn maps_a_range_by_large_pages_and_splits_them() {
    let (memory, mut frames, mut p2m) = setup();
    p2m.map_range(&memory, &mut frames, GuestAddress(0), 1024 + 3, ram(0x20_0000))
        .unwrap();
    assert_eq!(p2m.table_pages(), 4);
    assert_eq!(
        p2m.translate(&memory, GuestAddress(0x2f_f123)),
        Some(ram(0x20_02ff))
    );
    assert_eq!(
        p2m.translate(&memory, GuestAddress(1026 << 12)),
        Some(ram(0x20_0402))
    );
    assert_eq!(p2m.translate(&memory, GuestAddress(1027 << 12)), None);
    // Taking one page out of a large one leaves the others.
    let taken = p2m.unmap(&memory, &mut frames, GuestAddress(5 << 12)).unwrap();
    assert_eq!((taken, p2m.table_pages()), (Some(ram(0x20_0005)), 5));
    assert_eq!(p2m.translate(&memory, GuestAddress(5 << 12)), None);
    assert_eq!(
        p2m.translate(&memory, GuestAddress(6 << 12)),
        Some(ram(0x20_0006))
    );
    assert_eq!(
        p2m.translate(&memory, GuestAddress(511 << 12)),
        Some(ram(0x20_01ff))
    );
    let granted = Mapping {
        machine: Frame(9),
        writable: false,
        kind: PageKind::Granted,
    };
    p2m.map(&memory, &mut frames, GuestAddress(5 << 12), granted)
        .unwrap();
    assert_eq!(p2m.translate(&memory, GuestAddress(5 << 12)), Some(granted));
    assert_eq!(
        p2m.machine_address(&memory, GuestAddress(0x5123), false),
        Some(MachineAddress(0x9123))
    );
    assert_eq!(p2m.machine_address(&memory, GuestAddress(0x5123), true), None);
    let mut pages = 0;
    p2m.for_each(&memory, |_, _, count| pages += count);
    assert_eq!(pages, 1027);
    p2m.release(&memory, &mut frames);
    assert_eq!(frames.free_pages(), 64);
}

#[test]
fn large_pages_are_counted_split_and_joined() {
    let (memory, mut frames, mut p2m) = setup();
    p2m.map_range(&memory, &mut frames, GuestAddress(0), 1024, ram(0x20_0000))
        .unwrap();
    assert_eq!(p2m.large_pages(), 2);
    let at = |page: u64| GuestAddress::of_frame(page);
    // Looked at before and behind the change, so that nothing old is remembered.
    assert_eq!(p2m.translate(&memory, at(7)), Some(ram(0x20_0007)));
    let given = p2m.give_up(&memory, &mut frames, at(7)).unwrap();
    assert_eq!((given, p2m.large_pages()), (Some(Frame(0x20_0007)), 1));
    assert_eq!(p2m.translate(&memory, at(7)), None);
    assert_eq!(
        (p2m.promote(&memory, at(7)), p2m.promote(&memory, at(700))),
        (None, None)
    );
    assert_eq!(p2m.beside(&memory, at(7)), Some(Frame(0x20_0007)));
    assert_eq!(p2m.beside(&memory, at(1024)), None);
    // Another frame does not fit; the right one does.
    p2m.map(&memory, &mut frames, at(7), ram(5)).unwrap();
    assert_eq!(p2m.promote(&memory, at(7)), None);
    let mut granted = ram(0x20_0007);
    granted.kind = PageKind::Granted;
    p2m.map(&memory, &mut frames, at(7), granted).unwrap();
    assert_eq!(p2m.promote(&memory, at(7)), None);
    p2m.map(&memory, &mut frames, at(7), ram(0x20_0007)).unwrap();
    assert_eq!(p2m.translate(&memory, at(8)), Some(ram(0x20_0008)));
    let table = p2m.promote(&memory, at(9)).unwrap();
    frames.free(table, 1);
    assert_eq!((p2m.large_pages(), p2m.table_pages()), (2, 3));
    assert_eq!(p2m.translate(&memory, at(8)), Some(ram(0x20_0008)));
    p2m.release(&memory, &mut frames);
    assert_eq!(frames.free_pages(), 64);
}

#[test]
fn giant_pages_split_without_a_free_frame() {
    let (memory, mut frames, mut p2m) = setup();
    p2m.allow_giant_pages();
    p2m.map_range(&memory, &mut frames, GuestAddress(0), GIANT + 512, ram(GIANT))
        .unwrap();
    assert_eq!((p2m.large_pages(), p2m.table_pages()), (513, 4));
    let at = |page: u64| GuestAddress::of_frame(page);
    assert_eq!(p2m.translate(&memory, at(70_000)), Some(ram(GIANT + 70_000)));
    let rest = frames.free_pages();
    let taken = frames.allocate_contiguous(rest, 1).unwrap();
    // The first page becomes the table of its neighbours: the frame must be one of this memory.
    p2m.map_range(&memory, &mut frames, at(GIANT), 512, ram(0))
        .unwrap();
    assert_eq!(p2m.give_up(&memory, &mut frames, at(GIANT + 63)), Ok(None));
    assert_eq!(p2m.translate(&memory, at(GIANT + 63)), None);
    assert_eq!(p2m.translate(&memory, at(GIANT + 62)), Some(ram(62)));
    assert_eq!((p2m.large_pages(), p2m.table_pages()), (512, 5));
    frames.free(taken, rest);
    assert_eq!(
        p2m.give_up(&memory, &mut frames, at(600)),
        Ok(Some(Frame(GIANT + 600)))
    );
    assert_eq!((p2m.large_pages(), p2m.table_pages()), (511, 6));
    assert_eq!(p2m.translate(&memory, at(601)), Some(ram(GIANT + 601)));
    assert_eq!(p2m.translate(&memory, at(70_000)), Some(ram(GIANT + 70_000)));
}

#[test]
fn says_when_no_frame_is_left_for_a_table() {
    let memory = DirectMap::fake(4);
    let mut frames = FrameAllocator::new(&[(Frame(0), 3)]);
    let mut p2m = P2m::new(&memory, &mut frames).unwrap();
    assert_eq!(
        p2m.map(&memory, &mut frames, GuestAddress(0), ram(1)),
        Err(OutOfMemory)
    );
    assert_eq!(
        p2m.map(&memory, &mut frames, GuestAddress(1 << 48), ram(1)),
        Err(OutOfMemory)
    );
    p2m.release(&memory, &mut frames);
    assert_eq!(frames.free_pages(), 3);
}

proptest! {
    #[test]
    fn agrees_with_a_map(steps in proptest::collection::vec((0u8..5, 0u64..2048, 1u64..1200), 1..16)) {
        let (memory, mut frames, mut p2m) = setup();
        let mut model = BTreeMap::new();
        for (index, (what, page, count)) in steps.into_iter().enumerate() {
            let at = GuestAddress::of_frame(page);
            match what {
                0 => {
                    let first = ((index as u64) << 20) + page % 512;
                    p2m.map_range(&memory, &mut frames, at, count, ram(first)).unwrap();
                    model.extend((0..count).map(|offset| (page + offset, first + offset)));
                }
                1 => {
                    p2m.map(&memory, &mut frames, at, ram(count)).unwrap();
                    model.insert(page, count);
                }
                2 => {
                    let was = p2m.give_up(&memory, &mut frames, at).unwrap();
                    prop_assert_eq!(was.map(|frame| frame.0), model.remove(&page));
                }
                3 => {
                    // The page that its neighbours want, then all of them as one.
                    if let Some(frame) = p2m.beside(&memory, at) {
                        p2m.map(&memory, &mut frames, at, ram(frame.0)).unwrap();
                        model.insert(page, frame.0);
                    }
                    if let Some(table) = p2m.promote(&memory, at) {
                        frames.free(table, 1);
                    }
                }
                _ => {
                    let was = p2m.unmap(&memory, &mut frames, at).unwrap();
                    prop_assert_eq!(was.map(|mapping| mapping.machine.0), model.remove(&page));
                }
            }
            for probe in [page, page ^ 1, page ^ 512, 2047 - page] {
                let found = p2m.translate(&memory, GuestAddress::of_frame(probe)).map(|mapping| mapping.machine.0);
                prop_assert_eq!(found, model.get(&probe).copied());
            }
            let mut large = 0;
            p2m.for_each(&memory, |_, _, count| large += count / 512);
            prop_assert_eq!(large, p2m.large_pages());
            prop_assert_eq!(p2m.table_pages() + frames.free_pages(), 64);
        }
        for page in 0..4096 {
            let found = p2m.translate(&memory, GuestAddress::of_frame(page)).map(|mapping| mapping.machine.0);
            prop_assert_eq!(found, model.get(&page).copied());
        }
    }

    #[test]
    fn answers_any_address(address: u64) {
        let (memory, _, p2m) = setup();
        prop_assert_eq!(p2m.translate(&memory, GuestAddress(address)), None);
    }
}

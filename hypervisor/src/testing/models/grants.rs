//! Grants: the hypervisor takes entries into use while their owner takes them back, and no page is written after its owner has it back.
//!
//! The granter ends access as Linux does: in version 1 it clears the flags if they say that nobody uses the entry, by compare and exchange; in version 2 it
//! clears them, and then looks at the status word. Once that succeeds the page is its own again, which it writes down there: whoever writes
//! the page after that wrote what was not granted any more.

use std::{format, hash::DefaultHasher, rc::Rc};

use core::hash::{Hash, Hasher};

use xen_abi::{grant_table::*, xen::DOMID_SELF};
use zerocopy::IntoBytes;

use super::{World, small};
use crate::{
    Hypervisor,
    domain::DomainId,
    grant::{self, Part, Version},
    memory::{DirectMap, Frame, GuestAddress, MachineAddress, PageKind},
    sync::{AtomicU16, AtomicU64, Ordering, fence},
    testing::{
        self, hypervisor_with,
        interleave::{Outcome, Scenario, explore, pause, settle, wait_until},
    },
};

const GRANTER: DomainId = DomainId(1);
const MAPPER: DomainId = DomainId(2);
const REFERENCE: u32 = 9;
/// The granted page in the granter's memory, and where the mapper maps it.
const PAGE: u64 = 0x5000;
const AT: u64 = 1 << 32;
/// What the granter writes into its page once it has it back, and what the mapper writes.
const OWN: u64 = 0x0123_4567_89ab_cdef;
const FOREIGN: u64 = 0x1111_1111_1111_1111;

/// What is wrong with one side, to see that it is found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// The granter looks, then clears the flags.
    LookThenClear,
    /// The granter looks at the status word while its store may still be on the way.
    NoFence,
    /// The hypervisor looks at the flags, then marks the entry, and does not look again.
    LookThenMark,
    /// The hypervisor ends the use before the copy.
    UnmarkThenCopy,
    /// The hypervisor ends the use before the page is unmapped.
    UnmarkThenUnmap,
}

/// The words that both sides share.
#[derive(Clone)]
struct Entry {
    version: Version,
    memory: DirectMap,
    at: MachineAddress,
    status: MachineAddress,
    page: MachineAddress,
}

impl Entry {
    fn flags(&self) -> &AtomicU16 {
        self.memory.atomic_u16(self.at)
    }

    /// Where use is marked.
    fn marks(&self) -> &AtomicU16 {
        match self.version {
            Version::One => self.flags(),
            Version::Two => self.memory.atomic_u16(self.status),
        }
    }

    fn page(&self) -> &AtomicU64 {
        self.memory.atomic_u64(self.page)
    }

    /// Tries to end access; false while the entry is in use.
    fn end_access(&self, wrong: Wrong) -> bool {
        const IN_USE: u16 = GTF_reading | GTF_writing;
        match self.version {
            Version::One => {
                let mut seen = self.flags().load(Ordering::Acquire);
                while seen & IN_USE == 0 {
                    if wrong == Wrong::LookThenClear {
                        self.flags().store(0, Ordering::SeqCst);
                        return true;
                    }
                    match self
                        .flags()
                        .compare_exchange(seen, 0, Ordering::SeqCst, Ordering::SeqCst)
                    {
                        Ok(_) => return true,
                        Err(now) => seen = now,
                    }
                }
                false
            }
            Version::Two => {
                if wrong == Wrong::LookThenClear && self.marks().load(Ordering::SeqCst) & IN_USE == 0 {
                    self.flags().store(0, Ordering::SeqCst);
                    return true;
                }
                self.flags().store(0, Ordering::Release);
                if wrong != Wrong::NoFence {
                    fence(Ordering::SeqCst);
                }
                self.marks().load(Ordering::Acquire) & IN_USE == 0
            }
        }
    }
}

fn digest(hv: &Hypervisor) -> u64 {
    let mut hasher = DefaultHasher::new();
    for domain in hv.domains.values() {
        (domain.generation, domain.body.is_some()).hash(&mut hasher);
        if let Some(body) = &domain.body {
            format!("{:?}", body.grants).hash(&mut hasher);
            body.p2m
                .translate(&hv.memory, GuestAddress(AT))
                .is_some()
                .hash(&mut hasher);
        }
    }
    (format!("{:?}", hv.held), hv.frames.free_pages()).hash(&mut hasher);
    hasher.finish()
}

/// A granter that has granted a page to the mapper, in a table of this version.
fn setup(scenario: &mut Scenario, version: Version) -> (Rc<World>, Entry) {
    let mut hv = hypervisor_with(std::vec![small("granter", 1), small("mapper", 2)]);
    let memory = hv.memory;
    let page = testing::machine(&hv, GRANTER.0, PAGE);
    let body = hv.domains.get_mut(&GRANTER).unwrap().body.as_mut().unwrap();
    body.grants.set_version(&memory, &mut hv.frames, version).unwrap();
    body.grants.grow(&memory, &mut hv.frames, 1).unwrap();
    let place = |part, offset| {
        let frames = body.grants.frames(part);
        frames.first().map_or(MachineAddress(0), |frame| {
            MachineAddress(frame.frame.address().0 + offset)
        })
    };
    let size = if version == Version::One { 8 } else { 16 };
    let entry = Entry {
        version,
        memory,
        at: place(Part::Entries, u64::from(REFERENCE) * size),
        status: place(Part::Status, u64::from(REFERENCE) * 2),
        page,
    };
    let (flags, domid) = (GTF_permit_access, MAPPER.0);
    if version == Version::One {
        let frame = (PAGE >> 12) as u32;
        memory.write(entry.at, GrantEntryV1 { flags, domid, frame }.as_bytes());
    } else {
        let hdr = GrantEntryHeader { flags, domid };
        let frame = PAGE >> 12;
        memory.write(entry.at, GrantEntryV2FullPage { hdr, pad0: 0, frame }.as_bytes());
    }
    let mut watch = |at: MachineAddress, length: usize| {
        scenario.watch(memory.pointer(at, length) as usize, length);
    };
    watch(entry.at, size as usize);
    if version == Version::Two {
        watch(entry.status, 2);
    }
    watch(entry.page, 8);
    (World::new(hv, digest), entry)
}

/// The granter ends access as soon as it can, and takes its page back.
fn granter(scenario: &mut Scenario, entry: &Entry, wrong: Wrong) {
    let entry = entry.clone();
    scenario.actor("granter", move || {
        while !entry.end_access(wrong) {
            settle("in use");
            let marks = entry.clone();
            wait_until(move || marks.marks().load(Ordering::SeqCst) & (GTF_reading | GTF_writing) == 0);
        }
        entry.page().store(OWN, Ordering::SeqCst);
    });
}

/// At the end the page is the granter's, nothing is marked, and the books are empty.
fn nothing_is_left(scenario: &mut Scenario, world: &Rc<World>, entry: &Entry) {
    let (world, entry) = (world.clone(), entry.clone());
    scenario.at_end(move || {
        assert_eq!(
            entry.page().load(Ordering::SeqCst),
            OWN,
            "written after its owner had it back"
        );
        assert_eq!(entry.marks().load(Ordering::SeqCst), 0, "marks are left");
        world.prepare(|hv| {
            let frame = Frame::containing(entry.page);
            let grants = &hv.body(GRANTER).unwrap().grants;
            assert!(!grants.is_pinned(frame), "a frame is left pinned");
        });
    });
}

/// Whether the mapper sees a page of others'.
fn is_mapped(hv: &Hypervisor) -> bool {
    let body = hv.body(MAPPER).unwrap();
    body.p2m.translate(&hv.memory, GuestAddress(AT)).is_some()
}

fn map(world: &World, at: u64, flags: u32) -> Option<u32> {
    world.with(|hv| {
        let mapped = grant::map(hv, MAPPER, GRANTER, REFERENCE, at, flags);
        mapped.ok().map(|mapped| mapped.handle)
    })
}

fn unmap(world: &World, at: u64, handle: u32) {
    world.with(|hv| {
        grant::unmap(hv, MAPPER, handle, at, 0).expect("it was mapped");
        grant::flush(hv, MAPPER);
    });
}

/// One that maps the page while it can, and writes it while it is mapped.
fn one_that_maps(version: Version, times: u32, wrong: Wrong) -> Outcome {
    explore(move |scenario| {
        let (world, entry) = setup(scenario, version);
        granter(scenario, &entry, wrong);
        nothing_is_left(scenario, &world, &entry);
        scenario.actor("mapper", move || {
            for time in 0..times {
                settle(time);
                let Some(handle) = map(&world, AT, GNTMAP_host_map) else {
                    continue;
                };
                assert!(world.with(|hv| is_mapped(hv)));
                if wrong == Wrong::UnmarkThenUnmap {
                    entry
                        .marks()
                        .fetch_and(!(GTF_reading | GTF_writing), Ordering::SeqCst);
                }
                entry.page().store(FOREIGN, Ordering::SeqCst);
                unmap(&world, AT, handle);
                assert!(!world.with(|hv| is_mapped(hv)), "mapped after it was unmapped");
            }
        });
    })
}

/// A hypervisor that marks an entry that it has looked at before.
fn look_then_mark(entry: &Entry) -> bool {
    if entry.flags().load(Ordering::SeqCst) & GTF_permit_access == 0 {
        return false;
    }
    entry
        .marks()
        .fetch_or(GTF_reading | GTF_writing, Ordering::SeqCst);
    true
}

/// One that has the hypervisor copy into the page.
fn one_that_copies(version: Version, times: u32, wrong: Wrong) -> Outcome {
    explore(move |scenario| {
        let (world, entry) = setup(scenario, version);
        granter(scenario, &entry, wrong);
        nothing_is_left(scenario, &world, &entry);
        world.prepare(|hv| testing::poke(hv, MAPPER.0, 0x2000, FOREIGN.as_bytes()));
        scenario.actor("copier", move || {
            for time in 0..times {
                settle(time);
                world.with(|hv| match wrong {
                    Wrong::LookThenMark => {
                        if look_then_mark(&entry) {
                            entry.page().store(FOREIGN, Ordering::SeqCst);
                            entry
                                .marks()
                                .fetch_and(!(GTF_reading | GTF_writing), Ordering::SeqCst);
                        }
                    }
                    Wrong::UnmarkThenCopy => {
                        if copy(hv, 0) {
                            entry.page().store(FOREIGN, Ordering::SeqCst);
                        }
                    }
                    _ => _ = copy(hv, 8),
                });
            }
        });
    })
}

fn copy(hv: &mut Hypervisor, length: u16) -> bool {
    let source = GnttabCopyPtr {
        u: 2,
        domid: DOMID_SELF,
        ..Default::default()
    };
    let request = GnttabCopy {
        source,
        dest: GnttabCopyPtr::of_grant(GRANTER.0, REFERENCE, 0),
        len: length,
        flags: GNTCOPY_dest_gref,
        ..Default::default()
    };
    grant::copy(hv, MAPPER, &request).is_ok()
}

#[test]
fn a_page_that_was_taken_back_is_not_mapped() {
    for version in [Version::One, Version::Two] {
        one_that_maps(version, 2, Wrong::Nothing).holds("maps");
        one_that_maps(version, 1, Wrong::LookThenClear).fails("look, then clear", "written after");
        one_that_maps(version, 1, Wrong::UnmarkThenUnmap).fails("unmark, then unmap", "written after");
    }
    one_that_maps(Version::Two, 1, Wrong::NoFence).fails("no fence", "written after");
}

#[test]
fn a_page_that_was_taken_back_is_not_copied_to() {
    for version in [Version::One, Version::Two] {
        one_that_copies(version, 2, Wrong::Nothing).holds("copies");
        one_that_copies(version, 1, Wrong::LookThenMark).fails("look, then mark", "written after");
        one_that_copies(version, 1, Wrong::UnmarkThenCopy).fails("unmark, then copy", "written after");
    }
}

/// Maps of the same entry come and go, for reading and for writing, while its owner tries to end access: the marks say at each time what there is.
#[test]
fn marks_are_exact() {
    for version in [Version::One, Version::Two] {
        explore(move |scenario| {
            let (world, entry) = setup(scenario, version);
            granter(scenario, &entry, Wrong::Nothing);
            nothing_is_left(scenario, &world, &entry);
            scenario.actor("mapper", move || {
                let mut maps: Vec<(u64, u32, bool)> = Vec::new();
                let steps = [Some(false), Some(true), Some(false), None, None, None];
                for (index, step) in (0..).zip(steps) {
                    settle((index, &maps));
                    let at = AT + index * 0x1000;
                    match step {
                        Some(write) => {
                            let flags = if write { 0 } else { GNTMAP_readonly };
                            let handle = map(&world, at, GNTMAP_host_map | flags);
                            maps.extend(handle.map(|handle| (at, handle, write)));
                        }
                        // The one that was first, then the others.
                        None if maps.is_empty() => {}
                        None => {
                            let (at, handle, _) = maps.remove(0);
                            unmap(&world, at, handle);
                        }
                    }
                    let writes = maps.iter().any(|(_, _, write)| *write);
                    let expected =
                        if maps.is_empty() { 0 } else { GTF_reading } | if writes { GTF_writing } else { 0 };
                    let marks = entry.marks().load(Ordering::SeqCst) & (GTF_reading | GTF_writing);
                    assert_eq!(marks, expected, "marks for {maps:?}");
                }
            });
        })
        .holds("marks");
    }
}

/// The granter, or the mapper, is destroyed and built anew while the page is mapped, copied and taken back.
fn one_is_destroyed(version: Version, who: DomainId, forgets: bool) -> Outcome {
    explore(move |scenario| {
        let (world, entry) = setup(scenario, version);
        let other = world.clone();
        let all = world.prepare(|hv| hv.frames.free_pages());
        scenario.actor("control", move || {
            other.with(|hv| {
                if forgets {
                    // A hypervisor that does not hold pages back.
                    hv.body_mut(who).unwrap().grants = Default::default();
                }
                hv.destroy_domain(who);
            });
            settle("destroyed");
            other.with(|hv| testing::build(hv, who));
        });
        let at_end = world.clone();
        scenario.actor("mapper", move || {
            let generation = |hv: &Hypervisor| hv.domain(MAPPER).unwrap().generation;
            let before = world.with(|hv| generation(hv));
            let same = |hv: &Hypervisor| generation(hv) == before && hv.body(MAPPER).is_some();
            let mapped = world.with(|hv| {
                if !same(hv) {
                    return None;
                }
                let mapped = grant::map(hv, MAPPER, GRANTER, REFERENCE, AT, GNTMAP_host_map);
                mapped.ok().map(|mapped| mapped.handle)
            });
            let Some(handle) = mapped else { return };
            pause();
            world.with(|hv| {
                if same(hv) {
                    check_frame(hv, Frame::containing(entry.page));
                    grant::unmap(hv, MAPPER, handle, AT, 0).expect("it was mapped");
                    grant::flush(hv, MAPPER);
                }
            });
        });
        scenario.at_end(move || {
            at_end.prepare(|hv| {
                assert_eq!(hv.held.count(), 0, "frames are held for nobody");
                // The table of the one that was destroyed went with it.
                let tables: usize = [Part::Entries, Part::Status]
                    .map(|part| hv.body(GRANTER).unwrap().grants.frames(part).len())
                    .iter()
                    .sum();
                let lost = if tables == 0 {
                    0
                } else {
                    all.abs_diff(hv.frames.free_pages())
                };
                // Tables of the second stage stay, where something was mapped.
                assert!(lost <= 3, "{lost} frames are lost");
                for id in [GRANTER, MAPPER] {
                    let grants = format!("{:?}", hv.body(id).unwrap().grants);
                    assert!(grants.contains("active: {}, pinned: {}"), "{id:?}: {grants}");
                }
            });
        });
    })
}

/// A page that the mapper has mapped is nobody else's.
fn check_frame(hv: &Hypervisor, frame: Frame) {
    let mapping = hv
        .body(MAPPER)
        .and_then(|body| body.p2m.translate(&hv.memory, GuestAddress(AT)))
        .expect("it stays mapped");
    assert_eq!(mapping.machine, frame);
    let Some(granter) = hv
        .body(GRANTER)
        .filter(|_| hv.domain(GRANTER).unwrap().generation > 1)
    else {
        return;
    };
    granter.p2m.for_each(&hv.memory, |_, mapping, count| {
        let first = mapping.machine.0;
        let taken = mapping.kind == PageKind::Ram && (first..first + count).contains(&frame.0);
        assert!(!taken, "a page that others have mapped is given away");
    });
}

#[test]
fn a_domain_that_goes_leaves_no_page_to_two() {
    for version in [Version::One, Version::Two] {
        one_is_destroyed(version, GRANTER, false).holds("the granter goes");
        one_is_destroyed(version, MAPPER, false).holds("the mapper goes");
    }
    one_is_destroyed(Version::One, MAPPER, true).fails("forgets its maps", "active");
}

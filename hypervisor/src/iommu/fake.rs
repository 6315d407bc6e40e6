//! An IOMMU for tests, which keeps what it has learned until it is told to forget it, so that whoever forgets to tell it is found out.

use std::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    vec::Vec,
};

use super::{
    Format,
    description::Requester,
    unit::{Context, Features, Interrupt, InterruptEntry, Message, Plan, Report, Unit, UnitError},
};
use crate::memory::{DirectMap, Frame, FrameAllocator, GuestAddress, PAGE_SIZE, TableEntry, TableFormat};

/// What is behind a fake unit: the test holds one handle, the driver's place the other.
#[derive(Clone)]
pub struct Fake {
    memory: DirectMap,
    state: Arc<Mutex<State>>,
}

struct State {
    features: Features,
    enabled: bool,
    planned: Vec<Requester>,
    attached: BTreeMap<Requester, Context>,
    /// Translations that were used once: by tag and page.
    remembered: BTreeMap<(u16, u64), (Frame, bool)>,
    /// What the next completion makes it forget.
    queued: Vec<Forget>,
    interrupts: BTreeMap<u16, (Requester, Option<Interrupt>)>,
    reports: VecDeque<Report>,
    broken: bool,
    completions: usize,
}

enum Forget {
    Pages(u16, u64, u64),
    Domain(u16),
    Device(Requester),
}

impl Fake {
    /// A unit that can do everything.
    pub fn new(memory: DirectMap) -> Self {
        let features = Features {
            format: Format::Intel { coherent: true },
            three_levels: true,
            four_levels: true,
            large_pages: true,
            giant_pages: true,
            remembers_absence: false,
            tags: 1 << 16,
            remaps_interrupts: true,
            wide_destinations: true,
        };
        Self {
            memory,
            state: Arc::new(Mutex::new(State {
                features,
                enabled: false,
                planned: Vec::new(),
                attached: BTreeMap::new(),
                remembered: BTreeMap::new(),
                queued: Vec::new(),
                interrupts: BTreeMap::new(),
                reports: VecDeque::new(),
                broken: false,
                completions: 0,
            })),
        }
    }

    /// The driver of it.
    pub fn unit(&self) -> Box<dyn Unit> {
        Box::new(self.clone())
    }

    /// Changes what it can do.
    pub fn with_features(self, change: impl FnOnce(&mut Features)) -> Self {
        change(&mut self.state.lock().unwrap().features);
        self
    }

    /// It answers nothing from now on.
    pub fn break_down(&self) {
        self.state.lock().unwrap().broken = true;
    }

    /// Completions that were asked for so far.
    pub fn completions(&self) -> usize {
        self.state.lock().unwrap().completions
    }

    /// An entry appears in its log.
    pub fn report(&self, report: Report) {
        self.state.lock().unwrap().reports.push_back(report);
    }

    /// A device's access: the frame that it reaches.
    pub fn access(&self, requester: Requester, at: u64, write: bool) -> Option<Frame> {
        let mut state = self.state.lock().unwrap();
        let context = *state.attached.get(&requester)?;
        let key = (context.tag, at / PAGE_SIZE);
        let found = match state.remembered.get(&key) {
            Some(found) => *found,
            None => self.walk(state.features.format, context, GuestAddress(at))?,
        };
        state.remembered.insert(key, found);
        (found.1 || !write).then_some(found.0)
    }

    /// What an interrupt message of a device becomes.
    pub fn interrupt(&self, requester: Requester, message: Message) -> Option<Interrupt> {
        let state = self.state.lock().unwrap();
        let (bound, interrupt) = state.interrupts.get(&(message.data as u16))?;
        (*bound == requester).then_some(*interrupt)?
    }

    fn walk(&self, format: Format, context: Context, at: GuestAddress) -> Option<(Frame, bool)> {
        let mut table = context.root;
        for level in (0..context.levels).rev() {
            let index = at.frame_number() >> (9 * level) & 511;
            let slot = crate::memory::MachineAddress(table.0 + index * 8);
            let entry = self
                .memory
                .atomic_u64(slot)
                .load(core::sync::atomic::Ordering::Relaxed);
            match format.decode(entry, level) {
                TableEntry::Empty => return None,
                TableEntry::Table(next) => table = next.address(),
                TableEntry::Page(mapping) => {
                    let offset = at.frame_number() & ((1 << (9 * level)) - 1);
                    return Some((Frame(mapping.machine.0 + offset), mapping.writable));
                }
            }
        }
        None
    }
}

impl Unit for Fake {
    fn name(&self) -> &str {
        "a fake IOMMU"
    }

    fn features(&self) -> Features {
        self.state.lock().unwrap().features
    }

    fn enable(&mut self, _: &mut FrameAllocator, plan: &Plan) -> Result<(), UnitError> {
        let mut state = self.state.lock().unwrap();
        state.planned = plan.requesters.to_vec();
        state.enabled = true;
        Ok(())
    }

    fn attach(&mut self, requester: Requester, context: Context) -> Result<(), UnitError> {
        let mut state = self.state.lock().unwrap();
        assert!(state.enabled && context.tag != 0 && !state.attached.contains_key(&requester));
        if !state.planned.contains(&requester) || u32::from(context.tag) >= state.features.tags {
            return Err(UnitError::NoRoom);
        }
        state.attached.insert(requester, context);
        Ok(())
    }

    fn detach(&mut self, requester: Requester) {
        self.state.lock().unwrap().queued.push(Forget::Device(requester));
    }

    fn invalidate(&mut self, tag: u16, first: GuestAddress, count: u64) {
        let first = first.frame_number();
        self.state
            .lock()
            .unwrap()
            .queued
            .push(Forget::Pages(tag, first, count));
    }

    fn invalidate_domain(&mut self, tag: u16) {
        self.state.lock().unwrap().queued.push(Forget::Domain(tag));
    }

    fn complete(&mut self) -> Result<(), UnitError> {
        let mut state = self.state.lock().unwrap();
        state.completions += 1;
        if state.broken {
            return Err(UnitError::NoAnswer);
        }
        for forget in core::mem::take(&mut state.queued) {
            match forget {
                Forget::Pages(tag, first, count) => state
                    .remembered
                    .retain(|(of, page), _| *of != tag || !(first..first + count).contains(page)),
                Forget::Domain(tag) => state.remembered.retain(|(of, _), _| *of != tag),
                Forget::Device(requester) => {
                    state.attached.remove(&requester);
                }
            }
        }
        Ok(())
    }

    fn allocate_interrupt(&mut self, requester: Requester) -> Option<InterruptEntry> {
        let mut state = self.state.lock().unwrap();
        if !state.planned.contains(&requester) {
            return None;
        }
        let index = (0..256).find(|index| !state.interrupts.contains_key(index))?;
        state.interrupts.insert(index, (requester, None));
        Some(InterruptEntry { requester, index })
    }

    fn program_interrupt(&mut self, entry: InterruptEntry, interrupt: Option<Interrupt>) {
        let mut state = self.state.lock().unwrap();
        state.interrupts.insert(entry.index, (entry.requester, interrupt));
    }

    fn free_interrupt(&mut self, entry: InterruptEntry) {
        let freed = self.state.lock().unwrap().interrupts.remove(&entry.index);
        assert_eq!(freed, Some((entry.requester, None)));
    }

    fn message(&self, entry: InterruptEntry) -> Message {
        Message {
            address: 0xfee0_0000,
            data: entry.index.into(),
        }
    }

    fn redirection(&self, entry: InterruptEntry, _: Interrupt) -> u64 {
        entry.index.into()
    }

    fn signal_faults(&mut self, _: u8, _: u32) -> bool {
        true
    }

    fn next_report(&mut self) -> Option<Report> {
        self.state.lock().unwrap().reports.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iommu::{IoTables, Shape};

    #[test]
    fn it_remembers_until_it_is_told_to_forget() {
        let memory = DirectMap::fake(64);
        let mut frames = FrameAllocator::new(&[(Frame(1), 32)]);
        let fake = Fake::new(memory);
        let mut unit = fake.unit();
        let device = Requester(8);
        let plan = Plan {
            requesters: &[device],
            remap_interrupts: true,
            x2apic: false,
        };
        unit.enable(&mut frames, &plan).unwrap();
        let shape = Shape {
            format: fake.features().format,
            levels: 3,
            large_pages: true,
            giant_pages: false,
        };
        let mut io = IoTables::new(&memory, &mut frames, shape).unwrap();
        let at = GuestAddress(0x5000);
        io.map(&memory, &mut frames, at, Frame(40), 1, false).unwrap();
        assert_eq!(fake.access(device, at.0, false), None);
        let context = Context {
            tag: 3,
            root: io.root(),
            levels: 3,
        };
        unit.attach(device, context).unwrap();
        assert_eq!(unit.attach(Requester(9), context), Err(UnitError::NoRoom));
        assert_eq!(fake.access(device, at.0, false), Some(Frame(40)));
        assert_eq!(fake.access(device, at.0, true), None);
        io.unmap(&memory, &mut frames, at).unwrap();
        assert_eq!(fake.access(device, at.0, false), Some(Frame(40)));
        unit.invalidate(3, at, 1);
        unit.complete().unwrap();
        assert_eq!(fake.access(device, at.0, false), None);
    }
}

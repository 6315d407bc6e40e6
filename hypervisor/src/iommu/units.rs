//! All IOMMUs of the machine as one: who is attached where, what has to be forgotten, what was refused.

use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};

use super::{
    Requester, Shape, Unit, UnitError,
    topology::Route,
    unit::{Context, Interrupt, InterruptEntry, Message, Plan, Report},
};
use crate::{
    memory::{FrameAllocator, GuestAddress, MachineAddress},
    platform::pci::PciAddress,
};

/// Entries of a unit's log that are taken out at a time.
const MOST_REPORTS: usize = 64;

/// The machine's IOMMUs, all turned on; or none.
#[derive(Default)]
pub struct Iommu {
    units: Vec<Box<dyn Unit>>,
    shape: Option<Shape>,
    routes: BTreeMap<PciAddress, Route>,
    /// Whom each id is attached for.
    attached: BTreeMap<(usize, Requester), u16>,
    /// Units that have something to forget.
    pending: bool,
    remaps: bool,
    /// The vector by which units say that something was refused.
    vector: Option<u8>,
}

impl Iommu {
    /// Turns all units on. Either all are in use afterwards, or the error says which is not, and why.
    pub fn enable(
        mut units: Vec<Box<dyn Unit>>,
        routes: BTreeMap<PciAddress, Route>,
        senders: &[(usize, Requester)],
        frames: &mut FrameAllocator,
        wishes: Wishes,
    ) -> Result<Self, (usize, UnitError)> {
        let shape = common_shape(&units)?;
        let remaps = wishes.remap_interrupts && units.iter().all(|unit| unit.features().remaps_interrupts);
        for (index, unit) in units.iter_mut().enumerate() {
            let mut requesters: Vec<Requester> = routes
                .values()
                .filter(|route| route.unit == index)
                .flat_map(|route| route.requesters.iter().copied())
                .chain(
                    senders
                        .iter()
                        .filter(|(unit, _)| *unit == index)
                        .map(|(_, id)| *id),
                )
                .collect();
            requesters.sort_unstable();
            requesters.dedup();
            let plan = Plan {
                requesters: &requesters,
                remap_interrupts: remaps,
                x2apic: wishes.x2apic,
            };
            unit.enable(frames, &plan).map_err(|error| (index, error))?;
        }
        Ok(Self {
            units,
            shape: Some(shape),
            routes,
            attached: BTreeMap::new(),
            pending: false,
            remaps,
            vector: None,
        })
    }

    /// Has units interrupt a processor when they have refused something.
    pub fn signal_faults(&mut self, vector: u8, destination: u32) {
        self.vector = Some(vector);
        for unit in &mut self.units {
            if !unit.signal_faults(vector, destination) {
                log::warn!("{} cannot say when it refuses something", unit.name());
            }
        }
    }

    /// The vector of those interrupts.
    pub fn fault_vector(&self) -> Option<u8> {
        self.vector
    }

    /// How domains' tables are made; `None` where nothing confines devices.
    pub fn shape(&self) -> Option<Shape> {
        self.shape
    }

    /// Whether interrupts are remapped.
    pub fn remaps_interrupts(&self) -> bool {
        self.remaps
    }

    /// Lets a function reach what a domain's tables map.
    pub fn attach(&mut self, function: PciAddress, tag: u16, root: MachineAddress) -> Result<(), UnitError> {
        let (Some(shape), Some(route)) = (self.shape, self.routes.get(&function)) else {
            return Err(UnitError::NoRoom);
        };
        let context = Context {
            tag,
            root,
            levels: shape.levels,
        };
        let taken = |requester: &Requester| {
            let owner = self.attached.get(&(route.unit, *requester));
            owner.is_some_and(|owner| *owner != tag)
        };
        if route.requesters.iter().any(taken) {
            return Err(UnitError::NoRoom);
        }
        for requester in &route.requesters {
            if self.attached.insert((route.unit, *requester), tag).is_none() {
                self.units[route.unit].attach(*requester, context)?;
            }
        }
        self.pending = true;
        Ok(())
    }

    /// Takes all functions of a domain from its tables. Call [`Self::complete`] before the tables or what they mapped gets another use.
    pub fn detach_all(&mut self, tag: u16) {
        let units = &mut self.units;
        let mut any = false;
        self.attached.retain(|(unit, requester), owner| {
            let mine = *owner == tag;
            if mine {
                units[*unit].detach(*requester);
                any = true;
            }
            !mine
        });
        self.pending |= any;
    }

    /// A page of a domain was taken from its devices, or mapped where units remember that nothing was.
    pub fn invalidate(&mut self, tag: u16, at: GuestAddress) {
        let mut last = None;
        for ((unit, _), owner) in &self.attached {
            if *owner == tag && last != Some(*unit) {
                self.units[*unit].invalidate(tag, at, 1);
                last = Some(*unit);
            }
        }
        self.pending |= last.is_some();
    }

    /// The same for a page that was mapped, which most units need not be told.
    pub fn mapped(&mut self, tag: u16, at: GuestAddress) {
        if self.units.iter().any(|unit| unit.features().remembers_absence) {
            self.invalidate(tag, at);
        }
    }

    /// Waits until units have forgotten what they were told to.
    pub fn complete(&mut self) -> Result<(), UnitError> {
        if !core::mem::take(&mut self.pending) {
            return Ok(());
        }
        let mut result = Ok(());
        for unit in &mut self.units {
            if let Err(error) = unit.complete() {
                log::error!("{}: {error}", unit.name());
                result = Err(error);
            }
        }
        result
    }

    /// How many functions a unit answers for.
    pub fn functions_of(&self, unit: usize) -> usize {
        self.routes.values().filter(|route| route.unit == unit).count()
    }

    /// A function whose accesses arrive under this id at a unit.
    pub fn function(&self, unit: usize, requester: Requester) -> Option<PciAddress> {
        let mut found = self.routes.iter();
        found
            .find(|(_, route)| route.unit == unit && route.requesters.contains(&requester))
            .map(|(function, _)| *function)
    }

    /// Whom an id is attached for.
    pub fn owner(&self, unit: usize, requester: Requester) -> Option<u16> {
        self.attached.get(&(unit, requester)).copied()
    }

    /// Name of a unit.
    pub fn name(&self, unit: usize) -> &str {
        self.units.get(unit).map_or("", |unit| unit.name())
    }

    /// What units have refused since the last call, each with its unit; not more than is dealt with at a time.
    pub fn reports(&mut self) -> Vec<(usize, Report)> {
        let mut reports = Vec::new();
        for (index, unit) in self.units.iter_mut().enumerate() {
            while reports.len() < MOST_REPORTS
                && let Some(report) = unit.next_report()
            {
                reports.push((index, report));
            }
        }
        reports
    }

    /// An entry for an interrupt of a function.
    pub fn allocate_interrupt(&mut self, function: PciAddress) -> Option<(usize, InterruptEntry)> {
        let route = self.routes.get(&function)?;
        let entry = self.units[route.unit].allocate_interrupt(route.requesters[0])?;
        Some((route.unit, entry))
    }

    /// An entry for an interrupt of something that is no function.
    pub fn allocate_for(&mut self, unit: usize, requester: Requester) -> Option<InterruptEntry> {
        self.units.get_mut(unit)?.allocate_interrupt(requester)
    }

    /// Says what comes through an entry, and answers what the device sends for it.
    pub fn program_interrupt(
        &mut self,
        unit: usize,
        entry: InterruptEntry,
        interrupt: Option<Interrupt>,
    ) -> Result<Message, UnitError> {
        let unit = self.units.get_mut(unit).ok_or(UnitError::NoRoom)?;
        unit.program_interrupt(entry, interrupt);
        unit.complete()?;
        Ok(unit.message(entry))
    }

    /// What an I/O APIC holds for an entry.
    pub fn redirection(&self, unit: usize, entry: InterruptEntry, interrupt: Interrupt) -> Option<u64> {
        Some(self.units.get(unit)?.redirection(entry, interrupt))
    }

    /// Gives an entry back.
    pub fn free_interrupt(&mut self, unit: usize, entry: InterruptEntry) {
        if let Some(unit) = self.units.get_mut(unit) {
            unit.program_interrupt(entry, None);
            let _ = unit.complete();
            unit.free_interrupt(entry);
        }
    }
}

/// What the machine wants of its units.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    /// Interrupts are to be remapped if all units can.
    pub remap_interrupts: bool,
    /// Local APICs are in x2APIC mode.
    pub x2apic: bool,
}

/// Tables that all units can walk.
fn common_shape(units: &[Box<dyn Unit>]) -> Result<Shape, (usize, UnitError)> {
    let all = |able: fn(&super::unit::Features) -> bool| units.iter().all(|unit| able(&unit.features()));
    let first = units.first().ok_or((0, UnitError::Lacks("units")))?;
    let levels = if all(|features| features.three_levels) {
        3
    } else if all(|features| features.four_levels) {
        4
    } else {
        return Err((0, UnitError::Lacks("a size of tables that the others have")));
    };
    // One that does not see caches makes all tables be written back.
    let blind = units
        .iter()
        .map(|unit| unit.features().format)
        .find(|format| matches!(format, super::Format::Intel { coherent: false }));
    Ok(Shape {
        format: blind.unwrap_or(first.features().format),
        levels,
        large_pages: all(|features| features.large_pages),
        giant_pages: all(|features| features.giant_pages),
    })
}

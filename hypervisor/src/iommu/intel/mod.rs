//! Intel VT-d (Intel Virtualization Technology for Directed I/O, Architecture Specification).
//!
//! Legacy mode: a table of buses, a table of devices for each bus, and the domain's tables behind a device's entry. What changes is invalidated by the queue,
//! interrupts go by one table of 256 entries, each of which is bound to its sender; that is more than processors have vectors.

mod queue;
mod registers;
#[cfg(test)]
mod tests;

use alloc::{boxed::Box, collections::BTreeMap, format, string::String};
use core::sync::atomic::Ordering;

use self::{
    queue::{Descriptor, Queue},
    registers::*,
};
use super::{
    Format, Requester, Unit, UnitError, description,
    format::write_back,
    unit::{
        Access, Context, Fault, Features, Interrupt, InterruptEntry, Message, Patience, Plan, Registers,
        Report,
    },
};
use crate::memory::{DirectMap, Frame, FrameAllocator, GuestAddress, MachineAddress, OutOfMemory, PAGE_SIZE};

/// Bytes of registers that the driver reaches.
pub const REGISTERS: usize = 0x1000;

const PRESENT: u64 = 1;
/// Entries of the interrupt table: what fits into a page, and its size as the register wants it.
const INTERRUPTS: u16 = 256;
const INTERRUPTS_SIZE: u64 = 7;
/// Pieces of a power of two that a range is invalidated by at most; a domain is, instead of more.
const MOST_PIECES: u32 = 8;

/// Takes a unit over that firmware describes, with its registers mapped ([`REGISTERS`] bytes); it does nothing yet.
pub fn take(
    registers: Box<dyn Registers>,
    described: &description::Unit,
    memory: DirectMap,
) -> Result<Box<dyn Unit>, UnitError> {
    Ok(Box::new(Driver::new(registers, described, memory)?))
}

struct Driver {
    registers: Box<dyn Registers>,
    memory: DirectMap,
    name: String,
    capabilities: Capabilities,
    enabled: Option<Enabled>,
    /// Fault records: where, how many of them can be reached, and the next to look at.
    records: (usize, usize),
    next_record: usize,
}

/// What a unit works with.
struct Enabled {
    queue: Queue,
    contexts: BTreeMap<u8, Frame>,
    interrupts: Frame,
    /// Entries that are given out.
    taken: [u64; 4],
    wide: bool,
}

impl Driver {
    fn new(
        registers: Box<dyn Registers>,
        described: &description::Unit,
        memory: DirectMap,
    ) -> Result<Self, UnitError> {
        let version = registers.read32(VERSION);
        let capabilities = Capabilities {
            basic: registers.read64(CAPABILITY),
            extended: registers.read64(EXTENDED_CAPABILITY),
        };
        if version == 0 || version == u32::MAX || capabilities.basic == u64::MAX {
            return Err(UnitError::Registers("there is nothing"));
        }
        if !capabilities.has_queue() {
            return Err(UnitError::Lacks("queued invalidation"));
        }
        let (first, count) = capabilities.records();
        let reachable = REGISTERS.saturating_sub(first) / 16;
        Ok(Self {
            name: format!(
                "Intel VT-d {}.{} at {:#x}",
                version >> 4 & 15,
                version & 15,
                described.registers.0
            ),
            registers,
            memory,
            capabilities,
            enabled: None,
            records: (first, count.min(reachable)),
            next_record: 0,
        })
    }

    /// Gives a command, with what lasts as it is, and waits until the status says that it has happened.
    fn command(&self, bit: u32, on: bool, status: Option<u32>) -> Result<(), UnitError> {
        let lasting = self.registers.read32(STATUS) & LASTING;
        let value = if on { lasting | bit } else { lasting & !bit };
        self.registers.write32(COMMAND, value);
        let Some(status) = status else { return Ok(()) };
        let done = || (self.registers.read32(STATUS) & status != 0) == on;
        if Patience::new().wait(done) {
            Ok(())
        } else {
            Err(UnitError::NoAnswer)
        }
    }

    fn turn_off(&self, bit: u32) -> Result<(), UnitError> {
        if self.registers.read32(STATUS) & bit == 0 {
            return Ok(());
        }
        self.command(bit, false, Some(bit))
    }

    /// Units of old keep what was written to memory in a buffer of theirs.
    fn flush_writes(&self) {
        if self.capabilities.buffers_writes() {
            self.registers
                .write32(COMMAND, self.registers.read32(STATUS) & LASTING | FLUSH_WRITES);
            Patience::new().wait(|| self.registers.read32(STATUS) & FLUSH_WRITES == 0);
        }
    }

    fn table(&self, frames: &mut FrameAllocator) -> Result<Frame, UnitError> {
        let frame = frames.allocate_zeroed(&self.memory).ok_or(OutOfMemory)?;
        self.written(frame.address(), PAGE_SIZE as usize);
        Ok(frame)
    }

    fn written(&self, at: MachineAddress, length: usize) {
        if !self.capabilities.coherent() {
            write_back(&self.memory, at, length);
        }
    }

    /// Writes both halves of an entry, so that it is whole whenever it is present.
    fn write_entry(&self, at: MachineAddress, low: u64, high: u64) {
        let store = |offset, value| {
            self.memory
                .atomic_u64(MachineAddress(at.0 + offset))
                .store(value, Ordering::SeqCst);
        };
        if low & PRESENT == 0 {
            store(0, low);
            store(8, high);
        } else {
            store(8, high);
            store(0, low);
        }
        self.written(at, 16);
    }

    fn context(&self, requester: Requester) -> Option<MachineAddress> {
        let table = self.enabled.as_ref()?.contexts.get(&((requester.0 >> 8) as u8))?;
        Some(MachineAddress(
            table.address().0 + u64::from(requester.0 & 0xff) * 16,
        ))
    }

    fn push(&mut self, descriptor: Descriptor) {
        if let Some(enabled) = &mut self.enabled {
            enabled.queue.push(&*self.registers, descriptor);
        }
    }

    fn fence(&mut self) {
        if let Some(enabled) = &mut self.enabled {
            enabled.queue.fence(&*self.registers);
        }
    }

    fn start(&mut self, frames: &mut FrameAllocator, plan: &Plan) -> Result<(), UnitError> {
        for bit in [TRANSLATION, REMAPPING, QUEUE] {
            self.turn_off(bit)?;
        }
        let root = self.table(frames)?;
        let mut contexts = BTreeMap::new();
        for bus in plan.requesters.iter().map(|requester| (requester.0 >> 8) as u8) {
            if contexts.contains_key(&bus) {
                continue;
            }
            let table = self.table(frames)?;
            let entry = MachineAddress(root.address().0 + u64::from(bus) * 16);
            self.write_entry(entry, table.address().0 | PRESENT, 0);
            contexts.insert(bus, table);
        }
        let (commands, status, interrupts) = (self.table(frames)?, self.table(frames)?, self.table(frames)?);
        self.registers.write64(QUEUE_TAIL, 0);
        self.registers.write64(QUEUE_ADDRESS, commands.address().0);
        self.command(QUEUE, true, Some(QUEUE))?;
        let wide = plan.x2apic && self.capabilities.wide_destinations();
        self.enabled = Some(Enabled {
            queue: Queue::new(self.memory, commands, status),
            contexts,
            interrupts,
            taken: [0; 4],
            wide,
        });
        self.clear_faults();
        self.flush_writes();
        self.registers.write64(ROOT_TABLE, root.address().0);
        self.command(SET_ROOT, true, Some(SET_ROOT))?;
        self.push(Descriptor::ALL_CONTEXTS);
        self.fence();
        self.push(Descriptor::all_translations(self.capabilities.drains()));
        self.complete()?;
        if plan.remap_interrupts {
            let wide = if wide { WIDE_DESTINATIONS } else { 0 };
            let table = interrupts.address().0 | wide | INTERRUPTS_SIZE;
            self.registers.write64(INTERRUPT_TABLE, table);
            self.command(SET_INTERRUPT_TABLE, true, Some(SET_INTERRUPT_TABLE))?;
            self.push(Descriptor::ALL_INTERRUPTS);
            self.complete()?;
            // The old form of messages is let through where firmware left that on.
            self.turn_off(COMPATIBLE_MESSAGES)?;
            self.command(REMAPPING, true, Some(REMAPPING))?;
        }
        self.command(TRANSLATION, true, Some(TRANSLATION))?;
        if self.capabilities.protects_memory() && self.registers.read32(PROTECTED_MEMORY) & PROTECTION != 0 {
            self.registers.write32(PROTECTED_MEMORY, 0);
            Patience::new().wait(|| self.registers.read32(PROTECTED_MEMORY) & PROTECTION_STATUS == 0);
        }
        Ok(())
    }

    fn clear_faults(&mut self) {
        let (first, count) = self.records;
        for record in 0..count {
            self.registers.write32(first + record * 16 + 12, 1 << 31);
        }
        self.registers.write32(FAULT_STATUS, FAULT_CLEAR);
    }

    fn interrupt_entry(&self, index: u16) -> Option<MachineAddress> {
        let table = self.enabled.as_ref()?.interrupts;
        (index < INTERRUPTS).then(|| MachineAddress(table.address().0 + u64::from(index) * 16))
    }
}

impl Unit for Driver {
    fn name(&self) -> &str {
        &self.name
    }

    fn features(&self) -> Features {
        let (three_levels, four_levels) = self.capabilities.levels();
        let (large_pages, giant_pages) = self.capabilities.large_pages();
        Features {
            format: Format::Intel {
                coherent: self.capabilities.coherent(),
            },
            three_levels,
            four_levels,
            large_pages,
            giant_pages,
            remembers_absence: self.capabilities.remembers_absence(),
            tags: self.capabilities.domains(),
            remaps_interrupts: self.capabilities.remaps_interrupts(),
            wide_destinations: self.capabilities.wide_destinations(),
        }
    }

    fn enable(&mut self, frames: &mut FrameAllocator, plan: &Plan) -> Result<(), UnitError> {
        let started = self.start(frames, plan);
        if started.is_err() {
            for bit in [TRANSLATION, REMAPPING, QUEUE] {
                let _ = self.turn_off(bit);
            }
            self.enabled = None;
        }
        started
    }

    fn attach(&mut self, requester: Requester, context: Context) -> Result<(), UnitError> {
        let entry = self.context(requester).ok_or(UnitError::NoRoom)?;
        if u32::from(context.tag) >= self.capabilities.domains() {
            return Err(UnitError::NoRoom);
        }
        // Levels less two, and the tag.
        let high = u64::from(context.levels - 2) | u64::from(context.tag) << 8;
        self.write_entry(entry, context.root.0 | PRESENT, high);
        if self.capabilities.remembers_absence() {
            // What is absent is remembered under the tag 0.
            self.push(Descriptor::context(requester.0, 0));
            self.fence();
            self.invalidate_domain(context.tag);
        }
        self.flush_writes();
        Ok(())
    }

    fn detach(&mut self, requester: Requester) {
        let Some(entry) = self.context(requester) else {
            return;
        };
        let word = |offset| {
            self.memory
                .atomic_u64(MachineAddress(entry.0 + offset))
                .load(Ordering::Relaxed)
        };
        if word(0) & PRESENT == 0 {
            return;
        }
        let tag = (word(8) >> 8) as u16;
        self.write_entry(entry, 0, 0);
        self.push(Descriptor::context(requester.0, tag));
        self.fence();
        self.invalidate_domain(tag);
    }

    fn invalidate(&mut self, tag: u16, first: GuestAddress, count: u64) {
        let drains = self.capabilities.drains();
        let Some(most) = self.capabilities.page_invalidation() else {
            return self.invalidate_domain(tag);
        };
        let (mut page, end) = (first.frame_number(), first.frame_number().saturating_add(count));
        let mut pieces = 0;
        while page < end {
            if pieces == MOST_PIECES {
                return self.invalidate_domain(tag);
            }
            let order = page.trailing_zeros().min((end - page).ilog2()).min(most);
            let address = GuestAddress::of_frame(page).0;
            self.push(Descriptor::pages(tag, drains, address, order));
            page += 1 << order;
            pieces += 1;
        }
    }

    fn invalidate_domain(&mut self, tag: u16) {
        self.push(Descriptor::domain(tag, self.capabilities.drains()));
    }

    fn complete(&mut self) -> Result<(), UnitError> {
        self.flush_writes();
        let enabled = self.enabled.as_mut().ok_or(UnitError::NoAnswer)?;
        enabled.queue.complete(&*self.registers)
    }

    fn allocate_interrupt(&mut self, requester: Requester) -> Option<InterruptEntry> {
        let taken = &mut self.enabled.as_mut()?.taken;
        let word = taken.iter().position(|word| *word != u64::MAX)?;
        let bit = (!taken[word]).trailing_zeros();
        taken[word] |= 1 << bit;
        let index = word as u16 * 64 + bit as u16;
        Some(InterruptEntry { requester, index })
    }

    fn program_interrupt(&mut self, entry: InterruptEntry, interrupt: Option<Interrupt>) {
        const VERIFY_SENDER: u64 = 1 << 18;
        let Some(at) = self.interrupt_entry(entry.index) else {
            return;
        };
        let wide = self.enabled.as_ref().is_some_and(|enabled| enabled.wide);
        match interrupt {
            Some(interrupt) => {
                let shift = if wide { 32 } else { 40 };
                let low = PRESENT
                    | u64::from(interrupt.level) << 4
                    | u64::from(interrupt.vector) << 16
                    | u64::from(interrupt.destination) << shift;
                self.write_entry(at, low, VERIFY_SENDER | u64::from(entry.requester.0));
            }
            None => self.write_entry(at, 0, 0),
        }
        self.push(Descriptor::interrupt(entry.index));
    }

    fn free_interrupt(&mut self, entry: InterruptEntry) {
        if let Some(enabled) = &mut self.enabled
            && let Some(word) = enabled.taken.get_mut(usize::from(entry.index / 64))
        {
            *word &= !(1 << (entry.index % 64));
        }
    }

    fn message(&self, entry: InterruptEntry) -> Message {
        Message {
            address: 0xfee0_0010 | u64::from(entry.index) << 5,
            data: 0,
        }
    }

    fn redirection(&self, entry: InterruptEntry, interrupt: Interrupt) -> u64 {
        u64::from(entry.index) << 49 | 1 << 48 | u64::from(interrupt.vector)
    }

    fn signal_faults(&mut self, vector: u8, destination: u32) -> bool {
        let (low, high) = (destination & 0xff, destination & !0xff);
        self.registers.write32(FAULT_DATA, vector.into());
        self.registers.write32(FAULT_ADDRESS, 0xfee0_0000 | low << 12);
        self.registers.write32(FAULT_UPPER_ADDRESS, high);
        let control = self.registers.read32(FAULT_CONTROL);
        self.registers.write32(FAULT_CONTROL, control & !FAULT_MASKED);
        high == 0 || self.capabilities.wide_destinations()
    }

    fn next_report(&mut self) -> Option<Report> {
        let status = self.registers.read32(FAULT_STATUS);
        let (first, count) = self.records;
        if status & FAULT_PENDING != 0 {
            for _ in 0..count {
                let at = first + self.next_record % count * 16;
                self.next_record = (self.next_record + 1) % count;
                let high = self.registers.read64(at + 8);
                if high & RECORD_FULL == 0 {
                    continue;
                }
                let address = self.registers.read64(at);
                self.registers.write32(at + 12, 1 << 31);
                let code = (high >> 32) as u8;
                let access = match code {
                    FIRST_INTERRUPT_REASON..INTERRUPT_REASONS_END => Access::Interrupt,
                    _ if high & RECORD_READ != 0 => Access::Read,
                    _ => Access::Write,
                };
                return Some(Report::Fault(Fault {
                    requester: Requester(high as u16),
                    access,
                    address: if access == Access::Interrupt {
                        address >> 48
                    } else {
                        address
                    },
                    code: code.into(),
                    reason: reason(code),
                }));
            }
        }
        if status & FAULT_OVERFLOW != 0 {
            self.registers.write32(FAULT_STATUS, FAULT_OVERFLOW);
            return Some(Report::Lost);
        }
        if status & (QUEUE_ERROR | COMPLETION_ERRORS) != 0 {
            self.registers
                .write32(FAULT_STATUS, QUEUE_ERROR | COMPLETION_ERRORS);
            return Some(Report::Trouble("it refuses a command", status.into()));
        }
        None
    }
}

//! The machine's part of physical interrupts; in tests there is none, and everything works.

#[cfg(test)]
pub(super) use fake::{
    LOG_END, TARGETS, allocate_vector, check, connect, disconnect, free_vector, leave_console, log_end,
    retarget, unmask,
};
#[cfg(not(test))]
pub(super) use real::{
    allocate_vector, check, connect, disconnect, free_vector, leave_console, log_end, retarget, unmask,
};

#[cfg(not(test))]
mod real {
    use crate::{
        Hypervisor,
        errno::Errno,
        event::interrupts::Source,
        platform::{
            interrupts, local_apic, log,
            pci::{self, PciAddress, PciFunction},
        },
    };

    fn function(hv: &Hypervisor, address: PciAddress) -> Result<&PciFunction, Errno> {
        hv.machine.pci_function(address).ok_or(Errno::NODEV)
    }

    /// Whether the source exists: the function has MSI-X and an entry of that number.
    pub(in crate::event) fn check(hv: &Hypervisor, source: Source) -> Result<(), Errno> {
        let Source::Message {
            function: address,
            entry,
        } = source
        else {
            return Ok(());
        };
        let msix = function(hv, address)?.msix.ok_or(Errno::NODEV)?;
        if entry < msix.entries {
            Ok(())
        } else {
            Err(Errno::INVAL)
        }
    }

    /// A vector of the processor that nothing uses.
    pub(in crate::event) fn allocate_vector() -> Option<u8> {
        interrupts::allocate_vector()
    }

    /// Gives one back.
    pub(in crate::event) fn free_vector(vector: u8) {
        interrupts::free_vector(vector);
    }

    /// Local APIC id of the processor that interrupts which are meant for `processor` go to: that one, or the boot processor where a message cannot
    /// name it.
    fn destination(hv: &Hypervisor, processor: usize) -> u32 {
        let meant = hv.processors.get(processor).map(|this| this.apic_id);
        meant
            .filter(|id| *id < local_apic::BROADCAST_8_BIT)
            .unwrap_or_else(local_apic::boot_id)
    }

    /// Lets the source raise the vector at a processor.
    pub(in crate::event) fn connect(
        hv: &Hypervisor,
        source: Source,
        vector: u8,
        processor: usize,
    ) -> Result<(), Errno> {
        let apic_id = destination(hv, processor);
        match source {
            Source::Line(gsi) => {
                interrupts::route_gsi(gsi, vector, apic_id).map_err(|_| Errno::NODEV)?;
                interrupts::unmask_gsi(gsi);
            }
            Source::Message {
                function: address,
                entry,
            } => {
                let function = function(hv, address)?;
                let programmed = pci::msix_program(function, entry, vector, apic_id);
                programmed
                    .and_then(|()| pci::msix_enable(function))
                    .map_err(|error| {
                        ::log::warn!("interrupt {entry} of {address:?} cannot be used: {error}");
                        Errno::NXIO
                    })?;
            }
        }
        Ok(())
    }

    /// Lets a source that is connected raise its vector at another processor from now on. What was on its way arrives where it was sent.
    pub(in crate::event) fn retarget(hv: &Hypervisor, source: Source, vector: u8, processor: usize) {
        let apic_id = destination(hv, processor);
        match source {
            Source::Line(gsi) => interrupts::retarget_gsi(gsi, apic_id),
            Source::Message {
                function: address,
                entry,
            } => {
                // One that could be programmed before can be again.
                let _ =
                    function(hv, address).map(|function| pci::msix_program(function, entry, vector, apic_id));
            }
        }
    }

    /// The source may raise nothing any more.
    pub(in crate::event) fn disconnect(hv: &Hypervisor, source: Source) {
        match source {
            Source::Line(gsi) => interrupts::mask_gsi(gsi),
            Source::Message {
                function: address,
                entry,
            } => {
                // A function that is not there, or has no such entry, raises nothing.
                let _ = function(hv, address).map(|function| pci::msix_set_masked(function, entry, true));
            }
        }
    }

    /// Lets a line arrive that was masked.
    pub(in crate::event) fn unmask(gsi: u32) {
        interrupts::unmask_gsi(gsi);
    }

    /// A domain owns the operator's console now, or no longer: the hypervisor leaves the serial port to it, or writes to it again.
    pub(in crate::event) fn leave_console(owned: bool) {
        log::serial(!owned);
    }

    /// Position behind the last byte of the log.
    pub(in crate::event) fn log_end() -> u64 {
        log::end()
    }
}

#[cfg(test)]
mod fake {
    use core::cell::{Cell, RefCell};
    use std::vec::Vec;

    use crate::{Hypervisor, errno::Errno, event::interrupts::Source};

    std::thread_local!(static NEXT: Cell<u8> = const { Cell::new(0x30) });

    pub(in crate::event) fn check(_: &Hypervisor, _: Source) -> Result<(), Errno> {
        Ok(())
    }

    pub(in crate::event) fn allocate_vector() -> Option<u8> {
        let vector = NEXT.get();
        NEXT.set(vector.checked_add(1)?);
        Some(vector)
    }

    pub(in crate::event) fn free_vector(_: u8) {}

    std::thread_local! {
        /// The processors that sources were sent to, one after the other.
        pub(in crate::event) static TARGETS: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    }

    pub(in crate::event) fn connect(_: &Hypervisor, _: Source, _: u8, processor: usize) -> Result<(), Errno> {
        TARGETS.with_borrow_mut(|targets| targets.push(processor));
        Ok(())
    }

    pub(in crate::event) fn retarget(_: &Hypervisor, _: Source, _: u8, processor: usize) {
        TARGETS.with_borrow_mut(|targets| targets.push(processor));
    }

    pub(in crate::event) fn disconnect(_: &Hypervisor, _: Source) {}

    pub(in crate::event) fn unmask(_: u32) {}

    std::thread_local!(pub(in crate::event) static LOG_END: Cell<u64> = const { Cell::new(0) });

    pub(in crate::event) fn leave_console(_: bool) {}

    pub(in crate::event) fn log_end() -> u64 {
        LOG_END.get()
    }
}

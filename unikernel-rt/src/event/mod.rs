//! Event channels: one-bit notifications between domains, and how interrupts and timers arrive.
//!
//! A unikernel runs with interrupts off. Its loop looks at what fired, works, and calls [`EventChannels::wait`]; nothing
//! ever interrupts it in between. A port that fires while somebody waits for another one is remembered and comes with the next
//! [`poll`](EventChannels::poll) or [`wait`](EventChannels::wait).

mod channel;
mod polling;
mod ports;
#[cfg(target_os = "none")]
pub(crate) mod xen;

use alloc::rc::Rc;
use core::time::Duration;

use pci_types::PciAddress;

pub use channel::{Channel, Interrupt};
pub use polling::Polling;
pub use ports::{Port, PortSet};

use crate::DomainId;
use crate::hypercall::Errno;
use crate::time::{Clock, Instant};

/// Where an interrupt comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptSource {
    /// An entry of a function's MSI-X table (or its only MSI). The hypervisor programs and enables it.
    Msi {
        /// The function.
        function: PciAddress,
        /// The entry.
        entry: u16,
    },
    /// A line of the interrupt controller: 4 for the first serial port.
    Gsi(u32),
}

/// A shared handle to the event channels of this domain.
pub type Events = Rc<dyn EventChannels>;

/// The event channels of this domain. [`Channel`] and [`Interrupt`] are the owners to use; the calls that answer a bare
/// [`Port`] leave closing to the caller.
pub trait EventChannels: Clock {
    /// Makes a port that `remote` may bind to.
    fn allocate_unbound(&self, remote: DomainId) -> Result<Port, Errno>;
    /// Binds a new port to a port that another domain allocated for us.
    fn bind_interdomain(&self, remote: DomainId, remote_port: Port) -> Result<Port, Errno>;
    /// Binds a virtual interrupt (`VIRQ_*`).
    fn bind_virq(&self, virq: u32) -> Result<Port, Errno>;
    /// Gets a physical interrupt's number for us.
    fn map_interrupt(&self, source: InterruptSource) -> Result<u32, Errno>;
    /// Binds a physical interrupt.
    fn bind_pirq(&self, pirq: u32) -> Result<Port, Errno>;
    /// Says that a physical interrupt was handled, so that a level-triggered one may come again.
    fn end_of_interrupt(&self, pirq: u32) -> Result<(), Errno>;
    /// Closes a port.
    fn close(&self, port: Port) -> Result<(), Errno>;
    /// Notifies the other end of a port.
    fn notify(&self, port: Port) -> Result<(), Errno>;
    /// Keeps a port from waking us.
    fn mask(&self, port: Port);
    /// Lets a port wake us again; it fires at once if it became pending meanwhile.
    fn unmask(&self, port: Port) -> Result<(), Errno>;

    /// The ports that have fired since they were last answered. Does not wait.
    fn poll(&self) -> PortSet;
    /// The ports that have fired; waits for the first one, until `deadline` (then the set is empty).
    fn wait(&self, deadline: Option<Instant>) -> PortSet;
    /// Has a port come with the next [`poll`](Self::poll) or [`wait`](Self::wait), as if it had fired: for who has waited for it
    /// and found more than it wanted.
    fn remember(&self, port: Port);
    /// Waits for one port and leaves what others have to say for later. Answers whether it fired before `deadline`.
    fn wait_for(&self, port: Port, deadline: Option<Instant>) -> bool;

    /// Like [`wait`](Self::wait), but looks again and again for `budget` before it gives the processor away: for a
    /// backend under load, whose next event is nearer than the cost of a block and a wake.
    fn wait_polling(&self, deadline: Option<Instant>, budget: Duration) -> PortSet {
        let give_up = self.now() + budget;
        loop {
            let fired = self.poll();
            let now = self.now();
            if !fired.is_empty() || deadline.is_some_and(|deadline| now >= deadline) {
                return fired;
            }
            if now >= give_up {
                return self.wait(deadline);
            }
            core::hint::spin_loop();
        }
    }
}

//! What a domain is given when it starts.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::DomainId;
use crate::atoll::Control;
use crate::console::Console;
use crate::event::{Events, Polling};
use crate::grant::Grants;
use crate::keep::Keep;
use crate::pci::Config;
use crate::xenstore::Store;

/// A module that was loaded beside the domain (the control domain's first one is the manifest).
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// Its bytes.
    pub data: &'static [u8],
    /// Its command line.
    pub command_line: &'static str,
}

/// The domain's world: every way out of it. The fields are shared handles, so that parts of a domain keep what they
/// need, and tests put fakes in.
#[derive(Clone)]
pub struct System {
    /// This domain's id.
    pub domain: DomainId,
    /// The command line.
    pub command_line: &'static str,
    /// The modules.
    pub modules: Vec<Module>,
    /// Event channels and the clock.
    pub events: Events,
    /// Grant tables.
    pub grants: Rc<dyn Grants>,
    /// The hypervisor's control interface.
    pub control: Rc<dyn Control>,
    /// PCI configuration space.
    pub pci: Config,
    /// What this domain hands on to its next life.
    pub keep: Keep,
    connections: Connections,
}

/// How to reach xenstore and the console, which not every domain uses.
#[derive(Clone)]
pub struct Connections {
    /// Connects to xenstore.
    pub store: fn(&System) -> Result<Rc<dyn Store>, StartError>,
    /// Opens the domain's own console.
    pub console: fn(&System) -> Result<Console, StartError>,
}

impl System {
    /// Puts a system together; `boot` does it on the machine.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        domain: DomainId,
        command_line: &'static str,
        modules: Vec<Module>,
        events: Events,
        grants: Rc<dyn Grants>,
        control: Rc<dyn Control>,
        pci: Config,
        connections: Connections,
    ) -> Self {
        Self {
            domain,
            command_line,
            modules,
            events,
            grants,
            control,
            pci,
            keep: Keep::new(None),
            connections,
        }
    }

    /// The same with a keep region.
    pub fn with_keep(self, keep: Keep) -> Self {
        Self { keep, ..self }
    }

    /// Connects to xenstore. Call it once and share the handle: two clients on one ring would take each other's answers.
    pub fn store(&self) -> Result<Rc<dyn Store>, StartError> {
        (self.connections.store)(self)
    }

    /// Opens this domain's own console. Call it once.
    pub fn console(&self) -> Result<Console, StartError> {
        (self.connections.console)(self)
    }

    /// How this domain's loop is to wait: for as long as its manifest allows it looks for work before it sleeps, if that pays.
    pub fn polling(&self) -> Polling {
        let info = self.control.domain_info(DomainId::SELF);
        Polling::new(Duration::from_nanos(info.map_or(0, |info| info.polling)))
    }

    /// The value of `key=value` on the command line; of the bare word `key`, an empty text.
    pub fn option(&self, key: &str) -> Option<&'static str> {
        self.command_line.split_ascii_whitespace().find_map(|word| {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            (name == key).then_some(value)
        })
    }
}

impl fmt::Debug for System {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "System({}, {:?})", self.domain, self.command_line)
    }
}

/// Why something that the hypervisor prepares for every domain is not there.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StartError {
    /// A hypercall failed.
    #[error("{what} is not available: {error}")]
    Call {
        /// What was asked for.
        what: &'static str,
        /// The refusal.
        error: crate::hypercall::Errno,
    },
    /// The hypervisor prepared nothing.
    #[error("the hypervisor gave this domain no {0}")]
    Missing(&'static str),
    /// The ring does not fit its page.
    #[error(transparent)]
    Ring(#[from] crate::ring::RingError),
}

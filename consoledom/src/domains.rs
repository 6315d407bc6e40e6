//! The consoles of all domains: finds each domain's ring when the domain appears, serves it, and lets go when the domain is gone or
//! was built anew.

use alloc::{collections::BTreeMap, rc::Rc, string::ToString, vec::Vec};

use unikernel_rt::{
    DomainId, System,
    atoll::{self, Control},
    event::{Channel, Events},
    grant::{Access, GrantRef, Grants, MapRequest},
};
use xen_abi::{
    atoll::{
        DOMAIN_STATE_ABSENT, DOMAIN_STATE_BUILDING, DOMAIN_STATE_FAILED, DOMAIN_STATE_RUNNING,
        DOMAIN_STATE_STOPPED,
    },
    grant_table::GNTTAB_RESERVED_CONSOLE,
};

use crate::{console::Console, shell::DomainStatus, top::sample::DomainSample};

struct Connection {
    generation: u32,
    channel: Channel,
    /// `None` once the domain wrote nonsense into its ring.
    console: Option<Console>,
}

/// Every console that is served.
pub struct Domains {
    myself: DomainId,
    events: Events,
    grants: Rc<dyn Grants>,
    control: Rc<dyn Control>,
    connections: BTreeMap<u16, Connection>,
}

impl Domains {
    /// Serves none yet.
    pub fn new(system: &System) -> Self {
        Self {
            myself: system.domain,
            events: system.events.clone(),
            grants: system.grants.clone(),
            control: system.control.clone(),
            connections: BTreeMap::new(),
        }
    }

    /// Looks for domains that came or went.
    pub fn refresh(&mut self) {
        let all = match atoll::domains(&*self.control) {
            Ok(all) => all,
            Err(error) => return log::error!("cannot list the domains: {error}"),
        };
        for info in all {
            let id = info.domain;
            let known = self.connections.get(&id).map(|connection| connection.generation);
            let present = info.state == DOMAIN_STATE_RUNNING && id != self.myself.0;
            if known.is_some() && !(present && known == Some(info.generation)) {
                self.connections.remove(&id);
            }
            if present && known != Some(info.generation) {
                match self.connect(id, info.console_port) {
                    Ok((channel, console)) => {
                        let connection = Connection {
                            generation: info.generation,
                            channel,
                            console: Some(console),
                        };
                        self.connections.insert(id, connection);
                    }
                    Err(error) => log::warn!("the console of {} is not served: {error}", atoll::name(&info)),
                }
            }
        }
    }

    fn connect(&self, domain: u16, port: u32) -> Result<(Channel, Console), alloc::string::String> {
        let request = MapRequest {
            domain: DomainId(domain),
            reference: GrantRef(GNTTAB_RESERVED_CONSOLE),
            access: Access::ReadWrite,
            device: false,
        };
        let mapping = self.grants.map(&[request]).map_err(|error| error.to_string())?;
        let console = Console::attach(mapping.memory().clone()).map_err(|error| error.to_string())?;
        let channel =
            Channel::bind_interdomain(&self.events, DomainId(domain), unikernel_rt::event::Port(port))
                .map_err(|error| error.to_string())?;
        Ok((channel, console))
    }

    /// Queues a key for a domain.
    pub fn key(&mut self, domain: u16, key: u8) {
        if let Some(console) = self
            .connections
            .get_mut(&domain)
            .and_then(|connection| connection.console.as_mut())
        {
            console.key(key);
        }
    }

    /// Where a domain's ring is, as to keys.
    pub fn written(&self, domain: u16) -> Option<u32> {
        let console = self.connections.get(&domain)?.console.as_ref()?;
        Some(console.written())
    }

    /// How many keys have not come into their domain's ring.
    pub fn keys(&self) -> usize {
        let consoles = self
            .connections
            .values()
            .filter_map(|connection| connection.console.as_ref());
        consoles.map(Console::keys).sum()
    }

    /// Serves every ring; what domains print goes to `print`. Looking at a ring costs less than finding out whose port fired.
    /// Before keys can be seen in a ring, `types` hears of which domain, where its index will be, and how many keys still wait.
    pub fn serve(&mut self, mut print: impl FnMut(u16, &[u8]), mut types: impl FnMut(u16, u32, usize)) {
        for (&domain, connection) in &mut self.connections {
            let Some(console) = &mut connection.console else {
                continue;
            };
            match console.serve(&mut |bytes: &[u8]| print(domain, bytes), &mut |index, last| {
                types(domain, index, last)
            }) {
                Ok(true) => connection.channel.notify(),
                Ok(false) => {}
                Err(error) => {
                    log::warn!("domain {domain}: {error}; its console stays silent until it is built anew");
                    connection.console = None;
                }
            }
        }
    }

    /// What `top` shows.
    pub fn samples(&self) -> Vec<DomainSample> {
        let all = atoll::domains(&*self.control).unwrap_or_default();
        let sample = |info: &atoll::DomainInfo| {
            let figures = self.control.domain_figures(DomainId(info.domain)).ok()?;
            Some(DomainSample {
                name: atoll::name(info).into(),
                state: state(info.state),
                figures,
            })
        };
        all.iter().filter_map(sample).collect()
    }

    /// What `list` shows.
    pub fn status(&self) -> Vec<DomainStatus> {
        let all = atoll::domains(&*self.control).unwrap_or_default();
        all.iter()
            .map(|info| DomainStatus {
                id: info.domain,
                name: atoll::name(info).into(),
                state: state(info.state),
                memory_pages: info.memory_pages,
                target_pages: info.target_pages,
                overhead_pages: info.overhead_pages,
                vcpus: info.vcpus,
                cpu_time: info.cpu_time,
                exits: info.exits,
                generation: info.generation,
            })
            .collect()
    }
}

fn state(state: u16) -> &'static str {
    match state {
        DOMAIN_STATE_ABSENT => "absent",
        DOMAIN_STATE_BUILDING => "building",
        DOMAIN_STATE_RUNNING => "running",
        DOMAIN_STATE_STOPPED => "stopped",
        DOMAIN_STATE_FAILED => "failed",
        _ => "unknown",
    }
}

//! The backend's side: finds the devices that this domain is to serve, and keeps each one's state.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Device, DeviceError, DeviceId, State};
use crate::DomainId;
use crate::xenstore::{Store, StoreError, StoreExt, Transaction, WatchEvent};

/// How a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// The frontend has made new rings.
    Fresh,
    /// A predecessor of this domain died with the connection open: the rings are in use, and hold requests that nobody
    /// answered, perhaps answers that nobody announced. Use [`BackRing::attach`](crate::ring::BackRing::attach), look at
    /// the rings without waiting for an event, and notify the frontend once.
    Resume,
}

/// What a domain that serves one class of devices does; [`BackendBus`] says when.
pub trait Backend {
    /// What is kept of a connection: rings, event channel, mappings. Dropped (or passed to
    /// [`disconnect`](Self::disconnect)) when it ends.
    type Connection;

    /// The class: `vbd`, `vif`.
    fn class(&self) -> &str;

    /// A device is to be served: look at its settings ([`Device::read`]) and publish the features ([`Device::write`]). On an
    /// error the sentence goes to the node `error`, and the frontend waits until [`BackendBus::retry`].
    /// Called again before each new connection, so it must not depend on being called once.
    fn publish(&mut self, device: &Device) -> Result<(), DeviceError>;

    /// The frontend has published its rings: map them, bind the event channel, and write what it is to find once we are
    /// connected (a disk's `sectors`). With [`Attach::Resume`] the nodes are there already.
    fn connect(&mut self, device: &Device, attach: Attach) -> Result<Self::Connection, DeviceError>;

    /// The frontend leaves. Finish or cancel what is in flight; its grants must be unmapped when this returns.
    fn disconnect(&mut self, device: &Device, connection: Self::Connection) {
        let _ = (device, connection);
    }
}

struct Entry<C> {
    device: Device,
    /// Our state, as we last wrote it.
    state: State,
    connection: Option<C>,
    /// Features are published.
    published: bool,
    /// A predecessor's rings could not be taken over: the frontend has to begin anew before it can be connected.
    lost: bool,
}

/// The node below a device's own directory that asks the control domain to have the frontend connect anew.
pub const RECONNECT: &str = "reconnect";

/// Watch events that one call of [`BackendBus::handle_events`] handles.
const EVENTS_A_TURN: usize = 16;

/// Drives a [`Backend`] through the life of all its devices.
///
/// The event loop calls [`handle_events`](Self::handle_events), or, where others watch xenstore too, gives every watch event to
/// [`handle`](Self::handle), which answers whether the event was its own. What xenstore refuses, or what nonsense it holds,
/// in one device's name is that device's trouble alone, and is logged; the errors that come out mean that xenstore itself is lost.
pub struct BackendBus<B: Backend> {
    store: Rc<dyn Store>,
    backend: B,
    root: String,
    token: String,
    devices: BTreeMap<DeviceId, Entry<B::Connection>>,
}

impl<B: Backend> BackendBus<B> {
    /// Watches `backend/<class>`, and takes on every device that is there: those whose state is already Connected are
    /// resumed before this returns.
    pub fn start(store: Rc<dyn Store>, backend: B) -> Result<Self, StoreError> {
        let root = format!("backend/{}", backend.class());
        let token = format!("backend:{}", backend.class());
        store.watch(&root, &token)?;
        let mut bus = Self {
            store,
            backend,
            root,
            token,
            devices: BTreeMap::new(),
        };
        bus.scan()?;
        Ok(bus)
    }

    /// Reacts to the watch events that have arrived, a few at most, so that a peer that fires watches without end holds up
    /// nobody. Answers whether there may be more; then call it again before waiting.
    pub fn handle_events(&mut self) -> Result<bool, StoreError> {
        for _ in 0..EVENTS_A_TURN {
            let Some(event) = self.store.take_event()? else {
                return Ok(false);
            };
            self.handle(&event)?;
        }
        Ok(true)
    }

    /// Reacts to a watch event. Answers whether it was one of this bus's.
    pub fn handle(&mut self, event: &WatchEvent) -> Result<bool, StoreError> {
        if event.token == self.token {
            let below = event.path.strip_prefix(&self.root).unwrap_or("");
            let mut parts = below.split('/').filter(|part| !part.is_empty());
            let id = parts
                .next()
                .zip(parts.next())
                .and_then(|(peer, index)| parse_id(peer, index));
            match (id, parts.next()) {
                // Our own writes come back as events; only the toolstack's wishes matter below a known device.
                (Some(id), Some(key)) if self.devices.contains_key(&id) => {
                    if matches!(key, "online" | "frontend") {
                        self.advance(&id)?;
                    }
                }
                _ => self.scan()?,
            }
            return Ok(true);
        }
        if let Some(id) = self.frontend_of(&event.token) {
            self.advance(&id)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Tries again to publish the devices that failed to: call it when a volume or a link has appeared.
    pub fn retry(&mut self) -> Result<(), StoreError> {
        let failed: Vec<DeviceId> = self
            .devices
            .iter()
            .filter(|(_, entry)| !entry.published)
            .map(|(id, _)| id.clone())
            .collect();
        failed.iter().try_for_each(|id| self.advance(id))
    }

    /// Ends one connection because of a fault of its frontend (or of ours), with the sentence in the node `error`: the
    /// state goes to Closing, and the frontend may come back by itself.
    pub fn fail(&mut self, id: &DeviceId, error: &DeviceError) -> Result<(), StoreError> {
        let Some(entry) = self.devices.get_mut(id) else {
            return Ok(());
        };
        entry.device.report(error);
        disconnect(&mut self.backend, entry);
        tolerate(id, set_state(entry, State::Closing))
    }

    /// The backend and all its connections.
    pub fn parts(&mut self) -> (&mut B, impl Iterator<Item = (&DeviceId, &mut B::Connection)>) {
        let connections = self
            .devices
            .iter_mut()
            .filter_map(|(id, entry)| Some((id, entry.connection.as_mut()?)));
        (&mut self.backend, connections)
    }

    /// The backend and one connection.
    pub fn connection(&mut self, id: &DeviceId) -> Option<(&mut B, &mut B::Connection)> {
        Some((&mut self.backend, self.devices.get_mut(id)?.connection.as_mut()?))
    }

    /// The backend.
    pub fn backend(&mut self) -> &mut B {
        &mut self.backend
    }

    /// Every device with our state of it.
    pub fn devices(&self) -> impl Iterator<Item = (&Device, State)> {
        self.devices.values().map(|entry| (&entry.device, entry.state))
    }

    /// Compares our devices with those in xenstore.
    fn scan(&mut self) -> Result<(), StoreError> {
        let mut present = Vec::new();
        for peer in children(&*self.store, &self.root)? {
            for index in children(&*self.store, &format!("{}/{peer}", self.root))? {
                match parse_id(&peer, &index) {
                    Some(id) => present.push(id),
                    None => log::warn!("{}/{peer}/{index} names no device", self.root),
                }
            }
        }
        let gone: Vec<DeviceId> = self
            .devices
            .keys()
            .filter(|id| !present.contains(id))
            .cloned()
            .collect();
        for id in gone {
            self.forget(&id);
        }
        for id in present {
            if !self.devices.contains_key(&id) {
                tolerate(&id, self.adopt(&id))?;
            }
            self.advance(&id)?;
        }
        Ok(())
    }

    /// Takes on a device whose directory has appeared.
    fn adopt(&mut self, id: &DeviceId) -> Result<(), StoreError> {
        let path = format!("{}/{}/{}", self.root, id.peer.0, id.index);
        // The directory may be half written; the event of the missing node brings us back.
        let Some(peer_path) = self.store.read_optional(&format!("{path}/frontend"))? else {
            return Ok(());
        };
        let device = Device {
            id: id.clone(),
            path,
            peer_path,
            store: self.store.clone(),
        };
        let state = device.state()?;
        self.store
            .watch(&device.peer("state"), &frontend_token(&self.token, id))?;
        let mut entry = Entry {
            device,
            state,
            connection: None,
            published: false,
            lost: false,
        };
        if state == State::Connected {
            // If the frontend left while nobody was here, `advance` does what follows from that.
            if matches!(entry.device.peer_state()?, State::Initialised | State::Connected) {
                resume(&mut self.backend, &mut entry)?;
            }
        }
        self.devices.insert(id.clone(), entry);
        Ok(())
    }

    /// Takes the step that follows from both sides' states.
    fn advance(&mut self, id: &DeviceId) -> Result<(), StoreError> {
        let outcome = self.step(id);
        tolerate(id, outcome)
    }

    /// Compares both sides' states and takes the step that follows.
    fn step(&mut self, id: &DeviceId) -> Result<(), StoreError> {
        let Some(entry) = self.devices.get_mut(id) else {
            return Ok(());
        };
        match entry.device.peer_state()? {
            State::Initialising | State::InitWait => {
                entry.lost = false;
                disconnect(&mut self.backend, entry);
                offer(&mut self.backend, entry)?;
            }
            State::Initialised | State::Connected => {
                if entry.connection.is_none() && !entry.lost && !matches!(entry.state, State::Closing) {
                    connect(&mut self.backend, entry)?;
                }
            }
            State::Closing => {
                disconnect(&mut self.backend, entry);
                set_state(entry, State::Closing)?;
            }
            State::Closed => {
                disconnect(&mut self.backend, entry);
                set_state(entry, State::Closed)?;
                entry.published = false;
            }
            State::Unknown => {
                if entry.state == State::Connected {
                    disconnect(&mut self.backend, entry);
                    set_state(entry, State::Closed)?;
                    entry.published = false;
                }
            }
            State::Reconfiguring | State::Reconfigured => {}
        }
        Ok(())
    }

    /// Gives up a device whose directory is gone.
    fn forget(&mut self, id: &DeviceId) {
        if let Some(mut entry) = self.devices.remove(id) {
            disconnect(&mut self.backend, &mut entry);
            let watched = entry.device.peer("state");
            if let Err(error) = self.store.unwatch(&watched, &frontend_token(&self.token, id)) {
                log::debug!("{watched} was watched no more: {error}");
            }
        }
    }

    fn frontend_of(&self, token: &str) -> Option<DeviceId> {
        let (peer, index) = token
            .strip_prefix(&self.token)?
            .strip_prefix(':')?
            .split_once('/')?;
        parse_id(peer, index)
    }
}

/// Publishes features and shows that we wait, unless that is done.
fn offer<B: Backend>(backend: &mut B, entry: &mut Entry<B::Connection>) -> Result<(), StoreError> {
    if !entry.published {
        match backend.publish(&entry.device) {
            Ok(()) => {
                entry.published = true;
                if entry.device.read_optional("error")?.is_some() {
                    entry
                        .device
                        .store
                        .remove(Transaction::NONE, &entry.device.own("error"))?;
                }
            }
            Err(error) => entry.device.report(&error),
        }
    }
    set_state(entry, State::InitWait)
}

/// Connects to a frontend that has published its rings.
fn connect<B: Backend>(backend: &mut B, entry: &mut Entry<B::Connection>) -> Result<(), StoreError> {
    if !entry.published {
        offer(backend, entry)?;
    }
    if entry.published {
        match backend.connect(&entry.device, Attach::Fresh) {
            Ok(connection) => {
                entry.connection = Some(connection);
                set_state(entry, State::Connected)?;
                log::info!("{} is connected", entry.device.path);
            }
            Err(error) => {
                entry.device.report(&error);
                set_state(entry, State::Closing)?;
            }
        }
    }
    Ok(())
}

/// Takes over a connection that a predecessor left.
fn resume<B: Backend>(backend: &mut B, entry: &mut Entry<B::Connection>) -> Result<(), StoreError> {
    match backend.connect(&entry.device, Attach::Resume) {
        Ok(connection) => {
            entry.connection = Some(connection);
            entry.published = true;
            log::info!("{} is resumed", entry.device.path);
            Ok(())
        }
        Err(error) => {
            // A frontend that saw us closing would give its device up. One that suspends itself connects anew, and the control domain knows whether it can.
            entry.device.report(&error);
            entry.lost = true;
            entry.device.write(RECONNECT, 1)
        }
    }
}

fn disconnect<B: Backend>(backend: &mut B, entry: &mut Entry<B::Connection>) {
    if let Some(connection) = entry.connection.take() {
        backend.disconnect(&entry.device, connection);
        entry.published = false;
        log::info!("{} is disconnected", entry.device.path);
    }
}

fn set_state<C>(entry: &mut Entry<C>, state: State) -> Result<(), StoreError> {
    if entry.state != state {
        entry.device.set_state(state)?;
        entry.state = state;
    }
    Ok(())
}

/// Logs what concerns one device alone (its nodes may be vanishing right now), and passes on what concerns all.
fn tolerate(id: &DeviceId, outcome: Result<(), StoreError>) -> Result<(), StoreError> {
    match outcome {
        Err(error) if error.is_of_one_request() => {
            log::warn!("{id}: {error}");
            Ok(())
        }
        other => other,
    }
}

fn frontend_token(token: &str, id: &DeviceId) -> String {
    format!("{token}:{}/{}", id.peer.0, id.index)
}

fn parse_id(peer: &str, index: &str) -> Option<DeviceId> {
    let id = DeviceId {
        peer: DomainId(peer.parse().ok()?),
        index: index.parse().ok()?,
    };
    // One spelling only: "007" would be another directory of the same device.
    (id.peer.0.to_string() == peer && id.index.to_string() == index).then_some(id)
}

fn children(store: &dyn Store, path: &str) -> Result<Vec<String>, StoreError> {
    match store.directory(Transaction::NONE, path) {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) if error.is_of_one_request() => {
            log::warn!("{error}");
            Ok(Vec::new())
        }
        other => other,
    }
}

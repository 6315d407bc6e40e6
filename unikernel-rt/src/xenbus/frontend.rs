//! The frontend's side: one device that another domain serves for us.

use alloc::format;
use alloc::rc::Rc;

use super::{Device, DeviceError, DeviceId, State};
use crate::DomainId;
use crate::xenstore::{Store, StoreError, StoreExt, WatchEvent};

/// What a domain that uses a device does; [`FrontendDevice`] says when.
pub trait Frontend {
    /// What is kept of a connection: rings, event channel, granted pages.
    type Connection;

    /// The class: `vbd`, `vif`.
    fn class(&self) -> &str;

    /// The backend has published its features: make rings and an event channel, grant them, and write their names
    /// ([`Device::write`]). What is to be kept is returned.
    fn offer(&mut self, device: &Device) -> Result<Self::Connection, DeviceError>;

    /// The backend is connected: requests may be sent.
    fn connected(&mut self, device: &Device, connection: &mut Self::Connection) -> Result<(), DeviceError>;

    /// The backend leaves. What is in flight will not be answered.
    fn disconnect(&mut self, device: &Device, connection: Self::Connection) {
        let _ = (device, connection);
    }
}

/// Drives a [`Frontend`] through the life of one device.
pub struct FrontendDevice<F: Frontend> {
    frontend: F,
    device: Device,
    token: alloc::string::String,
    state: State,
    connection: Option<F::Connection>,
}

impl<F: Frontend> FrontendDevice<F> {
    /// Finds `device/<class>/<index>` and watches its backend.
    pub fn start(store: Rc<dyn Store>, frontend: F, index: u32) -> Result<Self, StoreError> {
        let path = format!("device/{}/{index}", frontend.class());
        let peer: u16 = store.read_parsed(&format!("{path}/backend-id"))?;
        let peer_path = store.read_string(&format!("{path}/backend"))?;
        let token = format!("frontend:{}:{index}", frontend.class());
        let id = DeviceId {
            peer: DomainId(peer),
            index,
        };
        let device = Device {
            id,
            path,
            peer_path,
            store: store.clone(),
        };
        store.watch(&device.peer("state"), &token)?;
        let state = device.state()?;
        let mut this = Self {
            frontend,
            device,
            token,
            state,
            connection: None,
        };
        if state != State::Initialising {
            // A predecessor's rings went with its memory: begin anew.
            this.set_state(State::Initialising)?;
        }
        this.advance()?;
        Ok(this)
    }

    /// Reacts to a watch event. Answers whether it was this device's.
    pub fn handle(&mut self, event: &WatchEvent) -> Result<bool, StoreError> {
        let ours = event.token == self.token;
        if ours {
            self.advance()?;
        }
        Ok(ours)
    }

    /// The frontend and its connection, while the device can be used.
    pub fn parts(&mut self) -> (&mut F, Option<&mut F::Connection>) {
        let usable = self.state == State::Connected;
        (&mut self.frontend, self.connection.as_mut().filter(|_| usable))
    }

    /// Our state.
    pub fn state(&self) -> State {
        self.state
    }

    /// The device's nodes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    fn advance(&mut self) -> Result<(), StoreError> {
        match (self.device.peer_state()?, self.state) {
            (State::InitWait, State::Initialising) => match self.frontend.offer(&self.device) {
                Ok(connection) => {
                    self.connection = Some(connection);
                    self.set_state(State::Initialised)
                }
                Err(error) => self.give_up(&error),
            },
            (State::Connected, State::Initialised) => {
                let Some(connection) = self.connection.as_mut() else {
                    return Ok(());
                };
                match self.frontend.connected(&self.device, connection) {
                    Ok(()) => self.set_state(State::Connected),
                    Err(error) => self.give_up(&error),
                }
            }
            (State::Closing | State::Closed | State::Unknown, State::Initialised | State::Connected) => {
                self.disconnect();
                self.set_state(State::Closed)
            }
            (State::InitWait, State::Closed) => {
                self.set_state(State::Initialising)?;
                self.advance()
            }
            _ => Ok(()),
        }
    }

    fn give_up(&mut self, error: &DeviceError) -> Result<(), StoreError> {
        self.device.report(error);
        self.disconnect();
        self.set_state(State::Closing)
    }

    fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.frontend.disconnect(&self.device, connection);
        }
    }

    fn set_state(&mut self, state: State) -> Result<(), StoreError> {
        self.device.set_state(state)?;
        self.state = state;
        Ok(())
    }
}

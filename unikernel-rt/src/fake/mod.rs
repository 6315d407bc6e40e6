//! The machine without a machine, for tests: [`FakeStore`] is a xenstore in memory, [`FakeEvents`] are event channels with a
//! clock that the test winds, [`FakeGrants`] map pages of the test's own, [`FakeControl`] answers the control interface. [`death`] ends a domain
//! between two of its writes.

mod control;
pub mod death;
mod events;
mod grants;
mod store;
#[cfg(test)]
mod tests;

pub use control::FakeControl;
pub use events::FakeEvents;
pub use grants::FakeGrants;
pub use store::FakeStore;

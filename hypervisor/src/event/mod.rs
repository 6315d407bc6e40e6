//! Event channels: the 2-level ABI.

/// The event channels of a domain.
#[derive(Default)]
pub struct EventChannels {}

//! The targets, by who sends the bytes.

pub(crate) mod appliance;
pub(crate) mod block;
pub(crate) mod firmware;
pub(crate) mod guest;
pub(crate) mod network;
pub(crate) mod xenstore;

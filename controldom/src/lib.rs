//! The control plane of an appliance: xenstore, the order in which domains start, their health and restarts, and the
//! operator's requests.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod domain_id;
pub mod store;
pub mod wire;

pub use domain_id::DomainId;

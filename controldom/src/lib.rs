//! The control plane of an appliance: xenstore, the order in which domains start, their health and restarts, and the
//! operator's requests.
//!
//! It is the supervisor of every other domain, so it never blocks on any of them: not on a reply, not on a ring with room, not on a
//! state that someone should reach. What others have to do has a deadline; what they send is checked and bounded.
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`wire`] | messages on a byte stream |
//! | [`store`] | the tree, permissions, transactions, watches, quotas, and the answers to requests |
//! | [`connection`] | one domain's ring |
//! | [`layout`] | the tree that the manifest describes |
//! | [`plane`] | the lives of the domains, and the turns in which everyone is served |
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod connection;
mod domain_id;
pub mod journal;
pub mod layout;
pub mod plane;
pub mod store;
pub mod wire;

pub use domain_id::DomainId;

//! A hostile unikernel for tests. Its command line says what it does ([`Plan`]): operations of one class, as many as it is told, all at random and
//! all from one seed, which it prints. What it did it writes to the log: lines `progress` and, at the end, `finished`, with settings of the form
//! `name=number`; a line `violation` says that it was given what it must not have. Then it powers off.
//!
//! Built anew after a crash, it goes on with another seed, which follows from the first one and from how many lives it has had.
#![cfg_attr(not(test), no_std)]

pub mod plan;
pub mod random;
pub mod wild;

pub use plan::{Class, Plan};
pub use random::Random;
pub use wild::Wild;

//! consoledom: the operator's place. It owns the serial port, serves the console of every domain, and runs the operator's shell.
//!
//! - [`uart`] drives the port; [`terminal`] queues what is to be shown and never blocks on a slow line.
//! - [`console`] is the backend of one domain's console ring; what a domain prints is kept in its [`scrollback`] whether anyone looks or not.
//! - [`top`] shows what domains and processors do with their time.
//! - [`session`] decides where a key goes: to the [`editor`] and the [`shell`], or to the domain that the operator is attached to.
//!
//! Everything here is logic over traits and is tested on the host; `main.rs` joins it to the machine. What a domain writes into its ring is
//! never trusted: bad indices cost the domain its console and nobody else anything.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod console;
pub mod domains;
pub mod editor;
pub mod kept;
pub mod log_lines;
pub mod scrollback;
pub mod session;
pub mod shell;
pub mod terminal;
pub mod top;
pub mod uart;

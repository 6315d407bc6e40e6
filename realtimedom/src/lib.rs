//! realtimedom: a real-time domain. A thousand times a second it reads an input from a card of its own, computes a small control law, and sends
//! an output; and it measures how late it is.
//!
//! - [`periods`] says when the next turn is due: absolute deadlines that never drift, and a count of those that were missed.
//! - [`frame`] is what travels: a cyclic frame with a sequence number, as fieldbuses over Ethernet have it.
//! - [`control`] is the law and the thing that it controls, in fixed point.
//! - [`histogram`] holds latencies in fixed memory; [`figures`] are two of them with the counts, and their text.
//! - [`station`] joins these: what happens at a deadline and at an interrupt.
//! - [`desk`] is what happens in the slack behind: the console, the reports, xenstore; a bounded piece a turn.
//! - [`options`] are the settings of the manifest.
//!
//! Nothing here waits but the one wait for the next deadline.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

pub mod control;
pub mod desk;
pub mod figures;
pub mod frame;
pub mod histogram;
pub mod options;
pub mod periods;
pub mod station;

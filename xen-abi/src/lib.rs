//! The wire types of Xen's public ABI, as 64-bit x86 guests see them: constants, structures and ring arithmetic.
//!
//! There is one module per public header, named as the header. Constants keep their C names. A structure has the C name in
//! CamelCase without a leading `xen_` (`evtchn_alloc_unbound` is [`event_channel::EvtchnAllocUnbound`]); its fields
//! keep their C names, with `r#` where the name is a Rust keyword, and every gap is an explicit `_padN` field. A C union
//! is a plain field of the union's size with accessors, or one structure per variant. Guest handles, frame numbers and
//! C's `unsigned long` are `u64`, domain ids `u16`, event-channel ports and grant references `u32`.
//!
//! Hypercall numbers and the operation numbers that travel in a register are `u64`; other constants have the type of the
//! field that carries them; sizes and counts of slots are `usize`.
//!
//! Nothing here checks meaning: every bit pattern is a valid value of every structure, so that a copy out of guest
//! memory cannot fail, and it is the reader who validates the copy. `tests/c_layout.rs` compares all of it with the C
//! headers.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
// Constants are greppable by the name that the C headers and every guest's sources use.
#![allow(non_upper_case_globals)]

#[macro_use]
mod macros;

pub mod arch_x86;
pub mod atoll;
pub mod callback;
pub mod elfnote;
pub mod errno;
pub mod event_channel;
pub mod features;
pub mod grant_table;
pub mod hvm;
pub mod io;
pub mod memory;
pub mod physdev;
pub mod sched;
pub mod vcpu;
pub mod version;
pub mod xen;

//! The Atoll hypervisor: it runs domains on the bare machine, and does nothing else.
//!
//! It has no drivers beyond what it needs to run at all (interrupt controllers, timers, a serial line for its log), no policy (controldom
//! has that) and no knowledge of what guests are for. Four principles:
//!
//! 1. *Exits become values.* A vCPU runs until it exits; [`virt`] turns the exit into a plain [`virt::Exit`]; one `match` in [`run`] sends
//!    it to the room that owns the matter; the room answers; the scheduler picks who runs next.
//! 2. *Foreign input is an allegation.* Guest pointers, grant references, ports, headers have types of their own until they are checked; they
//!    are copied once and the copy is used. A bad one costs its sender an error.
//! 3. *Nothing blocks.* Interrupts are off while the hypervisor runs, except while it is idle; work per exit is bounded; a long hypercall is
//!    re-executed piece by piece.
//! 4. *State has an owner.* [`platform::Machine`] is what was found, the manifest what was asked, [`domain::Domain`] what runs; all hang
//!    from one [`Hypervisor`] value that is passed down.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod boot;
pub mod domain;
pub mod errno;
pub mod event;
pub mod figures;
pub mod grant;
pub mod guest;
pub mod guest_time;
pub mod hypercall;
pub mod iommu;
pub mod lock;
pub mod memory;
pub mod platform;
pub mod processors;
pub mod run;
pub mod sched;
pub mod sync;
pub mod timers;
pub mod virt;

mod state;
#[cfg(test)]
pub mod testing;
pub use state::Hypervisor;

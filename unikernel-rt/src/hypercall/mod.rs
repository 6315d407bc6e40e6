//! Hypercalls: how a domain asks the hypervisor.
//!
//! [`Errno`] is what it answers when it refuses. The calls themselves are thin and typed, and exist on the machine only; the
//! traits of [`event`](crate::event), [`grant`](crate::grant) and [`atoll`](crate::atoll) stand in front of them.

#[cfg(target_os = "none")]
pub mod call;
mod errno;

pub use errno::Errno;

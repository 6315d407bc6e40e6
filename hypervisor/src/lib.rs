//! The Atoll type-1 hypervisor.
#![cfg_attr(not(test), no_std)]

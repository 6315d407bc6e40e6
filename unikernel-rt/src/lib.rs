//! What every unikernel of Atoll stands on.
#![cfg_attr(not(test), no_std)]

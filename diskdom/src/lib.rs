//! Disk drivers and the block backend.
#![cfg_attr(not(test), no_std)]

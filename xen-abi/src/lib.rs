//! The wire types of Xen's public ABI.
#![cfg_attr(not(test), no_std)]

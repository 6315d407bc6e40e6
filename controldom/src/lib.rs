//! The control plane: xenstore, start order, health, restarts.
#![cfg_attr(not(test), no_std)]

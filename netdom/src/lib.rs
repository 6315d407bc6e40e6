//! NIC drivers, the network backend and the switch.
#![cfg_attr(not(test), no_std)]

//! UART driver, console backend and the operator's shell.
#![cfg_attr(not(test), no_std)]

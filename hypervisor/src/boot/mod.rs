//! From the boot loader to the first line of Rust that may use memory.

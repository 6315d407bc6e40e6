//! What the ABI has for guests that run in hardware virtual machines, of the headers in `hvm`.

pub mod hvm_op;
pub mod hvm_vcpu;
pub mod params;

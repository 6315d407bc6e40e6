//! What the ABI fixes for x86 only, of the headers in `arch-x86`; `arch-x86/xen.h` itself is part of [`crate::xen`].

pub mod cpuid;
pub mod hvm_start_info;

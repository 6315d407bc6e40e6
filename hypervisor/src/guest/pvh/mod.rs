//! Starting a PVH guest: what its image says, where its memory lies, and what it finds when it starts.

mod image;
mod start_info;

pub use image::{ImageError, Kernel, Segment};
pub use start_info::{MemoryMap, Module, Range, RangeKind, StartInfo};

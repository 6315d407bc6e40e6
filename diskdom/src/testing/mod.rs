//! Helpers of the tests: memory as a device sees it, clocks that can wait, a disk in memory.

pub mod bus;
pub mod clock;
pub mod disk;

pub use clock::TestClock;
pub use disk::MemoryDisk;

//! diskdom: the disk driver domain. It drives NVMe controllers and virtio block devices, finds partitions on them, and serves
//! whole disks and partitions to other domains by Xen's block protocol.
//!
//! | module | what for |
//! | --- | --- |
//! | [`device`] | what a disk is to the rest: asynchronous requests by bus address |
//! | [`nvme`] | the driver of NVMe controllers |
//! | [`virtio`] | the driver of virtio block devices |
//! | [`volume`] | names of disks and partitions, and what they stand for |
//! | [`backend`] | the block protocol towards the frontends |
//!
//! A request goes one way: ring → checked copy ([`backend`]) → bounds of the volume ([`volume`]) → command with the bus
//! addresses of the granted pages ([`device`], a driver). Its completion comes back the same way. Nothing copies the data.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod backend;
pub mod clock;
pub mod device;
pub mod log_limit;
pub mod nvme;
#[cfg(test)]
mod testing;
pub mod virtio;
pub mod volume;

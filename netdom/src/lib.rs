//! netdom: the network driver domain. It drives the cards, serves the network interface of every domain, and joins them by a switch.
//!
//! - [`nic`] is what the switch needs of a card; [`e1000e`] drives Intel's, and virtio ones come through the crate `virtio-drivers`.
//! - [`frame`] and [`pool`]: frames lie in pages that cards reach, and carry their unfinished work (checksums, segmentation) with them.
//! - [`switch`] is the learning bridge that decides where a frame goes; [`headers`] finds what offloads need.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]
// A full queue gives the frame back by value: a box would cost an allocation a frame.
#![allow(clippy::result_large_err)]

extern crate alloc;

pub mod e1000e;
pub mod fabric;
pub mod frame;
pub mod headers;
pub mod interface;
pub mod network;
pub mod nic;
pub mod offload;
pub mod pool;
pub mod stack;
pub mod switch;
pub mod virtio;

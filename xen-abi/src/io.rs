//! The protocols between frontends and backends, of the headers in `io`: shared rings, their entries, xenstore's wire.

pub mod blkif;
pub mod console;
pub mod fbif;
pub mod kbdif;
pub mod netif;
pub mod protocols;
pub mod ring;
pub mod xenbus;
pub mod xs_wire;

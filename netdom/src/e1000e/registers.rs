//! Registers of the 82574L (Intel 82574 GbE Controller Family Datasheet, section 10.2) that the driver uses.
#![allow(missing_docs)] // The datasheet's names; the datasheet describes them.

/// The card's registers: a memory-mapped window of 128 KiB.
pub trait Registers {
    /// Reads the register at this offset.
    fn read(&self, offset: u32) -> u32;
    /// Writes the register at this offset.
    fn write(&self, offset: u32, value: u32);
}

pub const CTRL: u32 = 0x0000;
pub const CTRL_RESET: u32 = 1 << 26;
pub const CTRL_SET_LINK_UP: u32 = 1 << 6;
pub const CTRL_MASTER_DISABLE: u32 = 1 << 2;
pub const STATUS: u32 = 0x0008;
pub const STATUS_LINK_UP: u32 = 1 << 1;
pub const STATUS_MASTER_ENABLED: u32 = 1 << 19;
pub const CTRL_EXT: u32 = 0x0018;
pub const CTRL_EXT_PBA_CLEAR: u32 = 1 << 31;
pub const CTRL_EXT_DRIVER_LOADED: u32 = 1 << 28;
pub const ICR: u32 = 0x00c0;
pub const IMS: u32 = 0x00d0;
pub const IMC: u32 = 0x00d8;
pub const EIAC: u32 = 0x00dc;
pub const IVAR: u32 = 0x00e4;
pub const EITR: u32 = 0x00e8;
pub const RCTL: u32 = 0x0100;
pub const TCTL: u32 = 0x0400;
pub const TIPG: u32 = 0x0410;
pub const RDBAL: u32 = 0x2800;
pub const RDBAH: u32 = 0x2804;
pub const RDLEN: u32 = 0x2808;
pub const RDH: u32 = 0x2810;
pub const RDT: u32 = 0x2818;
pub const TDBAL: u32 = 0x3800;
pub const TDBAH: u32 = 0x3804;
pub const TDLEN: u32 = 0x3808;
pub const TDH: u32 = 0x3810;
pub const TDT: u32 = 0x3818;
pub const TXDCTL: u32 = 0x3828;
pub const RXCSUM: u32 = 0x5000;
pub const MTA: u32 = 0x5200;
pub const RAL: u32 = 0x5400;
pub const RAH: u32 = 0x5404;
pub const RAH_VALID: u32 = 1 << 31;

pub const INTERRUPT_RECEIVE: u32 = 1 << 20;
pub const INTERRUPT_TRANSMIT: u32 = 1 << 22;

/// Every cause goes to MSI-X vector 0: receive (bits 0–3), transmit (8–11), other (16–19), each with its valid bit.
pub const IVAR_ALL_TO_VECTOR_0: u32 = 0x0008_0808;

/// At most an interrupt each 100 microseconds, in units of 256 ns; the first one after a pause comes at once.
pub const EITR_RUN: u32 = 100_000 / 256;

/// Receiver on; broadcast and, since the switch decides, everything else accepted; 2048-byte buffers; the check sequence stripped.
pub const RCTL_RUN: u32 = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 15 | 1 << 26;
/// The card receives what it sends (RCTL.LBM).
pub const RCTL_LOOPBACK: u32 = 1 << 6;
/// Transmitter on; short frames padded; the collision numbers of the datasheet.
pub const TCTL_RUN: u32 = 1 << 1 | 1 << 3 | 0x0f << 4 | 0x3f << 12;
/// Write descriptors back one by one, in granularity of descriptors; bit 22 must be 1 (section 10.2.6.11).
pub const TXDCTL_RUN: u32 = 1 << 24 | 1 << 22 | 1 << 16;
/// The datasheet's inter-packet gaps.
pub const TIPG_RUN: u32 = 8 | 8 << 10 | 6 << 20;
/// Check IPv4 and TCP/UDP checksums of received frames.
pub const RXCSUM_RUN: u32 = 1 << 8 | 1 << 9;

//! The bits by which a domain learns of events, in the pages that it shares with the hypervisor (the two-level ABI of `event_channel.h`):
//! a pending and a mask bit a port in the shared-info page, and in each vCPU's `vcpu_info` a selector of pending words and the upcall flag.
//!
//! The guest changes them at any time, so each is touched by one atomic operation, in the order that the ABI gives.

use core::{mem::offset_of, sync::atomic::Ordering};

use xen_abi::{
    event_channel::EVTCHN_2L_NR_CHANNELS,
    xen::{SharedInfo, VcpuInfo},
};

use crate::memory::{DirectMap, MachineAddress};

/// The bits of one domain's port, as one vCPU is told of them.
pub(super) struct PortBits<'a> {
    memory: &'a DirectMap,
    shared_info: MachineAddress,
    word: u64,
    bit: u64,
}

const PENDING: u64 = offset_of!(SharedInfo, evtchn_pending) as u64;
const MASK: u64 = offset_of!(SharedInfo, evtchn_mask) as u64;
const SELECTOR: u64 = offset_of!(VcpuInfo, evtchn_pending_sel) as u64;
const UPCALL: u64 = offset_of!(VcpuInfo, evtchn_upcall_pending) as u64;

/// Makes what the shared-info page says of events as new, with the `vcpu_info` that lie there (their clocks have to be published anew). Every port is masked: a kernel that
/// begins masks all of them, and one that comes from elsewhere unmasks those that it wants; Linux has one for each vCPU that must never be unmasked.
pub(super) fn reset(memory: &DirectMap, shared_info: MachineAddress) {
    const FIRST: u64 = offset_of!(SharedInfo, vcpu_info) as u64;
    memory.zero(MachineAddress(shared_info.0 + FIRST), (MASK - FIRST) as usize);
    memory.write(
        MachineAddress(shared_info.0 + MASK),
        &[0xff; (MASK - PENDING) as usize],
    );
}

impl<'a> PortBits<'a> {
    /// The bits of `port`; `None` if it is beyond the ABI.
    pub(super) fn new(memory: &'a DirectMap, shared_info: MachineAddress, port: u32) -> Option<Self> {
        let (word, bit) = (u64::from(port / 64), 1 << (port % 64));
        (port < EVTCHN_2L_NR_CHANNELS).then_some(Self {
            memory,
            shared_info,
            word,
            bit,
        })
    }

    fn atomic(&self, array: u64) -> &'a crate::sync::AtomicU64 {
        self.memory
            .atomic_u64(MachineAddress(self.shared_info.0 + array + self.word * 8))
    }

    pub(super) fn is_pending(&self) -> bool {
        self.atomic(PENDING).load(Ordering::Acquire) & self.bit != 0
    }

    pub(super) fn clear_pending(&self) {
        self.atomic(PENDING).fetch_and(!self.bit, Ordering::AcqRel);
    }

    /// Sets the pending bit; false if it was set.
    pub(super) fn set_pending(&self) -> bool {
        self.atomic(PENDING).fetch_or(self.bit, Ordering::AcqRel) & self.bit == 0
    }

    pub(super) fn is_masked(&self) -> bool {
        self.atomic(MASK).load(Ordering::Acquire) & self.bit != 0
    }

    /// Clears the mask bit; true if an event that it held back must be announced now.
    pub(super) fn unmask(&self) -> bool {
        self.atomic(MASK).fetch_and(!self.bit, Ordering::AcqRel) & self.bit != 0 && self.is_pending()
    }

    /// Tells a vCPU by its `vcpu_info` to look at the port's word; true if it has no upcall pending yet and needs one.
    pub(super) fn announce(&self, vcpu_info: MachineAddress) -> bool {
        let word = 1 << self.word;
        let selector = self.memory.atomic_u64(MachineAddress(vcpu_info.0 + SELECTOR));
        selector.fetch_or(word, Ordering::AcqRel) & word == 0 && set_upcall_pending(self.memory, vcpu_info)
    }
}

/// Sets the upcall flag; false if it was set.
pub(super) fn set_upcall_pending(memory: &DirectMap, vcpu_info: MachineAddress) -> bool {
    memory
        .atomic_u8(MachineAddress(vcpu_info.0 + UPCALL))
        .swap(1, Ordering::AcqRel)
        == 0
}

/// Reads the upcall flag.
pub(super) fn upcall_pending(memory: &DirectMap, vcpu_info: MachineAddress) -> bool {
    memory
        .atomic_u8(MachineAddress(vcpu_info.0 + UPCALL))
        .load(Ordering::Acquire)
        != 0
}

/// Makes a vCPU look at every word: after its `vcpu_info` moved.
pub(super) fn announce_all(memory: &DirectMap, vcpu_info: MachineAddress) {
    memory
        .atomic_u64(MachineAddress(vcpu_info.0 + SELECTOR))
        .store(u64::MAX, Ordering::Release);
    set_upcall_pending(memory, vcpu_info);
}

//! Tells domains the time, in the pages that they read it from: the time page of each vCPU and the wall clock. The system time of every domain is the
//! machine's clock, so absolute deadlines mean the same everywhere.

use core::{mem::offset_of, sync::atomic::Ordering};

use xen_abi::xen::{SharedInfo, VcpuInfo};
use zerocopy::IntoBytes;

use crate::{
    Hypervisor,
    domain::{DomainId, VcpuId},
    guest::clock::WallClock,
    memory::MachineAddress,
    platform::time,
};

/// Fills the time page of a vCPU, in its `vcpu_info` if it has one, and the copy of it that it shows to user mode. The rate never changes, and the counters
/// of all processors in use are in step, so a page stays right wherever the vCPU runs, and once a place is enough.
pub fn publish(hv: &mut Hypervisor, id: VcpuId) {
    let memory = hv.memory;
    let stable = hv.machine.has_stable_time() && one_counter(hv, id.domain);
    let Some(vcpu) = hv.vcpu_mut(id) else { return };
    let Some(info) = vcpu.vcpu_info else { return };
    let place = MachineAddress(info.0 + offset_of!(VcpuInfo, time) as u64);
    let counter = time::tsc_at_zero().wrapping_add(vcpu.machine.tsc_offset);
    // The very scale of the machine's clock, so that guests compute what the hypervisor does.
    let update = vcpu.machine.clock.update(time::scale(), counter, 0, stable);
    let version = memory.atomic_u32(place);
    version.store(update.begin, Ordering::Release);
    memory.write(place, update.body.as_bytes());
    core::sync::atomic::fence(Ordering::Release);
    version.store(update.end, Ordering::Release);
    crate::hypercall::update_time_area(hv, id);
}

/// A vCPU has set its time-stamp counter. Its own page must say so, and the others' whether any page still serves every vCPU.
pub fn counter_changed(hv: &mut Hypervisor, id: VcpuId) {
    // The copies for user mode are found by the vCPUs' own page tables.
    hv.recall_domain(id.domain);
    let count = hv.body(id.domain).map_or(0, |body| body.vcpus.len() as u32);
    (0..count).for_each(|index| publish(hv, VcpuId { index, ..id }));
}

/// Whether the time-stamp counters of all vCPUs of a domain read the same.
fn one_counter(hv: &Hypervisor, id: DomainId) -> bool {
    let mut offsets = hv
        .body(id)
        .into_iter()
        .flat_map(|body| &body.vcpus)
        .map(|vcpu| vcpu.machine.tsc_offset);
    let first = offsets.next();
    offsets.all(|offset| Some(offset) == first)
}

/// Fills the wall clock in a domain's shared-info page.
pub fn publish_wall_clock(hv: &Hypervisor, id: DomainId) {
    let Some(body) = hv.body(id) else { return };
    let word = |offset: usize| {
        hv.memory
            .atomic_u32(MachineAddress(body.shared_info.address().0 + offset as u64))
    };
    let version = word(offset_of!(SharedInfo, wc_version));
    let nanoseconds = u128::from(time::wall_clock_at_boot()) * 1_000_000_000;
    let clock = WallClock::new(nanoseconds, version.load(Ordering::Relaxed));
    version.store(clock.version, Ordering::Release);
    word(offset_of!(SharedInfo, wc_sec)).store(clock.seconds, Ordering::Release);
    word(offset_of!(SharedInfo, wc_nsec)).store(clock.nanoseconds, Ordering::Release);
    word(offset_of!(SharedInfo, wc_sec_hi)).store(clock.seconds_high, Ordering::Release);
    version.store(clock.version.wrapping_add(1), Ordering::Release);
}

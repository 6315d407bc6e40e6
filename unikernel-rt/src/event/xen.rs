//! Event channels and the clock on the machine: the two-level bitmaps of `shared_info`, and pvclock.
#![allow(unsafe_code)] // `shared_info` is written by the hypervisor; its words are reached as atomics by address.

use core::arch::asm;
use core::cell::{Cell, RefCell};
use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

use xen_abi::event_channel::*;
use xen_abi::physdev::*;
use xen_abi::vcpu::{VCPUOP_set_singleshot_timer, VcpuSetSingleshotTimer};
use xen_abi::xen::{
    __HYPERVISOR_event_channel_op, __HYPERVISOR_physdev_op, __HYPERVISOR_vcpu_op, DOMID_SELF, SharedInfo,
    VIRQ_TIMER, VcpuInfo, VcpuTimeInfo,
};
use zerocopy::{FromBytes, IntoBytes};

use super::ports::bits;
use super::{EventChannels, InterruptSource, Port, PortSet};
use crate::DomainId;
use crate::hypercall::{Errno, call};
use crate::time::{Clock, Instant, scale_ticks};

/// The event channels and the clock of the domain that we run in.
pub(crate) struct XenEvents {
    shared: Shared,
    timer: Port,
    /// What fired and has not been answered yet.
    fired: RefCell<PortSet>,
    /// When the timer was last told to go off.
    armed: Cell<Option<Instant>>,
    watchdog: Option<Watchdog>,
}

/// The watchdog that has to be fed for as long as the domain's loop turns.
struct Watchdog {
    id: u32,
    seconds: u32,
    /// When it is to be fed next.
    due: Cell<Instant>,
}

impl Watchdog {
    /// It is fed so many times as often as it needs.
    const HASTE: u32 = 4;

    fn start(timeout: Duration) -> Result<Option<Self>, Errno> {
        let seconds = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX);
        if seconds == 0 {
            return Ok(None);
        }
        let id = call::watchdog(0, seconds)?;
        Ok(Some(Self {
            id,
            seconds,
            due: Cell::default(),
        }))
    }

    fn feed(&self, now: Instant) {
        if now < self.due.get() {
            return;
        }
        self.due
            .set(now + Duration::from_secs(self.seconds.into()) / Self::HASTE);
        if let Err(error) = call::watchdog(self.id, self.seconds) {
            log::error!("the watchdog does not eat: {error}");
        }
    }
}

/// The page `shared_info`.
#[derive(Clone, Copy)]
struct Shared(NonNull<u8>);

const PENDING: usize = offset_of!(SharedInfo, evtchn_pending);
const MASK: usize = offset_of!(SharedInfo, evtchn_mask);
const UPCALL_PENDING: usize = offset_of!(VcpuInfo, evtchn_upcall_pending);
const SELECTOR: usize = offset_of!(VcpuInfo, evtchn_pending_sel);
const TIME: usize = offset_of!(VcpuInfo, time);
const WALL: usize = offset_of!(SharedInfo, wc_version);

impl Shared {
    /// A word of 64 bits at one of the offsets above.
    fn word(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset.is_multiple_of(8) && offset < size_of::<SharedInfo>());
        // SAFETY: in the page, aligned, mapped for ever by the contract of `XenEvents::new`; an atomic may change under us.
        unsafe { AtomicU64::from_ptr(self.0.add(offset).cast().as_ptr()) }
    }

    /// A version number.
    fn version(&self, offset: usize) -> u32 {
        // SAFETY: as for `word`.
        unsafe { AtomicU32::from_ptr(self.0.add(offset).cast().as_ptr()) }.load(Ordering::Acquire)
    }

    fn upcall_pending(&self) -> &AtomicU8 {
        // SAFETY: as for `word`.
        unsafe { AtomicU8::from_ptr(self.0.add(UPCALL_PENDING).as_ptr()) }
    }

    /// Copies a structure that begins with a version number, when the hypervisor is not about to change it.
    fn consistent<T: FromBytes + Copy>(&self, offset: usize) -> T {
        loop {
            let before = self.version(offset);
            // SAFETY: in the page, aligned, any bytes are a value; volatile because it may change, which the version tells.
            let value = unsafe { self.0.add(offset).cast::<T>().read_volatile() };
            core::sync::atomic::fence(Ordering::Acquire);
            if before & 1 == 0 && self.version(offset) == before {
                return value;
            }
            core::hint::spin_loop();
        }
    }
}

/// The wall clock's part of `shared_info`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes)]
struct WallClock {
    version: u32,
    seconds: u32,
    nanoseconds: u32,
    seconds_high: u32,
}

impl XenEvents {
    /// Takes the event channels into service.
    ///
    /// # Safety
    /// `shared_info` must be the domain's page of that name, mapped for ever and used by nobody else.
    ///
    /// Whoever waits or polls feeds a watchdog, which ends the domain after `watchdog` without; zero is without one.
    pub unsafe fn new(shared_info: NonNull<u8>, watchdog: Duration) -> Result<Self, Errno> {
        let shared = Shared(shared_info);
        // A port wakes us unless it is masked; nothing is masked until somebody asks for it.
        for word in 0..64 {
            shared.word(MASK + word * 8).store(0, Ordering::SeqCst);
        }
        let mut bind = EvtchnBindVirq {
            virq: VIRQ_TIMER,
            ..EvtchnBindVirq::default()
        };
        operate(EVTCHNOP_bind_virq, &mut bind)?;
        Ok(Self {
            shared,
            timer: Port(bind.port),
            fired: RefCell::default(),
            armed: Cell::new(None),
            watchdog: Watchdog::start(watchdog)?,
        })
    }

    /// Moves what is pending from the shared page into our set.
    fn scan(&self) {
        // The flag first: what becomes pending after this sets it again, and the next block returns at once.
        if self.shared.upcall_pending().swap(0, Ordering::SeqCst) == 0 {
            return;
        }
        let mut fired = self.fired.borrow_mut();
        for word in bits(self.shared.word(SELECTOR).swap(0, Ordering::SeqCst)) {
            let word = word as usize;
            let masked = self.shared.word(MASK + word * 8).load(Ordering::SeqCst);
            // Bits of masked ports stay pending, for `unmask` to find.
            let pending = self
                .shared
                .word(PENDING + word * 8)
                .fetch_and(masked, Ordering::SeqCst);
            fired.insert_word(word, pending & !masked);
        }
        fired.remove(self.timer);
    }

    /// The domain's loop turns.
    fn feed(&self) {
        if let Some(watchdog) = &self.watchdog {
            watchdog.feed(self.now());
        }
    }

    fn take(&self) -> PortSet {
        self.feed();
        self.scan();
        self.fired.take()
    }

    /// Blocks until something is pending or the time has come. Answers `false` for the latter.
    fn sleep(&self, deadline: Option<Instant>) -> bool {
        self.feed();
        let now = self.now();
        if deadline.is_some_and(|deadline| now >= deadline) {
            return false;
        }
        let feeding = self.watchdog.as_ref().map(|watchdog| watchdog.due.get());
        if let Some(deadline) = deadline.into_iter().chain(feeding).min() {
            // A timer that goes off before the deadline stays: it wakes us once for nothing, and each change costs a hypercall.
            let serves = |at: Instant| now < at && at <= deadline;
            if !self.armed.get().is_some_and(serves) {
                let mut timer = VcpuSetSingleshotTimer {
                    timeout_abs_ns: deadline.as_nanos(),
                    ..Default::default()
                };
                if let Err(error) = self.vcpu_operation(VCPUOP_set_singleshot_timer, timer.as_mut_bytes()) {
                    // Without a timer the deadline can only be polled.
                    log::error!("the timer cannot be set: {error}");
                    return true;
                }
                self.armed.set(Some(deadline));
            }
        }
        call::block();
        true
    }

    fn vcpu_operation(&self, operation: u64, argument: &mut [u8]) -> Result<u64, Errno> {
        // SAFETY: the argument is the operation's structure, or nothing; the hypervisor only reads it.
        unsafe {
            call::raw(
                __HYPERVISOR_vcpu_op,
                [operation, 0, argument.as_mut_ptr() as u64, 0],
            )
        }
    }
}

fn operate<T: FromBytes + IntoBytes>(operation: u64, argument: &mut T) -> Result<(), Errno> {
    call::with(__HYPERVISOR_event_channel_op, operation, argument).map(drop)
}

impl Clock for XenEvents {
    fn now(&self) -> Instant {
        let time: VcpuTimeInfo = self.shared.consistent(TIME);
        let ticks = read_counter().wrapping_sub(time.tsc_timestamp);
        // A counter that stands a little behind the hypervisor's must not look like one that is centuries ahead.
        let ticks = if (ticks as i64) < 0 { 0 } else { ticks };
        Instant::from_nanos(time.system_time.wrapping_add(scale_ticks(
            ticks,
            time.tsc_to_system_mul,
            time.tsc_shift,
        )))
    }

    fn wall(&self) -> Duration {
        let wall: WallClock = self.shared.consistent(WALL);
        let seconds = u64::from(wall.seconds_high) << 32 | u64::from(wall.seconds);
        Duration::from_secs(seconds)
            .saturating_add(Duration::from_nanos(wall.nanoseconds.into()))
            .saturating_add(Duration::from_nanos(self.now().as_nanos()))
    }
}

/// The time-stamp counter, read after what precedes it.
fn read_counter() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter.
    unsafe {
        asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    };
    u64::from(high) << 32 | u64::from(low)
}

impl EventChannels for XenEvents {
    fn allocate_unbound(&self, remote: DomainId) -> Result<Port, Errno> {
        let mut argument = EvtchnAllocUnbound {
            dom: DOMID_SELF,
            remote_dom: remote.0,
            ..EvtchnAllocUnbound::default()
        };
        operate(EVTCHNOP_alloc_unbound, &mut argument)?;
        Ok(Port(argument.port))
    }

    fn bind_interdomain(&self, remote: DomainId, remote_port: Port) -> Result<Port, Errno> {
        let mut argument = EvtchnBindInterdomain {
            remote_dom: remote.0,
            remote_port: remote_port.0,
            ..EvtchnBindInterdomain::default()
        };
        operate(EVTCHNOP_bind_interdomain, &mut argument)?;
        Ok(Port(argument.local_port))
    }

    fn bind_virq(&self, virq: u32) -> Result<Port, Errno> {
        let mut argument = EvtchnBindVirq {
            virq,
            ..EvtchnBindVirq::default()
        };
        operate(EVTCHNOP_bind_virq, &mut argument)?;
        Ok(Port(argument.port))
    }

    fn map_interrupt(&self, source: InterruptSource) -> Result<u32, Errno> {
        let mut argument = PhysdevMapPirq {
            domid: DOMID_SELF,
            pirq: -1,
            ..PhysdevMapPirq::default()
        };
        match source {
            InterruptSource::Msi { function, entry } => {
                argument.r#type = MAP_PIRQ_TYPE_MSI_SEG;
                argument.index = -1;
                argument.bus = i32::from(function.segment()) << 16 | i32::from(function.bus());
                argument.devfn = i32::from(function.device()) << 3 | i32::from(function.function());
                argument.entry_nr = entry.into();
            }
            InterruptSource::Gsi(line) => {
                argument.r#type = MAP_PIRQ_TYPE_GSI;
                argument.index = line as i32;
            }
        }
        call::with(__HYPERVISOR_physdev_op, PHYSDEVOP_map_pirq, &mut argument)?;
        u32::try_from(argument.pirq).map_err(|_| Errno::EINVAL)
    }

    fn bind_pirq(&self, pirq: u32) -> Result<Port, Errno> {
        let mut argument = EvtchnBindPirq {
            pirq,
            ..EvtchnBindPirq::default()
        };
        operate(EVTCHNOP_bind_pirq, &mut argument)?;
        Ok(Port(argument.port))
    }

    fn end_of_interrupt(&self, pirq: u32) -> Result<(), Errno> {
        call::with(
            __HYPERVISOR_physdev_op,
            PHYSDEVOP_eoi,
            &mut PhysdevEoi { irq: pirq },
        )
        .map(drop)
    }

    fn close(&self, port: Port) -> Result<(), Errno> {
        operate(EVTCHNOP_close, &mut EvtchnClose { port: port.0 })?;
        // The number may be given to another channel, which must not inherit what this one left.
        self.scan();
        self.fired.borrow_mut().remove(port);
        Ok(())
    }

    fn notify(&self, port: Port) -> Result<(), Errno> {
        operate(EVTCHNOP_send, &mut EvtchnSend { port: port.0 })
    }

    fn mask(&self, port: Port) {
        if port.0 < 4096 {
            let word = self.shared.word(MASK + port.0 as usize / 64 * 8);
            word.fetch_or(1 << (port.0 % 64), Ordering::SeqCst);
        }
    }

    fn unmask(&self, port: Port) -> Result<(), Errno> {
        operate(EVTCHNOP_unmask, &mut EvtchnUnmask { port: port.0 })
    }

    fn poll(&self) -> PortSet {
        self.take()
    }

    fn wait(&self, deadline: Option<Instant>) -> PortSet {
        loop {
            let fired = self.take();
            if !fired.is_empty() || !self.sleep(deadline) {
                return fired;
            }
        }
    }

    fn remember(&self, port: Port) {
        self.fired.borrow_mut().insert(port);
    }

    fn wait_for(&self, port: Port, deadline: Option<Instant>) -> bool {
        loop {
            self.scan();
            if self.fired.borrow_mut().remove(port) {
                return true;
            }
            if !self.sleep(deadline) {
                return false;
            }
        }
    }
}

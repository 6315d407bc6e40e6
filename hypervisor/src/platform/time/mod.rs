//! Time: nanoseconds since the hypervisor began, from the time-stamp counter, whose rate is measured once; the local APIC's timer; and the date at boot.
//!
//! The conversion is that of Xen's pvclock, so guests that convert by [`Scale`] agree with [`now`] to the nanosecond.

mod calibrate;
mod clock_chip;
mod scale;

use core::sync::atomic::{AtomicU64, Ordering};

use spin::Once;

use super::{
    acpi::fadt::Fadt,
    cpu,
    local_apic::{self, TimerMode},
};

pub use scale::Scale;

/// What the time-stamp counter read when the hypervisor began.
static START: AtomicU64 = AtomicU64::new(0);
static CLOCK: Once<Clock> = Once::new();

struct Clock {
    tsc_khz: u64,
    scale: Scale,
    /// Of the local APIC's timer, after its divisor; 0 where the timer compares with the time-stamp counter.
    timer_khz: u64,
    wall_clock: u64,
}

/// Time begins.
pub fn mark_start() {
    START.store(cpu::time_stamp(), Ordering::Relaxed);
}

/// Measures the counters and reads the date. The local APIC is on.
pub(super) fn initialize(fadt: &Fadt) {
    let rates = calibrate::measure(fadt);
    let wall_clock = clock_chip::read(fadt.century).unwrap_or_else(|| {
        log::warn!("the clock chip says no date that makes sense; domains begin in 1970");
        0
    });
    CLOCK.call_once(|| Clock {
        tsc_khz: rates.tsc_khz,
        scale: Scale::of_khz(rates.tsc_khz),
        timer_khz: rates.timer_khz,
        wall_clock: wall_clock
            .saturating_sub(Scale::of_khz(rates.tsc_khz).nanoseconds(elapsed()) / 1_000_000_000),
    });
    log::info!(
        "time-stamp counter at {} kHz ({}), local APIC timer {}",
        rates.tsc_khz,
        rates.source,
        match local_apic::timer_mode() {
            TimerMode::Deadline => alloc::string::String::from("by deadline"),
            TimerMode::Count => alloc::format!("at {} kHz", rates.timer_khz),
        }
    );
}

/// Ticks of the time-stamp counter since the hypervisor began: what is cheaper to take than [`now`]. `scale()` makes nanoseconds of them.
pub fn ticks() -> u64 {
    elapsed()
}

fn elapsed() -> u64 {
    cpu::time_stamp().wrapping_sub(START.load(Ordering::Relaxed))
}

/// Nanoseconds since the hypervisor began; 0 until the rate is known.
pub fn now() -> u64 {
    CLOCK.get().map_or(0, |clock| clock.scale.nanoseconds(elapsed()))
}

/// Rate of the time-stamp counter in kHz; 0 until it is known.
pub fn tsc_khz() -> u64 {
    CLOCK.get().map_or(0, |clock| clock.tsc_khz)
}

/// How a difference of the time-stamp counter becomes nanoseconds.
pub fn scale() -> Scale {
    CLOCK.get().map_or(
        Scale {
            multiplier: 0,
            shift: 0,
        },
        |clock| clock.scale,
    )
}

/// What the time-stamp counter read at time 0: `now() = scale().nanoseconds(counter - tsc_at_zero())`.
pub fn tsc_at_zero() -> u64 {
    START.load(Ordering::Relaxed)
}

/// Seconds from 1970 to time 0, by the clock chip; 0 if it cannot be read.
pub fn wall_clock_at_boot() -> u64 {
    CLOCK.get().map_or(0, |clock| clock.wall_clock)
}

/// Fires [`super::interrupts::TIMER`] at this time (nanoseconds; one in the past fires at once), or never: one write to the processor. The timer may
/// fire early: look at the clock, and set it again.
pub fn set_deadline(deadline: Option<u64>) {
    let Some(clock) = CLOCK.get() else { return };
    match local_apic::timer_mode() {
        TimerMode::Deadline => local_apic::set_timer_deadline(deadline.map_or(0, |deadline| {
            counter_at(deadline, clock.scale, START.load(Ordering::Relaxed))
        })),
        TimerMode::Count => local_apic::set_timer_count(deadline.map_or(0, |deadline| {
            timer_count(deadline.saturating_sub(now()), clock.timer_khz)
        })),
    }
}

/// The first value of the time-stamp counter at which [`now`] has reached `nanoseconds`; not 0, which would be no deadline.
fn counter_at(nanoseconds: u64, scale: Scale, start: u64) -> u64 {
    start.saturating_add(scale.ticks(nanoseconds)).max(1)
}

/// The count that lasts `nanoseconds` or a tick longer, at least 1. A time that the timer cannot count ends early, and so does, a little, a long one:
/// the timer's rate was measured, and what is wrong with it must not make an alarm late.
fn timer_count(nanoseconds: u64, khz: u64) -> u32 {
    const LONG: u64 = 10_000_000;
    let margin = if nanoseconds > LONG { nanoseconds >> 10 } else { 0 };
    let count = (u128::from(nanoseconds - margin) * u128::from(khz)).div_ceil(1_000_000);
    u32::try_from(count).unwrap_or(u32::MAX).max(1)
}

/// Waits without doing anything: for devices that take a moment.
pub fn spin_for(nanoseconds: u64) {
    let ticks = scale().ticks(nanoseconds);
    let start = cpu::time_stamp();
    while cpu::time_stamp().wrapping_sub(start) < ticks {
        core::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_count_is_never_short_and_never_zero() {
        assert_eq!(timer_count(0, 62_500), 1);
        assert_eq!(timer_count(1_000_000, 62_500), 62_500);
        assert_eq!(timer_count(1_000_001, 62_500), 62_501);
        assert_eq!(timer_count(u64::MAX, 1_000_000), u32::MAX);
        assert_eq!(timer_count(10_240_000, 1_000), 10_230);
    }

    proptest! {
        #[test]
        fn a_deadline_is_met_to_the_tick(khz in 1_000u64..8_000_000, start in 0u64..1 << 60, deadline in 1u64..1 << 55) {
            let scale = Scale::of_khz(khz);
            let counter = counter_at(deadline, scale, start);
            let now = |counter: u64| scale.nanoseconds(counter - start);
            prop_assert!(now(counter) >= deadline);
            prop_assert!(now(counter - 1) < deadline);
        }
    }
}

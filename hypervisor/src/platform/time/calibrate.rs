//! How fast the time-stamp counter and the local APIC's timer run: by CPUID where the processor says it, otherwise measured against the ACPI timer, or
//! the legacy interval timer where there is none.

use core::arch::x86_64::__cpuid_count;

use crate::platform::{
    acpi::fadt::{Fadt, Register},
    cpu, local_apic,
    mmio::{self, Mmio},
    port,
};

const ACPI_TIMER_HZ: u64 = 3_579_545;
const INTERVAL_TIMER_HZ: u64 = 1_193_182;
/// How long a measurement lasts, in microseconds.
const WINDOW: u64 = 20_000;

/// What was measured.
pub struct Rates {
    pub tsc_khz: u64,
    pub timer_khz: u64,
    /// By what, for the log.
    pub source: &'static str,
}

/// Measures. The local APIC's timer is stopped afterwards.
pub fn measure(fadt: &Fadt) -> Rates {
    let acpi = fadt
        .timer
        .and_then(|(register, wide)| AcpiTimer::new(register, wide));
    let (reference, name) = match &acpi {
        Some(timer) if timer.counts() => (timer as &dyn Reference, "by the ACPI timer"),
        _ => (&IntervalTimer as &dyn Reference, "by the interval timer"),
    };
    let measured = run(reference);
    match announced() {
        Some(tsc_khz) => {
            let timer_khz = measured.timer_ticks * tsc_khz / measured.tsc_ticks.max(1);
            Rates {
                tsc_khz,
                timer_khz,
                source: "by CPUID",
            }
        }
        None => Rates {
            tsc_khz: khz(measured.tsc_ticks, &measured),
            timer_khz: khz(measured.timer_ticks, &measured),
            source: name,
        },
    }
}

/// The rate of the time-stamp counter that CPUID announces, in kHz.
fn announced() -> Option<u64> {
    if __cpuid_count(0, 0).eax < 0x15 {
        return None;
    }
    let leaf = __cpuid_count(0x15, 0);
    from_crystal(leaf.eax, leaf.ebx, leaf.ecx)
}

fn from_crystal(denominator: u32, numerator: u32, crystal_hz: u32) -> Option<u64> {
    let hz = (u64::from(crystal_hz) * u64::from(numerator)).checked_div(denominator.into())?;
    (hz >= 1_000_000).then_some(hz / 1000)
}

/// Ticks of three counters over the same time.
struct Measured {
    tsc_ticks: u64,
    timer_ticks: u64,
    reference_ticks: u64,
    reference_hz: u64,
}

fn khz(ticks: u64, measured: &Measured) -> u64 {
    let divisor = u128::from(measured.reference_ticks.max(1)) * 1000;
    let khz = u128::from(ticks) * u128::from(measured.reference_hz) / divisor;
    u64::try_from(khz).unwrap_or(u64::MAX).max(1)
}

fn run(reference: &dyn Reference) -> Measured {
    let wanted = reference.hz() * WINDOW / 1_000_000;
    local_apic::start_calibration();
    reference.start();
    let (first_tsc, first_reference) = sample(reference);
    let first_timer = local_apic::timer_count();
    while reference.elapsed(first_reference, reference.read()) < wanted {
        core::hint::spin_loop();
    }
    let (last_tsc, last_reference) = sample(reference);
    let last_timer = local_apic::timer_count();
    local_apic::end_calibration();
    Measured {
        tsc_ticks: last_tsc.wrapping_sub(first_tsc),
        timer_ticks: first_timer.wrapping_sub(last_timer).into(),
        reference_ticks: reference.elapsed(first_reference, last_reference),
        reference_hz: reference.hz(),
    }
}

/// The time-stamp counter and the reference at the same moment: of several tries the one that was least interrupted.
fn sample(reference: &dyn Reference) -> (u64, u64) {
    let mut best = (u64::MAX, 0, 0);
    for _ in 0..8 {
        let before = cpu::time_stamp();
        let value = reference.read();
        let took = cpu::time_stamp().wrapping_sub(before);
        if took < best.0 {
            best = (took, before.wrapping_add(took / 2), value);
        }
    }
    (best.1, best.2)
}

/// A counter of known rate.
trait Reference {
    fn hz(&self) -> u64;
    fn start(&self) {}
    fn read(&self) -> u64;
    /// Ticks from one value to a later one.
    fn elapsed(&self, from: u64, to: u64) -> u64;
}

/// The timer that the FADT names.
struct AcpiTimer {
    place: Place,
    mask: u64,
}

enum Place {
    Port(u16),
    Memory(Mmio),
}

impl AcpiTimer {
    fn new(register: Register, wide: bool) -> Option<Self> {
        let place = match register {
            Register::Port(port) => Place::Port(port),
            Register::Memory(at) if at.0.is_multiple_of(4) => Place::Memory(mmio::map(at, 4).ok()?),
            _ => return None,
        };
        Some(Self {
            place,
            mask: if wide { 0xffff_ffff } else { 0xff_ffff },
        })
    }

    /// Whether it does count: the table may name one that is not there.
    fn counts(&self) -> bool {
        let first = self.read();
        (0..10_000).any(|_| self.read() != first)
    }
}

impl Reference for AcpiTimer {
    fn hz(&self) -> u64 {
        ACPI_TIMER_HZ
    }

    fn read(&self) -> u64 {
        let value = match &self.place {
            Place::Port(port) => port::read_u32(*port),
            Place::Memory(mmio) => mmio.read(0),
        };
        u64::from(value) & self.mask
    }

    fn elapsed(&self, from: u64, to: u64) -> u64 {
        to.wrapping_sub(from) & self.mask
    }
}

/// Channel 2 of the 8254, which counts down without disturbing anyone.
struct IntervalTimer;

impl Reference for IntervalTimer {
    fn hz(&self) -> u64 {
        INTERVAL_TIMER_HZ
    }

    fn start(&self) {
        port::write_u8(0x61, port::read_u8(0x61) & !2 | 1); // gate on, speaker off
        port::write_u8(0x43, 0xb0); // channel 2, both bytes, count down once
        port::write_u8(0x42, 0xff);
        port::write_u8(0x42, 0xff);
    }

    fn read(&self) -> u64 {
        port::write_u8(0x43, 0x80); // latch channel 2
        let low = port::read_u8(0x42);
        u16::from_le_bytes([low, port::read_u8(0x42)]).into()
    }

    fn elapsed(&self, from: u64, to: u64) -> u64 {
        from.wrapping_sub(to) & 0xffff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crystals_and_references() {
        assert_eq!(from_crystal(2, 216, 24_000_000), Some(2_592_000));
        assert_eq!(
            (from_crystal(0, 1, 24_000_000), from_crystal(1, 100, 0)),
            (None, None)
        );
        let measured = Measured {
            tsc_ticks: 40_000_000,
            timer_ticks: 0,
            reference_ticks: ACPI_TIMER_HZ / 50,
            reference_hz: ACPI_TIMER_HZ,
        };
        assert!(khz(measured.tsc_ticks, &measured).abs_diff(2_000_000) < 30);
        assert_eq!(khz(measured.timer_ticks, &measured), 1);
        assert_eq!(IntervalTimer.elapsed(10, 0xfff0), 26);
    }
}

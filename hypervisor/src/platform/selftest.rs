//! Things that the hypervisor tries out on itself when its command line says `selftest=NAME`: they hold it to promises that nothing else would notice were
//! broken. Each ends in a message that says `passed` or `failed` and switches the machine off, unless what it provokes is a report.
//!
//! | name | what must happen |
//! | --- | --- |
//! | `interrupts` | timer and interval-timer interrupts arrive on their vectors, once, and in time |
//! | `panic` | a panic is reported with a backtrace |
//! | `null` | reading address 0 faults |
//! | `write-text` | writing to code faults |
//! | `write-bundle` | writing to the bundle faults |
//! | `execute-data` | executing data faults |
//! | `stack` | a stack that overflows runs into its guard page, and that is reported |
//! | `memory` | the heap gives out, and that is reported |
//! | `power-off`, `reboot` | the machine does so |
#![allow(unsafe_code)] // Breaks things on purpose.

use alloc::{format, string::String, vec::Vec};

use super::{Machine, address_space, interrupts, local_apic, log, port, power, time};

/// Tries out what the name says; then power off.
pub fn run(name: &str, machine: &Machine) -> ! {
    match try_out(name, machine) {
        Ok(()) => ::log::info!("selftest {name} passed"),
        Err(reason) => ::log::error!("selftest {name} failed: {reason}"),
    }
    power::power_off()
}

fn try_out(name: &str, machine: &Machine) -> Result<(), String> {
    match name {
        "interrupts" => return try_interrupts(machine),
        "panic" => panic!("asked for by selftest=panic"),
        // SAFETY: none: the read must fault.
        "null" => drop(unsafe { core::ptr::without_provenance::<u64>(8).read_volatile() }),
        // SAFETY: none: the write must fault.
        "write-text" => unsafe { (run as *const () as *mut u8).write_volatile(0) },
        "write-bundle" => {
            let bundle = address_space::bundle(machine).as_ptr().cast_mut();
            // SAFETY: none: the write must fault.
            unsafe { bundle.write_volatile(0) };
        }
        "execute-data" => {
            static CODE: [u8; 1] = [0xc3];
            // SAFETY: none: the call must fault.
            let data: extern "C" fn() = unsafe { core::mem::transmute(CODE.as_ptr()) };
            data();
        }
        "stack" => drop(overflow(&[0; 128])),
        "memory" => {
            let mut all: Vec<Vec<u8>> = Vec::new();
            loop {
                all.push(Vec::with_capacity(100_000));
            }
        }
        "power-off" => power::power_off(),
        "reboot" => power::reboot(),
        _ => return Err("there is none of this name".into()),
    }
    Err("nothing stopped it".into())
}

#[expect(unconditional_recursion, reason = "the stack must end")]
fn overflow(above: &[u64; 128]) -> u64 {
    let here = core::hint::black_box([above[0] + 1; 128]);
    overflow(&here) + here[5]
}

fn try_interrupts(machine: &Machine) -> Result<(), String> {
    const DELAY: u64 = 5_000_000;
    for _ in 0..3 {
        let asked = time::now() + DELAY;
        while time::now() < asked {
            time::set_deadline(Some(asked));
            interrupts::wait();
        }
        let late = time::now() - asked;
        if late > DELAY {
            return Err(format!("the timer came {late} ns late"));
        }
    }
    time::set_deadline(None);

    let vector = interrupts::allocate_vector().ok_or("no vector is free")?;
    let gsi = machine.isa_gsi(0);
    interrupts::route_gsi(gsi, vector, local_apic::boot_id()).map_err(|error| format!("{error}"))?;
    start_interval_timer();
    let end = time::now() + 100_000_000;
    while time::now() < end {
        interrupts::window();
        if let Some(early) = interrupts::take_pending() {
            return Err(format!("vector {early} arrived while its input was masked"));
        }
    }
    interrupts::unmask_gsi(gsi);
    start_interval_timer();
    // A guard against waiting for ever.
    time::set_deadline(Some(time::now() + 100_000_000));
    interrupts::wait();
    let arrived = interrupts::take_pending();
    if arrived != Some(vector) {
        return Err(format!("vector {vector} was expected, {arrived:?} arrived"));
    }
    interrupts::mask_gsi(gsi);
    interrupts::free_vector(vector);
    if log::serial_port().is_none() {
        ::log::warn!("and there is no serial port");
    }
    Ok(())
}

/// Channel 0 of the 8254 raises line 0 once, in five milliseconds.
fn start_interval_timer() {
    port::write_u8(0x43, 0x30);
    port::write_u8(0x40, 0x4d);
    port::write_u8(0x40, 0x17);
}

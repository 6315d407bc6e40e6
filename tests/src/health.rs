//! What a guest's kernel must not complain about, and its clock.

use crate::{Guest, seconds};

/// Words in a kernel's log that speak of clocks or processors that were lost, of errors of devices, or of a kernel that is not well.
const COMPLAINTS: [&str; 17] = [
    "clocksource: timekeeping watchdog",
    "Marking clocksource",
    "unstable",
    "time went backwards",
    "rcu: INFO",
    "rcu_sched detected",
    "soft lockup",
    "hard LOCKUP",
    "hung_task",
    "blocked for more than",
    "I/O error",
    "BUG:",
    "WARNING: CPU",
    "Call Trace",
    "segfault",
    "failed to come up",
    "didn't die",
];

/// Checks that nothing in the guest's log is a complaint.
#[track_caller]
pub fn assert_healthy(guest: &mut Guest<'_>) {
    let log = guest.run_for("dmesg", seconds(120));
    for complaint in COMPLAINTS {
        assert!(!log.contains(complaint), "{complaint}:\n{log}");
    }
}

/// The clock source that the guest uses, and those that it could use.
#[track_caller]
pub fn clock_sources(guest: &mut Guest<'_>) -> (String, String) {
    let mut read = |file: &str| {
        let text = guest.run(&format!(
            "cat /sys/devices/system/clocksource/clocksource0/{file}_clocksource"
        ));
        text.trim().to_string()
    };
    (read("current"), read("available"))
}

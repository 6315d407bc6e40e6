//! Faults on purpose: appliances that allow them, and their moments.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Appliance, System, seconds};

impl Appliance {
    /// Lets the operator inject faults.
    #[track_caller]
    pub fn with_faults(self) -> Self {
        self.replace("[hypervisor]\n", "[hypervisor]\nfault-injection = true\n")
    }

    /// Gives the guest a second disk of 32 MiB, and a program that writes to it and checks (`disk-check`).
    #[track_caller]
    pub fn with_disk_check(self, program: &str) -> Self {
        self.in_domain(
            "linux",
            &format!("packages = [\"libc6\", \"libgcc-s1\"]\nfiles = {{ \"/usr/bin/disk-check\" = \"{program}\" }}"),
        )
        .replace(
            "[[domain.network]]",
            "[[domain.disk]]\nname = \"xvdb\"\nbackend = \"diskdom\"\nvolume = \"nvme0:raw\"\n\n[[domain.network]]",
        )
        .replace(
            "[[emulator.disk.partition]]",
            "[[emulator.disk.partition]]\nname = \"raw\"\nsize = \"32M\"\n\n[[emulator.disk.partition]]",
        )
    }
}

/// Numbers that differ from run to run, and are the same for the same `ATOLL_SEED`.
pub struct Moments(u64);

impl Moments {
    /// Says which seed it is, so that a run can be repeated.
    pub fn new() -> Self {
        let given = std::env::var("ATOLL_SEED")
            .ok()
            .and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.map_or(1, |now| now.as_nanos() as u64 % 1_000_000_007)
        });
        println!("ATOLL_SEED={seed}");
        Self(seed)
    }

    /// The next number below a limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}

impl Default for Moments {
    fn default() -> Self {
        Self::new()
    }
}

impl System {
    /// Kills a domain that is at work, once it has run for so many microseconds, and waits until it is started again.
    #[track_caller]
    pub fn kill(&mut self, name: &str, after: u64) {
        self.kill_and_go_on(name, after);
        self.console().expect(&format!("{name} is started"), seconds(60));
    }

    /// The same without waiting for what follows.
    #[track_caller]
    pub fn kill_and_go_on(&mut self, name: &str, after: u64) {
        self.type_line(&format!("kill {name} {after}"));
        self.console().expect(&format!("kill: {name}"), seconds(20));
    }
}

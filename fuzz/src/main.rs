//! libFuzzer on one of the targets: that which the environment variable `ATOLL_FUZZ_TARGET` names.
#![no_main]

use std::{env, sync::LazyLock};

static TARGET: LazyLock<&fuzz::Target> = LazyLock::new(|| {
    let name = env::var("ATOLL_FUZZ_TARGET").unwrap_or_default();
    fuzz::find(&name).unwrap_or_else(|| {
        let names: Vec<_> = fuzz::TARGETS.iter().map(|target| target.name).collect();
        eprintln!(
            "ATOLL_FUZZ_TARGET={name} names no target; there are {}",
            names.join(", ")
        );
        std::process::exit(2)
    })
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));

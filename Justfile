# What people do with this project. Each line calls one command, which works without `just` as well.

# Build an appliance: build/NAME.iso
build-image name="gateway" *options:
    cargo atoll build {{name}} {{options}}

# Build an appliance and boot it in the emulator, its serial line on this terminal (Ctrl-A X ends it)
run name="gateway" *options:
    cargo atoll run {{name}} {{options}}

# Every test: each crate's own on the host, and whole systems under the emulator
test *options:
    cargo test --workspace {{options}}

# Formatting and lints, warnings denied
lint:
    cargo atoll lint

# Search for bytes that break what reads them: cargo atoll fuzz [TARGET…] --seconds N
fuzz *options:
    cargo atoll fuzz {{options}}

# Print the project's figures: start, sizes, throughput; `just bench sched`: what ways through the hypervisor cost
bench what="figures" *options:
    cargo test --package tests --test {{ if what == "figures" { "figures" } else { "bench_" + what } }} {{options}} -- --ignored --nocapture

# What takes too long for every day: models with large bounds, driver domains restarted under load, vCPUs that go and come, verified load, many times
soak rounds="100":
    ATOLL_MODELS=deep cargo test --release --package hypervisor --lib models
    ATOLL_ROUNDS={{rounds}} cargo test --package tests --test restart
    ATOLL_KILLS={{rounds}} cargo test --package tests --test kill_disk -- --test-threads 1
    ATOLL_KILLS={{rounds}} cargo test --package tests --test kill_net --test kill_console --test kill_control -- --test-threads 1
    ATOLL_TOGGLES={{rounds}} ATOLL_LOAD=5 cargo test --package tests --test load -- --test-threads 1
    ATOLL_ROUNDS=3 ATOLL_TURNS=20000 cargo test --package tests --test latency
    ATOLL_CHAOS=1000000 cargo test --package tests --test chaos -- --include-ignored --test-threads 1

# Lines of code that are trusted, a crate each: without tests, fakes, comments and empty lines (docs/security.md)
lines:
    for crate in xen-abi manifest hypervisor unikernel-rt controldom consoledom diskdom netdom; do find $crate/src -name '*.rs' ! -path '*/tests/*' ! -path '*/testing/*' ! -path '*/fake/*' ! -name 'tests.rs' ! -name 'testing.rs' ! -name 'fake.rs' ! -name 'simulator.rs' -print0 | xargs -0 awk -v crate=$crate '/^#\[cfg\(test\)\]$/ { getline next_line; if (next_line ~ /\{$/) nextfile } { sub(/^[ \t]+/, ""); if ($0 != "" && $0 !~ /^\/\//) count++ } END { printf "%-12s %6d\n", crate, count }'; done

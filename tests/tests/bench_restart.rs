//! How long a guest waits for a driver domain that dies, as `just bench restart` prints it, and what a Linux that drove the same device would need to boot again. `ATOLL_KILLS`
//! says how often it dies, 200 times unless said otherwise. Nothing fails here for being slow.

use std::time::Duration;

use tests::{Appliance, Guest, Moments, System, seconds, setting};

/// How often each driver domain is killed.
fn kills() -> u32 {
    setting("ATOLL_KILLS", 200)
}

/// Milliseconds, shown with what half, and 99 of 100, do not exceed.
fn print(name: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else {
        println!("{name:<58} nothing was measured");
        return;
    };
    let at = |part: usize| values[(values.len() * part).div_ceil(100).saturating_sub(1).min(last)];
    println!(
        "{name:<58} {:>6} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
        values.len(),
        values[0],
        at(50),
        at(99),
        values[last]
    );
}

/// A line of the log: when, in milliseconds, who, and what.
fn log_line(line: &str) -> Option<(f64, &str, &str)> {
    let line = &line[line.find('[')? + 1..];
    let (time, rest) = line.split_once("] ")?;
    let (who, what) = rest.split_once(": ")?;
    Some((time.trim().parse::<f64>().ok()? * 1000.0, who, what))
}

/// From each line of the log that begins with the first of `marks` (who, what) to the first one after it of each of the others.
fn spans(log: &str, marks: &[(&str, &str)]) -> Vec<Vec<f64>> {
    let mut spans = vec![Vec::new(); marks.len() - 1];
    let mut begun: Option<(f64, usize)> = None;
    for (time, who, what) in log.lines().filter_map(log_line) {
        let is = |mark: &(&str, &str)| who == mark.0 && what.contains(mark.1);
        if is(&marks[0]) {
            begun = Some((time, 1));
        } else if let Some((since, next)) = begun
            && marks.get(next).is_some_and(is)
        {
            spans[next - 1].push(time - since);
            begun = Some((since, next + 1));
        }
    }
    spans
}

/// What was written to the console between kills is the log, and the guest's own words.
fn kill_again_and_again(system: &mut System, name: &str) {
    let mut moments = Moments::new();
    for _ in 0..kills() {
        // A life of a second and more: a driver that dies sooner has its device reset, which is another matter.
        std::thread::sleep(Duration::from_millis(1200 + moments.below(300)));
        system.kill(name, 1 + moments.below(2000));
    }
    std::thread::sleep(Duration::from_secs(2));
}

fn bench_disk() {
    let mut system = Appliance::gateway("bench-restart-disk")
        .with_faults()
        .with_disk_check(env!("CARGO_BIN_EXE_disk-check"))
        .build()
        .boot();
    system.wait_until_up();
    let mut linux = system.guest("linux");
    linux.run("(disk-check watch /dev/xvdb /tmp/stop 10000 > /tmp/gaps 2>&1; touch /tmp/over) & true");
    drop(linux);
    kill_again_and_again(&mut system, "diskdom");
    let mut linux = system.guest("linux");
    linux.run("touch /tmp/stop");
    linux.run_for("until [ -e /tmp/over ]; do sleep 1; done", seconds(60));
    let said = linux.run("cat /tmp/gaps");
    drop(linux);
    let gaps = gaps(&said);
    let log = system.console().history();
    let killed = ("atoll", "diskdom is killed");
    let found = spans(
        &log,
        &[
            killed,
            ("atoll", "diskdom starts"),
            ("diskdom", "is ready; its reset took"),
            ("diskdom", "the first request of this life is completed"),
        ],
    );
    for (name, span) in [
        "diskdom: kill to its first instruction",
        "diskdom: kill to its controller ready (CC.RDY)",
        "diskdom: kill to the first request completed",
    ]
    .into_iter()
    .zip(found)
    {
        print(name, span);
    }
    print("guest: reads of 4 KiB that waited longer than 10 ms", gaps);
    println!("guest: {}", said.lines().next().unwrap_or_default());
}

/// Milliseconds of the gaps that the guest wrote down.
fn gaps(said: &str) -> Vec<f64> {
    let micros = said
        .lines()
        .filter_map(|line| line.split_once(" us=")?.1.parse::<f64>().ok());
    micros.map(|micros| micros / 1000.0).collect()
}

fn bench_net() {
    let mut system = Appliance::gateway("bench-restart-net")
        .with_faults()
        .in_domain("linux", "packages = [\"iputils-ping\"]")
        .build()
        .boot();
    system.wait_until_up();
    let mut linux = system.guest("linux");
    // When answers come, and every time that none came for 10 ms.
    linux.run(
        "(/usr/bin/ping -D -i 0.001 10.0.2.2 | awk '/icmp_seq/ { now = substr($1, 2) + 0; if (last && now - last > 0.01) print \"gap us=\" int((now - last) * 1000000); last = now }' > /tmp/gaps) & true",
    );
    drop(linux);
    kill_again_and_again(&mut system, "netdom");
    let mut linux = system.guest("linux");
    linux.run("killall ping; sleep 1");
    let said = linux.run("cat /tmp/gaps");
    drop(linux);
    let gaps = gaps(&said);
    let log = system.console().history();
    let killed = ("atoll", "netdom is killed");
    let found = spans(
        &log,
        &[
            killed,
            ("atoll", "netdom starts"),
            ("netdom", "link up"),
            ("netdom", "is resumed"),
        ],
    );
    for (name, span) in [
        "netdom: kill to its first instruction",
        "netdom: kill to its card ready (reset, link)",
        "netdom: kill to the frontend's rings taken over",
    ]
    .into_iter()
    .zip(found)
    {
        print(name, span);
    }
    print(
        "guest: pings of 1 ms without an answer for longer than 10 ms",
        gaps,
    );
}

/// What a Linux that drives the same device needs from its first instruction to its driver being ready: the kernel's own clock, so without the loading of the
/// kernel, and without the user space that a driver domain of Linux needs beside.
fn bench_linux() {
    let mut times = Vec::new();
    for round in 0..3 {
        let mut system = Appliance::gateway(&format!("bench-restart-linux-{round}"))
            .replace("nic = \"e1000e\"", "nic = \"virtio-net\"")
            .in_domain("linux", "modules = [\"virtio_pci\", \"virtio_net\"]")
            .boot_guest_alone("console=ttyS0 quiet atoll.data=/dev/nvme0n1p1");
        system.console().expect("linux ready", seconds(120));
        let mut linux = Guest::on_serial_line(system.console());
        let said = linux.run("dmesg | grep 'nvme0n1: p'");
        let time = said.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        let time = time.and_then(|(time, _)| time.trim().parse::<f64>().ok());
        times.push(time.unwrap_or_else(|| panic!("{said}")) * 1000.0);
    }
    print("a Linux driver domain: its first instruction to its disk", times);
}

#[test]
#[ignore = "measures; run by `just bench restart`"]
fn bench_restart() {
    println!(
        "{:<58} {:>6} {:>9} {:>9} {:>9} {:>9}",
        "milliseconds", "count", "min", "median", "p99", "max"
    );
    bench_disk();
    bench_net();
    bench_linux();
}

//! The screens of `top`, letter by letter, and that they keep to the terminal whatever happens.

use super::{
    rates::{DeviceRates, DomainRates, ProcessorRates},
    sample::{Class, DeviceSample, DomainSample, Latency},
    view::lines,
    *,
};
use alloc::{string::ToString, vec::Vec};
use proptest::prelude::*;
use xen_abi::atoll::{
    CAUSE_IDLE, DomainFigures, EXIT_HYPERCALL, EXIT_REASONS, ProcessorFigures, WAIT_BUCKETS,
};

fn rates() -> Rates {
    let mut reasons = [0; EXIT_REASONS];
    (reasons[EXIT_HYPERCALL], reasons[0], reasons[4]) = (600, 300, 100);
    let mut waits = [0; WAIT_BUCKETS];
    (waits[4], waits[5], waits[12]) = (90, 9, 1);
    let processor = ProcessorRates {
        number: 0,
        guest: 851,
        hypervisor: 99,
        waiting: 0,
        idle: 50,
        exits: 1234,
        switches: 567,
        interrupts: 89,
        ipis: 3,
        recent: (123_456, EXIT_HYPERCALL as u32),
        longest: (4_500_000, CAUSE_IDLE),
        runs: "linux".into(),
        exclusive: true,
    };
    Rates {
        uptime: 75_000_000_000,
        elapsed: PERIOD,
        domains: vec![
            DomainRates {
                name: "linux".into(),
                state: "running",
                class: "shr",
                cpu: 812,
                steal: 53,
                exits: 1000,
                reasons,
                events: 4321,
                copied: 3 << 19,
                mapped: 0,
                wakes: 100,
                waits,
                longest_wait: 1_200_000,
                held_back: 2,
                ..Default::default()
            },
            DomainRates {
                name: "a-name-that-is-long".into(),
                state: "running",
                class: "int",
                mapped: 64,
                ..Default::default()
            },
        ],
        processors: vec![processor],
        devices: vec![DeviceRates {
            class: Class::Disk,
            frontend: "linux".into(),
            backend: "diskdom".into(),
            name: "xvda".into(),
            towards: (12, 1 << 20),
            from: (2000, 100 << 20),
            errors: 1,
        }],
        latencies: vec![(
            "realtime".into(),
            Latency {
                count: 1000,
                marks: [900, 1500, 9000, 90_000],
                buckets: waits,
            },
        )],
    }
}

fn screen(view: View) -> String {
    lines(view, &rates(), Size::USUAL).join("\n")
}

#[test]
fn the_domains() {
    assert_eq!(
        screen(View::Domains),
        "\
top  up 75.0s  1 CPUs  2 domains   d domains e exits p CPUs h latency q quit
CPU GUESTS% HYPER%  LOCK%  IDLE%  EXITS/s  SWITCH/s  IRQS/s LONGEST STAY
  0    85.1    9.9    0.0    5.0     1234       567      89  123us hypercall
NAME        STAT CLS   CPU% STEAL% EXITS/s WHY               EVENTS  MiB/s  MAPS
linux       run  shr   81.2    5.3    1000 hyper 60 inter 30   4321    1.5     0
a-name-that run  int    0.0    0.0       0                        0    0.0    64
DEVICE    OF           BY           READ,RX/s  MiB/s WRITE,TX/s  MiB/s LOST
xvda      linux        diskdom             12    1.0       2000  100.0    1"
    );
}

#[test]
fn the_others() {
    assert_eq!(
        screen(View::Exits).lines().skip(1).collect::<Vec<_>>(),
        [
            "EXITS/s BY   INTER HYPER  HALT  PORT   MSR CPUID  APIC ABSEN PROTE WINDO OTHER",
            "linux          300   600     0     0   100     0     0     0     0     0     0",
            "a-name-that-     0     0     0     0     0     0     0     0     0     0     0",
        ]
    );
    assert_eq!(
        screen(View::Processors).lines().skip(1).collect::<Vec<_>>(),
        [
            "CPU GUEST HYPER  LOCK  IDLE EXITS/s  IPIS/s RECENT STAY LONGEST STAY RUNS",
            "  0  85.1   9.9   0.0   5.0    1234       3  123us hyper  4.5ms idle  !linux",
        ]
    );
    assert_eq!(
        screen(View::Latency).lines().skip(1).collect::<Vec<_>>(),
        [
            "WAKE TO RUN  WAKES/s  HALF<   99%<   EVER    1us       1ms       1s  HELD/s",
            "linux            100  4.0us  8.1us  1.2ms      #+      +             2",
            "a-name-that-       0      -      -    0ns                            0",
            "MEASURED BY    TIMES   HALF    99%   MOST    1us       1ms       1s  LEAST",
            "realtime        1000  1.5us  9.0us 90.0us      #+      +             900ns",
        ]
    );
}

#[test]
fn many_processors_are_taken_together() {
    let mut rates = rates();
    let processor = rates.processors[0].clone();
    rates.processors = (0..16)
        .map(|number| ProcessorRates {
            number,
            guest: if number < 8 { 1000 } else { 0 },
            ..processor.clone()
        })
        .collect();
    let text = lines(View::Domains, &rates, Size::USUAL).join("\n");
    assert!(text.contains("\nall    50.0    9.9"), "{text}");
    assert_eq!(lines(View::Processors, &rates, Size::USUAL).len(), 18);
}

#[test]
fn a_single_look_is_names_and_numbers() {
    let text = once::text(&rates());
    for line in [
        "processor 0 guests 85.1 hypervisor 9.9 lock 0.0 idle 5.0 exits 1234 switches 567 interrupts 89 ipis 3 stay 123456 cause hypercall longest 4500000 longest-cause idle exclusive yes runs linux",
        "domain linux state running class shr cpu 81.2 steal 5.3 exits 1000 events 4321 copied 1572864 mapped 0 maps 0 wakes 100 held 2",
        "exits linux interrupt 300 hypercall 600 halt 0 port 0 msr 100 cpuid 0 apic 0 absent 0 protected 0 window 0 other 0",
        "waits linux count 100 half 4096 most 8192 ever 1200000",
        "disk xvda of linux by diskdom reads 12 reads-bytes 1048576 writes 2000 writes-bytes 104857600 errors 1",
        "latency realtime count 1000 least 900 half 1500 most 9000 ever 90000",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
    }
}

#[test]
fn a_screen_is_drawn_over_the_last() {
    let mut top = Top::default();
    top.show(View::Exits);
    let drawn = top.draw(Size::USUAL);
    assert!(
        drawn.starts_with("\x1b[Htop") && drawn.ends_with("\x1b[K\x1b[J"),
        "{drawn:?}"
    );
    assert_eq!(drawn.matches("\r\n").count(), 1);
}

fn figures() -> impl Strategy<Value = DomainFigures> {
    (
        any::<[u64; 8]>(),
        any::<[u64; EXIT_REASONS]>(),
        prop::collection::vec(any::<u64>(), WAIT_BUCKETS),
        1_u16..9,
        0_u32..3,
    )
        .prop_map(|(numbers, reasons, waits, domain, generation)| {
            let [now, running, runnable, exits, events, copied, wakes, longest] = numbers;
            DomainFigures {
                domain,
                generation,
                now,
                running,
                runnable,
                exits,
                exits_by_reason: reasons,
                events_sent: events,
                events_received: events,
                bytes_copied: copied,
                wakes,
                longest_wait: longest,
                waits: waits.try_into().unwrap(),
                ..DomainFigures::default()
            }
        })
}

fn sample() -> impl Strategy<Value = Sample> {
    let domains = prop::collection::vec((figures(), "\\PC{0,40}|[\\x00-\\x20]{0,9}"), 0..40);
    let processors = prop::collection::vec(any::<[u64; 9]>(), 0..40);
    let devices = prop::collection::vec(any::<([u64; 5], bool)>(), 0..40);
    (domains, processors, devices, any::<u64>()).prop_map(|(domains, processors, devices, now)| Sample {
        now,
        domains: domains
            .into_iter()
            .map(|(figures, name)| DomainSample {
                name,
                state: "building",
                figures,
            })
            .collect(),
        processors: (0..)
            .zip(processors)
            .map(
                |(processor, [now, guest, hypervisor, waiting, idle, exits, ipis, stay, cause])| {
                    ProcessorFigures {
                        processor,
                        now,
                        guest,
                        hypervisor,
                        waiting,
                        idle,
                        exits,
                        ipis,
                        longest_stay: stay,
                        longest_cause: cause as u32,
                        domain: cause as u16 % 9,
                        ..ProcessorFigures::default()
                    }
                },
            )
            .collect(),
        devices: (0..)
            .zip(devices)
            .map(|(number, (counts, network))| DeviceSample {
                class: if network { Class::Network } else { Class::Disk },
                name: u32::to_string(&number),
                counts,
                ..DeviceSample::default()
            })
            .collect(),
        latencies: vec![("x".repeat(50), Latency::default())],
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_screen_exceeds_the_terminal(
        before in sample(),
        after in sample(),
        columns in 0_usize..200,
        rows in 0_usize..60,
    ) {
        let rates = Rates::between(&before, &after);
        for view in [View::Domains, View::Exits, View::Processors, View::Latency] {
            let lines = lines(view, &rates, Size { columns, rows });
            prop_assert!(lines.len() <= rows);
            for line in lines {
                prop_assert!(line.chars().count() <= columns);
                prop_assert!(!line.chars().any(char::is_control));
            }
        }
        once::text(&rates);
    }
}

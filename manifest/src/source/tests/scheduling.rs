//! Classes and placement.

use super::*;
use crate::Scheduling;

/// What diskdom becomes with these lines.
fn diskdom(lines: &str) -> Scheduling {
    let text = GOOD.replacen(
        "memory = \"8M\"\ndevices",
        &format!("memory = \"8M\"\n{lines}\ndevices"),
        1,
    );
    read_anywhere(&text).unwrap().manifest.domains[1]
        .scheduling
        .clone()
}

/// The one mistake in these lines of diskdom's, without where it is.
fn mistake(lines: &str) -> String {
    let whole = problem(
        "memory = \"8M\"\ndevices",
        &format!("memory = \"8M\"\n{lines}\ndevices"),
    );
    whole.split_once(": ").unwrap().1.into()
}

#[test]
fn reads_every_class_and_place() {
    assert_eq!(diskdom(""), Scheduling::default());
    let realtime =
        "class = \"realtime\"\nbudget = \"200us\"\nperiod = \"1ms\"\ncpus = [3, 1]\nexclusive = true";
    assert_eq!(
        diskdom(realtime),
        Scheduling {
            class: Class::Realtime {
                priority: 1,
                budget: 200_000,
                period: 1_000_000
            },
            processors: vec![1, 3],
            exclusive: true,
            ..Scheduling::default()
        }
    );
    let shared = diskdom("class = \"shared\"\nweight = 512\ncap = 50\npoll = \"40us\"");
    assert_eq!(
        shared,
        Scheduling {
            class: Class::Shared { weight: 512 },
            cap: Some(50),
            polling: 40_000,
            ..Scheduling::default()
        }
    );
}

#[test]
fn mistakes_are_named() {
    for (lines, said) in [
        ("class = \"realtime\"", "diskdom is realtime without a budget"),
        ("budget = \"1ms\"", "diskdom is interactive, which has no budget"),
        ("priority = 3", "diskdom is interactive, which has no priority"),
        (
            "class = \"realtime\"\nbudget = \"2ms\"\nperiod = \"1ms\"",
            "a budget is more than nothing",
        ),
        (
            "class = \"realtime\"\nbudget = \"1us\"\nperiod = \"1us\"",
            "a period is from 100us",
        ),
        (
            "class = \"realtime\"\nbudget = \"1h\"\nperiod = \"1ms\"",
            "\"1h\" is no duration",
        ),
        ("cpus = []", "diskdom may run nowhere"),
        ("cpus = [1, 1]", "processor 1 is named twice"),
        ("cpus = [256]", "processors have the numbers 0 to 255"),
        ("exclusive = true", "diskdom would have every processor to itself"),
        ("cap = 101", "a cap is in hundredths of one processor"),
        ("poll = \"1s\"", "nobody polls for longer than 10ms"),
    ] {
        let shown = mistake(lines);
        assert!(shown.starts_with(said), "{lines}: {shown}");
    }
    let text = GOOD
        .replacen("memory = \"256M\"", "memory = \"256M\"\ncpus = [0, 1]", 1)
        .replacen(
            "memory = \"8M\"\ndevices",
            "memory = \"8M\"\ncpus = [1]\nexclusive = true\ndevices",
            1,
        );
    let taken = read_anywhere(&text)
        .expect_err("two owners of a processor")
        .lines();
    assert_eq!(taken, ["appliance.toml:25: processor 1 is diskdom's alone"]);
}

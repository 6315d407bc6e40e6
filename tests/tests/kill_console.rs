//! The console domain dies at any moment while the operator types into a guest's shell: he stays where he is, and nothing that he types is lost. `ATOLL_KILLS` says how
//! often (`just soak`), `ATOLL_SEED` at which moments.

use tests::{Appliance, Moments, PROMPT, System, seconds, setting};

/// How often it is killed.
fn kills() -> u64 {
    setting("ATOLL_KILLS", 8)
}

fn boot(name: &str) -> System {
    let mut system = Appliance::gateway(name)
        .with_faults()
        .in_domain(
            "consoledom",
            "watchdog = \"1s\"\nrestart-limit = 1000000\nrestart-longest-rest = \"100ms\"",
        )
        .build()
        .boot();
    system.wait_until_up();
    system
}

/// How often a domain was built.
fn built(system: &mut System, name: &str) -> u64 {
    let list = system.operator("list");
    let line = list
        .lines()
        .find(|line| line.split_whitespace().nth(1) == Some(name));
    let built = line.and_then(|line| line.split_whitespace().last()?.parse().ok());
    built.unwrap_or_else(|| panic!("{name} is not listed in {list}"))
}

/// Types a line until what it leads to appears, and answers how many times it was typed in vain: a key that is being taken from the port at the moment of
/// a death is gone with it. Lines lead to the same however often they are typed.
#[track_caller]
fn types(system: &mut System, line: &str, expected: &str) -> u64 {
    for failures in 0..4 {
        system.console().send(&format!("{line}\r"));
        if system.console().wait_any(&[expected], seconds(15)).is_some() {
            return failures;
        }
        system.console().send("\x03");
    }
    system.console().expect(expected, seconds(1));
    0
}

#[test]
fn an_operator_types_on_while_the_console_is_killed() {
    let mut moments = Moments::new();
    let mut system = boot("kill-console");
    drop(system.guest("linux"));
    let (mut number, mut lost) = (0, 0);
    for _ in 0..kills() {
        // It strikes while the lines below are typed and echoed.
        let after = moments.below(30_000);
        system.type_line(&format!("kill consoledom {after}"));
        system.console().expect("kill: consoledom", seconds(30));
        lost += types(&mut system, "console linux", "console of linux");
        for _ in 0..6 {
            number += 1;
            let command = format!("echo \"line {number} is\" $(({number} * 7)).");
            lost += types(
                &mut system,
                &command,
                &format!("line {number} is {}.", number * 7),
            );
        }
        system.console().send("\x1d");
        system.console().expect(PROMPT, seconds(20));
    }
    let built = built(&mut system, "consoledom");
    println!("consoledom was built {built} times; {lost} lines were typed again");
    assert!(built > kills() / 2 && lost < built, "{built} {lost}");
    // What was printed before the last death can still be read.
    let shown = system.watch("linux");
    assert!(
        shown.contains(&format!("line {number} is {}.", number * 7)),
        "{shown}"
    );
}

#[test]
fn a_half_typed_command_and_one_that_kills_its_own_console() {
    let mut system = boot("kill-shell");
    system.console().send("lis");
    system.console().expect("lis", seconds(20));
    system.console().send("\x15");
    let answer = system.operator("kill consoledom");
    assert!(answer.contains("kill: consoledom"), "{answer}");
    system
        .console()
        .expect("goes on where the operator was", seconds(60));
    assert_eq!(built(&mut system, "consoledom"), 2);
    assert!(system.operator("crash consoledom").contains("it was killed"));
    let answer = system.operator("restart consoledom");
    assert!(answer.contains("consoledom is started"), "{answer}");
    system.type_line("hang consoledom");
    system.console().expect("its watchdog expired", seconds(60));
    system
        .console()
        .expect("goes on where the operator was", seconds(60));
    assert_eq!(built(&mut system, "consoledom"), 4);
}

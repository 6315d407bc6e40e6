//! The operator's shell, driven as a person would.

use tests::{Appliance, seconds, system::PROMPT};

const DOMAINS: [&str; 5] = ["controldom", "consoledom", "diskdom", "netdom", "linux"];

#[test]
fn an_operator_looks_around() {
    let mut system = Appliance::gateway("operator").build().boot();
    system.wait_until_up();
    let list = system.operator("list");
    for name in DOMAINS {
        assert!(list.contains(name), "{name} is missing in:\n{list}");
    }
    for command in [
        "list", "console", "dmesg", "restart", "shutdown", "reboot", "help",
    ] {
        assert!(
            system.operator("help").contains(command),
            "help does not mention {command}"
        );
    }
    assert!(system.operator("dmesg").contains("] atoll: "));
    assert!(
        system
            .operator("frobnicate")
            .contains("frobnicate: no such command")
    );
    assert!(system.operator("console nobody").contains("no domain nobody"));
    // A typing mistake is mended before Enter: Backspace takes the last letter back.
    system.console().send("lisx\x7ft\r");
    let list = system.console().expect(PROMPT, seconds(20));
    assert!(list.contains("diskdom"), "{list}");

    // A console shows what was on it before anyone looked, and what is typed there stays there.
    let mut linux = system.guest("linux");
    linux.run("echo a-word-to-remember");
    linux.leave();
    system.type_line("console linux");
    system.console().expect("a-word-to-remember", seconds(20));
    system.console().send("\x1d");
    system.console().expect(PROMPT, seconds(20));
}

#[test]
fn an_operator_restarts_a_guest_and_the_machine() {
    let mut system = Appliance::gateway("restart").build().boot();
    system.wait_until_up();
    system.guest("linux").run("touch /tmp/before");
    system.operator("restart linux");
    let mut linux = system.guest("linux");
    assert_ne!(
        linux.try_run("test -e /tmp/before", seconds(10)).0,
        0,
        "the guest was not built anew"
    );
    assert!(linux.run("mount").contains("on /data type ext4"));
    linux.leave();

    system.type_line("reboot");
    system.console().expect("] atoll: Atoll ", seconds(90));
    system.console().expect(PROMPT, seconds(180));
    let mut linux = system.guest("linux");
    linux.run("ping -c 1 10.0.2.2");
}

#[test]
fn shutdown_is_orderly() {
    let mut system = Appliance::gateway("shutdown").build().boot();
    system.wait_until_up();
    system.guest("linux").run("true");
    system.type_line("shutdown");
    system.wait_until_off(seconds(90));
}

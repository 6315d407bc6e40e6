//! The network: a lease from outside, and 32 MiB through xen-netfront without a wrong bit.

use manifest::source::Nic;
use tests::{Appliance, Web, seconds};

fn reaches_the_outside(name: &str, nic: Nic) {
    let web = Web::serve(32 << 20);
    let mut system = Appliance::gateway(name).nic(nic).build().boot();
    system.wait_until_up();
    let mut linux = system.guest("linux");
    assert!(linux.run("ip -4 addr show eth0").contains("inet 10.0.2."));
    linux.run("ping -c 3 10.0.2.2");
    let sum = linux.run_for(
        &format!("wget -q -O - {} | sha256sum", web.address()),
        seconds(300),
    );
    assert_eq!(sum.split_whitespace().next(), Some(web.sha256().as_str()));
    let errors =
        linux.run("cat /sys/class/net/eth0/statistics/rx_errors /sys/class/net/eth0/statistics/tx_errors");
    assert_eq!(errors, "0\n0\n");
}

#[test]
fn netdom_answers_on_the_network() {
    let mut system = Appliance::gateway("netdom-ping").build().boot();
    system.wait_until_up();
    system.guest("linux").run("true");
    let log = system.operator("dmesg");
    let lease = log
        .split("netdom: address ")
        .nth(1)
        .expect("netdom's lease in the log");
    let address = lease.split('/').next().expect("an address with its prefix");
    system.guest("linux").run(&format!("ping -c 3 {address}"));
}

#[test]
fn through_an_e1000e() {
    reaches_the_outside("e1000e", Nic::E1000e);
}

#[test]
fn through_virtio_net() {
    reaches_the_outside("virtio-net", Nic::VirtioNet);
}

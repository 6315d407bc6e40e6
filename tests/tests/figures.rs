//! The project's figures, as `just bench` prints them. Nothing fails here for being slow: the bounds are tested elsewhere.

use std::{fs, time::Instant};

use tests::{Appliance, Web, seconds};

#[test]
#[ignore = "measures; run by `just bench`"]
fn figures() {
    let built = Appliance::gateway("figures").with_iso().build();
    let web = Web::serve(32 << 20);
    let image = built.image();
    for (what, path) in [
        ("hypervisor", &image.hypervisor),
        ("bundle", &image.bundle),
        ("ISO", &image.iso),
    ] {
        let length = fs::metadata(path).map_or(0, |data| data.len());
        println!("{what:<32} {:>10.2} MiB", length as f64 / 1048576.0);
    }
    let bundle = fs::read(&image.bundle).unwrap();
    for entry in manifest::bundle::Bundle::parse(&bundle).unwrap().entries() {
        println!(
            "{:<32} {:>10.2} MiB",
            format!("  {}", entry.name),
            entry.length as f64 / 1048576.0
        );
    }

    let since = Instant::now();
    let mut system = built.boot_iso();
    let lap = |what: &str| println!("{:<32} {:>10.2} s", what, since.elapsed().as_secs_f64());
    system.console().expect("] atoll: ", seconds(60));
    lap("power-on to the hypervisor");
    system.wait_until_up();
    lap("power-on to the prompt");
    let mut linux = system.guest("linux");
    lap("power-on to the guest's shell");

    let mut rate = |what: &str, command: &str| {
        let since = Instant::now();
        linux.run_for(command, seconds(600));
        println!("{what:<32} {:>10.2} MiB/s", 32.0 / since.elapsed().as_secs_f64());
    };
    rate(
        "disk, writing",
        "dd if=/dev/zero of=/data/speed bs=1M count=32 conv=fsync",
    );
    rate(
        "disk, reading",
        "echo 3 > /proc/sys/vm/drop_caches; dd if=/data/speed of=/dev/null bs=1M",
    );
    rate(
        "network, receiving by TCP",
        &format!("wget -q -O /dev/null {}", web.address()),
    );
    linux.leave();
    println!("\n{}", system.operator("list"));
    system.shut_down();
}

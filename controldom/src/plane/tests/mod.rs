//! The control plane on a machine that is made up: domains that start, end and talk as a test wants.

mod ends;
mod lives;
mod machine;
mod operator;
mod starts;

use super::*;
use crate::{
    layout::{Plan, tests::manifest},
    store::{Access, Permissions},
};
use machine::{World, machine};
use manifest::{Manifest, Restart, Restarts};
use unikernel_rt::atoll::MachineAction;
use xen_abi::{io::xs_wire::*, sched::*};

const CONSOLE: DomainId = DomainId(2);
const DRIVER: DomainId = DomainId(3);
const GUEST: DomainId = DomainId(4);

/// A control plane, and the world around it.
struct Bench {
    plane: ControlPlane<machine::FakeHypervisor>,
    world: World,
}

fn bench_of(manifest: &Manifest) -> Bench {
    let (hypervisor, world) = machine();
    let plane = ControlPlane::new(Plan::new(manifest).unwrap(), Quota::default(), hypervisor).unwrap();
    Bench { plane, world }
}

/// All domains run, and the backend has connected the guest's devices.
fn bench() -> Bench {
    let mut bench = bench_of(&manifest());
    bench.settle();
    for device in ["vbd/4/51712", "vif/4/0"] {
        bench.write(&format!("/local/domain/3/backend/{device}/state"), "4");
    }
    for device in ["vbd/51712", "vif/0"] {
        bench.write(&format!("/local/domain/4/device/{device}/state"), "4");
    }
    bench.settle();
    bench.world.take_calls();
    bench
}

impl Bench {
    /// Turns until nothing is to be done at once.
    fn settle(&mut self) -> Next {
        for _ in 0..100 {
            let stopped = self.world.take_stopped();
            match self.plane.turn(stopped) {
                Next::Now => {}
                next => return next,
            }
        }
        panic!("the control plane never rests");
    }

    /// Lets time pass in small steps.
    fn pass(&mut self, time: Duration) {
        for _ in 0..100 {
            self.world.pass(time / 100);
            self.settle();
        }
    }

    fn end(&mut self, domain: DomainId, reason: u32) {
        self.world.end(domain, reason);
        self.settle();
    }

    fn write(&mut self, path: &str, value: &str) {
        self.plane.write(path, value.as_bytes());
    }

    fn read(&self, path: &str) -> Option<String> {
        self.plane
            .read(path)
            .map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    fn request(&mut self, text: &str) -> String {
        self.write(crate::layout::REQUEST, text);
        self.settle();
        self.reply()
    }

    fn reply(&self) -> String {
        self.read(crate::layout::REPLY).unwrap()
    }

    fn states(&self) -> (Option<String>, Option<String>) {
        (
            self.read("/local/domain/4/device/vbd/51712/state"),
            self.read("/local/domain/3/backend/vbd/4/51712/state"),
        )
    }

    fn is_running(&self, domain: DomainId) -> bool {
        matches!(self.plane.phase(domain), Some(Phase::Running { .. }))
    }
}

//! The classes, one file each.

mod grants;
mod hardware;
mod hypercalls;
mod privileged;

use alloc::string::ToString;

use chaosdom::{Class, Plan, Random};
use unikernel_rt::{DomainId, Failure, System};

use crate::{machine::Machine, tally::Tally};

/// What every class works with.
pub(crate) struct Chaos<'a> {
    pub(crate) system: &'a System,
    pub(crate) plan: Plan,
    pub(crate) machine: Machine,
    pub(crate) random: Random,
    pub(crate) tally: Tally,
}

/// Does what the plan says, to the end.
pub(super) fn run(system: &System, plan: Plan) -> Result<(), Failure> {
    let generation = system.control.domain_info(DomainId::SELF)?.generation;
    let (tally, random) = Tally::begin(&plan, generation);
    let machine = Machine::prepare().map_err(|error| Failure::new(error.to_string()))?;
    let mut chaos = Chaos {
        system,
        plan,
        machine,
        random,
        tally,
    };
    match plan.class {
        Class::Hypercalls => hypercalls::run(&mut chaos),
        Class::Grants => grants::run(&mut chaos),
        Class::Hardware => hardware::run(&mut chaos),
        Class::Privileged => privileged::run(&mut chaos),
    }
    chaos.tally.finish();
    Ok(())
}

//! The operator's requests: `restart NAME`, (where the appliance allows it) `kill NAME` and its like, `vcpus NAME COUNT`, `memory NAME SIZE`, `shutdown`, `reboot`, as the console domain writes them to
//! `/atoll/operator/request`, each with a sequence number that the reply repeats.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::time::Duration;

use manifest::size;
use unikernel_rt::atoll::{Fault, MachineAction};

use super::{AfterLeaving, ControlPlane, Hypervisor, Phase, faults};
use crate::{
    layout::{REPLY, REQUEST},
    store::Path,
};

/// How long guests may take to end by themselves.
pub const GUEST_GRACE: Duration = Duration::from_secs(30);

/// Bytes of a reply.
const REPLY_MAX: usize = 2048;

/// What the operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Build a domain anew.
    Restart(String),
    /// Have a guest connect its devices anew.
    Reconnect(String),
    /// Have a guest run on so many of its vCPUs.
    Vcpus(String, u32),
    /// Have a guest give memory back, or take more, until it has so many bytes.
    Memory(String, u64),
    /// Have something bad happen to a domain once it has run for some time.
    Inject(Fault, String, Duration),
    /// End the guests, then the machine's run.
    GoDown(MachineAction),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its number.
    pub sequence: u64,
    /// Its command.
    pub command: Command,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The number is missing.
    #[error("a request begins with its sequence number, as in `1 restart diskdom`")]
    NoSequence,
    /// Not a command.
    #[error(
        "{0:?} is no command; there are restart NAME, reconnect NAME, vcpus NAME COUNT, memory NAME SIZE, shutdown, reboot"
    )]
    UnknownCommand(String),
    /// A word too few or too many.
    #[error("{0} takes {1}")]
    Arguments(&'static str, &'static str),
    /// No domain of that name.
    #[error("there is no domain {name:?}; there are {known}")]
    UnknownDomain {
        /// What was asked for.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// Not a number.
    #[error("{0:?} is no number of vCPUs")]
    Count(String),
    /// A unikernel.
    #[error("{0} is a unikernel; its vCPUs stay as they are")]
    NoHotPlug(String),
    /// Out of bounds.
    #[error("{name} can have 1 to {most} vCPUs, not {wanted}; the appliance's vcpus sets the upper bound")]
    VcpuBounds {
        /// The domain.
        name: String,
        /// How many it has.
        most: u32,
        /// What was asked for.
        wanted: u32,
    },
    /// Not a size.
    #[error("{0}")]
    Size(String),
    /// A unikernel.
    #[error("{0} is a unikernel; its memory stays as it is")]
    NoBalloon(String),
    /// Out of bounds.
    #[error(
        "{name} can have {least} to {most}, not {wanted}; the appliance's memory-maximum sets the upper bound"
    )]
    MemoryBounds {
        /// The domain.
        name: String,
        /// What it needs to go on.
        least: String,
        /// Its maximum.
        most: String,
        /// What was asked for.
        wanted: String,
    },
    /// A unikernel.
    #[error("{0} is a unikernel; its devices connect by themselves")]
    NoGuest(String),
    /// It cannot suspend itself.
    #[error("{0} does not say that it can suspend itself (control/feature-suspend); restart it")]
    NoSuspend(String),
    /// Nobody is there to follow.
    #[error("{0} does not run")]
    NotRunning(String),
    /// The hypervisor refuses.
    #[error("the hypervisor does not change the memory of {0}: {1}")]
    Hypervisor(String, unikernel_rt::hypercall::Errno),
    /// Not a time.
    #[error("{0:?} is no number of microseconds")]
    Microseconds(String),
    /// The appliance is not for tests.
    #[error(
        "this appliance was built without fault injection; write fault-injection = true into its [hypervisor] and build it anew"
    )]
    NoFaults,
    /// The hypervisor refuses.
    #[error("the hypervisor does no harm to {0}: {1}")]
    Fault(String, unikernel_rt::hypercall::Errno),
    /// The supervisor itself.
    #[error("{0} is the supervisor, which restarts with the machine alone; use reboot")]
    Supervisor(String),
    /// It is too late for that.
    #[error("the machine is going down")]
    GoingDown,
}

impl Request {
    /// Reads a request. The error comes with its number, as far as there is one.
    pub fn parse(text: &str) -> Result<Self, (u64, RequestError)> {
        let mut words = text.split_ascii_whitespace();
        let sequence = words
            .next()
            .and_then(|word| word.parse().ok())
            .ok_or((0, RequestError::NoSequence))?;
        let words: Vec<&str> = words.collect();
        if let Some(fault) = faults::parse(&words) {
            return fault
                .map(|(fault, name, after)| Self {
                    sequence,
                    command: Command::Inject(fault, name, after),
                })
                .map_err(|error| (sequence, error));
        }
        let command = match *words {
            ["restart", name] => Ok(Command::Restart(name.into())),
            ["restart", ..] => Err(RequestError::Arguments("restart", "the name of one domain")),
            ["reconnect", name] => Ok(Command::Reconnect(name.into())),
            ["reconnect", ..] => Err(RequestError::Arguments("reconnect", "the name of one guest")),
            ["vcpus", name, count] => count
                .parse()
                .map(|count| Command::Vcpus(name.into(), count))
                .map_err(|_| RequestError::Count(count.into())),
            ["vcpus", ..] => Err(RequestError::Arguments(
                "vcpus",
                "the name of one domain and a number",
            )),
            ["memory", name, bytes] => size::read(bytes)
                .map(|bytes| Command::Memory(name.into(), bytes))
                .map_err(RequestError::Size),
            ["memory", ..] => Err(RequestError::Arguments(
                "memory",
                "the name of one domain and a size, such as 128M",
            )),
            ["shutdown"] => Ok(Command::GoDown(MachineAction::PowerOff)),
            ["reboot"] => Ok(Command::GoDown(MachineAction::Reboot)),
            ["shutdown" | "reboot", ..] => Err(RequestError::Arguments("it", "no argument")),
            _ => Err(RequestError::UnknownCommand(
                words.first().copied().unwrap_or_default().into(),
            )),
        };
        command
            .map(|command| Self { sequence, command })
            .map_err(|error| (sequence, error))
    }
}

/// The machine's way down.
pub(super) struct GoingDown {
    action: MachineAction,
    until: Duration,
    /// The hypervisor has been asked.
    is_over: bool,
}

impl GoingDown {
    pub fn resume(action: MachineAction, until: Duration, is_over: bool) -> Self {
        Self {
            action,
            until,
            is_over,
        }
    }

    /// As the journal has it.
    pub fn entry(&self) -> (bool, u64, bool) {
        let until = u64::try_from(self.until.as_nanos()).unwrap_or(u64::MAX);
        (self.action == MachineAction::Reboot, until, self.is_over)
    }

    pub fn deadline(&self) -> Option<Duration> {
        (!self.is_over).then_some(self.until)
    }
}

impl<H: Hypervisor> ControlPlane<H> {
    /// Looks whether there is a new request, and follows it.
    pub(super) fn follow_operator(&mut self) {
        let text = String::from_utf8_lossy(self.read(REQUEST).unwrap_or_default()).to_string();
        if text.trim().is_empty() {
            return;
        }
        let (sequence, outcome) = match Request::parse(&text) {
            Ok(request) if self.last_request == Some(request.sequence) => return,
            Ok(request) => {
                self.last_request = Some(request.sequence);
                log::info!("the operator's request {:?}", text.trim());
                let outcome = match request.command {
                    Command::Restart(name) => self.restart(request.sequence, &name),
                    Command::Reconnect(name) => self.reconnect(request.sequence, &name),
                    Command::Vcpus(name, count) => self.set_vcpus(&name, count).map(Some),
                    Command::Memory(name, bytes) => self.set_memory(&name, bytes).map(Some),
                    Command::Inject(fault, name, after) => {
                        self.inject_fault(request.sequence, fault, &name, after)
                    }
                    Command::GoDown(action) => self.go_down(action).map(Some),
                };
                (request.sequence, outcome)
            }
            Err((sequence, error)) => {
                self.last_request = Some(sequence);
                (sequence, Err(error))
            }
        };
        match outcome {
            Ok(Some(text)) => self.answer(sequence, Ok(text)),
            // The start that follows answers.
            Ok(None) => {}
            Err(error) => self.answer(sequence, Err(error.to_string())),
        }
    }

    /// Answers a request.
    pub(super) fn answer(&mut self, sequence: u64, reply: Result<String, String>) {
        let mut reply = match reply {
            Ok(text) => format!("{sequence} ok {text}"),
            Err(text) => format!("{sequence} error {text}"),
        };
        // It repeats what was asked, and has to fit into a message.
        reply.truncate(reply.floor_char_boundary(REPLY_MAX));
        self.write(REPLY, reply.as_bytes());
    }

    /// Restarts a domain: a guest that runs is asked to reboot and has its grace, anything else is rebuilt at once.
    fn restart(&mut self, sequence: u64, name: &str) -> Result<Option<String>, RequestError> {
        if self.going_down.is_some() {
            return Err(RequestError::GoingDown);
        }
        let Some(index) = self.members.iter().position(|member| member.plan.name == name) else {
            return Err(self.no_member(name));
        };
        let now = self.hypervisor.now();
        let member = &mut self.members[index];
        member.failures = Default::default();
        match member.phase {
            Phase::Running { .. } if member.plan.is_guest => {
                member.rebuild_by = Some(now + GUEST_GRACE);
                member.answers = Some(sequence);
                self.ask_guest(index, "reboot");
                let seconds = GUEST_GRACE.as_secs();
                log::info!("{name} is asked to reboot; after {seconds} s it is rebuilt in any case");
            }
            Phase::Running { .. } => {
                member.answers = Some(sequence);
                self.rebuild(index);
            }
            Phase::Leaving { until, .. } => {
                member.answers = Some(sequence);
                member.phase = Phase::Leaving {
                    until,
                    next: AfterLeaving::Restart { rest: Duration::ZERO },
                };
            }
            Phase::Resting { .. } | Phase::Down => {
                member.answers = Some(sequence);
                member.phase = Phase::Resting { until: now };
                self.destroy(index);
            }
            Phase::Waiting => member.answers = Some(sequence),
        }
        Ok(None)
    }

    pub(super) fn no_member(&self, name: &str) -> RequestError {
        let in_store = format!("/atoll/domains/{name}");
        if self.read(&in_store).is_some() {
            return RequestError::Supervisor(name.into());
        }
        let known: Vec<&str> = self
            .members
            .iter()
            .map(|member| member.plan.name.as_str())
            .collect();
        RequestError::UnknownDomain {
            name: name.into(),
            known: known.join(", "),
        }
    }

    fn go_down(&mut self, action: MachineAction) -> Result<String, RequestError> {
        if self.going_down.is_some() {
            return Err(RequestError::GoingDown);
        }
        let until = self.hypervisor.now() + GUEST_GRACE;
        self.going_down = Some(GoingDown {
            action,
            until,
            is_over: false,
        });
        let mut asked = Vec::new();
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            member.rebuild_by = None;
            if !member.plan.is_guest {
                continue;
            }
            match member.phase {
                Phase::Running { .. } => {
                    asked.push(member.plan.name.clone());
                    self.ask_guest(index, "poweroff");
                }
                Phase::Leaving {
                    until,
                    next: AfterLeaving::Restart { .. },
                } => {
                    member.phase = Phase::Leaving {
                        until,
                        next: AfterLeaving::Remove,
                    };
                }
                Phase::Resting { .. } | Phase::Waiting => member.phase = Phase::Down,
                Phase::Leaving { .. } | Phase::Down => {}
            }
        }
        let seconds = GUEST_GRACE.as_secs();
        let guests = if asked.is_empty() {
            "no guest runs".into()
        } else {
            format!("waiting for {}", asked.join(", "))
        };
        Ok(format!("going down; {guests}, at most {seconds} s"))
    }

    /// Ends the machine's run once no guest is left, or their grace is over.
    pub(super) fn continue_going_down(&mut self) {
        let now = self.hypervisor.now();
        let left: Vec<&str> = self
            .members
            .iter()
            .filter(|member| {
                member.plan.is_guest && matches!(member.phase, Phase::Running { .. } | Phase::Leaving { .. })
            })
            .map(|member| member.plan.name.as_str())
            .collect();
        let Some(going_down) = &mut self.going_down else {
            return;
        };
        if going_down.is_over || !left.is_empty() && now < going_down.until {
            return;
        }
        if !left.is_empty() {
            log::warn!("{} did not end in time", left.join(", "));
        }
        going_down.is_over = true;
        let action = going_down.action;
        // The reply is in the ring before the machine is gone.
        self.deliver();
        match action {
            MachineAction::PowerOff => log::info!("powering off"),
            MachineAction::Reboot => log::info!("rebooting"),
        }
        if let Err(error) = self.hypervisor.machine(action) {
            log::error!("the hypervisor refuses to end the machine's run: {error}");
            self.going_down = None;
        }
    }

    pub(super) fn ask_guest(&mut self, index: usize, what: &str) {
        let node = Path::home(self.members[index].plan.id).child("control/shutdown");
        let asked = node.and_then(|node| self.store.write(&node, what.as_bytes()));
        if let Err(error) = asked {
            log::error!(
                "{} cannot be asked to {what}: {error}",
                self.members[index].plan.name
            );
        }
    }
}

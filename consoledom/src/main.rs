//! The console domain's image: joins the operator's session to the serial port, the log, the consoles and xenstore.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::{
    collections::BTreeMap,
    format,
    rc::Rc,
    string::{String, ToString},
    vec::Vec,
};
use core::{cell::RefCell, convert::Infallible, time::Duration};

use consoledom::{
    domains::Domains,
    kept::{Kept, Place},
    session::{Operations, Session},
    shell::{DomainStatus, MachineStatus},
    top::sample::{Sample, published},
    uart::{Registers, Uart},
};
use unikernel_rt::{
    Failure, System, atoll,
    event::{Channel, Events, Interrupt, InterruptSource, PortSet},
    port,
    time::Instant,
    xenstore::{Store, StoreExt},
};
use xen_abi::xen::VIRQ_CON_RING;

unikernel_rt::entry!(run);

const COM1: u16 = 0x3f8;
const COM1_GSI: u32 = 4;
/// How soon to look at the port again while it has not taken everything.
const SEND_PERIOD: Duration = Duration::from_millis(1);
/// The prompt comes after this long even if the appliance is not up: an operator must be able to see why.
const PATIENCE: Duration = Duration::from_secs(20);
/// Reads of the log, and keys, in one turn.
const LOG_READS: usize = 64;
const KEYS: usize = 256;
const REQUEST: &str = "/atoll/operator/request";
const REPLY: &str = "/atoll/operator/reply";
const READY: &str = "/atoll/ready";

/// The first serial port, which the manifest gives to this domain.
struct Com1;

impl Registers for Com1 {
    fn read(&mut self, offset: u16) -> u8 {
        port::read8(COM1 + offset)
    }

    fn write(&mut self, offset: u16, value: u8) {
        port::write8(COM1 + offset, value);
    }
}

/// What the session asks for, carried out.
struct Machine {
    domains: Domains,
    control: Rc<dyn atoll::Control>,
    events: Events,
    store: Rc<dyn Store>,
    sequence: u64,
    /// A command that controldom is to be given.
    command: Option<String>,
    kept: Kept,
}

impl Operations for Machine {
    fn domains(&mut self) -> Vec<DomainStatus> {
        self.domains.status()
    }

    fn machine(&mut self) -> MachineStatus {
        let info = self.control.machine_info().unwrap_or_default();
        MachineStatus {
            total_pages: info.total_pages,
            free_pages: info.free_pages,
            hypervisor_pages: info.hypervisor_pages,
            bundle_pages: info.bundle_pages,
            held_pages: info.held_pages,
            uptime: info.uptime,
            first_guest: info.first_guest,
        }
    }

    fn sample(&mut self, restart: bool) -> Sample {
        let domains = self.domains.samples();
        let names: Vec<(u16, String)> = domains
            .iter()
            .map(|domain| (domain.figures.domain, domain.name.clone()))
            .collect();
        let processors = (0..)
            .map_while(|number| self.control.processor_figures(number, restart).ok())
            .collect();
        let (devices, latencies) = published(&*self.store, &names);
        Sample {
            now: self.events.now().as_nanos(),
            domains,
            processors,
            devices,
            latencies,
        }
    }

    fn crash(&mut self, domain: u16, back: u16) -> Option<String> {
        self.control.read_crash(unikernel_rt::DomainId(domain), back).ok()
    }

    fn control(&mut self, command: &str) {
        self.sequence += 1;
        self.command = Some(command.into());
    }

    fn key(&mut self, domain: u16, key: u8) {
        self.domains.key(domain, key);
    }
}

impl Machine {
    /// Gives a command on. It may end us: so what has led to it is shown, and noted, and does not come again.
    fn give_on(&mut self) {
        let Some(command) = self.command.take() else {
            return;
        };
        let request = format!("{} {command}", self.sequence);
        if let Err(error) = self.store.write_display(REQUEST, request) {
            log::error!("controldom does not take the command: {error}");
        }
    }

    /// Whether the last command has reached the store.
    fn has_asked(&self) -> bool {
        let request = self.store.read_optional(REQUEST).ok().flatten();
        let sequence = request.and_then(|request| request.split(' ').next()?.parse().ok());
        sequence == Some(self.sequence)
    }

    /// Serves every console: what is printed is kept and shown before its domain learns that it was taken.
    fn serve(&mut self, session: &mut Session, uart: &mut Option<Uart<Com1>>) {
        let kept = RefCell::new(&mut self.kept);
        self.domains.serve(
            |domain, bytes| {
                kept.borrow_mut().print(domain, bytes);
                session.printed(domain, bytes);
                show(session, uart);
            },
            |domain, index, last| kept.borrow_mut().types(domain, index, last),
        );
    }

    /// Notes where the operator is, and how many of his keys have done what they do.
    fn note(&mut self, session: &Session) {
        if let Some(place) = session.place(self.sequence) {
            self.kept.store_place(place);
        }
        self.kept.keys_are_done_but(self.domains.keys());
    }

    /// The text of controldom's answer to the last command, if it is that.
    fn reply(&self) -> Option<String> {
        let reply = self.store.read_optional(REPLY).ok().flatten()?;
        let (sequence, text) = reply.split_once(' ')?;
        if sequence.parse() != Ok(self.sequence) {
            return None;
        }
        let text = text.strip_prefix("ok").unwrap_or(text);
        Some(text.trim_start().into())
    }
}

/// Moves what is new in the log to the session, so much that a domain that logs without end does not keep it. Answers whether
/// there may be more.
fn read_log(control: &dyn atoll::Control, position: &mut u64, session: &mut Session) -> bool {
    let mut buffer = [0; 1024];
    for _ in 0..LOG_READS {
        match control.read_log(*position, &mut buffer) {
            Ok((next, length)) if length > 0 => {
                *position = next;
                session.logged(&buffer[..length]);
            }
            _ => return false,
        }
    }
    true
}

fn run(system: System) -> Result<Infallible, Failure> {
    let names: BTreeMap<String, u16> = atoll::domains(&*system.control)?
        .iter()
        .map(|info| (atoll::name(info).to_string(), info.domain))
        .collect();
    let mut session = Session::new(names);
    let mut uart = Uart::open(Com1);
    // What the hypervisor has shown on the port already is kept for `dmesg`, and not shown again.
    let mut position = 0;
    let _ = (0..LOG_READS).find(|_| !read_log(&*system.control, &mut position, &mut session));
    while session.terminal().take().is_some() {}
    let kept = Kept::open(&system.keep);
    let place = kept.place();
    if let Some(place) = place {
        session.resume(place, kept.printed());
        log::info!("goes on where the operator was");
    }
    let _log_channel = match &uart {
        Some(_) => Some(Channel::bind_virq(&system.events, VIRQ_CON_RING)?),
        None => {
            log::warn!(
                "there is no serial port at {COM1:#x}: give this domain the device com1; the shell cannot be reached"
            );
            None
        }
    };
    let interrupt = uart
        .is_some()
        .then(|| Interrupt::bind(&system.events, InterruptSource::Gsi(COM1_GSI)))
        .transpose()?;

    let store = system.store()?;
    for path in [READY, REPLY, "@introduceDomain", "@releaseDomain"] {
        store.watch(path, path)?;
    }
    let mut machine = Machine {
        domains: Domains::new(&system),
        control: system.control.clone(),
        events: system.events.clone(),
        store: store.clone(),
        // Not a number that a predecessor used, unless its command is still unanswered.
        sequence: match place {
            Some(Place { waiting, .. }) if waiting != 0 => waiting,
            _ => system.events.now().as_nanos(),
        },
        command: None,
        kept,
    };
    if place.is_some_and(|place| place.waiting != 0) && !machine.has_asked() {
        session.reply("the console ended before it gave the command on; give it again");
    }
    machine.domains.refresh();
    machine.kept.settle(|domain| machine.domains.written(domain));
    let give_up = system.events.now() + PATIENCE;
    let mut fired = PortSet::default();
    loop {
        while let Some(event) = store.take_event()? {
            match event.token.as_str() {
                READY if store.exists(READY)? => session.ready(""),
                REPLY => {
                    if let Some(text) = machine.reply() {
                        session.reply(&text);
                    }
                }
                "@introduceDomain" | "@releaseDomain" => machine.domains.refresh(),
                _ => {}
            }
        }
        if session.is_starting() && system.events.now() >= give_up {
            session.ready("\nthe appliance is not up yet; dmesg may say why\n");
        }
        machine.serve(&mut session, &mut uart);
        session.tick(system.events.now().as_nanos(), &mut machine);
        let mut more = read_log(&*machine.control, &mut position, &mut session);
        if let Some(uart) = &mut uart {
            // A port that is gone reads as one that always has a key.
            let most = KEYS.min(machine.kept.room_for_keys());
            let keys = core::iter::from_fn(|| uart.receive()).take(most);
            more |= keys.map(|key| machine.kept.take_key(key)).count() == most;
        }
        while let Some(key) = machine.kept.next_key() {
            session.key(key, &mut machine);
            machine.note(&session);
            if machine.command.is_some() {
                show(&mut session, &mut uart);
                machine.give_on();
            }
        }
        show(&mut session, &mut uart);
        // Keys that just came go to their rings before the wait.
        machine.serve(&mut session, &mut uart);
        machine.note(&session);
        if let Some(interrupt) = interrupt
            .as_ref()
            .filter(|interrupt| fired.contains(interrupt.port()))
        {
            interrupt.acknowledge();
        }
        fired = if more {
            system.events.poll()
        } else {
            system.events.wait(deadline(&system, &mut session, give_up))
        };
    }
}

/// Sends what the port takes of what is to be shown.
fn show(session: &mut Session, uart: &mut Option<Uart<Com1>>) {
    if let Some(uart) = uart {
        uart.send(|| session.terminal().take());
    }
}

/// When to look again without an event.
fn deadline(system: &System, session: &mut Session, give_up: Instant) -> Option<Instant> {
    if !session.terminal().is_empty() {
        return Some(system.events.now() + SEND_PERIOD);
    }
    let give_up = session.is_starting().then_some(give_up);
    give_up.or(session.deadline().map(Instant::from_nanos))
}

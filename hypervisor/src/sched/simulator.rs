//! The scheduler over seconds of many processors: a simulation by events of the loop that every processor runs, of alarms, calls and vCPUs that work and
//! sleep; and what must hold at every moment and in the end.

use super::{placement::Place, *};
use proptest::prelude::*;
use std::{vec, vec::Vec};

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
/// How long a call takes to arrive.
const CALL: u64 = 3 * MICROSECOND;
/// How late an alarm is: the way out of the guest.
const LATE: u64 = 2 * MICROSECOND;

/// What a vCPU does.
#[derive(Clone, Copy, Debug)]
enum Behaviour {
    /// Runs for so long, sleeps for so long.
    Cycle(u64, u64),
    Busy,
}

struct Task {
    id: VcpuId,
    behaviour: Behaviour,
    /// Until it sleeps, while it may run.
    work: u64,
    wakes: Option<u64>,
    ran: u64,
    /// When it ran last, and where.
    last: Option<usize>,
    moves: u32,
    /// The longest that it waited after it woke.
    latency: u64,
    woken: Option<u64>,
}

#[derive(Default)]
struct Station {
    runs: Option<(usize, u64)>,
    alarm: Option<u64>,
    called: Option<u64>,
    calls: u32,
    looks: u32,
}

struct Simulation {
    scheduler: Scheduler,
    now: u64,
    tasks: Vec<Task>,
    stations: Vec<Station>,
}

#[derive(Clone, Debug)]
struct Spec {
    class: Class,
    place: Place,
    cap: Option<u32>,
    vcpus: Vec<Behaviour>,
}

fn anywhere(processors: usize, class: Class, vcpus: &[Behaviour]) -> Spec {
    on(&(0..processors).collect::<Vec<_>>(), class, vcpus)
}

fn on(processors: &[usize], class: Class, vcpus: &[Behaviour]) -> Spec {
    Spec {
        class,
        place: Place {
            allowed: processors.iter().copied().collect(),
            exclusive: false,
        },
        cap: None,
        vcpus: vcpus.to_vec(),
    }
}

impl Simulation {
    fn new(processors: usize, specs: &[Spec]) -> Self {
        let mut this = Self {
            scheduler: Scheduler::new(processors),
            now: 0,
            tasks: Vec::new(),
            stations: (0..processors).map(|_| Station::default()).collect(),
        };
        for (domain, spec) in (1..).map(DomainId).zip(specs) {
            let terms = Terms {
                class: spec.class,
                place: spec.place,
                cap: spec.cap,
                vcpus: spec.vcpus.len() as u32,
            };
            this.scheduler.admit(domain, terms);
            for (index, behaviour) in (0..).zip(&spec.vcpus) {
                let id = VcpuId { domain, index };
                this.scheduler.add(id);
                let (work, start) = match behaviour {
                    Behaviour::Busy => (u64::MAX, 0),
                    Behaviour::Cycle(run, sleep) => (*run, sleep / 3),
                };
                this.tasks.push(Task {
                    id,
                    behaviour: *behaviour,
                    work,
                    wakes: Some(start),
                    ran: 0,
                    last: None,
                    moves: 0,
                    latency: 0,
                    woken: None,
                });
            }
        }
        (0..processors).for_each(|processor| this.look(processor));
        this
    }

    fn run(&mut self, length: u64) {
        let end = self.now + length;
        while let Some(next) = self.next_event().filter(|next| *next <= end) {
            assert!(next >= self.now);
            self.now = next;
            for task in 0..self.tasks.len() {
                if self.tasks[task].wakes.is_some_and(|wakes| wakes <= self.now) {
                    self.wake(task);
                }
            }
            for processor in 0..self.stations.len() {
                if self.due(processor).is_some_and(|due| due <= self.now) {
                    self.look(processor);
                }
            }
            self.check();
        }
        self.now = end;
    }

    fn next_event(&self) -> Option<u64> {
        let wakes = self.tasks.iter().filter_map(|task| task.wakes);
        let due = (0..self.stations.len()).filter_map(|processor| self.due(processor));
        wakes.chain(due).min()
    }

    /// When a processor leaves its guest, or wakes up.
    fn due(&self, processor: usize) -> Option<u64> {
        let station = &self.stations[processor];
        let done = station
            .runs
            .map(|(task, since)| since.saturating_add(self.tasks[task].work));
        let alarm = station.alarm.map(|alarm| alarm.max(self.now) + LATE);
        // An alarm that is due while its lateness passes stays where it is.
        let alarm = alarm.map(|late| late.min(station.alarm.unwrap_or(0) + LATE).max(self.now));
        [done, alarm, station.called].into_iter().flatten().min()
    }

    fn call(&mut self, processor: Option<usize>) {
        let Some(processor) = processor else { return };
        if self.scheduler.call(processor) {
            self.stations[processor].calls += 1;
            self.stations[processor].called = Some(self.now + CALL);
        }
    }

    fn wake(&mut self, task: usize) {
        let id = self.tasks[task].id;
        self.tasks[task].wakes = None;
        self.tasks[task].woken = Some(self.now);
        let call = self.scheduler.ready(id, self.now);
        self.call(call);
    }

    /// What the loop of a processor does between two guests.
    fn look(&mut self, processor: usize) {
        self.scheduler.work(processor);
        let station = &mut self.stations[processor];
        station.looks += 1;
        (station.alarm, station.called) = (None, None);
        if let Some((task, since)) = station.runs.take() {
            let ran = self.now - since;
            let task = &mut self.tasks[task];
            task.ran += ran;
            task.work -= ran;
            if task.work == 0 {
                let Behaviour::Cycle(run, sleep) = task.behaviour else {
                    unreachable!()
                };
                (task.work, task.wakes) = (run, Some(self.now + sleep));
                self.scheduler.sleep(task.id);
            }
        }
        while let Some(call) = self.scheduler.release(self.now) {
            self.call(call);
        }
        let current = self.scheduler.processors[processor].current.as_ref();
        let mut id = current.map(|current| current.id);
        if self.scheduler.should_switch(processor, self.now) {
            let picked = self.scheduler.pick(processor, self.now);
            id = picked.id;
            self.call(picked.call);
        }
        let alarm = self.scheduler.alarm(processor);
        let station = &mut self.stations[processor];
        station.alarm = alarm;
        let Some(id) = id else {
            return self.scheduler.idle(processor, alarm);
        };
        self.scheduler.loaded(id, processor);
        self.scheduler.depart(processor, alarm);
        let task = self.tasks.iter().position(|task| task.id == id).unwrap();
        station.runs = Some((task, self.now));
        let now = self.now;
        let task = &mut self.tasks[task];
        if let Some(woken) = task.woken.take() {
            task.latency = task.latency.max(now - woken);
        }
        if task.last.replace(processor).is_some_and(|last| last != processor) {
            task.moves += 1;
        }
    }

    /// What holds at every moment.
    fn check(&self) {
        let scheduler = &self.scheduler;
        let shared = scheduler.groups.iter().flat_map(|group| &group.waiting);
        let due = |alarm: Option<u64>| alarm.is_some_and(|alarm| alarm <= self.now);
        let called = scheduler
            .processors
            .iter()
            .any(|processor| processor.called || due(processor.alarm));
        for id in scheduler.urgent.iter().chain(shared) {
            let member = &scheduler.members[id];
            assert!(member.ready && member.on.is_none() && member.throttled.is_none());
            let mut looked_after = called;
            for processor in member
                .allowed
                .iter()
                .filter(|processor| member.may_run_on(*processor))
            {
                let this = &scheduler.processors[processor];
                let runs = this
                    .current
                    .as_ref()
                    .map(|current| &scheduler.members[&current.id]);
                let rank = runs.map(|member| member.class.rank());
                assert!(
                    called || rank.is_some_and(|rank| rank >= member.class.rank()),
                    "{id:?} waits while {rank:?} runs on {processor}"
                );
                looked_after |= rank > Some(member.class.rank());
                looked_after |= this.alarm.is_some();
            }
            assert!(looked_after, "nobody will look at {id:?}");
        }
        for (processor, this) in scheduler.processors.iter().enumerate() {
            if let Some(current) = &this.current {
                let member = &scheduler.members[&current.id];
                assert!(member.allowed.contains(processor) && member.on == Some(processor));
            }
        }
    }

    /// Nanoseconds that each domain ran.
    fn ran(&self) -> Vec<u64> {
        let domains = self.tasks.iter().map(|task| task.id.domain.0).max().unwrap_or(0);
        let mut ran = vec![0; domains.into()];
        for task in &self.tasks {
            ran[usize::from(task.id.domain.0) - 1] += task.ran;
        }
        for (task, since) in self.stations.iter().filter_map(|station| station.runs) {
            ran[usize::from(self.tasks[task].id.domain.0) - 1] += self.now - since;
        }
        ran
    }

    fn moves(&self) -> u32 {
        self.tasks.iter().map(|task| task.moves).sum()
    }
}

/// What busy vCPUs of these weights get of `processors`, each one at most one.
fn fair(weights: &[u32], processors: usize) -> Vec<f64> {
    let mut shares = vec![0.0; weights.len()];
    let mut left: Vec<usize> = (0..weights.len()).collect();
    let mut room = processors as f64;
    loop {
        let total: f64 = left.iter().map(|index| f64::from(weights[*index])).sum();
        let too_heavy = |index: &usize| f64::from(weights[*index]) / total * room > 1.0;
        match left.iter().position(too_heavy) {
            Some(position) => {
                shares[left.swap_remove(position)] = 1.0;
                room -= 1.0;
            }
            None => {
                for index in left {
                    shares[index] = (f64::from(weights[index]) / total * room).min(1.0);
                }
                return shares;
            }
        }
    }
}

fn assert_shares(ran: &[u64], expected: &[f64], length: u64) {
    for (ran, expected) in ran.iter().zip(expected) {
        let share = *ran as f64 / length as f64;
        assert!(
            (share - expected).abs() <= expected * 0.05 + 0.001,
            "{share} instead of {expected}: {ran:?}"
        );
    }
}

fn busy(processors: usize, weights: &[u32]) -> Simulation {
    let specs: Vec<Spec> = weights
        .iter()
        .map(|weight| anywhere(processors, Class::Shared(*weight), &[Behaviour::Busy]))
        .collect();
    Simulation::new(processors, &specs)
}

#[test]
fn three_share_two_processors_alike_and_seldom_move() {
    let mut simulation = busy(2, &[256, 256, 256]);
    simulation.run(2 * SECOND);
    assert_shares(&simulation.ran(), &[2.0 / 3.0; 3], 2 * SECOND);
    assert!(simulation.moves() <= 150, "{} moves", simulation.moves());
    let calls: u32 = simulation.stations.iter().map(|station| station.calls).sum();
    assert!(calls <= 150, "{calls} calls");
}

#[test]
fn weights_share_the_whole_machine() {
    for (processors, weights) in [
        (1, vec![256, 512]),
        (2, vec![256, 512, 1024, 256]),
        (2, vec![100, 200, 300]),
        (4, vec![256; 5]),
        (4, vec![64, 128, 256, 512, 1024, 2048]),
        (3, vec![1000, 10, 10, 10]),
    ] {
        let mut simulation = busy(processors, &weights);
        simulation.run(2 * SECOND);
        assert_shares(&simulation.ran(), &fair(&weights, processors), 2 * SECOND);
    }
}

#[test]
fn as_many_as_processors_never_move_and_are_left_alone() {
    let mut simulation = busy(4, &[256, 512, 1024, 1]);
    simulation.run(50 * MILLISECOND);
    let looks: Vec<u32> = simulation.stations.iter().map(|station| station.looks).collect();
    let moves = simulation.moves();
    simulation.run(2 * SECOND);
    assert!(simulation.stations.iter().map(|station| station.looks).eq(looks));
    assert_eq!(simulation.moves(), moves);
}

#[test]
fn one_that_was_too_heavy_for_its_share_gets_no_more_than_that_later() {
    let late = Behaviour::Cycle(10 * SECOND, 15 * SECOND);
    let mut specs = vec![
        anywhere(2, Class::Shared(1024), &[Behaviour::Busy]),
        anywhere(2, Class::Shared(256), &[Behaviour::Busy]),
        anywhere(2, Class::Shared(256), &[Behaviour::Busy]),
    ];
    specs.extend((0..4).map(|_| anywhere(2, Class::Shared(1024), &[late])));
    let mut simulation = Simulation::new(2, &specs);
    simulation.run(5 * SECOND);
    let before = simulation.ran();
    assert_shares(&before[..3], &[5.0, 2.5, 2.5], SECOND);
    simulation.run(4 * SECOND);
    let since: Vec<u64> = simulation
        .ran()
        .iter()
        .zip(&before)
        .map(|(now, then)| now - then)
        .collect();
    let weights = [1024, 256, 256, 1024, 1024, 1024, 1024];
    assert_shares(&since, &fair(&weights, 2), 4 * SECOND);
}

#[test]
fn pinned_ones_share_their_processor_by_weight() {
    let shared = |processors: &[usize], weight| on(processors, Class::Shared(weight), &[Behaviour::Busy]);
    // The last has the second processor for itself, however far behind it the others fall.
    let mut simulation = Simulation::new(2, &[shared(&[0], 512), shared(&[0], 256), shared(&[0, 1], 256)]);
    simulation.run(3 * SECOND);
    assert_shares(&simulation.ran(), &[2.0 / 3.0, 1.0 / 3.0, 1.0], 3 * SECOND);
    // Three at home in one, two that may go anywhere.
    let mut specs = vec![shared(&[0], 256), shared(&[0], 256), shared(&[0], 256)];
    specs.extend([shared(&[0, 1], 256), shared(&[0, 1], 256)]);
    let mut simulation = Simulation::new(2, &specs);
    simulation.run(3 * SECOND);
    let third = 1.0 / 3.0;
    assert_shares(&simulation.ran(), &[third, third, third, 0.5, 0.5], 3 * SECOND);
}

#[test]
fn one_that_loses_its_processor_does_not_starve_among_those_that_are_behind() {
    let shared = |processors: &[usize]| on(processors, Class::Shared(256), &[Behaviour::Busy]);
    let late = Behaviour::Cycle(10 * SECOND, 9 * SECOND);
    let specs = [
        shared(&[0]),
        shared(&[0]),
        shared(&[0, 1]),
        on(&[1], Class::Interactive, &[late]),
    ];
    let mut simulation = Simulation::new(2, &specs);
    simulation.run(3 * SECOND);
    let before = simulation.ran();
    simulation.run(2 * SECOND);
    let since: Vec<u64> = simulation
        .ran()
        .iter()
        .zip(&before)
        .map(|(now, then)| now - then)
        .collect();
    assert!(since[3] + CALL >= 2 * SECOND);
    // Its lead is made up for, and then it has a third.
    assert!(since[2] > 550 * MILLISECOND, "{since:?}");
}

#[test]
fn what_sleeps_much_is_served_soon_and_takes_nothing_away() {
    let mut specs = vec![anywhere(1, Class::Shared(256), &[Behaviour::Busy]); 2];
    specs.push(anywhere(
        1,
        Class::Shared(256),
        &[Behaviour::Cycle(200 * MICROSECOND, 5 * MILLISECOND)],
    ));
    let mut simulation = Simulation::new(1, &specs);
    simulation.run(100 * MILLISECOND);
    simulation.tasks[2].latency = 0;
    simulation.run(2 * SECOND);
    let latency = simulation.tasks[2].latency;
    assert!(latency <= 3 * MILLISECOND, "{latency}");
    let ran = simulation.ran();
    assert!(ran[0].abs_diff(ran[1]) <= 2 * TIME_SLICE, "{ran:?}");
}

#[test]
fn a_spinning_realtime_vcpu_has_its_budget_and_the_others_the_rest() {
    let realtime = Class::Realtime {
        priority: 5,
        budget: 200 * MICROSECOND,
        period: MILLISECOND,
    };
    let specs = [
        anywhere(1, realtime, &[Behaviour::Busy]),
        anywhere(1, Class::Shared(256), &[Behaviour::Busy]),
    ];
    let mut simulation = Simulation::new(1, &specs);
    simulation.run(SECOND);
    let ran = simulation.ran();
    assert!(ran[0].abs_diff(200 * MILLISECOND) <= MILLISECOND, "{ran:?}");
    assert!(ran[0] + ran[1] + CALL >= SECOND, "{ran:?}");
}

#[test]
fn a_realtime_vcpu_wakes_within_a_call_however_busy_the_machine_is() {
    let realtime = Class::Realtime {
        priority: 1,
        budget: 500 * MICROSECOND,
        period: MILLISECOND,
    };
    let specs = [
        on(
            &[1],
            realtime,
            &[Behaviour::Cycle(100 * MICROSECOND, 900 * MICROSECOND)],
        ),
        anywhere(2, Class::Interactive, &[Behaviour::Busy]),
        anywhere(
            2,
            Class::Interactive,
            &[Behaviour::Cycle(50 * MICROSECOND, 170 * MICROSECOND)],
        ),
        anywhere(2, Class::Shared(256), &[Behaviour::Busy; 3]),
    ];
    let mut simulation = Simulation::new(2, &specs);
    simulation.run(SECOND);
    assert!(
        simulation.tasks[0].latency <= CALL + LATE,
        "{}",
        simulation.tasks[0].latency
    );
}

#[test]
fn an_exclusive_processor_sees_one_domain_and_no_tick() {
    let mut alone = on(&[1], Class::Shared(256), &[Behaviour::Busy]);
    alone.place.exclusive = true;
    let mut specs = vec![alone];
    specs.extend((0..4).map(|_| on(&[0], Class::Shared(256), &[Behaviour::Busy])));
    specs.push(on(
        &[0],
        Class::Interactive,
        &[Behaviour::Cycle(MILLISECOND, 3 * MILLISECOND)],
    ));
    let mut simulation = Simulation::new(2, &specs);
    simulation.run(SECOND);
    assert!(simulation.stations[1].looks <= 2);
    assert!(simulation.ran()[0] + MILLISECOND > SECOND);
}

#[test]
fn a_cap_holds_over_all_vcpus_of_a_domain_and_is_used_up() {
    for (cap, vcpus) in [(150, 2), (50, 4), (10, 1), (1, 2), (130, 4)] {
        let mut capped = anywhere(4, Class::Shared(1024), &vec![Behaviour::Busy; vcpus]);
        capped.cap = Some(cap);
        let specs = [capped, anywhere(4, Class::Shared(256), &[Behaviour::Busy])];
        let mut simulation = Simulation::new(4, &specs);
        simulation.run(2 * SECOND);
        let ran = simulation.ran()[0];
        let most = u64::from(cap) * 2 * SECOND / 100;
        assert!(
            ran <= most + u64::from(cap) * 100 * MICROSECOND + MILLISECOND,
            "{ran} of {most}"
        );
        assert!(ran * 100 >= most * 95, "{ran} of {most}");
    }
}

fn behaviour() -> impl Strategy<Value = Behaviour> {
    prop_oneof![
        Just(Behaviour::Busy),
        (20u64..20_000, 20u64..50_000)
            .prop_map(|(run, sleep)| Behaviour::Cycle(run * MICROSECOND, sleep * MICROSECOND)),
    ]
}

fn class() -> impl Strategy<Value = Class> {
    prop_oneof![
        (1u8..4, 1u64..8, 10u64..40).prop_map(|(priority, budget, period)| Class::Realtime {
            priority,
            budget: budget * 100 * MICROSECOND,
            period: period * 100 * MICROSECOND,
        }),
        Just(Class::Interactive),
        (16u32..2048).prop_map(Class::Shared),
    ]
}

fn specs(processors: usize) -> impl Strategy<Value = Vec<Spec>> {
    let spec = (
        class(),
        prop::collection::vec(0..processors, 0..3),
        prop::option::of(1u32..200),
        prop::collection::vec(behaviour(), 1..4),
    );
    let spec = spec.prop_map(move |(class, pinned, cap, vcpus)| {
        let all: Vec<usize> = (0..processors).collect();
        Spec {
            cap,
            ..on(if pinned.is_empty() { &all } else { &pinned }, class, &vcpus)
        }
    });
    prop::collection::vec(spec, 1..7)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Beside the checks of every moment: budgets and caps hold, and processors idle only when nobody may run.
    #[test]
    fn limits_hold_for_any_mix(specs in specs(3)) {
        let mut simulation = Simulation::new(3, &specs);
        let length = 300 * MILLISECOND;
        simulation.run(length);
        for (spec, ran) in specs.iter().zip(simulation.ran()) {
            let vcpus = spec.vcpus.len() as u64;
            if let Class::Realtime { budget, period, .. } = spec.class {
                let most = vcpus * (budget * (length / period + 2) + 100 * MICROSECOND);
                prop_assert!(ran <= most, "{ran} of {most}");
            }
            if let Some(cap) = spec.cap {
                let quota = u64::from(cap) * 100 * MICROSECOND;
                let most = quota * (length / CAP_PERIOD + 2) + vcpus * 200 * MICROSECOND;
                prop_assert!(ran <= most, "{ran} of {most}");
            }
        }
    }

    /// Shared ones that always may run get the share of their weight, whoever else is there, and none starves.
    #[test]
    fn shares_follow_any_weights(weights in prop::collection::vec(64u32..1024, 2..9), processors in 1usize..5) {
        let mut simulation = busy(processors, &weights);
        simulation.run(2 * SECOND);
        let expected = fair(&weights, processors);
        for (ran, expected) in simulation.ran().iter().zip(&expected) {
            let share = *ran as f64 / (2.0 * SECOND as f64);
            prop_assert!((share - expected).abs() <= 0.05 * expected + 0.005, "{:?} instead of {expected:?}", simulation.ran());
        }
    }
}

//! Single choices; what comes of many is for the [simulator](super::simulator).

use super::{placement::Place, *};
use std::vec;

const MILLISECOND: u64 = 1_000_000;

fn id(domain: u16) -> VcpuId {
    VcpuId {
        domain: DomainId(domain),
        index: 0,
    }
}

/// Domains of one vCPU each, all ready, anywhere on so many processors.
fn scheduler(processors: usize, classes: &[Class]) -> Scheduler {
    let terms = classes.iter().map(|class| anywhere(processors, *class));
    scheduler_of(processors, &terms.collect::<Vec<_>>())
}

fn anywhere(processors: usize, class: Class) -> Terms {
    Terms {
        class,
        place: Place {
            allowed: ProcessorSet::first(processors),
            exclusive: false,
        },
        cap: None,
        vcpus: 1,
    }
}

fn pinned(processors: &[usize], class: Class) -> Terms {
    Terms {
        place: Place {
            allowed: processors.iter().copied().collect(),
            exclusive: false,
        },
        ..anywhere(1, class)
    }
}

fn scheduler_of(processors: usize, terms: &[Terms]) -> Scheduler {
    let mut scheduler = Scheduler::new(processors);
    for (domain, terms) in (1..).zip(terms) {
        scheduler.admit(DomainId(domain), *terms);
        scheduler.add(id(domain));
        scheduler.ready(id(domain), 0);
    }
    scheduler
}

fn pick(scheduler: &mut Scheduler, processor: usize, now: u64) -> Option<u16> {
    scheduler.pick(processor, now).id.map(|id| id.domain.0)
}

/// Picks and departs, as the loop does.
fn enter(scheduler: &mut Scheduler, processor: usize, now: u64) -> Option<u16> {
    scheduler.work(processor);
    let picked = pick(scheduler, processor, now);
    let alarm = scheduler.alarm(processor);
    match picked {
        Some(_) => scheduler.depart(processor, alarm),
        None => scheduler.idle(processor, alarm),
    }
    picked
}

const REALTIME: Class = Class::Realtime {
    priority: 1,
    budget: 200_000,
    period: MILLISECOND,
};

fn realtime(priority: u8) -> Class {
    Class::Realtime {
        priority,
        budget: MILLISECOND,
        period: MILLISECOND,
    }
}

#[test]
fn interactive_ones_go_first_and_take_turns() {
    let mut scheduler = scheduler(1, &[Class::Shared(256), Class::Interactive, Class::Interactive]);
    let turns = (0..4).map(|turn| pick(&mut scheduler, 0, turn * TIME_SLICE).unwrap());
    assert_eq!(turns.collect::<Vec<_>>(), [2, 3, 2, 3]);
    scheduler.sleep(id(2));
    scheduler.sleep(id(3));
    assert_eq!(pick(&mut scheduler, 0, 0), Some(1));
    assert!(!scheduler.should_switch(0, 1));
    scheduler.ready(id(3), 1);
    assert!(scheduler.should_switch(0, 1));
    assert_eq!(pick(&mut scheduler, 0, 1), Some(3));
}

#[test]
fn realtime_ones_go_by_priority_and_one_that_is_preempted_goes_on() {
    let mut scheduler = scheduler(1, &[Class::Interactive, realtime(3), realtime(7), realtime(3)]);
    assert_eq!(pick(&mut scheduler, 0, 0), Some(3));
    scheduler.sleep(id(3));
    assert_eq!(pick(&mut scheduler, 0, 1), Some(2));
    scheduler.ready(id(3), 2);
    assert!(scheduler.should_switch(0, 2));
    assert_eq!(pick(&mut scheduler, 0, 2), Some(3));
    scheduler.sleep(id(3));
    // Before its equal, since its turn is not over.
    assert_eq!(pick(&mut scheduler, 0, 3), Some(2));
    assert!(scheduler.should_switch(0, 3 + TIME_SLICE));
    assert_eq!(pick(&mut scheduler, 0, 3 + TIME_SLICE), Some(4));
}

#[test]
fn a_budget_that_is_spent_keeps_from_running_until_its_period_ends() {
    let mut scheduler = scheduler(1, &[REALTIME, Class::Shared(256)]);
    assert_eq!(enter(&mut scheduler, 0, 0), Some(1));
    assert_eq!(scheduler.alarm(0), Some(200_000));
    assert!(!scheduler.should_switch(0, 199_999) && scheduler.should_switch(0, 200_000));
    assert_eq!(enter(&mut scheduler, 0, 210_000), Some(2));
    assert_eq!(scheduler.alarm(0), Some(MILLISECOND));
    assert_eq!(scheduler.release(MILLISECOND - 1), None);
    // Its home is interrupted by the alarm and sees it wait.
    scheduler.work(0);
    assert_eq!(scheduler.release(MILLISECOND), Some(None));
    assert!(scheduler.should_switch(0, MILLISECOND));
    assert_eq!(enter(&mut scheduler, 0, MILLISECOND), Some(1));
    // It had 10 µs too many.
    assert_eq!(scheduler.alarm(0), Some(1_190_000));
}

#[test]
fn one_that_wakes_without_budget_waits_too() {
    let mut scheduler = scheduler(2, &[REALTIME]);
    assert_eq!(enter(&mut scheduler, 0, 0), Some(1));
    scheduler.sleep(id(1));
    assert_eq!(enter(&mut scheduler, 0, 200_000), None);
    assert_eq!(
        scheduler.ready(id(1), 300_000),
        Some(0),
        "it has to set its alarm"
    );
    scheduler.work(0);
    assert_eq!(scheduler.alarm(0), Some(MILLISECOND));
    assert_eq!(pick(&mut scheduler, 0, 300_000), None);
    assert_eq!(scheduler.release(MILLISECOND), Some(None));
    assert_eq!(pick(&mut scheduler, 0, MILLISECOND), Some(1));
}

#[test]
fn a_turn_ends_only_if_somebody_waits() {
    let mut scheduler = scheduler(1, &[Class::Shared(256)]);
    assert_eq!(enter(&mut scheduler, 0, 0), Some(1));
    assert_eq!(scheduler.alarm(0), None);
    assert!(!scheduler.should_switch(0, 5 * TIME_SLICE));
    scheduler.admit(DomainId(2), anywhere(1, Class::Shared(256)));
    scheduler.add(id(2));
    assert_eq!(scheduler.ready(id(2), 1), Some(0));
    // Cut short: the other one slept, and this one had its least.
    let end = scheduler.alarm(0).unwrap();
    assert!((1_900_000..2_000_000).contains(&end), "{end}");
    assert!(!scheduler.should_switch(0, end - 1) && scheduler.should_switch(0, end));
    assert_eq!(enter(&mut scheduler, 0, end), Some(2));
    assert_eq!(scheduler.alarm(0), Some(end + TIME_SLICE));
}

#[test]
fn nobody_is_alarmed_for_a_turn_that_is_not_to_come() {
    let mut scheduler = scheduler(1, &[Class::Interactive, Class::Shared(256)]);
    assert_eq!(enter(&mut scheduler, 0, 0), Some(1));
    assert_eq!(scheduler.alarm(0), None);
    scheduler.give_way(0, 1);
    assert_eq!(scheduler.alarm(0), None);
    assert!(!scheduler.should_switch(0, 2 * TIME_SLICE));
    scheduler.admit(DomainId(3), anywhere(1, Class::Interactive));
    scheduler.add(id(3));
    scheduler.ready(id(3), 1);
    assert_eq!(scheduler.alarm(0), Some(1));
    assert!(scheduler.should_switch(0, 1));
}

#[test]
fn who_gives_way_goes_behind_its_equals_once() {
    let mut scheduler = scheduler(1, &[Class::Shared(256), Class::Shared(256)]);
    assert_eq!(enter(&mut scheduler, 0, 0), Some(1));
    scheduler.give_way(0, 1);
    assert!(scheduler.should_switch(0, 1));
    assert_eq!(enter(&mut scheduler, 0, 1), Some(2));
    scheduler.sleep(id(2));
    scheduler.give_way(0, 2);
    assert_eq!(enter(&mut scheduler, 0, 2), Some(1));
    scheduler.give_way(0, 3);
    // Alone it has nobody to give way to.
    assert_eq!(enter(&mut scheduler, 0, 3), Some(1));
}

#[test]
fn sleeping_earns_no_hoard_even_if_nobody_was_picked_meanwhile() {
    let mut scheduler = scheduler(1, &[Class::Shared(256), Class::Shared(256)]);
    scheduler.sleep(id(2));
    assert_eq!(enter(&mut scheduler, 0, 0), Some(1));
    let second = 1_000 * MILLISECOND;
    assert_eq!(scheduler.ready(id(2), second), Some(0));
    let mut got = [0; 2];
    for turn in 0..20 {
        let picked = enter(&mut scheduler, 0, second + turn * TIME_SLICE).unwrap();
        got[usize::from(picked) - 1] += 1;
    }
    assert_eq!(got, [10, 10]);
}

#[test]
fn who_sleeps_or_goes_is_not_picked() {
    let mut scheduler = scheduler(1, &[Class::Interactive, Class::Interactive]);
    assert_eq!(pick(&mut scheduler, 0, 0), Some(1));
    scheduler.sleep(id(1));
    assert!(scheduler.should_switch(0, 0));
    scheduler.remove(id(2));
    assert_eq!(pick(&mut scheduler, 0, 1), None);
    scheduler.ready(id(2), 1);
    scheduler.ready(id(1), 1);
    scheduler.ready(id(1), 1);
    assert_eq!(pick(&mut scheduler, 0, 2), Some(1));
    scheduler.remove(id(1));
    assert_eq!(pick(&mut scheduler, 0, 3), None);
    scheduler.add(id(1));
    scheduler.ready(id(1), 4);
    assert_eq!(pick(&mut scheduler, 0, 4), Some(1));
}

#[test]
fn who_wakes_before_its_processor_chose_anew_goes_on() {
    let mut scheduler = scheduler(2, &[Class::Shared(256)]);
    assert_eq!(enter(&mut scheduler, 0, 0), Some(1));
    enter(&mut scheduler, 1, 0);
    scheduler.work(0);
    scheduler.sleep(id(1));
    assert!(scheduler.is_current(id(1)));
    assert_eq!(scheduler.ready(id(1), 1), None);
    assert!(!scheduler.should_switch(0, 1));
}

#[test]
fn nobody_runs_where_it_may_not() {
    let terms = [
        pinned(&[1], Class::Interactive),
        pinned(&[0], Class::Shared(256)),
        pinned(&[0, 1], Class::Shared(256)),
    ];
    let mut scheduler = scheduler_of(3, &terms);
    assert_eq!(pick(&mut scheduler, 2, 0), None);
    assert_eq!(pick(&mut scheduler, 1, 0), Some(1));
    assert_eq!(pick(&mut scheduler, 0, 0), Some(2));
    scheduler.sleep(id(2));
    assert_eq!(pick(&mut scheduler, 0, 1), Some(3));
    // Its equals wait, but none that may run there.
    scheduler.admit(DomainId(4), pinned(&[1], Class::Shared(256)));
    scheduler.add(id(4));
    scheduler.ready(id(4), 2);
    assert_eq!((scheduler.alarm(0), scheduler.home(id(4))), (None, 1));
    assert!(!scheduler.should_switch(0, 5 * TIME_SLICE));
}

#[test]
fn one_whose_state_is_in_a_processor_waits_for_it() {
    let mut scheduler = scheduler(2, &[Class::Shared(256), Class::Shared(256)]);
    scheduler.loaded(id(1), 1);
    assert_eq!(pick(&mut scheduler, 0, 0), Some(2));
    assert_eq!(scheduler.alarm(0), None);
    scheduler.sleep(id(2));
    assert_eq!(pick(&mut scheduler, 0, 1), None);
    scheduler.idle(0, None);
    // Another takes its place there, so it can go on here.
    scheduler.admit(DomainId(3), pinned(&[1], Class::Interactive));
    scheduler.add(id(3));
    scheduler.ready(id(3), 2);
    let picked = scheduler.pick(1, 2);
    assert_eq!((picked.id, picked.call), (Some(id(3)), Some(0)));
}

#[test]
fn what_a_processor_had_of_one_that_is_gone_says_nothing_of_its_successor() {
    let mut scheduler = scheduler(2, &[Class::Interactive, Class::Interactive]);
    scheduler.loaded(id(1), 0);
    scheduler.remove(id(1));
    scheduler.add(id(1));
    scheduler.ready(id(1), 1);
    scheduler.sleep(id(2));
    assert_eq!(pick(&mut scheduler, 1, 1), Some(1));
    scheduler.loaded(id(1), 1);
    scheduler.sleep(id(1));
    scheduler.ready(id(2), 2);
    assert_eq!(pick(&mut scheduler, 0, 2), Some(2));
    scheduler.loaded(id(2), 0);
    assert_eq!(pick(&mut scheduler, 1, 3), None);
    // It still is in the second.
    scheduler.sleep(id(2));
    scheduler.ready(id(1), 4);
    assert_eq!(pick(&mut scheduler, 0, 4), None);
    assert_eq!(pick(&mut scheduler, 1, 4), Some(1));
}

#[test]
fn whoever_wakes_calls_one_processor_at_most() {
    let classes = [
        Class::Shared(256),
        Class::Shared(256),
        Class::Interactive,
        Class::Interactive,
    ];
    let mut scheduler = scheduler(2, &classes);
    for domain in 1..=4 {
        scheduler.sleep(id(domain));
    }
    assert_eq!(
        (enter(&mut scheduler, 0, 0), enter(&mut scheduler, 1, 0)),
        (None, None)
    );
    // Its home idles.
    let home = scheduler.home(id(2));
    assert_eq!(scheduler.ready(id(2), 1), Some(home));
    assert!(scheduler.call(home) && !scheduler.call(home));
    assert_eq!(enter(&mut scheduler, home, 1), Some(2));
    // The other idles.
    assert_eq!(scheduler.ready(id(4), 2), Some(1 - home));
    assert!(scheduler.call(1 - home));
    assert_eq!(enter(&mut scheduler, 1 - home, 2), Some(4));
    // Nobody idles, a shared one runs.
    assert_eq!(scheduler.ready(id(3), 3), Some(home));
    assert!(scheduler.call(home));
    // It was called, and will see this one too.
    assert_eq!(scheduler.ready(id(1), 4), None);
    assert_eq!(enter(&mut scheduler, home, 5), Some(3));
    // The processor that works switches without being called.
    scheduler.sleep(id(3));
    scheduler.sleep(id(4));
    scheduler.work(1 - home);
    assert_eq!(scheduler.ready(id(4), 6), None);
}

#[test]
fn a_direct_switch_calls_nobody() {
    let mut scheduler = scheduler(1, &[Class::Shared(256), Class::Interactive]);
    scheduler.sleep(id(2));
    assert_eq!(enter(&mut scheduler, 0, 0), Some(1));
    scheduler.work(0);
    assert_eq!(scheduler.ready(id(2), 1), None);
    assert!(scheduler.should_switch(0, 1));
    assert_eq!(enter(&mut scheduler, 0, 1), Some(2));
}

#[test]
fn exclusive_processors_and_those_of_realtime_ones_are_urgent() {
    let mut alone = pinned(&[1], Class::Shared(256));
    alone.place.exclusive = true;
    let mut scheduler = scheduler_of(2, &[pinned(&[0], realtime(1)), alone]);
    let urgency = |scheduler: &Scheduler, processor| {
        let urgency = scheduler.urgency(processor);
        (urgency.always, urgency.after_interrupt)
    };
    assert_eq!(urgency(&scheduler, 0), (false, true));
    assert_eq!(urgency(&scheduler, 1), (true, true));
    assert_eq!(enter(&mut scheduler, 0, 0), Some(1));
    assert_eq!(urgency(&scheduler, 0), (true, true));
    scheduler.remove(id(1));
    assert_eq!(urgency(&scheduler, 0), (false, false));
}

#[test]
fn who_has_the_only_processor_does_not_look_for_what_others_do() {
    assert!(!scheduler(1, &[Class::Interactive]).runs_beside_others(DomainId(1)));
    assert!(scheduler(2, &[Class::Interactive]).runs_beside_others(DomainId(1)));
    let mut alone = pinned(&[1], Class::Interactive);
    alone.place.exclusive = true;
    let scheduler = scheduler_of(2, &[alone, pinned(&[0], Class::Interactive)]);
    assert!(scheduler.runs_beside_others(DomainId(1)));
    assert!(!scheduler.runs_beside_others(DomainId(2)));
}

#[test]
fn a_domain_runs_no_longer_than_its_cap() {
    let mut capped = anywhere(1, Class::Shared(256));
    capped.cap = Some(30);
    let mut scheduler = scheduler_of(1, &[capped]);
    let mut now = 0;
    let mut ran = 0;
    while now < 100 * CAP_PERIOD {
        scheduler.work(0);
        while scheduler.release(now).is_some() {}
        let picked = enter(&mut scheduler, 0, now);
        let next = scheduler.alarm(0).unwrap();
        assert!(next > now);
        ran += if picked.is_some() { next - now } else { 0 };
        now = next;
    }
    assert_eq!(ran / CAP_PERIOD, 30);
    assert_eq!(vec![ran % CAP_PERIOD < CAP_PERIOD / 10], [true]);
}

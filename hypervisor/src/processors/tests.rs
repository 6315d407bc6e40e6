use super::*;
use crate::{
    domain::State,
    event, grant,
    testing::{self, spec},
};
use xen_abi::sched::SHUTDOWN_crash;

const GUEST: DomainId = DomainId(1);

fn id(index: u32) -> VcpuId {
    VcpuId { domain: GUEST, index }
}

/// A domain of two vCPUs on two processors, both up.
fn hypervisor() -> Hypervisor {
    let mut hv = testing::hypervisor_on(2, vec![spec("guest", 2)]);
    hv.bring_up(id(1));
    hv
}

/// A vCPU that runs on a processor, until this thread is told that it is wanted back.
struct Running {
    thread: std::thread::JoinHandle<()>,
    stay: Stay,
}

/// Enters a guest: its exit comes from another thread, some time later, with `rax` changed.
fn enter(hv: &mut Hypervisor, processor: usize) -> Running {
    let vcpu = hv.next(processor, 0).unwrap();
    let (mut guest, _, stay) = hv.depart(processor, vcpu, None).unwrap();
    let seat = hv.processors[processor].seat.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        guest.registers.rax = 0x1234;
        seat.leave(guest);
    });
    Running { thread, stay }
}

#[test]
fn a_vcpu_that_is_recalled_is_back_with_its_registers() {
    let mut hv = hypervisor();
    let running = enter(&mut hv, 0);
    assert_eq!(hv.vcpu(id(0)).unwrap().on, Some(0));
    assert_eq!(hv.vcpu(id(0)).unwrap().processor.paging().privilege, 3);
    hv.recall_domain(GUEST);
    let vcpu = hv.vcpu(id(0)).unwrap();
    assert_eq!((vcpu.on, vcpu.registers.rax), (None, 0x1234));
    assert_eq!(vcpu.processor.paging(), testing::KERNEL);
    assert!(hv.scheduler.processor(0).called);
    running.thread.join().unwrap();
    // Its processor goes on with the exit: nothing happened to the vCPU.
    assert!(hv.arrive(0, id(0), running.stay, 0));
}

#[test]
fn an_exit_of_a_vcpu_that_was_stopped_is_forgotten() {
    let mut hv = hypervisor();
    let running = enter(&mut hv, 0);
    hv.take_down(id(0));
    hv.vcpu_mut(id(0)).unwrap().registers.rip = 0x9000;
    hv.bring_up(id(0));
    running.thread.join().unwrap();
    assert!(!hv.arrive(0, id(0), running.stay, 0));
    assert_eq!(hv.vcpu(id(0)).unwrap().registers.rip, 0x9000);
    // It runs again where it was, on nobody else's processor.
    assert_eq!(hv.next(0, 1), Some(id(0)));
}

#[test]
fn a_domain_is_stopped_destroyed_and_built_while_it_runs() {
    let mut hv = hypervisor();
    let all = hv.frames.free_pages();
    let running = [enter(&mut hv, 0), enter(&mut hv, 1)];
    hv.stop_domain(GUEST, SHUTDOWN_crash);
    assert_eq!(
        hv.domain(GUEST).unwrap().state,
        State::Stopped {
            reason: SHUTDOWN_crash
        }
    );
    hv.destroy_domain(GUEST);
    testing::build(&mut hv, GUEST);
    assert_eq!(hv.frames.free_pages(), all);
    for (processor, running) in running.into_iter().enumerate() {
        running.thread.join().unwrap();
        assert!(!hv.arrive(processor, id(processor as u32), running.stay, 0));
    }
    assert!(hv.vcpu(id(0)).unwrap().on.is_none());
    assert_eq!(hv.next(0, 1), Some(id(0)));
}

#[test]
fn pages_are_taken_away_from_vcpus_that_do_not_run() {
    let mut hv = hypervisor();
    let running = enter(&mut hv, 1);
    grant::flush(&mut hv, GUEST);
    assert!(hv.vcpu(id(1)).unwrap().on.is_none());
    running.thread.join().unwrap();
    assert!(hv.arrive(1, id(1), running.stay, 0));
}

/// The guest has seen its upcalls.
fn clear_upcall(hv: &Hypervisor) {
    let body = hv.body(GUEST).unwrap();
    hv.memory.zero(body.shared_info.address(), 4096);
}

#[test]
fn one_call_reaches_who_runs_and_none_who_works() {
    let mut hv = hypervisor();
    let port = event::bind_ipi(&mut hv, GUEST, 0).unwrap();
    event::send(&mut hv, GUEST, port).unwrap();
    assert!(!hv.scheduler.processor(0).called, "it has the lock");
    let other = event::bind_ipi(&mut hv, GUEST, 0).unwrap();
    clear_upcall(&hv);
    let running = enter(&mut hv, 0);
    // A unikernel that runs sees it without being told.
    event::send(&mut hv, GUEST, other).unwrap();
    assert!(!hv.scheduler.processor(0).called);
    hv.body_mut(GUEST).unwrap().vcpus[0].upcall_vector = Some(0x40);
    let (third, fourth) = (
        event::bind_ipi(&mut hv, GUEST, 0),
        event::bind_ipi(&mut hv, GUEST, 0),
    );
    clear_upcall(&hv);
    event::send(&mut hv, GUEST, third.unwrap()).unwrap();
    assert!(hv.scheduler.processor(0).called && !hv.scheduler.processor(1).called);
    clear_upcall(&hv);
    event::send(&mut hv, GUEST, fourth.unwrap()).unwrap();
    assert_eq!(hv.scheduler.processor(0).calls, 1, "it is on its way out already");
    running.thread.join().unwrap();
    assert!(hv.arrive(0, id(0), running.stay, 0));
}

#[test]
fn who_wakes_goes_to_a_processor_that_idles() {
    let mut hv = testing::hypervisor_on(2, vec![spec("a", 1), spec("b", 1), spec("c", 1)]);
    let vcpu = testing::vcpu;
    assert_eq!((hv.next(0, 0), hv.next(1, 0)), (Some(vcpu(1)), Some(vcpu(2))));
    hv.scheduler.depart(0, None);
    hv.sleep(vcpu(2));
    // Nothing else waits, so the second takes who waited for the first.
    assert_eq!(hv.next(1, 1), Some(vcpu(3)));
    hv.sleep(vcpu(3));
    assert_eq!(hv.next(1, 2), None);
    hv.scheduler.idle(1, None);
    assert_eq!(hv.scheduler.home(vcpu(3)), 1);
    hv.wake(vcpu(2));
    assert!(hv.scheduler.processor(1).called);
    // The second will look after this one as well: at the end of its equal's turn.
    hv.wake(vcpu(3));
    hv.scheduler.work(1);
    assert_eq!(hv.next(1, 3), Some(vcpu(2)));
    assert_eq!(hv.scheduler.alarm(1), Some(3 + crate::sched::TIME_SLICE));
    assert!(!hv.scheduler.processor(0).called);
}

#[test]
fn a_timer_belongs_to_the_processor_of_its_vcpu() {
    let mut hv = hypervisor();
    hv.scheduler.idle(1, Some(100));
    hv.vcpu_mut(id(1)).unwrap().oneshot = Some(200);
    hv.rearm(id(1));
    assert!(
        !hv.scheduler.processor(1).called,
        "it wakes up before that anyway"
    );
    hv.vcpu_mut(id(1)).unwrap().oneshot = Some(50);
    hv.rearm(id(1));
    assert!(hv.scheduler.processor(1).called);
    assert_eq!((hv.next_timer(0), hv.next_timer(1)), (None, Some(50)));
}

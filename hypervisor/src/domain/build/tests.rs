use super::*;
use crate::{
    domain::VcpuStatus, domain::images::Images, event::Binding, guest::pci, hypercall::Outcome, testing,
};
use manifest::bundle::{Bundle, encode};
use xen_abi::sched::SHUTDOWN_crash;

const CONTROL: DomainId = DomainId(1);
const GUEST: DomainId = DomainId(3);
const ENTRY: u32 = 0x10_0010;

/// An ELF64 file with a segment of four bytes in two pages at 1 MiB, and the PVH note in it.
fn kernel() -> Vec<u8> {
    let mut file = vec![0; 0x200];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    put(16, &[2, 0, 62, 0, 1, 0, 0, 0]);
    put(32, &64u64.to_le_bytes());
    put(52, &[64, 0, 56, 0, 2, 0]);
    let words = |words: [u64; 6]| words.map(u64::to_le_bytes).concat();
    put(64, &[1, 0, 0, 0, 5, 0, 0, 0]);
    put(72, &words([0x100, 0x10_0000, 0x10_0000, 4, 0x2000, 0x1000]));
    put(120, &[4, 0, 0, 0, 4, 0, 0, 0]);
    put(128, &words([0x180, 0, 0, 20, 20, 4]));
    put(0x100, &[1, 2, 3, 4]);
    put(0x180, &[4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0, b'X', b'e', b'n', 0]);
    put(0x190, &ENTRY.to_le_bytes());
    file
}

/// The fixture's domains, not built, with 2 MiB each, on a bundle of their kernels; `damage` changes its bytes.
fn machine(damage: impl Fn(&mut Vec<u8>)) -> Hypervisor {
    let mut hv = testing::hypervisor();
    for id in [1, 2, 3].map(DomainId) {
        hv.destroy_domain(id);
        let domain = hv.domains.get_mut(&id).unwrap();
        domain.generation = 0;
        domain.spec.memory = 2 << 20;
    }
    let kernel = kernel();
    let files = [
        ("control", &kernel[..]),
        ("console", &kernel[..]),
        ("guest", &kernel[..]),
    ];
    let mut bytes = encode(&hv.manifest, &files);
    damage(&mut bytes);
    hv.images = Images::new(Bundle::parse(bytes.leak()).unwrap());
    hv
}

fn start(hv: &mut Hypervisor, id: DomainId) -> Result<u32, Errno> {
    let mut calls = 0;
    loop {
        calls += 1;
        match hv.start_domain(id)? {
            Progress::Done => return Ok(calls),
            Progress::Again => assert_eq!(hv.domain(id).unwrap().state, State::Building),
            Progress::Wait(_) => panic!("no device is being reset"),
        }
    }
}

fn read<const N: usize>(hv: &Hypervisor, id: DomainId, at: u64) -> [u8; N] {
    testing::peek(hv, id.0, at)
}

#[test]
fn a_domain_finds_its_image_and_what_the_contract_says() {
    let mut hv = machine(|_| ());
    // Memory that was somebody else's reaches a domain zeroed.
    hv.memory.write(Frame(1500).address(), &[0xff; 4096]);
    assert!(start(&mut hv, CONTROL).unwrap() > 3);
    assert_eq!(read(&hv, CONTROL, 0x10_0000), [1, 2, 3, 4, 0, 0]);
    let body = hv.body(CONTROL).unwrap();
    let registers = &body.vcpus[0].registers;
    assert_eq!(
        (registers.rip, registers.rbx),
        (ENTRY.into(), layout::START_INFO.0)
    );
    assert_eq!(body.vcpus[0].status, VcpuStatus::Runnable);
    assert!(
        (0..0x9f)
            .chain(0x102..0x1f0)
            .map(|page| read::<4096>(&hv, CONTROL, page * 4096))
            .all(|page| !page.contains(&0xff))
    );
    // controldom's module is the manifest; it has no rings with itself as their server.
    let word = |at: u64| u64::from_le_bytes(read(&hv, CONTROL, at));
    let module = word(word(layout::START_INFO.0 + 16));
    let manifest = hv.images.manifest().unwrap();
    assert_eq!(word(word(layout::START_INFO.0 + 16) + 8), manifest.len() as u64);
    assert_eq!(read::<8>(&hv, CONTROL, module), manifest[..8]);
    assert_eq!(body.parameters[HVM_PARAM_STORE_PFN as usize], 0);
    assert_eq!(
        body.parameters[HVM_PARAM_CONSOLE_PFN as usize],
        layout::CONSOLE_PAGE.frame_number()
    );
    assert_eq!(start(&mut hv, CONTROL), Err(Errno::EXIST));
    assert_eq!(hv.start_domain(DomainId(9)), Err(Errno::SRCH));
}

#[test]
fn the_keep_region_outlives_its_domain_and_nothing_else_does() {
    let mut hv = machine(|_| ());
    hv.domains.get_mut(&GUEST).unwrap().spec.keep = 3 * PAGE_SIZE;
    let keep = layout::KEEP.0;
    let last = keep + 2 * PAGE_SIZE;
    start(&mut hv, GUEST).unwrap();
    assert_eq!(read::<4096>(&hv, GUEST, last), [0; 4096]);
    for at in [0x8000, keep, last + 4088] {
        testing::poke(&hv, GUEST.0, at, b"whatever");
    }
    // Neither the pages' frames nor the books change with the lives.
    let free = hv.frames.free_pages();
    for _ in 0..3 {
        hv.destroy_domain(GUEST);
        start(&mut hv, GUEST).unwrap();
        assert_eq!(read(&hv, GUEST, keep), *b"whatever");
        assert_eq!(read(&hv, GUEST, last + 4088), *b"whatever");
        assert_eq!(read(&hv, GUEST, 0x8000), [0; 8]);
        assert_eq!(hv.frames.free_pages(), free);
    }
    // Garbled, once: no line of 64 bytes is as it was.
    hv.domains.get_mut(&GUEST).unwrap().keep.garble_next(5);
    hv.destroy_domain(GUEST);
    start(&mut hv, GUEST).unwrap();
    let garbled = read::<4096>(&hv, GUEST, keep + PAGE_SIZE);
    assert!(garbled.chunks(64).all(|line| line != [0; 64]));
    hv.destroy_domain(GUEST);
    start(&mut hv, GUEST).unwrap();
    assert_eq!(read(&hv, GUEST, keep + PAGE_SIZE), garbled);
    super::super::keep::discard(&hv, GUEST);
    assert_eq!(read(&hv, GUEST, keep), [0; 4096]);
    // It is nobody else's, and ends where the manifest says.
    let body = hv.body(GUEST).unwrap();
    let beyond = body.p2m.translate(&hv.memory, GuestAddress(last + PAGE_SIZE));
    assert_eq!(beyond, None);
}

#[test]
fn a_guest_has_rings_and_ports_towards_its_servers() {
    let mut hv = machine(|_| ());
    start(&mut hv, GUEST).unwrap();
    let body = hv.body(GUEST).unwrap();
    for (port, frame, page, server) in [
        (HVM_PARAM_STORE_EVTCHN, HVM_PARAM_STORE_PFN, layout::STORE_PAGE, 1),
        (
            HVM_PARAM_CONSOLE_EVTCHN,
            HVM_PARAM_CONSOLE_PFN,
            layout::CONSOLE_PAGE,
            2,
        ),
    ] {
        assert_eq!(body.parameters[frame as usize], page.frame_number());
        let port = body.events.port(body.parameters[port as usize] as u32);
        assert_eq!(
            port.binding,
            Binding::Unbound {
                remote: DomainId(server)
            }
        );
        let ring = body.p2m.translate(&hv.memory, page).unwrap();
        assert!(ring.writable && ring.kind == PageKind::Ram);
    }
    // The second vCPU waits for its start-up message.
    assert!(body.vcpus[1].awaits_startup && body.vcpus[1].status == VcpuStatus::Offline);
}

#[test]
fn a_rebuild_gives_everything_back_and_keeps_the_id() {
    let mut hv = machine(|_| ());
    let free = hv.frames.free_pages();
    let first = start(&mut hv, GUEST).unwrap();
    testing::poke(&hv, GUEST.0, 0x10_0000, &[9; 4]);
    hv.stop_domain(GUEST, SHUTDOWN_crash);
    assert_eq!(
        hv.domain(GUEST).unwrap().state,
        State::Stopped {
            reason: SHUTDOWN_crash
        }
    );
    hv.destroy_domain(GUEST);
    assert_eq!(
        (hv.domain(GUEST).unwrap().state, hv.frames.free_pages()),
        (State::Absent, free)
    );
    // The image has been verified already, and is pristine.
    assert!(start(&mut hv, GUEST).unwrap() < first);
    assert_eq!(read(&hv, GUEST, 0x10_0000), [1, 2, 3, 4]);
    assert_eq!(hv.domain(GUEST).unwrap().generation, 2);
    // Taken down half built, nothing is lost either.
    hv.destroy_domain(GUEST);
    for pieces in 1..5 {
        for _ in 0..pieces {
            hv.start_domain(GUEST).unwrap();
        }
        hv.destroy_domain(GUEST);
        assert_eq!(
            (hv.domain(GUEST).unwrap().state, hv.frames.free_pages()),
            (State::Absent, free)
        );
    }
}

#[test]
fn a_domain_with_devices_has_its_memory_in_one_piece() {
    let mut hv = machine(|_| ());
    let address = crate::platform::pci::PciAddress {
        segment: 0,
        bus: 0,
        device: 1,
        function: 0,
    };
    hv.domains.get_mut(&GUEST).unwrap().devices.push(address);
    start(&mut hv, GUEST).unwrap();
    let body = hv.body(GUEST).unwrap();
    let base = body.contiguous_base.unwrap();
    for page in 0..512 {
        let at = GuestAddress::of_frame(page);
        assert_eq!(
            body.p2m.translate(&hv.memory, at).unwrap().machine,
            Frame(base.0 / PAGE_SIZE + page)
        );
    }
    // Its device is reset first, and whoever starts it sleeps until then.
    hv.destroy_domain(GUEST);
    hv.resets.pretend(address, 5);
    while hv.start_domain(GUEST).unwrap() != Progress::Wait(5) {}
    testing::build(&mut hv, CONTROL);
    let caller = testing::vcpu(CONTROL.0);
    let request = xen_abi::atoll::DomainReference {
        domain: GUEST.0,
        ..Default::default()
    };
    testing::poke(&hv, CONTROL.0, 0x8000, zerocopy::IntoBytes::as_bytes(&request));
    let registers = &mut hv.vcpu_mut(caller).unwrap().registers;
    (registers.rax, registers.rsi) = (xen_abi::atoll::__HYPERVISOR_atoll_op, 0x8000);
    registers.rdi = xen_abi::atoll::ATOLLOP_DOMAIN_START;
    assert_eq!(crate::hypercall::dispatch(&mut hv, caller), Outcome::Again);
    let vcpu = hv.vcpu(caller).unwrap();
    assert_eq!((vcpu.status, vcpu.deadline()), (VcpuStatus::Blocked, Some(5)));
    hv.resets.pretend(address, 0);
    assert_eq!(crate::hypercall::dispatch(&mut hv, caller), Outcome::Complete);
    assert_eq!(hv.domain(GUEST).unwrap().state, State::Running);
    // Registers cannot be where its memory is, which would be lost.
    hv.destroy_domain(GUEST);
    let free = hv.frames.free_pages();
    let bar = pci::Bar {
        index: 0,
        kind: pci::BarKind::Memory32,
        flags: 0,
        address: 0x1f_f000,
        size: 0x1000,
    };
    let function = pci::Function {
        address,
        bars: vec![bar],
        msix: None,
        withheld: Vec::new(),
    };
    hv.domains.get_mut(&GUEST).unwrap().functions.push(function);
    assert_eq!(start(&mut hv, GUEST), Err(Errno::INVAL));
    let failure = hv.domain(GUEST).unwrap().failure.clone().unwrap();
    assert!(failure.contains("0x1ff000"), "{failure}");
    assert_eq!(hv.frames.free_pages(), free);
}

#[test]
fn what_is_wrong_is_told_and_costs_nothing_else() {
    let mut hv = machine(|bytes| {
        let at = bytes.len() - 1;
        bytes[at] ^= 1;
    });
    let free = hv.frames.free_pages();
    assert_eq!(start(&mut hv, GUEST), Err(Errno::INVAL));
    let domain = hv.domain(GUEST).unwrap();
    assert_eq!(domain.state, State::Failed);
    assert!(
        domain.failure.as_ref().unwrap().contains("guest is corrupt"),
        "{:?}",
        domain.failure
    );
    assert!(start(&mut hv, DomainId(2)).is_ok());
    hv.destroy_domain(DomainId(2));
    hv.domains.get_mut(&CONTROL).unwrap().spec.memory = 1 << 30;
    assert_eq!(start(&mut hv, CONTROL), Err(Errno::NOMEM));
    let failure = hv.domain(CONTROL).unwrap().failure.clone().unwrap();
    assert!(
        failure.starts_with("1024 MiB of memory are asked for, and only "),
        "{failure}"
    );
    hv.domains.get_mut(&CONTROL).unwrap().spec.memory = 1 << 20;
    assert_eq!(start(&mut hv, CONTROL), Err(Errno::INVAL));
    assert_eq!(hv.frames.free_pages(), free);
}

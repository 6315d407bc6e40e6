//! The rules of all hypercalls, and the groups that only tell or write something.

use super::*;

#[test]
fn only_kernels_in_64_bit_code_may_call() {
    let mut hv = hypervisor();
    let id = vcpu(3);
    let as_mode = |hv: &mut Hypervisor, paging| {
        let cpu = FakeCpu {
            paging,
            injected: None,
        };
        hv.vcpu_mut(id).unwrap().processor = std::boxed::Box::new(cpu);
        call(hv, id, __HYPERVISOR_xen_version, &[XENVER_version])
    };
    assert_eq!(as_mode(&mut hv, KERNEL), 4 << 16 | 17);
    assert_eq!(
        as_mode(
            &mut hv,
            crate::virt::Paging {
                privilege: 3,
                ..KERNEL
            }
        ),
        error(Errno::PERM)
    );
    assert_eq!(
        as_mode(
            &mut hv,
            crate::virt::Paging {
                long_code: false,
                ..KERNEL
            }
        ),
        error(Errno::NOSYS)
    );
    assert_eq!(as_mode(&mut hv, KERNEL), 4 << 16 | 17);
    for number in [0, 6, 11, 35, 36, 39, 54, 56, 1 << 32 | 17, u64::MAX] {
        assert_eq!(call(&mut hv, id, number, &[]), error(Errno::NOSYS), "{number}");
    }
}

#[test]
fn the_version_speaks_xens_language() {
    let mut hv = hypervisor();
    assert_eq!(
        call(
            &mut hv,
            vcpu(3),
            __HYPERVISOR_xen_version,
            &[XENVER_capabilities, AT]
        ),
        0
    );
    assert!(peek::<1024>(&hv, 3, AT).starts_with(b"xen-3.0-x86_64 hvm-3.0-x86_32 "));
    let (result, features) = with(
        &mut hv,
        vcpu(3),
        __HYPERVISOR_xen_version,
        XENVER_get_features,
        &FeatureInfo::default(),
    );
    assert_eq!(result, 0);
    assert_ne!(features.submap & 1 << XENFEAT_hvm_callback_vector, 0);
    assert_eq!(features.submap & 1 << XENFEAT_hvm_pirqs, 0);
    let beyond = FeatureInfo {
        submap_idx: 1,
        submap: 0,
    };
    assert_eq!(
        with(
            &mut hv,
            vcpu(3),
            __HYPERVISOR_xen_version,
            XENVER_get_features,
            &beyond
        )
        .0,
        error(Errno::INVAL)
    );
    let nowhere = RAM_PAGES * 4096 - 8;
    assert_eq!(
        call(
            &mut hv,
            vcpu(3),
            __HYPERVISOR_xen_version,
            &[XENVER_extraversion, nowhere]
        ),
        error(Errno::FAULT)
    );
}

#[test]
fn console_lines_are_whole_and_bounded() {
    let mut hv = hypervisor();
    LOG.take();
    let write = |hv: &mut Hypervisor, text: &[u8]| {
        poke(hv, 3, AT, text);
        assert_eq!(
            call(
                hv,
                vcpu(3),
                __HYPERVISOR_console_io,
                &[CONSOLEIO_write, text.len() as u64, AT]
            ),
            0
        );
    };
    write(&mut hv, b"first\r\nsec");
    write(&mut hv, b"ond\n");
    assert_eq!(LOG.take(), ["guest: first", "guest: second"]);
    write(&mut hv, &[b'x'; 2500]);
    let lines = LOG.take();
    assert_eq!((lines.len(), lines[0].len()), (2, "guest: ".len() + 1024));
    flush_console(&mut hv, DomainId(3));
    flush_console(&mut hv, DomainId(3));
    assert_eq!(LOG.take(), ["guest: ".to_owned() + &"x".repeat(2500 - 2048)]);
    let negative = [CONSOLEIO_write, u64::MAX, AT];
    assert_eq!(
        call(&mut hv, vcpu(3), __HYPERVISOR_console_io, &negative),
        error(Errno::INVAL)
    );
    assert_eq!(
        call(
            &mut hv,
            vcpu(3),
            __HYPERVISOR_console_io,
            &[CONSOLEIO_read, 10, AT]
        ),
        0
    );
}

#[test]
fn a_multicall_carries_each_out_in_order() {
    let mut hv = hypervisor();
    let entry = |op, args: &[u64]| {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        MulticallEntry {
            op,
            result: 77,
            args: all,
        }
    };
    poke(&hv, 3, LIST, &[b'y'; 1025]);
    let entries = [
        entry(__HYPERVISOR_xen_version, &[XENVER_version]),
        entry(__HYPERVISOR_console_io, &[CONSOLEIO_write, 1025, LIST]),
        entry(99, &[]),
        entry(__HYPERVISOR_multicall, &[AT, 1]),
        entry(__HYPERVISOR_sched_op, &[SCHEDOP_yield]),
    ];
    for (index, entry) in (0..).zip(&entries) {
        put(&hv, 3, AT + index * 64, entry);
    }
    LOG.take();
    assert_eq!(call(&mut hv, vcpu(3), __HYPERVISOR_multicall, &[AT, 5]), 0);
    let result = |index: u64| get::<MulticallEntry>(&hv, 3, AT + index * 64).result as i64;
    assert_eq!(
        (result(0), result(1), result(2)),
        (4 << 16 | 17, 0, error(Errno::NOSYS))
    );
    assert_eq!((result(3), result(4)), (error(Errno::NOSYS), 0));
    assert_eq!(LOG.take().len(), 1);
    for index in 0..40 {
        put(&hv, 3, AT + index * 64, &entries[0]);
    }
    assert_eq!(
        once(&mut hv, vcpu(3), __HYPERVISOR_multicall, &[AT, 40]),
        Outcome::Again
    );
    assert_eq!(
        (dispatch(&mut hv, vcpu(3)), dispatch(&mut hv, vcpu(3))),
        (Outcome::Again, Outcome::Complete)
    );
    let last = get::<MulticallEntry>(&hv, 3, AT + 39 * 64);
    assert_eq!(last.result, 4 << 16 | 17);
}

#[test]
fn our_own_operations_need_their_capabilities() {
    let mut hv = hypervisor();
    let op = __HYPERVISOR_atoll_op;
    let about = |domain| DomainInfo {
        domain,
        ..Default::default()
    };
    let (result, info) = with(&mut hv, vcpu(3), op, ATOLLOP_DOMAIN_INFO, &about(DOMID_SELF));
    assert_eq!(
        (result, info.domain, info.state, &info.name[..6]),
        (0, 3, DOMAIN_STATE_RUNNING, &b"guest\0"[..])
    );
    assert_eq!(
        with(&mut hv, vcpu(3), op, ATOLLOP_DOMAIN_INFO, &about(2)).0,
        error(Errno::PERM)
    );
    assert_eq!(
        with(&mut hv, vcpu(1), op, ATOLLOP_DOMAIN_INFO, &about(9)).0,
        error(Errno::SRCH)
    );
    assert_eq!(
        with(&mut hv, vcpu(1), op, ATOLLOP_DOMAIN_INFO, &about(2))
            .1
            .memory_pages,
        RAM_PAGES
    );
    let reference = DomainReference {
        domain: 3,
        ..Default::default()
    };
    for operation in [ATOLLOP_DOMAIN_START, ATOLLOP_DOMAIN_DESTROY] {
        assert_eq!(
            with(&mut hv, vcpu(2), op, operation, &reference).0,
            error(Errno::PERM)
        );
    }
    assert_eq!(
        with(&mut hv, vcpu(1), op, ATOLLOP_DOMAIN_DESTROY, &reference).0,
        0
    );
    assert_eq!(hv.domain(DomainId(3)).unwrap().state, State::Absent);
    assert_eq!(
        with(
            &mut hv,
            vcpu(1),
            op,
            ATOLLOP_DOMAIN_DESTROY,
            &DomainReference::default()
        )
        .0,
        error(Errno::SRCH)
    );
    POWER.set(None);
    let control = MachineControl {
        action: MACHINE_REBOOT,
        ..Default::default()
    };
    assert_eq!(
        with(&mut hv, vcpu(2), op, ATOLLOP_MACHINE_CONTROL, &control).0,
        error(Errno::PERM)
    );
    assert_eq!(POWER.get(), None);
    assert_eq!(with(&mut hv, vcpu(1), op, ATOLLOP_MACHINE_CONTROL, &control).0, 0);
    assert_eq!(POWER.get(), Some("reboot"));

    LOG.set(std::vec!["0123456789".repeat(100)]);
    let read = LogRead {
        position: 995,
        buffer: LIST,
        length: 4096,
    };
    assert_eq!(
        with(&mut hv, vcpu(1), op, ATOLLOP_LOG_READ, &read).0,
        error(Errno::PERM)
    );
    let (result, read) = with(&mut hv, vcpu(2), op, ATOLLOP_LOG_READ, &read);
    assert_eq!(
        (result, read.position, read.length, peek(&hv, 2, LIST)),
        (0, 1000, 5, *b"56789")
    );

    assert_eq!(
        with(&mut hv, vcpu(2), op, ATOLLOP_DMA_WINDOW, &DmaWindow::default()).0,
        error(Errno::NODEV)
    );
    hv.body_mut(DomainId(2)).unwrap().contiguous_base = Some(crate::memory::MachineAddress(0x1000));
    assert_eq!(
        with(&mut hv, vcpu(2), op, ATOLLOP_DMA_WINDOW, &DmaWindow::default())
            .1
            .offset,
        0x1000
    );
    assert_eq!(
        with(
            &mut hv,
            vcpu(2),
            op,
            ATOLLOP_MACHINE_INFO,
            &MachineInfo::default()
        )
        .0,
        error(Errno::PERM)
    );
    let (_, info) = with(
        &mut hv,
        vcpu(1),
        op,
        ATOLLOP_MACHINE_INFO,
        &MachineInfo::default(),
    );
    assert_eq!(info.free_pages, hv.frames.free_pages());
}

proptest! {
    /// Whatever a guest puts into its registers and its memory, it costs nobody but itself.
    #[test]
    fn no_arguments_panic(
        calls in proptest::collection::vec((any::<proptest::sample::Index>(), 0u64..32, any::<[u64; 4]>(), any::<[u8; 4]>()), 1..40),
        words: [u64; 32], domain in 1u16..4,
    ) {
        const NUMBERS: [u64; 13] = [
            __HYPERVISOR_memory_op, __HYPERVISOR_multicall, __HYPERVISOR_set_timer_op, __HYPERVISOR_xen_version,
            __HYPERVISOR_console_io, __HYPERVISOR_grant_table_op, __HYPERVISOR_vm_assist, __HYPERVISOR_vcpu_op,
            __HYPERVISOR_sched_op, __HYPERVISOR_event_channel_op, __HYPERVISOR_physdev_op, __HYPERVISOR_hvm_op, __HYPERVISOR_atoll_op,
        ];
        let mut hv = hypervisor();
        let small = words.map(|word| if word & 1 == 0 { word >> 1 & 0x7_0003 } else { word });
        for (index, (number, operation, mut arguments, kinds)) in calls.into_iter().enumerate() {
            put(&hv, domain, AT, &small);
            put(&hv, domain, AT + 256 + index as u64 * 8, &words);
            for (argument, kind) in arguments.iter_mut().zip(kinds) {
                *argument = match kind % 4 {
                    0 => AT + u64::from(kind & 0xf0),
                    1 => u64::from(kind) >> 2,
                    2 => RAM_PAGES * 4096 - (u64::from(kind) >> 2),
                    _ => *argument,
                };
            }
            let id = vcpu(domain);
            let Some(running) = hv.vcpu(id).filter(|_| hv.domain(id.domain).unwrap().state == State::Running) else { break };
            let _ = running;
            let [second, third, fourth, fifth] = arguments;
            let mut outcome = once(&mut hv, id, *number.get(&NUMBERS), &[operation, second, third, fourth, fifth]);
            for _ in 0..20 {
                if outcome != Outcome::Again {
                    break;
                }
                outcome = dispatch(&mut hv, id);
            }
            if outcome == Outcome::Stopped {
                break;
            }
        }
        for id in [1, 2, 3] {
            testing::destroy(&mut hv, DomainId(id));
        }
        prop_assert_eq!((hv.frames.free_pages(), hv.held.count()), (testing::MACHINE_PAGES - 1, 0));
    }
}

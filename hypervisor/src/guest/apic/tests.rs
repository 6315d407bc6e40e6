//! Sequences of accesses.

mod properties;
mod timer;

use super::*;

const NOW: Time = Time {
    nanoseconds: 1_000_000,
    guest_tsc: 50_000,
    tsc_khz: 2_000_000,
};

fn at(nanoseconds: u64) -> Time {
    Time {
        nanoseconds,
        guest_tsc: nanoseconds * 2,
        tsc_khz: 2_000_000,
    }
}

/// An APIC with this id that software has enabled.
fn enabled(id: u32) -> LocalApic {
    let mut apic = LocalApic::new(id, id == 0);
    write(&mut apic, 0xf0, 0x1ff);
    apic
}

fn x2apic(id: u32) -> LocalApic {
    let mut apic = enabled(id);
    apic.set_base(apic.base() | BASE_X2APIC).unwrap();
    apic
}

fn write(apic: &mut LocalApic, offset: u16, value: u32) -> Option<Ipi> {
    apic.write_memory(offset, 4, value.into(), NOW)
}

fn read(apic: &LocalApic, offset: u16) -> u32 {
    apic.read_memory(offset, 4, NOW) as u32
}

fn fixed(vector: u8) -> Ipi {
    Ipi {
        delivery: Delivery::Fixed(vector),
        destination: Destination::Itself,
        level: false,
    }
}

#[test]
fn it_looks_as_after_power_on() {
    let apic = LocalApic::new(3, false);
    assert_eq!(apic.base(), 0xfee0_0800);
    assert_eq!(LocalApic::new(0, true).base(), 0xfee0_0900);
    for (offset, value) in [
        (0x20, 3 << 24),
        (0x30, 0x5_0014),
        (0x80, 0),
        (0xd0, 0),
        (0xe0, u32::MAX),
        (0xf0, 0xff),
        (0x320, 0x1_0000),
        (0x370, 0x1_0000),
    ] {
        assert_eq!(read(&apic, offset), value, "{offset:#x}");
    }
}

#[test]
fn linux_finds_what_it_writes() {
    let mut apic = enabled(0);
    for (offset, value) in [
        (0x80, 0x10),
        (0xd0, 0x0100_0000),
        (0xe0, u32::MAX),
        (0x320, 0x2_00ec),
        (0x350, 0x1_0700),
        (0x360, 0x400),
        (0x370, 0xfe),
    ] {
        write(&mut apic, offset, value);
        assert_eq!(read(&apic, offset), value, "{offset:#x}");
    }
    assert_eq!(apic.read_memory(0x30, 1, NOW), 0x14);
    assert_eq!(apic.read_memory(0x32, 2, NOW), 5);
    assert_eq!(apic.read_memory(0x30, 8, NOW), 0x5_0014);
    assert_eq!(apic.read_memory(0x34, 4, NOW), 0);
    assert_eq!(
        apic.write_memory(0x300, 2, 0x40, NOW),
        None,
        "only whole registers are written"
    );
}

#[test]
fn software_must_enable_it() {
    let mut apic = LocalApic::new(0, true);
    assert_eq!(apic.deliver(fixed(0x40)), Delivered::Nothing);
    write(&mut apic, 0x320, 0xec);
    assert_eq!(read(&apic, 0x320), 0x1_00ec, "masked until then");
    write(&mut apic, 0xf0, 0x1ff);
    assert_eq!(apic.deliver(fixed(0x40)), Delivered::Interrupt);
    assert_eq!(
        apic.deliver(fixed(0x40)),
        Delivered::Nothing,
        "it is pending already"
    );
    assert_eq!(apic.pending_vector(), Some(0x40));
    write(&mut apic, 0xf0, 0xff);
    assert_eq!(apic.pending_vector(), None);
    assert_eq!(
        apic.deliver(Ipi {
            delivery: Delivery::NonMaskable,
            ..fixed(0)
        }),
        Delivered::NonMaskable
    );
}

#[test]
fn priorities_order_interrupts() {
    let mut apic = enabled(0);
    for vector in [0x31, 0x45, 0x48] {
        apic.deliver(fixed(vector));
    }
    assert_eq!(apic.pending_vector(), Some(0x48));
    apic.accept(0x48);
    assert_eq!(
        (apic.pending_vector(), apic.processor_priority()),
        (None, 0x40),
        "0x45 is of the same class"
    );
    apic.deliver(fixed(0x51));
    assert_eq!(apic.pending_vector(), Some(0x51));
    apic.accept(0x51);
    write(&mut apic, 0xb0, 0);
    assert_eq!(apic.pending_vector(), None);
    write(&mut apic, 0xb0, 0);
    assert_eq!(apic.pending_vector(), Some(0x45));
    apic.set_cr8(4);
    assert_eq!((apic.pending_vector(), read(&apic, 0x80)), (None, 0x40));
    write(&mut apic, 0x80, 0x3f);
    assert_eq!((apic.pending_vector(), apic.cr8()), (Some(0x45), 3));
    apic.set_cr8(3);
    assert_eq!(read(&apic, 0x80), 0x3f, "nothing was changed");
}

#[test]
fn illegal_vectors_are_errors() {
    let mut apic = enabled(0);
    write(&mut apic, 0x370, 0xfe);
    assert_eq!(apic.deliver(fixed(5)), Delivered::Interrupt, "the error's own");
    assert_eq!(write(&mut apic, 0x300, 0x0c), None);
    assert_eq!(read(&apic, 0x280), 0);
    write(&mut apic, 0x280, 0);
    assert_eq!(read(&apic, 0x280), 0x60);
    write(&mut apic, 0x280, 0);
    assert_eq!(read(&apic, 0x280), 0);
    assert_eq!(apic.pending_vector(), Some(0xfe));
}

#[test]
fn commands_become_messages() {
    let mut apic = enabled(0);
    let mut command = |high: u32, low: u32| {
        write(&mut apic, 0x310, high);
        write(&mut apic, 0x300, low)
    };
    let message = |delivery, destination| {
        Some(Ipi {
            delivery,
            destination,
            level: false,
        })
    };
    let physical = |id| Destination::Physical { id, wide: false };
    // As Linux wakes a processor: INIT asserted, INIT deasserted, two start-ups.
    assert_eq!(
        command(1 << 24, 0xc500),
        Some(Ipi {
            level: true,
            ..message(Delivery::Init, physical(1)).unwrap()
        })
    );
    assert_eq!(command(1 << 24, 0x8500), None);
    assert_eq!(
        command(1 << 24, 0x0698),
        message(Delivery::StartUp(0x98), physical(1))
    );
    assert_eq!(
        command(3 << 24, 0x40fd),
        message(Delivery::Fixed(0xfd), physical(3))
    );
    assert_eq!(
        command(3 << 24, 0x09fd),
        message(
            Delivery::LowestPriority(0xfd),
            Destination::Logical {
                address: 3,
                wide: false
            }
        )
    );
    assert_eq!(
        command(0, 0x4_00fd),
        message(Delivery::Fixed(0xfd), Destination::Itself)
    );
    assert_eq!(
        command(0, 0x8_0400),
        message(Delivery::NonMaskable, Destination::All)
    );
    assert_eq!(
        command(0, 0xc_0400),
        message(Delivery::NonMaskable, Destination::Others)
    );
    assert_eq!(command(0, 0x0200), None, "SMI");
    assert_eq!(command(0, 0x0700), None, "external interrupt");
    assert_eq!(read(&apic, 0x300), 0x0700);
}

#[test]
fn messages_reach_whom_they_name() {
    let reaches = |destination, apic: &LocalApic| {
        Ipi {
            destination,
            ..fixed(0x40)
        }
        .reaches(apic, false)
    };
    let (mut flat, mut cluster) = (enabled(2), enabled(5));
    write(&mut flat, 0xd0, 0x04 << 24);
    write(&mut cluster, 0xd0, 0x12 << 24);
    write(&mut cluster, 0xe0, 0);
    let wide = x2apic(0x25);
    let physical = |id| Destination::Physical { id, wide: false };
    let logical = |address| Destination::Logical { address, wide: false };
    assert!(reaches(physical(2), &flat) && !reaches(physical(1), &flat) && reaches(physical(0xff), &flat));
    assert!(reaches(logical(0x06), &flat) && !reaches(logical(0x03), &flat) && reaches(logical(0xff), &flat));
    assert!(
        reaches(logical(0x16), &cluster)
            && !reaches(logical(0x26), &cluster)
            && !reaches(logical(0x11), &cluster)
    );
    assert!(reaches(Destination::Physical { id: 0x25, wide: true }, &wide));
    assert!(
        !reaches(Destination::Physical { id: 0xff, wide: true }, &wide)
            && reaches(
                Destination::Physical {
                    id: u32::MAX,
                    wide: true
                },
                &wide
            )
    );
    assert!(reaches(
        Destination::Logical {
            address: 0x2_0060,
            wide: true
        },
        &wide
    ));
    assert!(!reaches(
        Destination::Logical {
            address: 0x2_0040,
            wide: true
        },
        &wide
    ));
    assert!(!reaches(
        Destination::Logical {
            address: 0x0_0020,
            wide: true
        },
        &wide
    ));
    for (destination, sender, answer) in [
        (Destination::Itself, true, true),
        (Destination::Itself, false, false),
        (Destination::All, true, true),
        (Destination::Others, true, false),
        (Destination::Others, false, true),
    ] {
        assert_eq!(
            Ipi {
                destination,
                ..fixed(0x40)
            }
            .reaches(&flat, sender),
            answer
        );
    }
}

#[test]
fn devices_send_messages() {
    assert_eq!(
        Ipi::from_msi(0xfee0_3000, 0x41),
        Some(Ipi {
            destination: Destination::Physical { id: 3, wide: false },
            ..fixed(0x41)
        })
    );
    assert_eq!(
        Ipi::from_msi(0xfee0_300c, 0x8141).map(|ipi| (ipi.destination, ipi.delivery, ipi.level)),
        Some((
            Destination::Logical {
                address: 3,
                wide: false
            },
            Delivery::LowestPriority(0x41),
            true
        ))
    );
    for (address, data) in [
        (0xfed0_0000, 0x41),
        (0x1_fee0_0000, 0x41),
        (0xfee0_0000, 0x241),
        (0xfee0_0000, 0x641),
    ] {
        assert_eq!(Ipi::from_msi(address, data), None);
    }
}

#[test]
fn modes_change_as_on_a_processor() {
    let mut apic = enabled(0x12);
    assert_eq!(apic.read_x2apic(0x802, NOW), Err(Fault));
    for value in [0xfee0_0400, 0xfee0_1800, 0xfee0_0801, 0x1_fee0_0800] {
        assert_eq!(apic.set_base(value), Err(Fault), "{value:#x}");
    }
    apic.deliver(fixed(0x40));
    apic.set_base(0xfee0_0c00).unwrap();
    assert!(!apic.is_memory_mapped());
    assert_eq!(
        apic.pending_vector(),
        Some(0x40),
        "entering x2APIC mode keeps what is pending"
    );
    assert_eq!(apic.set_base(0xfee0_0800), Err(Fault));
    apic.set_base(0xfee0_0000).unwrap();
    assert_eq!(
        (apic.pending_vector(), apic.set_base(0xfee0_0c00)),
        (None, Err(Fault))
    );
    assert_eq!(
        apic.deliver(Ipi {
            delivery: Delivery::Init,
            ..fixed(0)
        }),
        Delivered::Nothing
    );
    apic.set_base(0xfee0_0800).unwrap();
    assert!(apic.is_memory_mapped());
}

#[test]
fn x2apic_registers_are_checked() {
    let mut apic = x2apic(0x123);
    let read = |apic: &LocalApic, msr| apic.read_x2apic(msr, NOW);
    assert_eq!(read(&apic, 0x802), Ok(0x123));
    assert_eq!(read(&apic, 0x80d), Ok(0x12_0008));
    for msr in [
        0x800, 0x801, 0x809, 0x80b, 0x80c, 0x80e, 0x831, 0x83a, 0x83f, 0x840, 0x8ff,
    ] {
        assert_eq!(read(&apic, msr), Err(Fault), "{msr:#x}");
    }
    for (msr, value) in [
        (0x802, 0),
        (0x803, 0),
        (0x808, 0x100),
        (0x80b, 1),
        (0x80d, 0),
        (0x80f, 0x200),
        (0x810, 0),
        (0x828, 1),
        (0x830, 1 << 12),
        (0x831, 0),
        (0x832, 1 << 20),
        (0x838, 1 << 32),
        (0x839, 0),
        (0x83e, 4),
    ] {
        assert_eq!(
            apic.write_x2apic(msr, value, NOW),
            Err(Fault),
            "{msr:#x} = {value:#x}"
        );
    }
    let message = apic
        .write_x2apic(0x830, 0x1_0000_0000 | 0xc1, NOW)
        .unwrap()
        .unwrap();
    assert_eq!(
        (message.delivery, message.destination),
        (Delivery::Fixed(0xc1), Destination::Physical { id: 1, wide: true })
    );
    assert_eq!(read(&apic, 0x830), Ok(0x1_0000_00c1));
    assert_eq!(apic.write_x2apic(0x83f, 0x44, NOW), Ok(Some(fixed(0x44))));
    apic.deliver(fixed(0x44));
    assert_eq!(read(&apic, 0x822), Ok(1 << 4));
    apic.accept(0x44);
    assert_eq!((read(&apic, 0x812), read(&apic, 0x822)), (Ok(1 << 4), Ok(0)));
    assert_eq!(apic.write_x2apic(0x80b, 0, NOW), Ok(None));
    assert_eq!(read(&apic, 0x812), Ok(0));
}

#[test]
fn init_keeps_the_identity() {
    let mut apic = enabled(9);
    write(&mut apic, 0x80, 0x50);
    apic.deliver(fixed(0x80));
    apic.reset();
    assert_eq!(
        (
            apic.id(),
            read(&apic, 0x80),
            read(&apic, 0xf0),
            apic.pending_vector()
        ),
        (9, 0, 0xff, None)
    );
    let mut first = LocalApic::new(0, true);
    first.reset();
    assert_eq!(first.base(), 0xfee0_0900);
}

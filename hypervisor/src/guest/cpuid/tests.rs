//! The policy over invented hosts.

use proptest::prelude::*;

use super::*;

const CONFIGURATION: Configuration = Configuration {
    domain: 7,
    vcpus: 4,
    tsc_khz: 2_000_000,
    extended_features: 0x2e7,
    iommu_mappings: false,
};

/// A host that has every feature of an AMD processor, and every bit.
fn full_amd(leaf: u32, subleaf: u32) -> Leaf {
    let ones = Leaf {
        eax: u32::MAX,
        ebx: u32::MAX,
        ecx: u32::MAX,
        edx: u32::MAX,
    };
    match (leaf, subleaf) {
        (0, _) => Leaf {
            eax: 0x20,
            ebx: u32::from_le_bytes(*b"Auth"),
            ecx: u32::from_le_bytes(*b"cAMD"),
            edx: u32::from_le_bytes(*b"enti"),
        },
        (1, _) => Leaf {
            eax: 0x80_0f12,
            ebx: 0x3f10_0800,
            ..ones
        },
        (7, 0) => Leaf { eax: 2, ..ones },
        (0xd, 0) => ones,
        (0xd, 2) => Leaf {
            eax: 256,
            ebx: 576,
            ecx: 0,
            edx: 0,
        },
        (0xd, 5) => Leaf {
            eax: 64,
            ebx: 832,
            ecx: 0,
            edx: 0,
        },
        (0xd, 6) => Leaf {
            eax: 512,
            ebx: 896,
            ecx: 0,
            edx: 0,
        },
        (0xd, 7) => Leaf {
            eax: 1024,
            ebx: 1408,
            ecx: 0,
            edx: 0,
        },
        (0xd, 9) => Leaf {
            eax: 8,
            ebx: 2432,
            ecx: 2,
            edx: 0,
        },
        (0x8000_0000, _) => Leaf {
            eax: 0x8000_0023,
            ebx: u32::from_le_bytes(*b"Auth"),
            ..Leaf::default()
        },
        (0x8000_0008, _) => Leaf {
            eax: 0x30_3930,
            ..ones
        },
        (0x8000_001d, 0..4) => Leaf {
            eax: [0x121, 0x122, 0x143, 0x163][subleaf as usize] | 7 << 14,
            ebx: 1,
            ecx: 2,
            edx: 3,
        },
        (0x8000_001d, _) => Leaf::default(),
        _ => ones,
    }
}

/// The same with Intel's name and maximum.
fn full_intel(leaf: u32, subleaf: u32) -> Leaf {
    match (leaf, subleaf) {
        (0, _) => Leaf {
            eax: 0x1f,
            ebx: u32::from_le_bytes(*b"Genu"),
            ecx: u32::from_le_bytes(*b"ntel"),
            edx: u32::from_le_bytes(*b"ineI"),
        },
        (4, 0..4) => full_amd(0x8000_001d, subleaf),
        (4, _) => Leaf::default(),
        (0x8000_0000, _) => Leaf {
            eax: 0x8000_0008,
            ..Leaf::default()
        },
        _ => full_amd(leaf, subleaf),
    }
}

fn view(vcpu: u32) -> View {
    View {
        vcpu,
        cr4: 0,
        xcr0: 1,
    }
}

#[test]
fn what_is_not_allowed_is_hidden() {
    let policy = Policy::new(&full_amd, CONFIGURATION);
    let ask = |leaf| policy.query(view(1), leaf, 0);
    assert_eq!(ask(0).eax, 0xd);
    let one = ask(1);
    for hidden in [2, 3, 4, 5, 6, 7, 8, 10, 11, 15, 18, 27] {
        assert_eq!(one.ecx >> hidden & 1, 0, "leaf 1 ECX bit {hidden}");
    }
    assert_eq!(one.ecx >> 31, 1, "hypervisor present");
    let seven = ask(7);
    for hidden in [1, 2, 4, 11, 12, 14, 15, 22, 25] {
        assert_eq!(seven.ebx >> hidden & 1, 0, "leaf 7 EBX bit {hidden}");
    }
    assert_eq!(seven.ecx >> 16 & 1, 0, "five-level paging");
    assert_eq!(seven.edx & 0xfc00_0000, 0, "speculation controls");
    assert_eq!(seven.eax, 1);
    let extended = ask(0x8000_0001);
    for hidden in [2, 3, 9, 10, 12, 13, 15, 19, 23, 24, 26, 27, 28] {
        assert_eq!(extended.ecx >> hidden & 1, 0, "leaf 0x8000_0001 ECX bit {hidden}");
    }
    for empty in [
        3,
        5,
        0xa,
        0xc,
        0xe,
        0x14,
        0x4000_0100,
        0x8000_000a,
        0x8000_001b,
        0x8000_001f,
        0x8000_0022,
        u32::MAX,
    ] {
        assert_eq!(ask(empty), Leaf::default(), "leaf {empty:#x}");
    }
    assert_eq!(
        ask(0x8000_0007),
        Leaf {
            edx: 1 << 8,
            ..Leaf::default()
        }
    );
    assert_eq!(
        ask(0x8000_0008).eax,
        0x3030,
        "48 bits of both; no guest-physical width"
    );
}

#[test]
fn xen_is_recognised() {
    let policy = Policy::new(&full_amd, CONFIGURATION);
    let ask = |leaf, subleaf| policy.query(view(3), leaf, subleaf);
    let signature = ask(0x4000_0000, 0);
    let name: Vec<u8> = [signature.ebx, signature.ecx, signature.edx]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    assert_eq!(name, b"XenVMMXenVMM");
    assert!(signature.eax >= 0x4000_0002);
    assert_eq!(ask(0x4000_0001, 0).eax, 0x0004_0011);
    assert_eq!(
        ask(0x4000_0002, 0),
        Leaf {
            eax: 1,
            ebx: 0x4000_0000,
            ecx: 0,
            edx: 0
        }
    );
    assert_eq!(
        ask(0x4000_0003, 0),
        Leaf {
            eax: 6,
            ebx: 2,
            ecx: 2_000_000,
            edx: 0
        }
    );
    assert_eq!(
        ask(0x4000_0003, 1),
        Leaf {
            eax: 0,
            ebx: 0,
            ecx: 1 << 31,
            edx: 0
        }
    );
    assert_eq!(ask(0x4000_0003, 2).eax, 2_000_000);
    assert_eq!(
        ask(0x4000_0004, 0),
        Leaf {
            eax: 0x18,
            ebx: 3,
            ecx: 7,
            edx: 0
        }
    );
    assert_eq!(ask(0x4000_0005, 0), Leaf::default());
}

#[test]
fn every_vcpu_has_its_place() {
    for host in [full_amd, full_intel] {
        let policy = Policy::new(
            &host,
            Configuration {
                vcpus: 3,
                ..CONFIGURATION
            },
        );
        for vcpu in 0..3 {
            let ask = |leaf, subleaf| policy.query(view(vcpu), leaf, subleaf);
            assert_eq!(ask(1, 0).ebx, 0x0003_0800 | vcpu << 24);
            assert_eq!(ask(1, 0).edx >> 28 & 1, 1);
            assert_eq!(
                ask(0xb, 0),
                Leaf {
                    eax: 0,
                    ebx: 1,
                    ecx: 0x100,
                    edx: vcpu
                }
            );
            assert_eq!(
                ask(0xb, 1),
                Leaf {
                    eax: 2,
                    ebx: 3,
                    ecx: 0x201,
                    edx: vcpu
                }
            );
            assert_eq!(
                ask(0xb, 2),
                Leaf {
                    eax: 0,
                    ebx: 0,
                    ecx: 2,
                    edx: vcpu
                }
            );
        }
    }
    let amd = Policy::new(
        &full_amd,
        Configuration {
            vcpus: 3,
            ..CONFIGURATION
        },
    );
    assert_eq!(amd.query(view(2), 0x8000_0008, 0).ecx, 0x2002);
    assert_eq!(
        amd.query(view(2), 0x8000_001e, 0),
        Leaf {
            eax: 2,
            ebx: 2,
            ecx: 0,
            edx: 0
        }
    );
    let shared: Vec<u32> = (0..5)
        .map(|cache| amd.query(view(0), 0x8000_001d, cache).eax >> 14)
        .collect();
    assert_eq!(shared, [0, 0, 0, 3, 0]);
    let intel = Policy::new(
        &full_intel,
        Configuration {
            vcpus: 3,
            ..CONFIGURATION
        },
    );
    assert_eq!(intel.query(view(2), 4, 3).eax, 0x163 | 3 << 14 | 3 << 26);
    assert_eq!(intel.query(view(2), 4, 4), Leaf::default());
    assert_eq!(intel.query(view(2), 0x8000_001e, 0), Leaf::default());
    let single = Policy::new(
        &full_amd,
        Configuration {
            vcpus: 1,
            ..CONFIGURATION
        },
    );
    assert_eq!(single.query(view(0), 1, 0).edx >> 28 & 1, 0);
    assert_eq!(single.query(view(0), 0x8000_0001, 0).ecx & 2, 0);
}

#[test]
fn extended_state_is_consistent() {
    let policy = Policy::new(&full_amd, CONFIGURATION);
    assert_eq!(policy.allowed_xcr0(), 0x2e7);
    let ask = |subleaf, xcr0| policy.query(View { xcr0, ..view(0) }, 0xd, subleaf);
    assert_eq!(
        ask(0, 1),
        Leaf {
            eax: 0x2e7,
            ebx: 576,
            ecx: 2440,
            edx: 0
        }
    );
    assert_eq!(ask(0, 7).ebx, 832);
    assert_eq!(ask(0, 0x207).ebx, 2440);
    assert_eq!(
        ask(1, 0x207),
        Leaf {
            eax: 7,
            ebx: 576 + 256 + 8,
            ecx: 0,
            edx: 0
        }
    );
    assert_eq!(
        ask(2, 7),
        Leaf {
            eax: 256,
            ebx: 576,
            ecx: 0,
            edx: 0
        }
    );
    assert_eq!(ask(3, 7), Leaf::default());
    for (value, valid) in [
        (0, false),
        (1, true),
        (3, true),
        (5, false),
        (7, true),
        (0x27, false),
        (0xe7, true),
        (0xe3, false),
        (0x203, true),
        (0x40007, false),
        (u64::MAX, false),
    ] {
        assert_eq!(policy.xcr0_valid(value), valid, "{value:#x}");
    }
    let on = policy.query(
        View {
            cr4: 1 << 18 | 1 << 22,
            ..view(0)
        },
        1,
        0,
    );
    assert_eq!(on.ecx >> 26 & 3, 3);
    assert_eq!(
        policy
            .query(
                View {
                    cr4: 1 << 22,
                    ..view(0)
                },
                7,
                0
            )
            .ecx
            >> 3
            & 3,
        3
    );
}

#[test]
fn instructions_go_with_their_state() {
    let with = |extended_features| {
        let policy = Policy::new(
            &full_amd,
            Configuration {
                extended_features,
                ..CONFIGURATION
            },
        );
        (
            policy.query(view(0), 1, 0).ecx,
            policy.query(view(0), 7, 0),
            policy.query(view(0), 0x8000_0001, 0).ecx,
        )
    };
    let (ecx, seven, extended) = with(7);
    assert_eq!(
        (
            ecx >> 28 & 1,
            seven.ebx >> 5 & 1,
            seven.ebx >> 16 & 1,
            seven.ecx >> 3 & 1,
            extended >> 11 & 1
        ),
        (1, 1, 0, 0, 1)
    );
    let (ecx, seven, extended) = with(3);
    assert_eq!(
        (
            ecx >> 26 & 1,
            ecx >> 28 & 1,
            seven.ebx >> 5 & 1,
            seven.ecx >> 9 & 3,
            extended >> 11 & 1
        ),
        (1, 0, 0, 0, 0)
    );
    let (ecx, ..) = with(0);
    assert_eq!(ecx & (1 << 12 | 1 << 26 | 1 << 28 | 1 << 29), 0);
    let policy = Policy::new(
        &full_amd,
        Configuration {
            extended_features: 0,
            ..CONFIGURATION
        },
    );
    assert_eq!(policy.allowed_xcr0(), 0);
    assert!(!policy.xcr0_valid(1));
    assert_eq!(policy.query(view(0), 0xd, 0), Leaf::default());
}

proptest! {
    /// Whatever the host says, no forbidden bit shows and nothing panics.
    #[test]
    fn any_host_is_survived(
        words in prop::array::uniform4(any::<u32>()),
        maxima: (u32, u32),
        configuration: (u16, u32, u32, u64, bool),
        questions in prop::collection::vec((0usize..6, 0u32..0x30, 0u32..70, any::<u32>(), any::<u64>(), any::<u64>()), 1..50),
    ) {
        let host = |leaf: u32, subleaf: u32| {
            let [eax, ebx, ecx, edx] = words.map(|word| word.rotate_left(leaf.wrapping_add(subleaf) & 31));
            match leaf {
                0 => Leaf { eax: maxima.0, ebx, ecx, edx },
                0x8000_0000 => Leaf { eax: maxima.1, ebx, ecx, edx },
                _ => Leaf { eax, ebx, ecx, edx },
            }
        };
        let (domain, vcpus, tsc_khz, extended_features, iommu_mappings) = configuration;
        let policy = Policy::new(&host, Configuration { domain, vcpus, tsc_khz, extended_features, iommu_mappings });
        for (range, leaf, subleaf, vcpu, cr4, xcr0) in questions {
            let leaf = leaf.wrapping_add([0, 0x4000_0000, 0x8000_0000, 0x4000_0100, 0xffff_fff0, 0x20][range]);
            policy.query(View { vcpu, cr4, xcr0 }, leaf, subleaf);
        }
        let hidden = policy.query(View::default(), 1, 0).ecx & (1 << 3 | 1 << 5);
        prop_assert_eq!(hidden, 0);
        prop_assert_eq!(policy.allowed_xcr0() & !extended_features, 0);
    }
}

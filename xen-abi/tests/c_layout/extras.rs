//! What is neither a constant nor a whole structure: tables, sizes of ring slots, heads of structures with a tail.

use std::mem::offset_of;

use xen_abi::io::ring::{RING_HEADER_SIZE, SringHeader, ring_size};
use xen_abi::io::xenbus::XenbusState;
use xen_abi::io::{blkif, fbif, kbdif, netif, xs_wire};
use xen_abi::{memory, version, xen};

use super::Claim;

/// Structures that the headers do not define, or that are checked below.
pub(crate) const STRUCTURES_WITHOUT_C: &[&str] = &["E820Entry", "SringHeader", "UnknownXenbusState"];

/// The claims, by subject.
pub(crate) fn claims() -> Vec<Claim> {
    [rings(), event_offsets(), xenbus_states(), xsd_errors(), heads()]
        .into_iter()
        .flatten()
        .collect()
}

fn rings() -> Vec<Claim> {
    vec![
        Claim::number(
            "RING_HEADER_SIZE",
            "offsetof(struct blkif_sring, ring)",
            RING_HEADER_SIZE,
        ),
        Claim::number(
            "req_prod",
            "offsetof(struct blkif_sring, req_prod)",
            SringHeader::REQ_PROD_OFFSET,
        ),
        Claim::number(
            "req_event",
            "offsetof(struct blkif_sring, req_event)",
            SringHeader::REQ_EVENT_OFFSET,
        ),
        Claim::number(
            "rsp_prod",
            "offsetof(struct blkif_sring, rsp_prod)",
            SringHeader::RSP_PROD_OFFSET,
        ),
        Claim::number(
            "rsp_event",
            "offsetof(struct blkif_sring, rsp_event)",
            SringHeader::RSP_EVENT_OFFSET,
        ),
        Claim::number(
            "pvt",
            "offsetof(struct blkif_sring, pvt)",
            offset_of!(SringHeader, pvt),
        ),
        Claim::number(
            "blkif slot",
            "sizeof(union blkif_sring_entry)",
            blkif::BLKIF_RING_SLOT_SIZE,
        ),
        Claim::number(
            "netif_tx slot",
            "sizeof(union netif_tx_sring_entry)",
            netif::NETIF_TX_RING_SLOT_SIZE,
        ),
        Claim::number(
            "netif_rx slot",
            "sizeof(union netif_rx_sring_entry)",
            netif::NETIF_RX_RING_SLOT_SIZE,
        ),
        Claim::number(
            "netif_ctrl slot",
            "sizeof(union netif_ctrl_sring_entry)",
            netif::NETIF_CTRL_RING_SLOT_SIZE,
        ),
        Claim::number(
            "blkif slots",
            "__CONST_RING_SIZE(blkif, 4096)",
            ring_size(4096, blkif::BLKIF_RING_SLOT_SIZE),
        ),
        Claim::number(
            "blkif slots in 16 pages",
            "__CONST_RING_SIZE(blkif, 65536)",
            ring_size(65536, blkif::BLKIF_RING_SLOT_SIZE),
        ),
        Claim::number(
            "netif_tx slots",
            "__CONST_RING_SIZE(netif_tx, 4096)",
            ring_size(4096, netif::NETIF_TX_RING_SLOT_SIZE),
        ),
    ]
}

fn event_offsets() -> Vec<Claim> {
    [0u32, 1, 24, 25, 26, 50, 51, 52, 1000]
        .into_iter()
        .flat_map(|index| {
            [
                ("XENFB_IN_RING_REF", fbif::in_event_offset(index)),
                ("XENFB_OUT_RING_REF", fbif::out_event_offset(index)),
                ("XENKBD_IN_RING_REF", kbdif::in_event_offset(index)),
                ("XENKBD_OUT_RING_REF", kbdif::out_event_offset(index)),
            ]
            .map(|(reference, offset)| {
                let c = format!("(uintptr_t)&{reference}((char *)0, {index})");
                Claim::number(format!("{reference} {index}"), c, offset)
            })
        })
        .collect()
}

fn xenbus_states() -> Vec<Claim> {
    (0..9)
        .map(|number| {
            let state = XenbusState::try_from(number).expect("there are nine states");
            Claim::number(format!("{state:?}"), format!("XenbusState{state:?}"), number)
        })
        .collect()
}

fn xsd_errors() -> Vec<Claim> {
    let table = xs_wire::XSD_ERRORS;
    let mut claims = vec![
        Claim::number(
            "XSD_ERRORS",
            "sizeof(xsd_errors) / sizeof(xsd_errors[0])",
            table.len(),
        ),
        Claim::number("XS_DEBUG", "XS_DEBUG", xs_wire::XS_DEBUG),
    ];
    for (index, &(number, name)) in table.iter().enumerate() {
        claims.push(Claim::number(name, format!("xsd_errors[{index}].errnum"), number));
        claims.push(Claim::text(name, format!("xsd_errors[{index}].errstring"), name));
    }
    claims
}

fn heads() -> Vec<Claim> {
    vec![
        Claim::number(
            "build id",
            "offsetof(struct xen_build_id, buf)",
            size_of::<version::BuildIdHeader>(),
        ),
        Claim::number(
            "XEN_COMMANDLINE_LEN",
            "sizeof(xen_commandline_t)",
            version::XEN_COMMANDLINE_LEN,
        ),
        Claim::number("PAGE_SIZE", "1 << XEN_PAGE_SHIFT", xen::PAGE_SIZE),
        Claim::number("PAGE_SHIFT", "XEN_PAGE_SHIFT", xen::PAGE_SHIFT),
        Claim::number(
            "XENFB_PD_LEN",
            "sizeof(((struct xenfb_page *)0)->pd) / 8",
            fbif::XENFB_PD_LEN,
        ),
        Claim::number(
            "address bits",
            "XENMEMF_address_bits(32)",
            memory::xenmemf_address_bits(32),
        ),
        Claim::number("node", "XENMEMF_node(3)", memory::xenmemf_node(3)),
        Claim::number(
            "get address bits",
            "XENMEMF_get_address_bits(0x420)",
            memory::xenmemf_get_address_bits(0x420),
        ),
        Claim::number(
            "get node",
            "XENMEMF_get_node(0x420)",
            memory::xenmemf_get_node(0x420),
        ),
        Claim::number(
            "leaf",
            "XEN_CPUID_LEAF(4)",
            xen_abi::arch_x86::cpuid::xen_cpuid_leaf(4),
        ),
    ]
}

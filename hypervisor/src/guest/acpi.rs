//! The ACPI tables of a PVH guest: RSDP, XSDT, a hardware-reduced FADT, a MADT with its local APICs, and a DSDT with its processors (ACPI 6.4,
//! chapter 5).
//!
//! There is no I/O APIC, no PIC, no fixed hardware and no embedded controller to describe. Linux finds its processors in the MADT, and takes the
//! ACPI id that it reads there for Xen's vCPU number.

use alloc::vec::Vec;

use crate::memory::GuestAddress;

/// Tables as bytes, to be copied to where they were laid out for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Where the root pointer is.
    pub rsdp: GuestAddress,
}

/// Local APIC ids from here on need a wide MADT entry: 255 is everyone in the narrow one.
const FIRST_WIDE_ID: u32 = 255;
/// Where every local APIC is.
const LOCAL_APIC: u32 = 0xfee0_0000;

/// Lays out the tables of a guest with `vcpus` vCPUs at `at`, a multiple of 16. vCPU `i` has the local APIC id and the ACPI id `i`.
pub fn build(at: GuestAddress, vcpus: u32) -> Tables {
    let mut tables = Tables {
        bytes: alloc::vec![0; 48],
        rsdp: at,
    };
    let dsdt = tables.append(at, dsdt(vcpus));
    let fadt = tables.append(at, fadt(dsdt));
    let madt = tables.append(at, madt(vcpus));
    let xsdt = tables.append(at, xsdt(&[fadt, madt]));
    tables.bytes[..36].copy_from_slice(&rsdp(xsdt));
    tables
}

impl Tables {
    /// Puts a table behind the others, at a multiple of 16; answers its address.
    fn append(&mut self, at: GuestAddress, table: Vec<u8>) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(16), 0);
        let address = at.0.wrapping_add(self.bytes.len() as u64);
        self.bytes.extend(table);
        address
    }
}

/// What makes the sum of all `bytes` zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

/// A table: the standard header around `body`.
fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut table = Vec::with_capacity(36 + body.len());
    table.extend(signature);
    table.extend((36 + body.len() as u32).to_le_bytes());
    table.extend([revision, 0]);
    table.extend(b"ATOLL ");
    table.extend(b"ATOLLPVH");
    table.extend(1u32.to_le_bytes()); // OEM revision
    table.extend(b"ATOL");
    table.extend(1u32.to_le_bytes()); // Creator revision
    table.extend(body);
    table[9] = checksum(&table);
    table
}

fn rsdp(xsdt: u64) -> [u8; 36] {
    let mut rsdp = [0; 36];
    rsdp[..8].copy_from_slice(b"RSD PTR ");
    rsdp[9..15].copy_from_slice(b"ATOLL ");
    rsdp[15] = 2; // Revision
    rsdp[8] = checksum(&rsdp[..20]);
    rsdp[20..24].copy_from_slice(&36u32.to_le_bytes());
    rsdp[24..32].copy_from_slice(&xsdt.to_le_bytes());
    rsdp[32] = checksum(&rsdp);
    rsdp
}

fn xsdt(tables: &[u64]) -> Vec<u8> {
    let body: Vec<u8> = tables.iter().flat_map(|address| address.to_le_bytes()).collect();
    table(b"XSDT", 1, &body)
}

/// Flags of the FADT: WBINVD works; C1 on every processor; power and sleep buttons and the RTC's wake are not fixed hardware; physical destination
/// mode; hardware-reduced.
const FADT_FLAGS: u32 = 1 << 0 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 19 | 1 << 20;
/// Boot architecture flags: no VGA, no ASPM control, no CMOS clock (and no legacy devices, no 8042, by bits that are clear).
const BOOT_ARCHITECTURE: u16 = 1 << 2 | 1 << 4 | 1 << 5;

fn fadt(dsdt: u64) -> Vec<u8> {
    // Offsets here are those of the specification, less the header's 36 bytes.
    let mut body = [0; 276 - 36];
    let mut put = |offset: usize, bytes: &[u8]| body[offset - 36..][..bytes.len()].copy_from_slice(bytes);
    if let Ok(low) = u32::try_from(dsdt) {
        put(40, &low.to_le_bytes());
    }
    put(96, &0x0fffu16.to_le_bytes()); // No C2
    put(98, &0x0fffu16.to_le_bytes()); // No C3
    put(109, &BOOT_ARCHITECTURE.to_le_bytes());
    put(112, &FADT_FLAGS.to_le_bytes());
    put(131, &[4]); // Minor version
    put(140, &dsdt.to_le_bytes());
    table(b"FACP", 6, &body)
}

fn madt(vcpus: u32) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(LOCAL_APIC.to_le_bytes());
    body.extend(0u32.to_le_bytes()); // Flags: no 8259
    for id in 0..vcpus {
        if id < FIRST_WIDE_ID {
            body.extend([0, 8, id as u8, id as u8]);
            body.extend(1u32.to_le_bytes()); // Enabled
        } else {
            body.extend([9, 16, 0, 0]);
            body.extend(id.to_le_bytes());
            body.extend(1u32.to_le_bytes());
            body.extend(id.to_le_bytes());
        }
    }
    table(b"APIC", 5, &body)
}

/// One processor device a vCPU below `\_SB`.
fn dsdt(vcpus: u32) -> Vec<u8> {
    let mut scope = b"\\_SB_".to_vec();
    for id in 0..vcpus.min(0x1000) {
        let mut device = Vec::new();
        device.push(b'C');
        device.extend([id >> 8, id >> 4, id].map(|digit| b"0123456789ABCDEF"[digit as usize & 15]));
        device.extend(b"\x08_HID\x0dACPI0007\0");
        device.extend(b"\x08_UID\x0b");
        device.extend((id as u16).to_le_bytes());
        scope.extend([0x5b, 0x82]);
        package(&mut scope, &device);
    }
    let mut code = alloc::vec![0x10];
    package(&mut code, &scope);
    table(b"DSDT", 2, &code)
}

/// Appends `content` with its length in front, as AML encodes it (ACPI 6.4, 20.2.4): the length counts itself.
fn package(code: &mut Vec<u8>, content: &[u8]) {
    let length = content.len();
    if length + 1 < 1 << 6 {
        code.push(length as u8 + 1);
    } else {
        let extra = if length + 2 < 1 << 12 { 1 } else { 2 };
        let total = length + 1 + extra;
        code.push((extra << 6 | total & 15) as u8);
        code.extend((0..extra).map(|byte| (total >> (4 + 8 * byte)) as u8));
    }
    code.extend(content);
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 0xbfff_0000;

    fn field<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
        bytes[offset..][..N].try_into().unwrap()
    }

    /// The table at a guest address, its checksum verified.
    fn table_at(tables: &Tables, address: u64) -> &[u8] {
        assert_eq!(address % 16, 0);
        let bytes = &tables.bytes[(address - AT) as usize..];
        let bytes = &bytes[..u32::from_le_bytes(field(bytes, 4)) as usize];
        assert_eq!(checksum(bytes), 0);
        bytes
    }

    /// FADT, MADT and DSDT, found from the root as a guest finds them.
    fn parse(tables: &Tables) -> [&[u8]; 3] {
        assert_eq!(tables.rsdp.0, AT);
        let rsdp = &tables.bytes[..36];
        assert_eq!(&rsdp[..8], b"RSD PTR ");
        assert_eq!(checksum(&rsdp[..20]), 0);
        assert_eq!(checksum(rsdp), 0);
        let xsdt = table_at(tables, u64::from_le_bytes(field(rsdp, 24)));
        assert_eq!(&xsdt[..4], b"XSDT");
        assert_eq!(xsdt.len(), 36 + 2 * 8);
        let fadt = table_at(tables, u64::from_le_bytes(field(xsdt, 36)));
        let madt = table_at(tables, u64::from_le_bytes(field(xsdt, 44)));
        assert_eq!((&fadt[..4], &madt[..4]), (&b"FACP"[..], &b"APIC"[..]));
        let dsdt = table_at(tables, u64::from_le_bytes(field(fadt, 140)));
        assert_eq!(&dsdt[..4], b"DSDT");
        assert_eq!(
            u64::from(u32::from_le_bytes(field(fadt, 40))),
            u64::from_le_bytes(field(fadt, 140))
        );
        [fadt, madt, dsdt]
    }

    #[test]
    fn the_fadt_is_hardware_reduced() {
        let tables = build(GuestAddress(AT), 1);
        let [fadt, ..] = parse(&tables);
        assert_eq!(fadt.len(), 276);
        assert_eq!(u32::from_le_bytes(field(fadt, 112)) >> 20 & 1, 1);
        assert!(fadt[148..].iter().all(|byte| *byte == 0), "no fixed hardware");
    }

    #[test]
    fn every_processor_is_listed_once() {
        for vcpus in [1, 2, 15, 254, 255, 256, 300] {
            let tables = build(GuestAddress(AT), vcpus);
            let [_, madt, _] = parse(&tables);
            let mut entries = &madt[44..];
            for id in 0..vcpus {
                let (kind, length) = (entries[0], entries[1] as usize);
                match kind {
                    0 => assert_eq!((length, &entries[2..4], id < 255), (8, &[id as u8; 2][..], true)),
                    9 => assert_eq!(
                        (
                            length,
                            u32::from_le_bytes(field(entries, 4)),
                            u32::from_le_bytes(field(entries, 12))
                        ),
                        (16, id, id)
                    ),
                    other => panic!("entry of type {other}"),
                }
                entries = &entries[length..];
            }
            assert!(entries.is_empty());
        }
    }

    /// Reads a package's length; answers its content and what follows.
    fn split_package(code: &[u8]) -> (&[u8], &[u8]) {
        let extra = (code[0] >> 6) as usize;
        let mut length = if extra == 0 {
            code[0] as usize & 63
        } else {
            code[0] as usize & 15
        };
        for byte in 0..extra {
            length |= (code[1 + byte] as usize) << (4 + 8 * byte);
        }
        (&code[1 + extra..length], &code[length..])
    }

    #[test]
    fn the_code_of_the_dsdt_is_well_formed() {
        for vcpus in [0, 1, 2, 3, 150, 300, 0x1000] {
            let tables = build(GuestAddress(AT), vcpus);
            let [_, _, dsdt] = parse(&tables);
            assert_eq!(dsdt[36], 0x10);
            let (scope, rest) = split_package(&dsdt[37..]);
            assert!(rest.is_empty());
            let mut devices = scope.strip_prefix(b"\\_SB_").unwrap();
            for id in 0..vcpus {
                let (device, rest) = split_package(devices.strip_prefix(&[0x5b, 0x82]).unwrap());
                assert_eq!(&device[..4], format!("C{id:03X}").as_bytes());
                assert_eq!(u32::from(u16::from_le_bytes(field(device, device.len() - 2))), id);
                devices = rest;
            }
            assert!(devices.is_empty());
        }
    }
}

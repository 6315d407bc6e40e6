//! The permission maps that say which I/O ports and model-specific registers a guest reaches without an exit (APM vol. 2, 15.10 and 15.11).
//! Everything is intercepted but what is listed here or given to the domain.

/// Bytes of an I/O permission map: a bit a port, and room for an access that begins at the last one.
pub const PORT_MAP_BYTES: usize = 3 * 4096;
/// Bytes of an MSR permission map: two bits a register.
pub const MSR_MAP_BYTES: usize = 2 * 4096;

/// Registers that VMLOAD, VMSAVE and VMRUN switch, so a guest may have its own way with them.
const OWN_MSRS: [u32; 10] = [
    0x0174,      // SYSENTER_CS
    0x0175,      // SYSENTER_ESP
    0x0176,      // SYSENTER_EIP
    0xc000_0081, // STAR
    0xc000_0082, // LSTAR
    0xc000_0083, // CSTAR
    0xc000_0084, // SFMASK
    0xc000_0100, // FS_BASE
    0xc000_0101, // GS_BASE
    0xc000_0102, // KERNEL_GS_BASE
];

/// The time-stamp counter; the offset of the VMCB applies to RDMSR too.
const TIME_STAMP_COUNTER: u32 = 0x10;

/// Lets the guest use `count` ports from `first`.
pub fn allow_ports(map: &mut [u8; PORT_MAP_BYTES], first: u16, count: u16) {
    for port in usize::from(first)..usize::from(first) + usize::from(count) {
        map[port / 8] &= !(1 << (port % 8));
    }
}

/// The MSR map of every guest.
pub fn msr_map() -> [u8; MSR_MAP_BYTES] {
    let mut map = [0xff; MSR_MAP_BYTES];
    for msr in OWN_MSRS {
        allow_msr(&mut map, msr, true);
    }
    allow_msr(&mut map, TIME_STAMP_COUNTER, false);
    map
}

fn allow_msr(map: &mut [u8; MSR_MAP_BYTES], msr: u32, write: bool) {
    let base = match msr {
        0..=0x1fff => 0,
        0xc000_0000..=0xc000_1fff => 0x800,
        _ => 0x1000,
    };
    let bit = (msr as usize & 0x1fff) * 2;
    let mask = if write { 0b11 } else { 0b01 };
    map[base + bit / 8] &= !(mask << (bit % 8));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_given_ports_are_open() {
        let mut map = [0xff; PORT_MAP_BYTES];
        allow_ports(&mut map, 0x3f8, 8);
        let open: Vec<usize> = (0..PORT_MAP_BYTES * 8)
            .filter(|port| map[port / 8] >> (port % 8) & 1 == 0)
            .collect();
        assert_eq!(open, (0x3f8..0x400).collect::<Vec<_>>());
        allow_ports(&mut map, 0xffff, 8);
        assert_eq!(map[0x1fff], 0x7f);
    }

    #[test]
    fn only_switched_registers_are_open() {
        let map = msr_map();
        let open: usize = map.iter().map(|byte| byte.count_zeros() as usize).sum();
        assert_eq!(open, OWN_MSRS.len() * 2 + 1);
        assert_eq!(map[4], 0xfe);
        assert_eq!(map[0x800 + 0x100 / 4], 0b1100_0000);
        // EFER stays the hypervisor's.
        assert_eq!(map[0x800 + 0x20], 0b0000_0011);
    }
}

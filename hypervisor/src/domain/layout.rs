//! Where the hypervisor puts what it prepares in a domain's memory.
//!
//! Below 1 MiB PCs have firmware between 0xa0000 and 0xfffff, so kernels keep out of it; our guests have RAM there, which serves for what is
//! read at the start. The special pages lie below 4 GiB, where no RAM is.

use crate::memory::{GuestAddress, PAGE_SIZE};

/// `hvm_start_info` and what it points to, up to [`ACPI`].
pub const START_INFO: GuestAddress = GuestAddress(0xa_0000);
/// The ACPI tables, up to [`IMAGE`].
pub const ACPI: GuestAddress = GuestAddress(0xe_0000);
/// Kernels are linked from here on.
pub const IMAGE: GuestAddress = GuestAddress(0x10_0000);
/// The keep region, of at most [`manifest::MOST_KEEP`] bytes: where PCs have their local APICs and no device its registers.
pub const KEEP: GuestAddress = GuestAddress(0xfef0_0000);
/// The xenstore ring.
pub const STORE_PAGE: GuestAddress = GuestAddress(0xfeff_d000);
/// The console ring.
pub const CONSOLE_PAGE: GuestAddress = GuestAddress(0xfeff_e000);
/// The register page of the local APICs, which is no memory.
pub const LOCAL_APIC: GuestAddress = GuestAddress(0xfee0_0000);

/// Where modules of these lengths go: at the top of the RAM that ends at `ram_end`, each from a page boundary, in order; `None` if they
/// would reach below `floor`.
pub fn modules(lengths: &[u64], floor: u64, ram_end: u64) -> Option<alloc::vec::Vec<GuestAddress>> {
    let total = lengths.iter().try_fold(0u64, |sum, length| {
        sum.checked_add(length.checked_next_multiple_of(PAGE_SIZE)?)
    })?;
    let mut at = (ram_end & !(PAGE_SIZE - 1))
        .checked_sub(total)
        .filter(|start| *start >= floor)?;
    Some(
        lengths
            .iter()
            .map(|length| {
                let here = at;
                at += length.next_multiple_of(PAGE_SIZE);
                GuestAddress(here)
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_lie_at_the_top_and_off_the_kernel() {
        assert_eq!(
            modules(&[5, 0x1000, 0x1001], 0x10_0000, 0x80_0800),
            Some(vec![
                GuestAddress(0x7f_c000),
                GuestAddress(0x7f_d000),
                GuestAddress(0x7f_e000)
            ])
        );
        assert_eq!(modules(&[0x1001], 0x7f_f000, 0x80_0000), None);
        assert_eq!(modules(&[u64::MAX], 0, 0x80_0000), None);
        assert_eq!(modules(&[], 0x90_0000, 0x80_0000), None);
        assert_eq!(modules(&[], 0x10_0000, 0x80_0000), Some(vec![]));
    }
}

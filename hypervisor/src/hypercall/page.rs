//! The hypercall page: what the hypervisor writes into a page of the guest's choice when it asks by the MSR that CPUID names.

use xen_abi::xen::__HYPERVISOR_iret;

/// Bytes of the page.
pub const PAGE_LENGTH: usize = 4096;

/// Bytes of a stub.
const STUB: usize = 32;

/// The page: a stub for every hypercall number, at 32 times the number, which loads the number and calls. `call` is the
/// processor's instruction for that (VMMCALL `0f 01 d9` or VMCALL `0f 01 c1`). IRET is for paravirtual guests only; its stub raises #UD.
pub fn page(call: [u8; 3]) -> [u8; PAGE_LENGTH] {
    let mut page = [0xcc; PAGE_LENGTH];
    for (number, stub) in page.chunks_exact_mut(STUB).enumerate() {
        if number as u64 == __HYPERVISOR_iret {
            stub[..2].copy_from_slice(&[0x0f, 0x0b]);
        } else {
            stub[0] = 0xb8; // mov eax, number
            stub[1..5].copy_from_slice(&(number as u32).to_le_bytes());
            stub[5..8].copy_from_slice(&call);
            stub[8] = 0xc3; // ret
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stub_loads_its_number_and_calls() {
        let page = page([0x0f, 0x01, 0xd9]);
        assert_eq!(
            page[17 * 32..17 * 32 + 9],
            [0xb8, 17, 0, 0, 0, 0x0f, 0x01, 0xd9, 0xc3]
        );
        assert_eq!(page[127 * 32..127 * 32 + 2], [0xb8, 127]);
        assert_eq!(page[23 * 32..23 * 32 + 3], [0x0f, 0x0b, 0xcc]);
    }
}

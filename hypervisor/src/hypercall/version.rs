//! `HYPERVISOR_xen_version` (`version.h`): guests look here for what they may rely on, so it says what Xen 4.17 says to PVH guests.

use xen_abi::{features::*, version::*};

use super::{
    Answer, Call, Result,
    context::{read, write, write_bytes},
};
use crate::{Hypervisor, domain::VcpuId, errno::Errno};

/// Major and minor number of the Xen version whose ABI this is.
pub const VERSION: (u16, u16) = (4, 17);
const EXTRA: &str = ".0-atoll";
const CAPABILITIES: &str = "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 ";
const FEATURES: [u32; 6] = [
    XENFEAT_writable_page_tables,
    XENFEAT_auto_translated_physmap,
    XENFEAT_hvm_callback_vector,
    XENFEAT_hvm_safe_pvclock,
    XENFEAT_memory_op_vnode_supported,
    XENFEAT_not_direct_mapped,
];

pub(super) fn operation(hv: &mut Hypervisor, caller: VcpuId, call: &mut Call) -> Result {
    let [operation, at, ..] = call.arguments;
    match operation {
        XENVER_version => return Ok(Answer::Done(i64::from(VERSION.0) << 16 | i64::from(VERSION.1))),
        XENVER_pagesize => return Ok(Answer::Done(xen_abi::xen::PAGE_SIZE as i64)),
        XENVER_extraversion => write_bytes(hv, caller, at, &text::<XEN_EXTRAVERSION_LEN>(EXTRA))?,
        XENVER_capabilities => write_bytes(hv, caller, at, &text::<XEN_CAPABILITIES_INFO_LEN>(CAPABILITIES))?,
        XENVER_changeset => write_bytes(hv, caller, at, &text::<XEN_CHANGESET_INFO_LEN>("unavailable"))?,
        XENVER_commandline => write_bytes(hv, caller, at, &text::<XEN_COMMANDLINE_LEN>(""))?,
        XENVER_compile_info => {
            let info = CompileInfo {
                compiler: text("rustc"),
                compile_by: text("atoll"),
                compile_domain: text("atoll"),
                compile_date: text(""),
            };
            write(hv, caller, at, &info)?;
        }
        XENVER_platform_parameters => write(hv, caller, at, &PlatformParameters::default())?,
        XENVER_get_features => {
            let mut info: FeatureInfo = read(hv, caller, at)?;
            info.submap = match info.submap_idx {
                0 => FEATURES.iter().fold(0, |submap, feature| submap | 1 << feature),
                index if index < XENFEAT_NR_SUBMAPS => 0,
                _ => return Err(Errno::INVAL),
            };
            write(hv, caller, at, &info)?;
        }
        // Domains have ids and names here; the id makes the UUID.
        XENVER_guest_handle => write(hv, caller, at, &u128::from(caller.domain.0).to_be_bytes())?,
        XENVER_build_id => return Err(Errno::NOENT),
        _ => return Err(Errno::NOSYS),
    }
    Ok(Answer::OK)
}

/// A text in a field of fixed length, cut so that a NUL ends it.
fn text<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    let length = text.len().min(N - 1);
    field[..length].copy_from_slice(&text.as_bytes()[..length]);
    field
}

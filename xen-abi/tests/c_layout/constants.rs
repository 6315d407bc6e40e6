//! The constants of all modules, which the crate itself keeps in tables.

use super::Claim;

/// Lists the modules by their paths; each has `CONSTANTS`, `STRINGS` or both.
macro_rules! modules {
    (numbers { $($($numbers:ident)::+),* $(,)? } strings { $($($strings:ident)::+),* $(,)? }) => {
        /// The paths of the modules with constants.
        pub(crate) const MODULES: &[&str] = &[
            $(concat!($("::", stringify!($numbers)),+),)*
            $(concat!($("::", stringify!($strings)),+),)*
        ];

        /// A claim for each constant.
        pub(crate) fn claims() -> Vec<Claim> {
            let numbers = [$(xen_abi::$($numbers)::+::CONSTANTS),*].into_iter().flatten();
            let strings = [$(xen_abi::$($strings)::+::STRINGS),*].into_iter().flatten();
            numbers
                .map(|&(name, value)| Claim::number(name, name, value))
                .chain(strings.map(|&(name, value)| Claim::text(name, name, value)))
                .collect()
        }
    };
}

modules! {
    numbers {
        arch_x86::cpuid,
        arch_x86::hvm_start_info,
        callback,
        elfnote,
        errno,
        event_channel,
        features,
        grant_table,
        hvm::hvm_op,
        hvm::hvm_vcpu,
        hvm::params,
        io::blkif,
        io::fbif,
        io::kbdif,
        io::netif,
        io::xs_wire,
        memory,
        physdev,
        sched,
        vcpu,
        version,
        xen,
    }
    strings {
        io::kbdif,
        io::protocols,
        io::xs_wire,
    }
}

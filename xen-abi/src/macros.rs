//! Macros that define groups of constants and record them, so that a test can compare every one with the C headers.

/// Defines public constants in groups of one type and one common doc, and `CONSTANTS`, the table of all of them.
/// At most once in a module.
macro_rules! consts {
    ($($type:ty, $doc:literal { $($(#[$own:meta])* $name:ident = $value:expr),* $(,)? })*) => {
        $($(
            $(#[$own])*
            #[doc = $doc]
            pub const $name: $type = $value;
        )*)*

        /// The name and value of every number that this module takes from its header.
        #[doc(hidden)]
        pub const CONSTANTS: &[(&str, i128)] = &[$($((stringify!($name), $name as i128)),*),*];
    };
}

/// Defines public string constants under one common doc, and `STRINGS`, the table of all of them.
macro_rules! strings {
    ($doc:literal { $($(#[$own:meta])* $name:ident = $value:expr),* $(,)? }) => {
        $(
            $(#[$own])*
            #[doc = $doc]
            pub const $name: &str = $value;
        )*

        /// The name and value of every string that this module takes from its header.
        #[doc(hidden)]
        pub const STRINGS: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}

/// Implements `Default` as all zeroes, for structures with arrays that are too long for the derive.
macro_rules! zeroed_default {
    ($name:ty) => {
        impl Default for $name {
            fn default() -> Self {
                zerocopy::FromZeros::new_zeroed()
            }
        }
    };
}

/// Gives an event slot, a C union, a method per variant that reads it and a conversion from it.
macro_rules! event_variants {
    ($slot:ident { $($(#[$doc:meta])* $method:ident: $variant:ident),* $(,)? }) => {
        impl $slot {
            $(
                $(#[$doc])*
                pub fn $method(&self) -> $variant {
                    const { assert!(size_of::<$variant>() <= size_of::<$slot>()) };
                    $variant::read_from_prefix(self.as_bytes()).map(|(event, _)| event).unwrap_or_default()
                }
            )*
        }

        $(
            impl From<$variant> for $slot {
                fn from(event: $variant) -> Self {
                    let mut slot = Self::default();
                    slot.as_mut_bytes()[..size_of::<$variant>()].copy_from_slice(event.as_bytes());
                    slot
                }
            }
        )*
    };
}

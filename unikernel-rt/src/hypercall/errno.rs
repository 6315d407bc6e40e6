//! Error numbers.

use core::fmt;

/// A refusal of the hypervisor: one of Xen's `XEN_E*` numbers, positive.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

/// Gives numbers their names.
macro_rules! numbers {
    ($($(#[$attribute:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        impl Errno {
            $(#[doc = concat!("`XEN_", stringify!($name), "`: ", $text, ".")] pub const $name: Errno = Errno($number);)*

            /// The number's name and meaning.
            fn texts(self) -> Option<(&'static str, &'static str)> {
                match self {
                    $(Errno::$name => Some((stringify!($name), $text)),)*
                    _ => None,
                }
            }
        }
    };
}

numbers! {
    EPERM = 1, "operation not permitted";
    ENOENT = 2, "no such entry";
    ESRCH = 3, "no such domain";
    EIO = 5, "input or output error";
    ENXIO = 6, "no such device or address";
    E2BIG = 7, "list too long";
    EBADF = 9, "bad handle";
    EAGAIN = 11, "try again";
    ENOMEM = 12, "out of memory";
    EACCES = 13, "access denied";
    EFAULT = 14, "bad address";
    EBUSY = 16, "busy";
    EEXIST = 17, "exists already";
    ENODEV = 19, "no such device";
    EISDIR = 21, "is a directory";
    EINVAL = 22, "invalid argument";
    ENOSPC = 28, "no space left";
    EROFS = 30, "read-only";
    ERANGE = 34, "out of range";
    ENOSYS = 38, "not implemented";
    ENOTEMPTY = 39, "not empty";
    ENODATA = 61, "no data";
    ETIME = 62, "the time has passed";
    EOVERFLOW = 75, "value too large";
    EISCONN = 106, "connected already";
    ENOTCONN = 107, "not connected";
    EOPNOTSUPP = 95, "not supported";
    ETIMEDOUT = 110, "timed out";
}

impl Errno {
    /// Splits a hypercall's answer into a value and an error.
    pub fn check(answer: i64) -> Result<u64, Errno> {
        // Xen's error numbers are small; anything below is a value with the top bit set, which no call of ours returns.
        if answer < 0 {
            Err(Errno(i32::try_from(answer.unsigned_abs()).unwrap_or(i32::MAX)))
        } else {
            Ok(answer as u64)
        }
    }

    /// The number's name, such as `EINVAL`.
    pub fn name(self) -> Option<&'static str> {
        self.texts().map(|(name, _)| name)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.texts() {
            Some((name, text)) => write!(formatter, "{text} ({name})"),
            None => write!(formatter, "error {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl core::error::Error for Errno {}

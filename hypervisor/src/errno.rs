//! Error numbers as hypercalls answer them.

use xen_abi::errno;

/// A number of the public errno.h; a guest sees it negated in `rax`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(i32);

macro_rules! numbers {
    ($($name:ident = $code:ident, $meaning:literal;)*) => {
        impl Errno {
            $(#[doc = $meaning] pub const $name: Self = Self(errno::$code);)*
        }
    };
}

numbers! {
    PERM = XEN_EPERM, "The caller may not do this.";
    NOENT = XEN_ENOENT, "There is no such thing.";
    SRCH = XEN_ESRCH, "There is no such domain.";
    NXIO = XEN_ENXIO, "The place is not to be used.";
    TOO_BIG = XEN_E2BIG, "A list is too long.";
    AGAIN = XEN_EAGAIN, "Not now; try again.";
    NOMEM = XEN_ENOMEM, "Memory is short.";
    FAULT = XEN_EFAULT, "A guest pointer leads nowhere, or to what the guest may not write.";
    BUSY = XEN_EBUSY, "It is in use.";
    EXIST = XEN_EEXIST, "It exists already.";
    NODEV = XEN_ENODEV, "There is no such device, or it is another's.";
    INVAL = XEN_EINVAL, "An argument makes no sense.";
    NOSPC = XEN_ENOSPC, "No number is free.";
    RANGE = XEN_ERANGE, "A number is out of its range.";
    NOSYS = XEN_ENOSYS, "The operation does not exist here.";
    TIME = XEN_ETIME, "The time has passed already.";
    NOTSUP = XEN_EOPNOTSUPP, "The operation is not supported.";
    OVERFLOW = XEN_EOVERFLOW, "A number does not fit.";
    NOBUFS = XEN_ENOBUFS, "The buffer is too small.";
}

impl Errno {
    /// The positive number.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// What a hypercall returns for it: the negated number.
    pub const fn result(self) -> i64 {
        -(self.0 as i64)
    }
}

impl core::fmt::Debug for Errno {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match errno::name(self.result()) {
            Some(name) => formatter.write_str(name),
            None => write!(formatter, "errno {}", self.0),
        }
    }
}

impl core::fmt::Display for Errno {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self, formatter)
    }
}

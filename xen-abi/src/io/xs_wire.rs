//! Xenstore's wire protocol, of `io/xs_wire.h`: message header, types, errors, and the page with its two byte rings.

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::errno::*;

consts! {
    u32, "[`XsdSockmsg::type`](XsdSockmsg)." {
        XS_CONTROL = 0,
        XS_DIRECTORY = 1,
        XS_READ = 2,
        XS_GET_PERMS = 3,
        XS_WATCH = 4,
        XS_UNWATCH = 5,
        XS_TRANSACTION_START = 6,
        XS_TRANSACTION_END = 7,
        XS_INTRODUCE = 8,
        XS_RELEASE = 9,
        XS_GET_DOMAIN_PATH = 10,
        XS_WRITE = 11,
        XS_MKDIR = 12,
        XS_RM = 13,
        XS_SET_PERMS = 14,
        /// From the store: a watched path changed.
        XS_WATCH_EVENT = 15,
        /// From the store: the request failed; the payload is a name of [`XSD_ERRORS`].
        XS_ERROR = 16,
        XS_IS_DOMAIN_INTRODUCED = 17,
        XS_RESUME = 18,
        XS_SET_TARGET = 19,
        XS_RESET_WATCHES = 21,
        XS_DIRECTORY_PART = 22,
        /// Behind the highest.
        XS_TYPE_COUNT = 23,
        /// No type.
        XS_INVALID = 0xffff,
    }

    usize, "Place of a string in the payload of a watch event." {
        XS_WATCH_PATH = 0,
        XS_WATCH_TOKEN = 1,
    }

    u32, "Bytes in either ring of the page." {
        XENSTORE_RING_SIZE = 1024,
    }

    usize, "Limit of a message." {
        /// Bytes in its payload.
        XENSTORE_PAYLOAD_MAX = 4096,
        /// Bytes in an absolute path.
        XENSTORE_ABS_PATH_MAX = 3072,
        /// Bytes in a relative path.
        XENSTORE_REL_PATH_MAX = 2048,
    }

    u32, "Bit of [`XenstoreDomainInterface::server_features`]." {
        XENSTORE_SERVER_FEATURE_RECONNECTION = 1,
        XENSTORE_SERVER_FEATURE_ERROR = 2,
    }

    u32, "[`XenstoreDomainInterface::connection`]." {
        XENSTORE_CONNECTED = 0,
        /// Set by the guest to ask for a fresh connection, cleared by the store when it is there.
        XENSTORE_RECONNECT = 1,
    }

    u32, "[`XenstoreDomainInterface::error`]." {
        XENSTORE_ERROR_NONE = 0,
        XENSTORE_ERROR_COMM = 1,
        XENSTORE_ERROR_RINGIDX = 2,
        XENSTORE_ERROR_PROTO = 3,
    }
}

strings! {
    "Mode of an old form of [`XS_WRITE`]." {
        XS_WRITE_NONE = "NONE",
        XS_WRITE_CREATE = "CREATE",
        XS_WRITE_CREATE_EXCL = "CREATE|EXCL",
    }
}

/// Older name of [`XS_CONTROL`].
pub const XS_DEBUG: u32 = XS_CONTROL;

/// Error numbers and the names by which [`XS_ERROR`] reports them; `xsd_errors` in C.
pub const XSD_ERRORS: &[(i32, &str)] = &[
    (XEN_EINVAL, "EINVAL"),
    (XEN_EACCES, "EACCES"),
    (XEN_EEXIST, "EEXIST"),
    (XEN_EISDIR, "EISDIR"),
    (XEN_ENOENT, "ENOENT"),
    (XEN_ENOMEM, "ENOMEM"),
    (XEN_ENOSPC, "ENOSPC"),
    (XEN_EIO, "EIO"),
    (XEN_ENOTEMPTY, "ENOTEMPTY"),
    (XEN_ENOSYS, "ENOSYS"),
    (XEN_EROFS, "EROFS"),
    (XEN_EBUSY, "EBUSY"),
    (XEN_EAGAIN, "EAGAIN"),
    (XEN_EISCONN, "EISCONN"),
    (XEN_E2BIG, "E2BIG"),
    (XEN_EPERM, "EPERM"),
];

/// The name that the wire uses for an error number, if it has one.
pub fn xsd_error_name(number: i32) -> Option<&'static str> {
    XSD_ERRORS
        .iter()
        .find(|entry| entry.0 == number)
        .map(|entry| entry.1)
}

/// The error number that a name on the wire stands for.
pub fn xsd_error_number(name: &str) -> Option<i32> {
    XSD_ERRORS
        .iter()
        .find(|entry| entry.1 == name)
        .map(|entry| entry.0)
}

/// The header of every message; `len` bytes of payload follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct XsdSockmsg {
    /// `XS_*`.
    pub r#type: u32,
    /// The client's own; comes back with the response. 0 in a watch event.
    pub req_id: u32,
    /// The transaction; 0 for none.
    pub tx_id: u32,
    /// Length of the payload.
    pub len: u32,
}

/// The xenstore page. Producers and consumers only ever grow; a mask by the length gives the place.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct XenstoreDomainInterface {
    /// Requests, from the guest.
    pub req: [u8; XENSTORE_RING_SIZE as usize],
    /// Responses and watch events, to the guest.
    pub rsp: [u8; XENSTORE_RING_SIZE as usize],
    /// How far the store has read.
    pub req_cons: u32,
    /// How far the guest has written.
    pub req_prod: u32,
    /// How far the guest has read.
    pub rsp_cons: u32,
    /// How far the store has written.
    pub rsp_prod: u32,
    /// `XENSTORE_SERVER_FEATURE_*`.
    pub server_features: u32,
    /// [`XENSTORE_CONNECTED`] or [`XENSTORE_RECONNECT`].
    pub connection: u32,
    /// `XENSTORE_ERROR_*`.
    pub error: u32,
}

zeroed_default!(XenstoreDomainInterface);

impl XenstoreDomainInterface {
    /// Byte offset of `req` in the page.
    pub const REQ_OFFSET: usize = offset_of!(Self, req);
    /// Byte offset of `rsp` in the page.
    pub const RSP_OFFSET: usize = offset_of!(Self, rsp);
    /// Byte offset of `req_cons` in the page.
    pub const REQ_CONS_OFFSET: usize = offset_of!(Self, req_cons);
    /// Byte offset of `req_prod` in the page.
    pub const REQ_PROD_OFFSET: usize = offset_of!(Self, req_prod);
    /// Byte offset of `rsp_cons` in the page.
    pub const RSP_CONS_OFFSET: usize = offset_of!(Self, rsp_cons);
    /// Byte offset of `rsp_prod` in the page.
    pub const RSP_PROD_OFFSET: usize = offset_of!(Self, rsp_prod);
    /// Byte offset of `server_features` in the page.
    pub const SERVER_FEATURES_OFFSET: usize = offset_of!(Self, server_features);
    /// Byte offset of `connection` in the page.
    pub const CONNECTION_OFFSET: usize = offset_of!(Self, connection);
    /// Byte offset of `error` in the page.
    pub const ERROR_OFFSET: usize = offset_of!(Self, error);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_go_both_ways() {
        for &(number, name) in XSD_ERRORS {
            assert_eq!(xsd_error_name(number), Some(name));
            assert_eq!(xsd_error_number(name), Some(number));
        }
        assert_eq!(xsd_error_name(XEN_ERANGE), None);
        assert_eq!(xsd_error_number("ERANGE"), None);
    }
}

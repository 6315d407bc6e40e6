//! Why the store refuses a request, in the protocol's words.

/// A refusal; [`StoreError::name`] is what travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The request does not have the form of its kind, or a path is not one.
    #[error("the request is malformed")]
    Invalid,
    /// The node's permissions, or the caller's rights, forbid it.
    #[error("the caller may not do this")]
    Access,
    /// Nothing of that name, and the caller may know.
    #[error("there is no such node, watch or transaction")]
    Missing,
    /// A watch with the same path and token.
    #[error("it exists already")]
    Exists,
    /// A quota of the caller is used up.
    #[error("a quota of the caller is used up")]
    NoSpace,
    /// The answer does not fit into a message, or there are too many watches.
    #[error("it is too big")]
    TooBig,
    /// A kind of request that this store does not know.
    #[error("the store does not know this kind of request")]
    Unknown,
    /// Someone else changed what the transaction used.
    #[error("the transaction conflicts with a change of someone else")]
    Conflict,
    /// A transaction inside a transaction.
    #[error("the caller is inside a transaction already")]
    Busy,
    /// Only the control domain gives nodes away.
    #[error("only the control domain may change an owner")]
    NotOwner,
}

impl StoreError {
    /// The name that the wire has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "EINVAL",
            Self::Access => "EACCES",
            Self::Missing => "ENOENT",
            Self::Exists => "EEXIST",
            Self::NoSpace => "ENOSPC",
            Self::TooBig => "E2BIG",
            Self::Unknown => "ENOSYS",
            Self::Conflict => "EAGAIN",
            Self::Busy => "EBUSY",
            Self::NotOwner => "EPERM",
        }
    }
}

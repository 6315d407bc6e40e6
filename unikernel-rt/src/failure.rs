//! Why a domain ends: any error, as a sentence.

use alloc::string::{String, ToString};
use core::fmt;

/// What a unikernel's run ends with: whatever error made it give up, in its own words. `?` makes one of every error.
///
/// It is no [`Error`](core::error::Error) itself, for then it could not be made of all others.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// A failure that is nobody's error.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl<E: core::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

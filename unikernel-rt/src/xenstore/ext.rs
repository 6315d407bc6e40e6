//! Convenient forms of the requests.

use alloc::string::{String, ToString};
use core::fmt::Display;
use core::str::FromStr;

use super::{Store, StoreError, Transaction};

/// How often a transaction is tried before its conflict is reported.
const TRIES: usize = 100;

/// What every [`Store`] can do beyond its requests.
pub trait StoreExt: Store {
    /// A node's value as text.
    fn read_string(&self, path: &str) -> Result<String, StoreError> {
        text(self.read(Transaction::NONE, path)?)
    }

    /// A node's value as text, if there is the node.
    fn read_optional(&self, path: &str) -> Result<Option<String>, StoreError> {
        match self.read_string(path) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A node's value as a number, or whatever else is parsed.
    fn read_parsed<T: FromStr>(&self, path: &str) -> Result<T, StoreError> {
        let text = self.read_string(path)?;
        text.trim()
            .parse()
            .map_err(|_| StoreError::malformed(core::any::type_name::<T>(), &text))
    }

    /// A node's value parsed, if there is the node.
    fn read_parsed_optional<T: FromStr>(&self, path: &str) -> Result<Option<T>, StoreError> {
        match self.read_parsed(path) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets a node's value to the text of something.
    fn write_display(&self, path: &str, value: impl Display) -> Result<(), StoreError> {
        self.write(Transaction::NONE, path, value.to_string().as_bytes())
    }

    /// Whether there is a node.
    fn exists(&self, path: &str) -> Result<bool, StoreError> {
        match self.read(Transaction::NONE, path) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Runs `action` in a transaction, and again whenever it met somebody else's change. An error of `action` ends the
    /// transaction without effect.
    fn transaction<R>(
        &self,
        mut action: impl FnMut(Transaction) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let transaction = self.begin()?;
            let outcome = match action(transaction) {
                Ok(value) => self.end(transaction, true).map(|()| value),
                Err(error) => {
                    // The error that made us give up is the one to report.
                    let _ = self.end(transaction, false);
                    Err(error)
                }
            };
            match outcome {
                Err(error) if error.is_conflict() && tries < TRIES => {}
                outcome => return outcome,
            }
        }
    }
}

impl<S: Store + ?Sized> StoreExt for S {}

/// Bytes as text.
fn text(bytes: alloc::vec::Vec<u8>) -> Result<String, StoreError> {
    String::from_utf8(bytes)
        .map_err(|error| StoreError::malformed("text", &String::from_utf8_lossy(error.as_bytes())))
}

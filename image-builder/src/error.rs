//! What can go wrong, each with the thing that it is about and the way out.

use manifest::source::ReadError;
use miette::Diagnostic;
use std::{io, path::PathBuf};

/// The result of anything that this tool does.
pub type Result<T> = core::result::Result<T, Error>;

/// Why something could not be done.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// The appliance's source.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Source(#[from] Box<ReadError>),
    /// A file of the host.
    #[error("cannot {action} {}: {cause}", path.display())]
    File {
        /// What was tried, as in "cannot ACTION PATH".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// A program of the host that ran and failed.
    #[error("{program} failed ({status})\n{output}")]
    #[diagnostic(help("the command was: {command}"))]
    Command {
        /// Its name.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it wrote.
        output: String,
        /// The whole command line.
        command: String,
    },
    /// A program of the host that is not installed.
    #[error("{what} is missing")]
    #[diagnostic(help("install it by: apt-get install {package}"))]
    Missing {
        /// The program or file.
        what: String,
        /// The Debian packages that have it.
        package: String,
    },
    /// Anything else.
    #[error("{message}")]
    Other {
        /// What is wrong.
        message: String,
        /// What to do about it.
        #[help]
        help: String,
    },
}

impl Error {
    /// An error that is about neither file nor program.
    pub fn other(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Other {
            message: message.into(),
            help: help.into(),
        }
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        Self::Source(Box::new(error))
    }
}

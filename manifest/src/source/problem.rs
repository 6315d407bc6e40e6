//! What is wrong with a source, and on which line.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::{fmt, ops::Range};
use miette::{Diagnostic, NamedSource, SourceSpan};
use std::path::{Path, PathBuf};

/// Why a source could not be read.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ReadError {
    /// The file is not there, or not text.
    #[error("cannot read {}: {cause}", file.display())]
    #[diagnostic(help(
        "an appliance is a folder below appliances/ with a file appliance.toml; name the folder"
    ))]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// It was read, and does not describe an appliance.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Problems(#[from] Problems),
}

/// Everything that is wrong with a source.
#[derive(Debug, Diagnostic)]
pub struct Problems {
    #[source_code]
    text: NamedSource<String>,
    /// The problems, in the order in which they were found.
    #[related]
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with a source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Diagnostic)]
#[error("{message}")]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    #[label("here")]
    span: SourceSpan,
    #[help]
    help: Option<String>,
}

impl Problem {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            span: span.into(),
            help: None,
        }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn of_toml(error: &toml::de::Error) -> Self {
        Self::new(
            error.span().unwrap_or(0..0),
            error.message().trim_end().to_string(),
        )
    }
}

impl Problems {
    pub(super) fn new(file: &Path, text: &str, problems: Vec<Problem>) -> Self {
        let name = file.display().to_string();
        Self {
            text: NamedSource::new(name, text.to_string()).with_language("TOML"),
            problems,
        }
    }

    /// The line of a problem, counted from one.
    pub fn line(&self, problem: &Problem) -> usize {
        let text = self.text.inner();
        let end = problem.span.offset().min(text.len());
        text.as_bytes()[..end]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1
    }

    /// The problems as a compiler would list them, one a line.
    pub fn lines(&self) -> Vec<String> {
        let line = |problem| format!("{}:{}: {problem}", self.text.name(), self.line(problem));
        self.problems.iter().map(line).collect()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, count) = (self.text.name(), self.problems.len());
        write!(
            formatter,
            "{name} has {count} {}",
            if count == 1 { "mistake" } else { "mistakes" }
        )
    }
}

impl core::error::Error for Problems {}

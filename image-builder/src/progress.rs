//! What a person at a terminal sees of the long steps; where there is no terminal, nothing.

use std::{
    io::{IsTerminal, stderr},
    path::Path,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Whether and how steps are shown.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    shown: bool,
}

impl Progress {
    /// Shows steps if there is a terminal.
    pub fn on_terminal() -> Self {
        Self {
            shown: stderr().is_terminal(),
        }
    }

    /// Shows nothing.
    pub fn hidden() -> Self {
        Self { shown: false }
    }

    /// Whether steps are shown.
    pub fn is_shown(self) -> bool {
        self.shown
    }

    /// A step of unknown length, shown until the result is dropped, and as done if it is finished.
    pub fn step(self, what: impl Into<String>) -> Step {
        let style = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}");
        self.start(ProgressBar::no_length(), style, what.into())
    }

    /// A step of `length` bytes.
    pub fn bytes(self, what: impl Into<String>, length: u64) -> Step {
        let style = ProgressStyle::with_template(
            "{spinner:.cyan} {msg} [{bar:30.cyan/blue}] {bytes}/{total_bytes} {bytes_per_sec:.dim}",
        );
        self.start(ProgressBar::new(length), style, what.into())
    }

    fn start(
        self,
        bar: ProgressBar,
        style: Result<ProgressStyle, indicatif::style::TemplateError>,
        what: String,
    ) -> Step {
        bar.set_draw_target(if self.shown {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        });
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.set_message(what.clone());
        bar.enable_steady_tick(Duration::from_millis(100));
        Step {
            bar,
            shown: self.shown,
            what,
            since: Instant::now(),
        }
    }
}

/// A step that is under way.
pub struct Step {
    bar: ProgressBar,
    shown: bool,
    what: String,
    since: Instant,
}

impl Step {
    /// So many bytes are done.
    pub fn set(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// The length of a file that is being written, as what is done.
    pub fn set_to_length_of(&self, path: &Path) {
        self.set(path.metadata().map_or(0, |metadata| metadata.len()));
    }

    /// The step is done.
    pub fn done(self) {
        self.bar.finish_and_clear();
        if self.shown {
            eprintln!("✓ {} ({:.1} s)", self.what, self.since.elapsed().as_secs_f32());
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

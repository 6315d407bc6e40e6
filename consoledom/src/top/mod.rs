//! `top`: what domains and processors do, second by second.
//!
//! A [`Sample`] is what the hypervisor and the backends have counted at one moment; [`Rates`] is what happened between two; [`view`] makes lines of
//! that, for a terminal of whatever size or for a script. All of it is pure: the samples come in, text goes out.

pub mod format;
pub mod once;
pub mod rates;
pub mod sample;
pub mod view;

pub use rates::Rates;
pub use sample::Sample;
pub use view::{Size, View};

use alloc::string::String;

/// Nanoseconds from one look to the next.
pub const PERIOD: u64 = 1_000_000_000;

/// What a key asks of the display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// To end.
    Quit,
    /// To show something else.
    Show(View),
    /// Nothing.
    Nothing,
}

impl Key {
    /// The meaning of a key.
    pub fn of(key: u8) -> Self {
        match key {
            b'q' | b'Q' | 0x03 | 0x1d => Self::Quit,
            b'd' => Self::Show(View::Domains),
            b'e' => Self::Show(View::Exits),
            b'p' => Self::Show(View::Processors),
            b'h' => Self::Show(View::Latency),
            _ => Self::Nothing,
        }
    }
}

/// The display while it is up.
#[derive(Debug, Default)]
pub struct Top {
    view: View,
    last: Sample,
    rates: Rates,
}

impl Top {
    /// Takes a new look. The first shows what happened since power-on.
    pub fn look(&mut self, sample: Sample) {
        self.rates = Rates::between(&self.last, &sample);
        self.last = sample;
    }

    /// Shows something else from now on.
    pub fn show(&mut self, view: View) {
        self.view = view;
    }

    /// The screen, by plain ANSI sequences: each line drawn over the one that was there, the rest cleared.
    pub fn draw(&self, size: Size) -> String {
        let mut text = String::from("\x1b[H");
        for (index, line) in view::lines(self.view, &self.rates, size).iter().enumerate() {
            if index > 0 {
                text.push_str("\r\n");
            }
            text.push_str(line);
            // A line that fills the screen leaves the cursor on its last column, which must not be cleared.
            if line.chars().count() < size.columns {
                text.push_str("\x1b[K");
            }
        }
        text.push_str("\x1b[J");
        text
    }
}

#[cfg(test)]
mod tests;

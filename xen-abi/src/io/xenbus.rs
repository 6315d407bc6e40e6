//! The states that frontend and backend show each other in their `state` nodes, of `io/xenbus.h`.

use core::fmt;
use core::str::FromStr;

/// State of one end of a device; `enum xenbus_state` in C.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum XenbusState {
    /// Not known, or gone.
    #[default]
    Unknown = 0,
    /// Has begun to look at the device.
    Initialising = 1,
    /// Waits for the other end's details.
    InitWait = 2,
    /// Has published its details.
    Initialised = 3,
    /// In service.
    Connected = 4,
    /// On its way down.
    Closing = 5,
    /// Down.
    Closed = 6,
    /// Takes notice of a change while in service.
    Reconfiguring = 7,
    /// Has taken notice.
    Reconfigured = 8,
}

/// A number or text that names no [`XenbusState`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownXenbusState;

impl fmt::Display for UnknownXenbusState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a xenbus state")
    }
}

impl core::error::Error for UnknownXenbusState {}

impl XenbusState {
    /// The decimal text that stands for the state in xenstore.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "0",
            Self::Initialising => "1",
            Self::InitWait => "2",
            Self::Initialised => "3",
            Self::Connected => "4",
            Self::Closing => "5",
            Self::Closed => "6",
            Self::Reconfiguring => "7",
            Self::Reconfigured => "8",
        }
    }
}

impl TryFrom<u32> for XenbusState {
    type Error = UnknownXenbusState;

    fn try_from(number: u32) -> Result<Self, Self::Error> {
        Ok(match number {
            0 => Self::Unknown,
            1 => Self::Initialising,
            2 => Self::InitWait,
            3 => Self::Initialised,
            4 => Self::Connected,
            5 => Self::Closing,
            6 => Self::Closed,
            7 => Self::Reconfiguring,
            8 => Self::Reconfigured,
            _ => return Err(UnknownXenbusState),
        })
    }
}

impl From<XenbusState> for u32 {
    fn from(state: XenbusState) -> Self {
        state as u32
    }
}

impl FromStr for XenbusState {
    type Err = UnknownXenbusState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Some writers end the value with a NUL or a newline.
        let digits = text.trim_matches(|c: char| c == '\0' || c.is_ascii_whitespace());
        digits.parse::<u32>().map_err(|_| UnknownXenbusState)?.try_into()
    }
}

impl TryFrom<&str> for XenbusState {
    type Error = UnknownXenbusState;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl TryFrom<&[u8]> for XenbusState {
    type Error = UnknownXenbusState;

    fn try_from(text: &[u8]) -> Result<Self, Self::Error> {
        core::str::from_utf8(text)
            .map_err(|_| UnknownXenbusState)?
            .parse()
    }
}

impl fmt::Display for XenbusState {
    /// The decimal text, as xenstore has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_survives_its_text() {
        for number in 0..9 {
            let state = XenbusState::try_from(number).unwrap();
            assert_eq!(u32::from(state), number);
            assert_eq!(state.as_str(), number.to_string());
            assert_eq!(XenbusState::try_from(state.as_str()), Ok(state));
            assert_eq!(XenbusState::try_from(state.as_str().as_bytes()), Ok(state));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "9", "-1", "four", "4 4", "4294967296"] {
            assert_eq!(XenbusState::try_from(text), Err(UnknownXenbusState), "{text:?}");
        }
        assert_eq!(XenbusState::try_from("4\n\0"), Ok(XenbusState::Connected));
        assert_eq!(XenbusState::try_from(&[0xff][..]), Err(UnknownXenbusState));
    }
}

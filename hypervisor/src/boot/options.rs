//! The hypervisor's own command line: words apart by blanks; a word that nobody knows is reported and passed over.
//!
//! | word | meaning |
//! | --- | --- |
//! | `serial=com1` … `serial=com4` | where messages go; `com1` unless said otherwise |
//! | `serial=none` | no messages on a serial line |
//! | `selftest=…` | the hypervisor tries something out on itself instead of running domains; [`crate::platform::selftest`] lists what |
//! | `loglevel=error\|warn\|info\|debug\|trace` | what is logged; `info` unless said otherwise |

use alloc::{string::String, vec::Vec};

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Base I/O port of the serial line for messages.
    pub serial: Option<u16>,
    /// What is logged.
    pub level: log::LevelFilter,
    /// What is tried out, if anything.
    pub selftest: Option<String>,
    /// Words that mean nothing.
    pub unknown: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            serial: serial_port(1),
            level: log::LevelFilter::Info,
            selftest: None,
            unknown: Vec::new(),
        }
    }
}

/// First I/O port of the PC's serial port `number`, 1 for COM1.
pub fn serial_port(number: u8) -> Option<u16> {
    match number {
        1 => Some(0x3f8),
        2 => Some(0x2f8),
        3 => Some(0x3e8),
        4 => Some(0x2e8),
        _ => None,
    }
}

/// Reads the command line.
pub fn parse(command_line: &str) -> Options {
    let mut options = Options::default();
    for word in command_line.split_ascii_whitespace() {
        let known = match word.split_once('=') {
            Some(("serial", "none")) => {
                options.serial = None;
                true
            }
            Some(("serial", name)) => {
                let number = name.strip_prefix("com").and_then(|number| number.parse().ok());
                let port = number.and_then(serial_port);
                options.serial = port.or(options.serial);
                port.is_some()
            }
            Some(("loglevel", level)) => {
                let level = level.parse().ok();
                options.level = level.unwrap_or(options.level);
                level.is_some()
            }
            Some(("selftest", name)) => {
                options.selftest = Some(name.into());
                true
            }
            _ => false,
        };
        if !known {
            options.unknown.push(word.into());
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn knows_its_words_and_keeps_the_rest_apart() {
        assert_eq!(parse(""), Options::default());
        let options = parse(" serial=com2  loglevel=debug");
        assert_eq!(
            (options.serial, options.level),
            (Some(0x2f8), log::LevelFilter::Debug)
        );
        assert_eq!(parse("serial=none").serial, None);
        assert_eq!(parse("selftest=panic").selftest.as_deref(), Some("panic"));
        let options = parse("serial=com9 loglevel=loud quiet");
        assert_eq!(options.unknown, vec!["serial=com9", "loglevel=loud", "quiet"]);
        assert_eq!(options.serial, Some(0x3f8));
    }
}

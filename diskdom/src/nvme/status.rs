//! What a completion's status means.

use core::fmt;

use crate::device::IoError;

/// The status of a completion, without the phase.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The status code type.
    pub kind: u8,
    /// The status code.
    pub code: u8,
    /// The controller says that it would fail again.
    pub do_not_retry: bool,
}

impl Status {
    /// Takes the field of a completion apart; `None` for success.
    pub fn of(field: u16) -> Option<Self> {
        let status = Self {
            kind: (field >> 9 & 0x7) as u8,
            code: (field >> 1) as u8,
            do_not_retry: field & 1 << 15 != 0,
        };
        (status.kind != 0 || status.code != 0).then_some(status)
    }

    /// The field that says this, for fakes.
    pub fn field(self) -> u16 {
        u16::from(self.code) << 1 | u16::from(self.kind) << 9 | u16::from(self.do_not_retry) << 15
    }

    /// What it is to a disk's user.
    pub fn error(self) -> IoError {
        match (self.kind, self.code) {
            (0, 0x01) => IoError::Unsupported,
            (0, 0x20) | (1, 0x82) => IoError::ReadOnly,
            (2, _) => IoError::Media,
            _ => IoError::Device,
        }
    }

    fn text(self) -> &'static str {
        match (self.kind, self.code) {
            (0, 0x01) => "invalid opcode",
            (0, 0x02) => "invalid field",
            (0, 0x04) => "data transfer error",
            (0, 0x05) => "power is going away",
            (0, 0x06) => "internal error",
            (0, 0x07) => "aborted by request",
            (0, 0x08) => "aborted by the deletion of its queue",
            (0, 0x0b) => "invalid namespace",
            (0, 0x13) => "invalid page list offset",
            (0, 0x20) => "namespace is write protected",
            (0, 0x80) => "LBA out of range",
            (0, 0x81) => "capacity exceeded",
            (0, 0x82) => "namespace not ready",
            (0, 0x83) => "reservation conflict",
            (1, 0x82) => "attempted write to a read-only range",
            (2, 0x80) => "write fault",
            (2, 0x81) => "unrecovered read error",
            (2, 0x82) => "guard check error",
            (2, 0x85) => "compare failure",
            (2, 0x86) => "access denied",
            (2, 0x87) => "deallocated block",
            (0, _) => "generic error",
            (1, _) => "command specific error",
            (2, _) => "media error",
            (3, _) => "path error",
            _ => "vendor specific error",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} (status {:x}/{:02x})",
            self.text(),
            self.kind,
            self.code
        )
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_taken_apart_and_named() {
        assert_eq!(Status::of(1), None);
        let read_error = Status {
            kind: 2,
            code: 0x81,
            do_not_retry: true,
        };
        assert_eq!(Status::of(read_error.field() | 1), Some(read_error));
        assert_eq!(
            std::format!("{read_error}"),
            "unrecovered read error (status 2/81)"
        );
        assert_eq!(read_error.error(), IoError::Media);
    }
}

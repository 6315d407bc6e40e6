//! The names of volumes.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use thiserror::Error;

/// A volume's name, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeName {
    /// The disk's name, such as `nvme0`.
    pub disk: String,
    /// Which part of it.
    pub part: Selector,
}

/// Which part of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// All of it.
    Whole,
    /// The partition of a number, from 1 up. Digits alone are always a number.
    Number(u32),
    /// The partition of a name.
    Name(String),
}

/// A name that can be no volume's.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} is no name of a volume: it must be like nvme0, nvme0:2 or nvme0:data")]
pub struct NameError(String);

impl FromStr for VolumeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let error = || NameError(text.into());
        let (disk, part) = match text.split_once(':') {
            None => (text, Selector::Whole),
            Some((_, "")) => return Err(error()),
            Some((disk, part)) if part.bytes().all(|byte| byte.is_ascii_digit()) => {
                let number = part.parse().ok().filter(|&number| number > 0).ok_or_else(error)?;
                (disk, Selector::Number(number))
            }
            Some((disk, part)) => (disk, Selector::Name(part.into())),
        };
        if disk.is_empty() {
            return Err(error());
        }
        Ok(Self {
            disk: disk.into(),
            part,
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => Ok(()),
            Self::Number(number) => write!(formatter, "{number}"),
            Self::Name(name) => write!(formatter, "{name:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let parse = |text: &str| text.parse::<VolumeName>().map(|name| (name.disk, name.part));
        assert_eq!(parse("nvme0"), Ok(("nvme0".into(), Selector::Whole)));
        assert_eq!(parse("nvme0:2"), Ok(("nvme0".into(), Selector::Number(2))));
        assert_eq!(
            parse("virtio1:my data"),
            Ok(("virtio1".into(), Selector::Name("my data".into())))
        );
        assert_eq!(
            parse("nvme0:a:b"),
            Ok(("nvme0".into(), Selector::Name("a:b".into())))
        );
        for bad in ["", ":", ":2", "nvme0:", "nvme0:0", "nvme0:99999999999"] {
            assert_eq!(parse(bad), Err(NameError(bad.into())));
        }
    }
}

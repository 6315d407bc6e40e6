//! The date from the PC's clock chip (MC146818), which is taken to run in universal time.

use crate::platform::port;

/// The registers as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Raw {
    second: u8,
    minute: u8,
    hour: u8,
    day: u8,
    month: u8,
    year: u8,
    century: Option<u8>,
}

fn register(index: u8) -> u8 {
    port::write_u8(0x70, index & 0x7f);
    port::read_u8(0x71)
}

/// Seconds since 1970, or `None` if the chip is absent or makes no sense. `century` is the index of the century's register, 0 where there is none.
pub fn read(century: u8) -> Option<u64> {
    const STATUS_A: u8 = 10;
    const STATUS_B: u8 = 11;
    const UPDATING: u8 = 0x80;
    let all = || Raw {
        second: register(0),
        minute: register(2),
        hour: register(4),
        day: register(7),
        month: register(8),
        year: register(9),
        century: (century != 0).then(|| register(century)),
    };
    for _ in 0..100_000 {
        if register(STATUS_A) & UPDATING != 0 {
            continue;
        }
        let first = all();
        // An update between the reads shows as a difference.
        if register(STATUS_A) & UPDATING == 0 && all() == first {
            return seconds(first, register(STATUS_B));
        }
    }
    None
}

fn seconds(raw: Raw, status_b: u8) -> Option<u64> {
    let (binary, hours_24) = (status_b & 4 != 0, status_b & 2 != 0);
    let number = |value: u8| {
        u64::from(if binary {
            value
        } else {
            (value >> 4) * 10 + (value & 15)
        })
    };
    let mut hour = number(raw.hour & 0x7f);
    if !hours_24 {
        hour = hour % 12 + if raw.hour & 0x80 != 0 { 12 } else { 0 };
    }
    let century = raw
        .century
        .map(number)
        .filter(|century| (19..=30).contains(century))
        .unwrap_or(20);
    let (year, month, day) = (
        century * 100 + number(raw.year),
        number(raw.month),
        number(raw.day),
    );
    let (minute, second) = (number(raw.minute), number(raw.second));
    let sound = year >= 1970 && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !sound || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days from 1970 to a date of the Gregorian calendar. Years begin in March here, so that the leap day comes last.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let before_1970 = 719_468;
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - before_1970
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RAW: Raw = Raw {
        second: 0x30,
        minute: 0x46,
        hour: 0x23,
        day: 0x13,
        month: 0x02,
        year: 0x09,
        century: None,
    };

    #[test]
    fn reads_both_codes_and_both_clocks() {
        // 2009-02-13 23:31:30 is 1234567890.
        let raw = Raw { minute: 0x31, ..RAW };
        assert_eq!(seconds(raw, 2), Some(1_234_567_890));
        assert_eq!(seconds(Raw { hour: 0x91, ..raw }, 0), Some(1_234_567_890));
        let binary = Raw {
            second: 30,
            minute: 31,
            hour: 23,
            day: 13,
            month: 2,
            year: 9,
            century: Some(20),
        };
        assert_eq!(seconds(binary, 6), Some(1_234_567_890));
        assert_eq!(seconds(Raw { month: 0, ..raw }, 2), None);
    }

    #[test]
    fn knows_the_calendar() {
        assert_eq!(
            (days(1970, 1, 1), days(2000, 2, 29), days(2000, 3, 1)),
            (0, 11_016, 11_017)
        );
        assert_eq!(days(2026, 11, 23), 20_780);
    }

    proptest! {
        #[test]
        fn foreign_registers_never_panic(bytes: [u8; 8], status: u8) {
            let [second, minute, hour, day, month, year, century, _] = bytes;
            let _ = seconds(Raw { second, minute, hour, day, month, year, century: Some(century) }, status);
        }
    }
}

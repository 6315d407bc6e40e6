//! The settings of the manifest (`[domain.options]`).

use alloc::string::String;
use core::time::Duration;

use unikernel_rt::xenstore::{Store, StoreError, StoreExt};

/// What the loop is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Between two deadlines.
    pub period: Duration,
    /// The card receives what it sends, for a machine on which nothing answers.
    pub loopback: bool,
    /// Between two lines on the console.
    pub report: Duration,
    /// Between two lines in the hypervisor's log; none where it is not given.
    pub log: Option<Duration>,
    /// What was measured for so long after the start is forgotten, once.
    pub settle: Option<Duration>,
    /// The console takes a command that makes the loop fail its deadlines.
    pub allow_spin: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            period: Duration::from_millis(1),
            loopback: false,
            report: Duration::from_secs(5),
            log: None,
            settle: None,
            allow_spin: false,
        }
    }
}

impl Options {
    /// Reads them. What cannot be read is reported, and stays what it usually is.
    pub fn read(store: &dyn Store) -> Result<Self, StoreError> {
        let usual = Self::default();
        Ok(Self {
            period: time(store, "period")?
                .filter(|period| *period >= Duration::from_micros(100))
                .unwrap_or(usual.period),
            loopback: switch(store, "loopback")?,
            report: time(store, "report")?.unwrap_or(usual.report),
            log: time(store, "log")?,
            settle: time(store, "settle")?,
            allow_spin: switch(store, "allow-spin")?,
        })
    }
}

fn text(store: &dyn Store, name: &str) -> Result<Option<String>, StoreError> {
    store.read_optional(&alloc::format!("options/{name}"))
}

fn switch(store: &dyn Store, name: &str) -> Result<bool, StoreError> {
    Ok(text(store, name)?.is_some_and(|text| text == "true"))
}

fn time(store: &dyn Store, name: &str) -> Result<Option<Duration>, StoreError> {
    let Some(text) = text(store, name)? else {
        return Ok(None);
    };
    let length = length(&text);
    if length.is_none() {
        log::error!("the option {name} is {text}, which is no length of time such as 500us, 1ms or 5s");
    }
    Ok(length)
}

/// A length of time as the manifest has it: `500us`, `1ms`, `5s`.
fn length(text: &str) -> Option<Duration> {
    let digits = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u32 = number.parse().ok().filter(|number| *number > 0)?;
    match unit {
        "us" => Some(Duration::from_micros(number.into())),
        "ms" => Some(Duration::from_millis(number.into())),
        "s" => Some(Duration::from_secs(number.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unikernel_rt::{DomainId, fake::FakeStore};

    #[test]
    fn settings_are_read_and_nonsense_is_left_out() {
        let store = FakeStore::new(DomainId(4));
        assert_eq!(Options::read(&store).unwrap(), Options::default());
        let home = "/local/domain/4/options/";
        for (name, value) in [
            ("period", "250us"),
            ("loopback", "true"),
            ("report", "soon"),
            ("log", "10s"),
            ("settle", "20s"),
            ("allow-spin", "no"),
        ] {
            store.put(&[(&format!("{home}{name}"), value)]);
        }
        let options = Options::read(&store).unwrap();
        assert_eq!(options.period, Duration::from_micros(250));
        assert_eq!(options.log, Some(Duration::from_secs(10)));
        assert_eq!(options.settle, Some(Duration::from_secs(20)));
        assert_eq!(options.report, Options::default().report);
        assert!(options.loopback && !options.allow_spin);
    }

    #[test]
    fn lengths_of_time_have_a_unit() {
        assert_eq!(length("1ms"), Some(Duration::from_millis(1)));
        for wrong in ["", "1", "ms", "0s", "-1s", "1 s", "99999999999s", "1h"] {
            assert_eq!(length(wrong), None, "{wrong}");
        }
    }
}

//! What a probe is to do: the words of its command line.

use core::time::Duration;

use unikernel_rt::DomainId;

/// When the tasks that measure begin unless the line says otherwise: the other domains have started, and are quiet.
const START: u64 = 1500;

/// When a task begins that measures something: `start=MS` of system time.
pub fn start(line: &str) -> Result<Duration, Unclear<'_>> {
    number(line, "start", Some(START)).map(Duration::from_millis)
}

fn given<'a>(settings: &'a str, name: &str) -> Option<&'a str> {
    let mut words = settings.split_ascii_whitespace();
    words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn number<'a>(settings: &'a str, name: &'static str, usual: Option<u64>) -> Result<u64, Unclear<'a>> {
    match given(settings, name) {
        Some(text) => text.parse().map_err(|_| Unclear::Setting(name)),
        None => usual.ok_or(Unclear::Setting(name)),
    }
}

/// What a probe does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// `spin [every=MS]`: computes for ever, and says from time to time how far it is.
    Spin {
        /// How often it says so.
        every: Option<Duration>,
    },
    /// `watch [every=MS] [times=N]`: says several times, at once for all, how long each domain has run, and whom each processor ran. Needs the capability `observe`.
    Watch {
        /// Between two times.
        every: Duration,
        /// How many times.
        times: u64,
    },
    /// `ping peer=ID [count=N]`: sends so many events to a probe that sends each back, and measures the round trips.
    Ping {
        /// Who sends them back.
        peer: DomainId,
        /// How many.
        count: u64,
    },
    /// `pong peer=ID`: sends every event back.
    Pong {
        /// To whom.
        peer: DomainId,
    },
    /// `exits [count=N]`: measures the cheapest ways out of the domain and back.
    Exits {
        /// How many of each.
        count: u64,
    },
    /// `yield [count=N]`: measures how long it takes to let another run that does the same.
    Yield {
        /// How many times.
        count: u64,
    },
    /// `wake [count=N] [after=US]`: sleeps, and measures how late it wakes up.
    Wake {
        /// How many times.
        count: u64,
        /// How long.
        after: Duration,
    },
    /// `panic [start=MS]`: gives up in the middle of a few calls.
    Panic,
    /// `stall [start=MS]`: turns its loop until then, and no more.
    Stall,
}

/// Why a command line is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unclear<'a> {
    /// The first word says nothing.
    #[error("a probe cannot \"{0}\"")]
    Task(&'a str),
    /// A setting is missing, or no number.
    #[error("{0} must be given, as a number")]
    Setting(&'static str),
}

impl Task {
    /// Reads a command line. Settings that the task does not know are left alone: others read them, too.
    pub fn parse(line: &str) -> Result<Self, Unclear<'_>> {
        let (task, settings) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let number = |name, usual| number(settings, name, usual);
        let milliseconds =
            |name: &'static str, usual: u64| number(name, Some(usual)).map(Duration::from_millis);
        let peer = || {
            let id = u16::try_from(number("peer", None)?).map_err(|_| Unclear::Setting("peer"))?;
            Ok(DomainId(id))
        };
        Ok(match task {
            "spin" => Self::Spin {
                every: given(settings, "every")
                    .map(|_| milliseconds("every", 0))
                    .transpose()?,
            },
            "watch" => Self::Watch {
                every: milliseconds("every", 1000)?,
                times: number("times", Some(2))?,
            },
            "ping" => Self::Ping {
                peer: peer()?,
                count: number("count", Some(1000))?,
            },
            "pong" => Self::Pong { peer: peer()? },
            "exits" => Self::Exits {
                count: number("count", Some(1000))?,
            },
            "yield" => Self::Yield {
                count: number("count", Some(1000))?,
            },
            "wake" => Self::Wake {
                count: number("count", Some(100))?,
                after: Duration::from_micros(number("after", Some(1000))?),
            },
            "panic" => Self::Panic,
            "stall" => Self::Stall,
            _ => return Err(Unclear::Task(task)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_tasks_and_their_settings() {
        assert_eq!(Task::parse("spin"), Ok(Task::Spin { every: None }));
        let every = Some(Duration::from_millis(250));
        assert_eq!(Task::parse(" spin log=debug every=250"), Ok(Task::Spin { every }));
        let peer = DomainId(4);
        assert_eq!(
            Task::parse("ping count=7 peer=4"),
            Ok(Task::Ping { peer, count: 7 })
        );
        assert_eq!(Task::parse("pong peer=4"), Ok(Task::Pong { peer }));
        assert_eq!(Task::parse("yield"), Ok(Task::Yield { count: 1000 }));
        let after = Duration::from_micros(20);
        assert_eq!(Task::parse("wake after=20"), Ok(Task::Wake { count: 100, after }));
    }

    #[test]
    fn begins_when_it_is_told() {
        assert_eq!(start("exits count=3 start=900"), Ok(Duration::from_millis(900)));
        assert_eq!(start("exits restart=900"), Ok(Duration::from_millis(START)));
        assert_eq!(start("exits start=soon"), Err(Unclear::Setting("start")));
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        assert_eq!(Task::parse("ping"), Err(Unclear::Setting("peer")));
        assert_eq!(Task::parse("pong peer=70000"), Err(Unclear::Setting("peer")));
        assert_eq!(Task::parse("exits count=many"), Err(Unclear::Setting("count")));
        assert_eq!(Task::parse("spin every=often"), Err(Unclear::Setting("every")));
        assert_eq!(Task::parse("dance"), Err(Unclear::Task("dance")));
        assert_eq!(Task::parse(""), Err(Unclear::Task("")));
    }

    proptest! {
        #[test]
        fn any_line_is_a_task_or_an_error(line in ".{0,60}") {
            let _ = Task::parse(&line);
        }
    }
}

//! How a vCPU competes: its class, and what follows from it.

/// How long a vCPU runs while others of its class wait, in nanoseconds; light shared ones take shorter turns.
pub const TIME_SLICE: u64 = 10_000_000;
/// The shortest turn of a shared one.
const SHORTEST_SLICE: u64 = 1_000_000;
/// The weight that ages by one nanosecond a nanosecond.
const USUAL_WEIGHT: u64 = 256;

/// How a vCPU competes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Before everybody else, the higher priority first, for `budget` nanoseconds out of each `period`.
    Realtime {
        /// Who goes first among them.
        priority: u8,
        /// Nanoseconds.
        budget: u64,
        /// Nanoseconds.
        period: u64,
    },
    /// Before every shared one.
    Interactive,
    /// With this weight, 1 at least.
    Shared(u32),
}

impl From<manifest::Class> for Class {
    fn from(class: manifest::Class) -> Self {
        match class {
            manifest::Class::Realtime {
                priority,
                budget,
                period,
            } => Self::Realtime {
                priority,
                budget,
                period,
            },
            manifest::Class::Interactive => Self::Interactive,
            manifest::Class::Shared { weight } => Self::Shared(weight.max(1)),
        }
    }
}

impl Class {
    /// Whoever has the higher one runs first; 0 is shared.
    pub(super) fn rank(self) -> u16 {
        match self {
            Self::Realtime { priority, .. } => 2 + u16::from(priority),
            Self::Interactive => 1,
            Self::Shared(_) => 0,
        }
    }

    /// How long it runs while its equals wait.
    pub(super) fn slice(self) -> u64 {
        match self {
            Self::Shared(weight) => {
                (TIME_SLICE * u64::from(weight) / USUAL_WEIGHT).clamp(SHORTEST_SLICE, TIME_SLICE)
            }
            _ => TIME_SLICE,
        }
    }

    /// Virtual nanoseconds by which it ages while it runs.
    pub(super) fn aged(self, ran: u64) -> i64 {
        match self {
            Self::Shared(weight) => {
                let aged = u128::from(ran) * u128::from(USUAL_WEIGHT) / u128::from(weight);
                i64::try_from(aged).unwrap_or(i64::MAX / 2)
            }
            _ => 0,
        }
    }

    /// How long it runs until it is so much older.
    pub(super) fn ages_within(self, aged: i64) -> u64 {
        match self {
            Self::Shared(weight) => aged.max(0) as u64 / USUAL_WEIGHT * u64::from(weight),
            _ => u64::MAX,
        }
    }
}

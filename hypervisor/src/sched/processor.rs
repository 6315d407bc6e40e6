//! What the scheduler knows of a processor.

use crate::domain::VcpuId;

/// What a processor does without the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Nothing: it has the lock, or has not begun.
    Work,
    /// Runs a guest, or waits for the lock after that.
    Guest,
    /// Sleeps, or waits for the lock after that.
    Idle,
}

/// A processor.
#[derive(Clone, Debug)]
pub struct Processor {
    /// Without the lock.
    pub doing: Doing,
    /// It was sent an interrupt since it gave up the lock, and will ask for it.
    pub called: bool,
    /// How often it was sent one.
    pub calls: u64,
    /// What its timer is set to.
    pub alarm: Option<u64>,
    /// Nobody but one domain runs there.
    pub exclusive: bool,
    /// How many realtime vCPUs are at home there.
    pub(super) realtime: u32,
    /// Whose extended state is in it.
    pub(super) loaded: Option<VcpuId>,
    pub(super) current: Option<Current>,
}

/// Who was picked last for a processor.
#[derive(Clone, Debug)]
pub(super) struct Current {
    pub id: VcpuId,
    /// Charged up to here.
    pub since: u64,
    /// From here on its equals go first.
    pub slice_end: u64,
    /// From here on it may not run, as far as is known now.
    pub limit: Option<u64>,
    /// What it has of its domain's credit.
    pub piece: Option<i64>,
    /// It gave way.
    pub yielded: bool,
}

impl Processor {
    pub(super) fn new() -> Self {
        Self {
            doing: Doing::Work,
            called: false,
            calls: 0,
            alarm: None,
            exclusive: false,
            realtime: 0,
            loaded: None,
            current: None,
        }
    }

    /// Whether it sleeps and nobody has woken it.
    pub(super) fn is_free(&self) -> bool {
        self.doing == Doing::Idle && !self.called
    }

    /// Whether it will look around at `time` at the latest, without being called.
    pub fn looks_by(&self, time: u64) -> bool {
        self.doing == Doing::Work || self.called || self.alarm.is_some_and(|alarm| alarm <= time)
    }
}

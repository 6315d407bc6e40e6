//! Who runs next.

/// Run queues of the processors.
#[derive(Default)]
pub struct Scheduler {}

//! How many machines are emulated at once on this host, over all test programs: one for each processor.

use std::{
    fs::{self, File},
    thread,
    time::{Duration, Instant},
};

use image_builder::Workspace;

/// The right to emulate a machine, while it lives.
pub struct Slot {
    _file: File,
}

impl Slot {
    /// Waits until a slot is free. `ATOLL_MACHINES` sets how many there are.
    pub fn take(workspace: &Workspace) -> Self {
        let given = std::env::var("ATOLL_MACHINES")
            .ok()
            .and_then(|text| text.parse().ok());
        let count = given
            .unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
            .max(1);
        let folder = workspace
            .cache("machines")
            .expect("the build folder can be written");
        let since = Instant::now();
        loop {
            for number in 0..count {
                let file = fs::File::create(folder.join(number.to_string()))
                    .expect("the build folder can be written");
                if file.try_lock().is_ok() {
                    return Self { _file: file };
                }
            }
            assert!(
                since.elapsed() < Duration::from_secs(3600),
                "no machine ended within an hour"
            );
            thread::sleep(Duration::from_millis(200));
        }
    }
}

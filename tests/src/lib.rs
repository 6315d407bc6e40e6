//! Whole-system tests: real images under an emulator, with stock guests.
//!
//! A test reads like what a person would do: it builds an [`Appliance`], boots it, waits for the operator's prompt, attaches to a
//! guest's console and types commands. Waiting always has an end, and what was last on the console is part of every failure.
//!
//! ```no_run
//! use tests::Appliance;
//!
//! let built = Appliance::gateway("story").build();
//! let mut system = built.boot();
//! let mut linux = system.guest("linux");
//! assert!(linux.run("uname -a").contains("Linux"));
//! ```

pub mod appliance;
pub mod clean;
pub mod console;
pub mod echo;
pub mod faults;
pub mod finding;
pub mod guest;
pub mod health;
pub mod slot;
pub mod system;
pub mod web;

pub use appliance::{Appliance, Built};
pub use console::Console;
pub use echo::Echo;
pub use faults::Moments;
pub use finding::Finding;
pub use guest::Guest;
pub use system::{PROMPT, System};
pub use web::Web;

use std::{str::FromStr, time::Duration};

/// `seconds`, or more of them where `ATOLL_PATIENCE` says that this machine is slow (`2` doubles every wait).
pub fn seconds(seconds: u64) -> Duration {
    let patience = std::env::var("ATOLL_PATIENCE")
        .ok()
        .and_then(|text| text.parse::<f64>().ok());
    Duration::from_secs(seconds).mul_f64(patience.unwrap_or(1.0).clamp(0.1, 100.0))
}

/// What the environment sets for a count, such as `ATOLL_KILLS=100`, or what is usual. Panics at what is no number: a long run that is short by a slip of the pen
/// would be believed.
pub fn setting<T: FromStr>(name: &str, usual: T) -> T {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number that can be used here")),
        Err(_) => usual,
    }
}

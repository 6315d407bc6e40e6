//! A unikernel for tests. Its command line says what it does ([`Task`]): keep a processor busy, watch how long others run, or measure what a way
//! through the hypervisor costs. What it finds it writes to the log, one line a finding: the task's name and settings of the form `name=number`.
#![cfg_attr(not(test), no_std)]

pub mod tally;
pub mod task;

pub use tally::Tally;
pub use task::Task;

//! The backend against a guest on fakes.

mod bench;
mod deaths;
mod drivers;
mod lifecycle;
mod requests;

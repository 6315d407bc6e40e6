//! The backend against a guest on fakes.

mod bench;
mod drivers;
mod lifecycle;
mod requests;

//! The backend against a guest on fakes.

mod bench;
mod lifecycle;
mod requests;

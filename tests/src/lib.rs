//! Whole-system tests: real images under an emulator, with stock guests.

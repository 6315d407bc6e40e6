//! Builds, runs and inspects appliance images.

//! Reads `appliance.toml` into the model.

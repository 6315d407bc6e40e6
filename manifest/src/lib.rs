//! What an appliance is made of: the model of appliance.toml, its binary form, and the bundle that carries it.
#![cfg_attr(not(test), no_std)]

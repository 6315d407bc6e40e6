//! Hypercalls: one file a group; `dispatch` finds it.

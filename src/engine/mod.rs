//! The CPU training engine: one step of a packed sweep of sparse dictionaries.

//! The IO shell around the protocol's state machines: one driver per tunnel.

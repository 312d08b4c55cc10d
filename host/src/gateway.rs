//! The hub as one value: [`Gateway::bind`] wires the parts and returns a [`Running`] hub.

/// Where a hub is made.
#[derive(Debug)]
pub struct Gateway;

/// A hub that serves; dropping it ends everything at once.
#[derive(Debug)]
pub struct Running;

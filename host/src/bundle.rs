//! The life of policy bundles at this hub.
//!
//! ```text
//! source, push ─► delivered ─► verified ─► staged ─► active ─► superseded
//!                      └───────────┴──────────┴─► rejected, with a code
//! ```
//! [`life`] is that machine with what it writes down ([`state`], [`store`]); [`keeper`] carries
//! orders out at the running hub, one after another; [`source`] looks for new bundles; [`shadow`]
//! compares a staged set with the one in force on live traffic; [`gate`] holds what it found
//! against what is required; [`board`] shows all of it.

pub(crate) mod board;
mod gate;
pub(crate) mod keeper;
mod life;
mod prove;
pub mod refused;
pub mod shadow;
pub(crate) mod source;
pub mod state;
mod store;
pub mod view;

//! Both ends of a tunnel on a virtual network and clock.
//!
//! The real state machines run against a reference model: for each flow, two sequences of
//! bytes of which every byte is a function of its offset. A stream of choices decides what
//! happens: who writes, who reads, what the network delivers, when it is cut. It comes from a
//! seed in the tests and from the fuzzer in the fuzz targets.

mod choices;
mod hostile;
mod local;
mod world;

pub use choices::Choices;
pub use hostile::{agent_end, decode_frame, hub_end};
pub use world::{Outcome, run};

/// A fuzz target: takes any bytes, panics where a promise is broken.
pub type Target = fn(&[u8]);

/// Every fuzz target and its name.
pub const ALL: [(&str, Target); 4] = [
    ("decode_frame", decode_frame),
    ("hub_end", hub_end),
    ("agent_end", agent_end),
    ("session", session),
];

/// Lets the fuzzer decide what happens to an honest hub and an honest agent.
pub fn session(data: &[u8]) {
    run(&mut Choices::from_bytes(data));
}

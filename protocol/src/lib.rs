//! The NowConnect wire and its state machines: no IO, no clock, no async.

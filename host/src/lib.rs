//! The NowConnect hub and the operator's command line.

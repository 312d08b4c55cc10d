//! The NowConnect agent: dials out to a hub and reaches private targets.

//! Per-agent credentials: store, order, cooldown and choice.

//! The interfaces that every part of moltbot shares.

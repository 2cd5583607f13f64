//! Claude setup-tokens: run the command or paste one.

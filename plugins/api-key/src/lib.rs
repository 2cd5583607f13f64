//! API keys for every provider that declares one.

//! The Anthropic Messages API as a provider.

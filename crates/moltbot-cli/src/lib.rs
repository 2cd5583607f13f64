//! The command line, grown from the registry of plugins.

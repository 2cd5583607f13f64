//! A scripted host and the conformance suite for plugins.

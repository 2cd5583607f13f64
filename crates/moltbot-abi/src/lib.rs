//! Carries one plugin across a boundary: wire messages, guest and host proxy.

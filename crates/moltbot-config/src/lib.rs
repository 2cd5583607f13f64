//! The JSON5 configuration document: load, diagnose, migrate, edit in place.

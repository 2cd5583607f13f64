//! The JSON5 configuration document: load, diagnose, migrate, edit in place.
mod issue;
mod keypath;
mod lex;
mod schema;
mod source;
mod tree;

pub use issue::{ConfigError, Issue, IssueCode};
pub use keypath::{KeyPath, KeyPathError, Step};
pub use schema::*;

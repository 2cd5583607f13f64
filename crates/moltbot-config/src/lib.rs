//! The JSON5 configuration document: load, diagnose, migrate, edit in place.
mod document;
mod env;
mod issue;
mod keypath;
mod legacy;
mod lex;
mod load;
mod paths;
mod schema;
mod source;
mod subst;
mod tree;

pub use env::{Env, SHELL_OUTPUT_LIMIT, ShellImport, Source, is_truthy, parse_dotenv};
pub use issue::{ConfigError, Issue, IssueCode};
pub use keypath::{KeyPath, KeyPathError, Step};
pub use load::{LoadInput, Loaded, Note, NoteKind, load, shell_import};
pub use paths::{
    AgentId, Instance, InstanceError, MAIN_AGENT, Paths, PathsInput, state_move,
};
pub use schema::*;

//! A live link to an existing Claude Code login.

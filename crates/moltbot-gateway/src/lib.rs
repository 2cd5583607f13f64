//! Performs effects, sends chats, fails over.

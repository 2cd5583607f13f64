//! The user's own, unmodified `claude` program as a provider: chats in, stream-json lines out.
//!
//! Anthropic's terms keep Free, Pro and Max logins for Claude Code; so Claude Code itself is asked.
//! The host starts the program, keeps it warm and ends it; this crate writes its arguments and its
//! input, and reads what it says.
//!
//! ```
//! use moltbot_core::{CredentialKind, Provider};
//! use moltbot_plugin_claude_cli::ClaudeCli;
//!
//! let info = ClaudeCli.info();
//! assert_eq!((&*info.id, &*info.default_model), ("claude-cli", ""));
//! assert!(info.accepts.contains(&("claude-cli".into(), CredentialKind::None)));
//! ```
//!
//! # Invariants
//!
//! - The login stays with Claude Code: nothing of it is read, copied or forwarded. The one secret
//!   that reaches the program is a setup-token that the user stored, in its own variable.
//! - Text of a chat is only text: no slash command is run, no `@file` is read, no settings, hooks
//!   or memory files are picked up, and no tool runs unless `params.tools` of the config names it.
//! - No system prompt and no conversation stands on the command line, where others could read it.
//! - What the program cannot do is refused by name; nothing of a request is dropped silently.
//! - Permission checks are never skipped: what the program asks for is denied.
//! - Deliberately absent: starting processes (the host's), session files of the program (a cold
//!   start replays the conversation as text), API keys (the `anthropic` provider's).
//!
//! Tested with Claude Code 2.1.197, the lowest version that is accepted.

mod codes;
mod decoder;
mod failure;
mod info;
mod installed;
mod login;
mod request;
mod version;

use moltbot_core::{
    ChatView, CredentialView, Decoder, DecoderMode, Ended, Exchange, Failure, Provider,
    ProviderError, ProviderInfo, Timestamp,
};

pub use login::ClaudeCliLogin;

/// Translates between chats and the `claude` program's stream-json (spec T-7).
#[derive(Clone, Copy, Debug, Default)]
pub struct ClaudeCli;

moltbot_core::plugin! { auth: [ClaudeCliLogin], providers: [ClaudeCli], codes: [
    codes::FAILED,
    codes::NOT_LOGGED_IN,
    codes::TOO_OLD,
    codes::USAGE_LIMIT,
] }

impl Provider for ClaudeCli {
    fn info(&self) -> ProviderInfo {
        info::info()
    }

    fn request(
        &self,
        chat: &ChatView<'_>,
        with: &CredentialView<'_>,
        _now: Timestamp,
    ) -> Result<Exchange, ProviderError> {
        request::request(chat, with)
    }

    fn failure(&self, ended: &Ended, now: Timestamp) -> Failure {
        failure::failure(ended, now)
    }

    fn decoder(&self, mode: DecoderMode) -> Box<dyn Decoder> {
        Box::new(decoder::Lines::new(mode))
    }
}

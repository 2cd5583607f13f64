//! Logins and subscription tokens: what differs from an API key, and the texts about it.
//!
//! The whole of it, so that a build without the feature `bearer` holds none (decision "Security
//! defaults"). Requests are sent under our own name (spec T-6): what identifies another client is
//! taken out of a forwarded request, never put into one.

/// The beta that the service asks for beside `authorization: Bearer` (spec T-4).
pub(crate) const BETA: &str = "oauth-2025-04-20";

/// A beta by which one client names itself (spec T-5); never sent with a login or token.
const IDENTITY_BETA: &str = "claude-code-20250219";

/// Headers by which clients name themselves, beside the user agent.
const IDENTITY_HEADERS: [&str; 1] = ["x-app"];
const IDENTITY_PREFIXES: [&str; 2] = ["x-stainless-", "x-claude-code-"];

/// What helps when the service takes the credential only from its own programs (spec T-6).
pub(crate) const REFUSED_ADVICE: &str = "use an API key (`moltbot onboard --anthropic-api-key`), or a `claude-cli/<model>` model, which runs the user's own `claude` program";

/// The same on the page of the code.
pub(crate) const REFUSED_FIX: &str = "Use an API key: `moltbot onboard --anthropic-api-key <key>`. Or choose a `claude-cli/<model>` model, which hands the prompt to the user's own `claude` program. Requests are never sent under another product's name.";

/// Where the token for one model request only comes from, for the page of `token-scope`.
pub(crate) const SCOPE_FIX: &str = "Nothing has to be done for chats: tokens of `claude setup-token` are good for model requests only. For anything else log in with Claude Code or use an API key.";

/// Tells whether a header of this name says which client sent it.
pub(crate) fn is_identity(name: &str) -> bool {
    IDENTITY_HEADERS.iter().any(|known| name.eq_ignore_ascii_case(known))
        || IDENTITY_PREFIXES.iter().any(|prefix| {
            name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
        })
}

/// Tells whether a beta says which client sent it.
pub(crate) fn is_identity_beta(beta: &str) -> bool {
    beta.eq_ignore_ascii_case(IDENTITY_BETA)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_told_from_everything_else() {
        for name in ["X-App", "x-stainless-lang", "X-Stainless-Retry-Count"] {
            assert!(is_identity(name), "{name}");
        }
        for name in ["x-application", "anthropic-version", "x-stainless", "x-ä"] {
            assert!(!is_identity(name), "{name}");
        }
    }
}

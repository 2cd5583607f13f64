//! Pages of `moltbot explain` for what only this program says.

use moltbot_core::Code;

pub(crate) const FAILED: Code = Code::new(
    "claude-cli-failed",
    "The claude program ended or answered something that cannot be read",
    "The user's own `claude` was started for a request and did not finish it: it could not be found, ended by itself, or wrote something else than stream-json lines. Nobody's login is at fault.",
    "Type `claude --version` and `claude -p hi` in the same shell; then `moltbot doctor`.",
);
pub(crate) const NOT_LOGGED_IN: Code = Code::new(
    "claude-cli-login",
    "Claude Code is not logged in, or its login is not accepted",
    "The request was handed to the user's own `claude`, which owns the login; it answered that there is none, or that the service refuses it. moltbot never reads or renews that login.",
    "Run `claude` and log in there, or store a token made by `claude setup-token`: `moltbot models auth setup-token`.",
);
pub(crate) const TOO_OLD: Code = Code::new(
    "claude-cli-version",
    "The installed claude program is too old",
    "Older versions behave differently where it matters: what they read of the current directory, and how they report errors. They are refused rather than guessed at.",
    "Run `claude update`, then try again.",
);
pub(crate) const USAGE_LIMIT: Code = Code::new(
    "claude-cli-limit",
    "The plan's usage limit is reached",
    "The user's own `claude` answered that the subscription's limit for this window is used up. It starts anew at the time it named.",
    "Wait for the reset, or allow a paid fallback: a fallback model with an API key and `auth.allowPaidFallback`.",
);

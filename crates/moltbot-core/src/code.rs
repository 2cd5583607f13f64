//! Stable codes of everything that can go wrong; `moltbot explain CODE` prints these pages.

use serde::{Deserialize, Serialize};

use crate::Text;

/// One page of `moltbot explain`. Codes are never renamed and never reused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// What a message ends with: `no-credential`.
    pub id: Text,
    /// One line.
    pub title: Text,
    /// What happened and why, a few sentences.
    pub cause: Text,
    /// What to do about it, with commands.
    pub fix: Text,
}

impl Code {
    /// Makes a page.
    pub const fn new(
        id: &'static str,
        title: &'static str,
        cause: &'static str,
        fix: &'static str,
    ) -> Self {
        Self {
            id: Text::Borrowed(id),
            title: Text::Borrowed(title),
            cause: Text::Borrowed(cause),
            fix: Text::Borrowed(fix),
        }
    }
}

/// The codes of the host. Plugins add theirs with `plugin! { .., codes: [..] }`.
pub static CODES: &[Code] = &[
    Code::new(
        "agent-exists",
        "The agent is already there",
        "Agent ids are compared in lower case, with everything but letters, digits, `-` and `_` turned into `-`.",
        "Choose another name, or look at the existing ones with `moltbot agents list`.",
    ),
    Code::new(
        "agent-unknown",
        "There is no such agent",
        "The id given with --agent is neither `main` nor in `agents.list` of the config.",
        "See `moltbot agents list`; create it with `moltbot agents add <id> --workspace <dir>`.",
    ),
    Code::new(
        "all-cooling",
        "Every profile is cooling down",
        "Each profile that could serve the request failed recently and is left alone until its time is over. A limit measured by the service counts as long as it says; a guessed one grows from one minute to one hour.",
        "Wait until the time shown by `moltbot models auth cooldown list`, end it with `moltbot models auth cooldown clear` if the cause is gone, add another credential with `moltbot onboard`, or configure another model with `moltbot models fallbacks add`.",
    ),
    Code::new(
        "all-models-failed",
        "No configured model answered",
        "The requested model and every fallback failed; the message lists them in the order tried.",
        "Mend the first failure listed: its own code says how. `moltbot models status` shows credentials and cooldowns.",
    ),
    Code::new(
        "billing",
        "The account has to be topped up",
        "The service answered that credit is used up or payment is due. The profile is set aside for hours, because nothing changes by itself.",
        "Top up at the vendor's console, or switch to another profile with `moltbot models auth order set`.",
    ),
    Code::new(
        "cancelled",
        "Stopped by the user",
        "Ctrl-C or an empty answer ended the command. Nothing was stored.",
        "Run the command again.",
    ),
    Code::new(
        "config-include",
        "An included file cannot be used",
        "`$include` names a file that is missing, unreadable, includes itself, or is nested more than ten deep.",
        "Correct the path at the place shown; paths are relative to the file that includes.",
    ),
    Code::new(
        "config-invalid",
        "The config is not valid",
        "The file was read, but a key is unknown, a value has the wrong type, or the text is no JSON5. While it is invalid no request is sent, so that nothing runs on defaults you did not choose.",
        "Correct the places shown, or let `moltbot doctor --fix` remove unknown keys and migrate old ones. `moltbot config schema` prints all keys.",
    ),
    Code::new(
        "config-path",
        "There is no such key in the config",
        "The path given to `config get` or `config unset` leads nowhere.",
        "`moltbot config get .` prints the whole config; `moltbot config schema` all keys.",
    ),
    Code::new(
        "context-overflow",
        "The conversation is too long for the model",
        "Input and the room for the reply together exceed the model's context window. No other profile would help.",
        "Shorten the input, start a new session, or choose a model with a larger context.",
    ),
    Code::new(
        "credential-refused",
        "The service refused the credential",
        "The key or token is wrong, revoked or expired (HTTP 401 or 403). The profile is cooled so that it is not tried first again.",
        "Replace it with `moltbot onboard` or `moltbot models auth`; `moltbot models status --probe` tells which profiles work.",
    ),
    Code::new(
        "format",
        "The service found the request wrong",
        "HTTP 400 for a reason in the request itself. Nobody is punished and nothing else is tried, because the answer would be the same.",
        "Change what the message names; parameters come from flags and from `agents.defaults.models.<model>.params`.",
    ),
    Code::new(
        "gateway-config",
        "The gateway cannot start with its settings",
        "`gateway` in the config, or the flags and variables that replace it, leave out what is needed, contradict each other, or would open the gateway to others without a proof.",
        "Set what the message names with `moltbot config set gateway...`, or let `moltbot configure --section gateway` ask for it.",
    ),
    Code::new(
        "input",
        "An argument or an answer is not usable",
        "What was given does not have the form that is needed. Nothing was changed.",
        "Correct it as the message says; `--help` shows examples.",
    ),
    Code::new(
        "internal",
        "A defect of moltbot",
        "Something happened that should be impossible.",
        "Please report the message and the command that led to it; no message contains a secret.",
    ),
    Code::new(
        "login-needed",
        "The stored login is spent",
        "The service says that the login can no longer be renewed.",
        "Log in again: `moltbot models status` names the profile and the command.",
    ),
    Code::new(
        "model-not-allowed",
        "The model is not on the allowlist",
        "`agents.defaults.models` is not empty, hence only the models in it may be used.",
        "Add the model with `moltbot models aliases add` or in `agents.defaults.models`.",
    ),
    Code::new(
        "model-not-found",
        "The service does not know the model",
        "The id does not exist, is retired, or is not open to this account. The next configured model is tried.",
        "See `moltbot models list --all`; set another with `moltbot models set <model>`.",
    ),
    Code::new(
        "network",
        "The service cannot be reached",
        "No connection came about, it broke, or its certificate was not accepted. No profile is punished for that.",
        "Check the network, `HTTPS_PROXY` and, if set, `models.providers.<id>.baseUrl`.",
    ),
    Code::new(
        "no-credential",
        "No credential for the provider",
        "The agent has no usable profile, no environment variable holds a key, and the config has none. Credentials are kept per agent; a new agent inherits nothing.",
        "Run `moltbot onboard`, or set the provider's environment variable.",
    ),
    Code::new(
        "not-interactive",
        "A question had nobody to answer it",
        "The command needs an answer and runs without a terminal.",
        "Pass the flag or set the variable named in the message.",
    ),
    Code::new(
        "origin-refused",
        "The address is not allowed for this credential",
        "A credential is only sent to its provider's own origin over HTTPS, to loopback, or to the `baseUrl` of the user's own config.",
        "Correct `models.providers.<id>.baseUrl`.",
    ),
    Code::new(
        "overloaded",
        "The service is overloaded",
        "The service has too much to do, whoever asks (HTTP 529). No profile is at fault.",
        "Try again in a moment, or configure a fallback model.",
    ),
    Code::new(
        "paid-fallback",
        "Falling back would bill another wallet",
        "The only profile left is paid per use, and `auth.allowPaidFallback` does not allow the switch.",
        "Set `auth.allowPaidFallback` to true, or wait for the profile that is cooling.",
    ),
    Code::new(
        "plan-invalid",
        "The fault plan is not valid",
        "The file given to the lab is no JSON5 or names an unknown fault.",
        "Correct the place shown.",
    ),
    Code::new(
        "plugin-failed",
        "A plugin broke its contract",
        "It panicked, answered nonsense or waited for something that is not the host. Only this call failed.",
        "Report it to the plugin's author; `moltbot plugins info <id>` shows its version.",
    ),
    Code::new(
        "plugin-missing",
        "This build lacks a plugin",
        "A profile or the config names an auth method or provider that was not built in.",
        "`moltbot plugins list` shows what is there; build one with it, or remove the profile.",
    ),
    Code::new(
        "profile-unknown",
        "There is no such profile, or it cannot be used",
        "The profile is not in the agent's store, belongs to another provider, is expired, or its mode in the config does not fit.",
        "See `moltbot models status`; `moltbot models auth order get` shows the order.",
    ),
    Code::new(
        "rate-limited",
        "A limit of the account is reached",
        "HTTP 429: too many requests or tokens in too short a time, or a plan's window is used up. Other profiles are tried; this one rests until the time the service named.",
        "Wait until the time shown, or add another profile.",
    ),
    Code::new(
        "record-unknown",
        "The request is not in the log",
        "The agent's log of requests holds no record of that id. It is bounded: the oldest records leave it when it is full. Each agent has its own log.",
        "See `moltbot models why --last 20` for the ids that are there; name the agent with `--agent` if the request was another one's.",
    ),
    Code::new(
        "refresh-failed",
        "The login could not be renewed",
        "The access token is expired and renewing it did not work; the cause follows in the message. The stored login is unchanged.",
        "Try again; if the cause says that the login is gone, log in again.",
    ),
    Code::new(
        "refused",
        "The model refused to answer",
        "The reply ended with the stop reason `refusal`. Another profile would get the same.",
        "Change the request.",
    ),
    Code::new(
        "session-unknown",
        "There is no such session",
        "No conversation of that id is kept for the agent.",
        "Leave out --session-id to start a new one.",
    ),
    Code::new(
        "store-invalid",
        "The credential store cannot be read",
        "The file is no JSON or has the wrong shape. It is left untouched so that nothing in it is lost, and nothing is written until it is mended.",
        "Mend the file named in the message, or move it aside.",
    ),
    Code::new(
        "store-locked",
        "Another process is using the credential store",
        "The lock was held for longer than the time limit.",
        "Wait for the process named in the message.",
    ),
    Code::new(
        "store-unwritable",
        "The credential store cannot be written",
        "The file or its directory refuses the write. The old content is unchanged.",
        "Check owner, mode and free space of the path in the message.",
    ),
    Code::new(
        "system",
        "Something outside refused",
        "A file, a directory, a program, a port or the operating system did not do what was needed; the message names it and says what was answered. What was begun is left as it was.",
        "Mend what the message names and run the command again; `moltbot doctor` checks the usual places.",
    ),
    Code::new(
        "timeout",
        "The service took too long",
        "No connection, no first byte or no further byte arrived within the time limit.",
        "Try again, or raise the limit with --timeout or `agents.defaults.timeoutSeconds`.",
    ),
    Code::new(
        "upstream",
        "The service failed",
        "HTTP 5xx or a broken reply. No profile is punished; the next model is tried.",
        "Try again later, or configure a fallback model.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_unique_and_whole() {
        assert!(CODES.windows(2).all(|pair| pair[0].id < pair[1].id), "not sorted");
        for code in CODES {
            let ascii = code.id.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
            assert!(ascii && !code.title.is_empty(), "{}", code.id);
            assert!(code.cause.ends_with('.') && code.fix.ends_with('.'), "{}", code.id);
        }
    }
}

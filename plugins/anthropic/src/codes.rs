//! Pages of `moltbot explain` for what only this service says.

use moltbot_core::Code;

#[cfg(feature = "bearer")]
use crate::bearer::{REFUSED_FIX, SCOPE_FIX};
#[cfg(not(feature = "bearer"))]
const REFUSED_FIX: &str = "Use an API key: `moltbot onboard --anthropic-api-key <key>`.";
#[cfg(not(feature = "bearer"))]
const SCOPE_FIX: &str = "Use an API key.";

pub(crate) const BETA_REFUSED: Code = Code::new(
    "beta-refused",
    "The service does not take a beta, or misses one",
    "A name in the anthropic-beta header is unknown to the service, or the body has a field whose beta was not named. Beta and field travel together.",
    "Remove the beta from `models.providers.<id>.headers`, or let the client send the header together with the field.",
);
pub(crate) const CACHE_BREAKPOINTS: Code = Code::new(
    "cache-breakpoints",
    "The cache breakpoints of the request are not allowed",
    "At most four blocks may carry cache_control, and breakpoints for an hour must stand before those for five minutes.",
    "Send fewer breakpoints, or give all of them one lifetime with `cacheControlTtl`.",
);
pub(crate) const CLIENT_TOO_OLD: Code = Code::new(
    "client-too-old",
    "The client that sent the request is too old for the model",
    "The service tells from the request's own headers which program sent it, and asks for a newer version of it.",
    "Update that program, or choose another model.",
);
pub(crate) const CONTENT_FILTER: Code = Code::new(
    "content-filter",
    "The reply was blocked by the service's content filter",
    "The service began to answer and withheld the answer because of what it says. Another profile would get the same.",
    "Change the request.",
);
pub(crate) const EDGE_REFUSED: Code = Code::new(
    "edge-refused",
    "The service's network refused the connection's origin",
    "The answer came from in front of the API, before any credential was looked at: usually the address or country from which the request comes. No profile is at fault.",
    "Try from another network, or check `HTTPS_PROXY`.",
);
pub(crate) const EXTRA_USAGE: Code = Code::new(
    "extra-usage",
    "The subscription's extra usage is used up or not switched on",
    "Programs other than the vendor's own draw from the plan's extra usage, which is paid for apart from the plan, and there is none left.",
    "Add extra usage in the account's settings, or use an API key.",
);
pub(crate) const ORGANIZATION_DISABLED: Code = Code::new(
    "organization-disabled",
    "The organization behind the credential is disabled",
    "The service has put the account on hold; every key and login of it is refused.",
    "Ask the vendor's support, or use a credential of another organization.",
);
pub(crate) const PARAMETER_REFUSED: Code = Code::new(
    "parameter-refused",
    "The model does not take a parameter of the request",
    "Newer models refuse what older ones took: thinking budgets, a prefilled answer, sampling parameters, forced tools, system messages inside the conversation.",
    "Leave out the parameter that the message names, or choose a model that takes it.",
);
pub(crate) const SPEND_LIMIT: Code = Code::new(
    "spend-limit",
    "The account's own spending limit is reached",
    "The account holder set a limit per month and it is used up. The profile is set aside until the time the service named, else for hours.",
    "Raise the limit in the vendor's console, wait for the new month, or use another profile.",
);
pub(crate) const THINKING_BLOCKS: Code = Code::new(
    "thinking-blocks",
    "The conversation's thinking blocks do not fit",
    "Thinking blocks are signed, and bound to the model, the account and everything before them. They were changed, belong to another conversation, or the profile or model was switched in between.",
    "Start a new session, or stay on the profile and model that began this one.",
);
pub(crate) const THIRD_PARTY_REFUSED: Code = Code::new(
    "third-party-refused",
    "The service takes this credential only from the vendor's own programs",
    "Logins and tokens of a subscription are meant for the vendor's own applications; for this account or request the service insists on that. Trying again would not help, and nothing was tried as another product.",
    REFUSED_FIX,
);
pub(crate) const THROTTLED: Code = Code::new(
    "throttled",
    "Too many requests at once or growing too fast",
    "HTTP 429 without any figure of a used-up limit: too many connections at a time, or a rate that rose too quickly. It passes by itself.",
    "Send fewer requests at a time.",
);
pub(crate) const TOKEN_EXPIRED: Code = Code::new(
    "token-expired",
    "The access token is expired",
    "The service refused the token for its age. A login is renewed before the next request; a pasted token cannot be.",
    "Try again; `moltbot models auth refresh` renews a login at once, a new token replaces an old one.",
);
pub(crate) const TOKEN_SCOPE: Code = Code::new(
    "token-scope",
    "The token is not good for this",
    "A login or token carries a list of what it may be used for, and this is not on it.",
    SCOPE_FIX,
);
pub(crate) const USAGE_CREDITS: Code = Code::new(
    "usage-credits",
    "The plan does not cover this model or length",
    "The account's plan includes neither the model nor, for some models, very long prompts, without usage credits bought apart.",
    "Buy usage credits, send a shorter prompt, choose another model, or use an API key.",
);

#[cfg(test)]
mod tests {
    use crate::PLUGIN;

    #[test]
    fn pages_are_sorted_whole_and_nobody_elses() {
        assert!(PLUGIN.codes.windows(2).all(|pair| pair[0].id < pair[1].id));
        for code in PLUGIN.codes {
            assert!(code.cause.ends_with('.') && code.fix.ends_with('.'), "{}", code.id);
            assert!(moltbot_core::CODES.iter().all(|host| host.id != code.id), "{}", code.id);
        }
    }
}

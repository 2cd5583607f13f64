//! What the service's errors mean, as data: first the group by status and `error.type`, then the
//! rows of that group by `details.error_code` and by the message field, then the group's default.
//!
//! The numbers are those of spec 09 E; each has a fixture in `tests/fixtures/`. A row that would
//! set a profile aside because of a text matches only at the *start* of the message, because
//! further on the service quotes what the user sent.

use std::ops::RangeInclusive;

use moltbot_core::{FailureKind, Scope};

#[cfg(feature = "bearer")]
use crate::bearer::REFUSED_ADVICE;
#[cfg(not(feature = "bearer"))]
const REFUSED_ADVICE: &str = "use an API key (`moltbot onboard --anthropic-api-key`)";

/// A sort of error, by status and `error.type` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Auth,
    Billing,
    Edge,
    Invalid,
    NotFound,
    Overloaded,
    Permission,
    RateLimit,
    Server,
    Timeout,
    TooLarge,
}

/// Which statuses (none for an event inside a reply) and which `error.type` make a group.
pub(crate) struct Sort {
    pub(crate) status: RangeInclusive<u16>,
    /// Empty: any.
    pub(crate) kind: &'static str,
    pub(crate) group: Group,
}

/// Any status, and events without one.
pub(crate) const ANY: RangeInclusive<u16> = 0..=u16::MAX;

const fn sort(status: RangeInclusive<u16>, kind: &'static str, group: Group) -> Sort {
    Sort { status, kind, group }
}

/// The groups; the first that fits. A status that says enough comes before the type, because
/// proxies on the way keep statuses and rewrite bodies.
pub(crate) static SORTS: &[Sort] = &[
    sort(402..=402, "", Group::Billing),
    sort(413..=413, "", Group::TooLarge),
    sort(429..=429, "", Group::RateLimit),
    sort(529..=529, "", Group::Overloaded),
    sort(403..=403, "forbidden", Group::Edge),
    sort(ANY, "authentication_error", Group::Auth),
    sort(ANY, "billing_error", Group::Billing),
    sort(ANY, "invalid_request_error", Group::Invalid),
    sort(ANY, "not_found_error", Group::NotFound),
    sort(ANY, "overloaded_error", Group::Overloaded),
    sort(ANY, "permission_error", Group::Permission),
    sort(ANY, "rate_limit_error", Group::RateLimit),
    sort(ANY, "request_too_large", Group::TooLarge),
    sort(ANY, "timeout_error", Group::Timeout),
    sort(401..=401, "", Group::Auth),
    sort(403..=403, "", Group::Permission),
    sort(404..=404, "", Group::NotFound),
    sort(408..=408, "", Group::Timeout),
    sort(504..=504, "", Group::Timeout),
    sort(400..=499, "", Group::Invalid),
    sort(ANY, "", Group::Server),
];

/// What an error means for the host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) kind: FailureKind,
    pub(crate) scope: Scope,
    pub(crate) code: &'static str,
    pub(crate) advice: Option<&'static str>,
    /// The limit is shared by every profile of the organization.
    pub(crate) shared: bool,
    /// A used-up window of the whole account widens the scope to the profile.
    pub(crate) widens: bool,
}

const fn verdict(kind: FailureKind, scope: Scope, code: &'static str) -> Verdict {
    Verdict { kind, scope, code, advice: None, shared: false, widens: false }
}

/// How a row knows its message; compared without case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clue {
    /// The message begins so, after a path such as `messages.3.content.0: `.
    Starts(&'static str),
    /// The message has this somewhere; only where nobody is punished or nothing is quoted.
    Has(&'static str),
    /// `details.error_code` is this.
    Code(&'static str),
    /// The reply has no header that tells of a limit.
    NoLimits,
}

/// One known error.
pub(crate) struct Row {
    /// Its number in spec 09 E, by which a test finds rows without a fixture.
    #[cfg_attr(not(test), expect(dead_code))]
    pub(crate) number: u8,
    pub(crate) group: Group,
    pub(crate) clue: Clue,
    pub(crate) verdict: Verdict,
}

const fn row(number: u8, group: Group, clue: Clue, verdict: Verdict) -> Row {
    Row { number, group, clue, verdict }
}

use Clue::{Code, Has, NoLimits, Starts};
use FailureKind as K;
use Group as G;

const CREDIT: Verdict = Verdict {
    advice: Some("buy credits in the vendor's console under Plans & Billing"),
    ..verdict(K::Billing, Scope::Profile, "billing")
};
const THIRD_PARTY: Verdict = Verdict {
    advice: Some(REFUSED_ADVICE),
    ..verdict(K::Auth, Scope::Profile, "third-party-refused")
};
const EXTRA_USAGE: Verdict = verdict(K::Billing, Scope::Profile, "extra-usage");
const DISABLED: Verdict =
    Verdict { shared: true, ..verdict(K::Auth, Scope::Profile, "organization-disabled") };
const SPENT: Verdict = verdict(K::Billing, Scope::Profile, "spend-limit");
const TOO_OLD: Verdict = verdict(K::Format, Scope::Request, "client-too-old");
const OVERFLOW: Verdict = verdict(K::ContextOverflow, Scope::Request, "context-overflow");
const FORMAT: Verdict = verdict(K::Format, Scope::Request, "format");
const BREAKPOINTS: Verdict = verdict(K::Format, Scope::Request, "cache-breakpoints");
const THINKING: Verdict = verdict(K::Format, Scope::Request, "thinking-blocks");
const BETA: Verdict = verdict(K::Format, Scope::Request, "beta-refused");
const PARAMETER: Verdict = verdict(K::Format, Scope::Request, "parameter-refused");
const FILTERED: Verdict = verdict(K::Refused, Scope::Request, "content-filter");
const REFUSED: Verdict = verdict(K::Auth, Scope::Profile, "credential-refused");
const EXPIRED: Verdict = verdict(K::Auth, Scope::Profile, "token-expired");
const REVOKED: Verdict = verdict(K::Auth, Scope::Profile, "login-needed");
const WRONG_SCOPE: Verdict = verdict(K::Auth, Scope::Profile, "token-scope");
const NO_MODEL: Verdict = verdict(K::ModelNotFound, Scope::Model, "model-not-found");
const LIMITED: Verdict =
    Verdict { widens: true, ..verdict(K::RateLimit, Scope::ProfileModel, "rate-limited") };
const LIMITED_ALL: Verdict =
    Verdict { shared: true, ..verdict(K::RateLimit, Scope::ProfileModel, "rate-limited") };
const THROTTLED: Verdict = verdict(K::RateLimit, Scope::ProfileModel, "throttled");
/// Only long prompts are refused: short ones go on after a short while, hence no `Billing`.
const LONG_CONTEXT: Verdict = verdict(K::RateLimit, Scope::ProfileModel, "usage-credits");
const CREDITS: Verdict = verdict(K::Billing, Scope::ProfileModel, "usage-credits");

/// The known errors; codes are compared before texts, then the first row that fits.
pub(crate) static ROWS: &[Row] = &[
    row(1, G::Invalid, Starts("your credit balance is too low"), CREDIT),
    row(2, G::Invalid, Starts("this credential is only authorized for use with"), THIRD_PARTY),
    row(3, G::Invalid, Starts("third-party apps now draw from your extra usage"), EXTRA_USAGE),
    row(4, G::Invalid, Starts("you're out of extra usage"), EXTRA_USAGE),
    row(5, G::Invalid, Starts("this organization has been disabled"), DISABLED),
    row(5, G::Invalid, Code("organization_on_hold"), DISABLED),
    row(5, G::Permission, Code("organization_on_hold"), DISABLED),
    row(5, G::Permission, Starts("this organization has been disabled"), DISABLED),
    row(6, G::Invalid, Starts("you have reached your specified api usage limits"), SPENT),
    row(7, G::Invalid, Code("claude_code_version_too_old"), TOO_OLD),
    row(8, G::Invalid, Starts("prompt is too long"), OVERFLOW),
    row(9, G::Invalid, Starts("input length and `max_tokens` exceed context limit"), OVERFLOW),
    row(10, G::Invalid, Has("ids were found without `tool_result` blocks"), FORMAT),
    row(11, G::Invalid, Has("`tool_use_id` found in"), FORMAT),
    row(12, G::Invalid, Has("cache_control block must not come after a ttl"), BREAKPOINTS),
    row(13, G::Invalid, Has("blocks with cache_control may be provided"), BREAKPOINTS),
    row(14, G::Invalid, Has("invalid `signature` in `thinking` block"), THINKING),
    row(15, G::Invalid, Has("the block is bound to a different conversation"), THINKING),
    row(16, G::Invalid, Has("blocks in the latest assistant message cannot be modified"), THINKING),
    row(17, G::Invalid, Has("block_binding: extra inputs are not permitted"), BETA),
    row(18, G::Invalid, Starts("unexpected value(s)"), BETA),
    row(19, G::Invalid, Starts("\"thinking.type.enabled\" is not supported"), PARAMETER),
    row(20, G::Invalid, Has("does not support assistant message prefill"), PARAMETER),
    row(21, G::Invalid, Has("is deprecated for this model"), PARAMETER),
    row(22, G::Invalid, Starts("temperature: extra inputs are not permitted"), PARAMETER),
    row(22, G::Invalid, Starts("top_p: extra inputs are not permitted"), PARAMETER),
    row(22, G::Invalid, Starts("top_k: extra inputs are not permitted"), PARAMETER),
    row(23, G::Invalid, Starts("tool_choice: type"), PARAMETER),
    row(24, G::Invalid, Has("role 'system' is not supported on this model"), PARAMETER),
    row(25, G::Invalid, Starts("output blocked by content filtering policy"), FILTERED),
    row(26, G::Invalid, Starts("the request body is not valid json"), FORMAT),
    row(27, G::Auth, Starts("invalid x-api-key"), REFUSED),
    row(28, G::Auth, Starts("invalid bearer token"), REFUSED),
    row(29, G::Auth, Starts("invalid authentication credentials"), REFUSED),
    row(30, G::Auth, Starts("oauth token has expired"), EXPIRED),
    row(31, G::Auth, Starts("invalid oauth token"), REFUSED),
    row(32, G::Auth, Starts("oauth authentication is currently not"), THIRD_PARTY),
    row(32, G::Permission, Starts("oauth authentication is currently not"), THIRD_PARTY),
    row(33, G::Permission, Starts("oauth token has been revoked"), REVOKED),
    row(33, G::Auth, Starts("oauth token has been revoked"), REVOKED),
    row(34, G::Permission, Starts("oauth token does not meet scope requirement"), WRONG_SCOPE),
    row(34, G::Auth, Starts("oauth token does not meet scope requirement"), WRONG_SCOPE),
    row(36, G::NotFound, Starts("model:"), NO_MODEL),
    row(39, G::RateLimit, Has("would exceed your organization's rate limit"), LIMITED_ALL),
    row(40, G::RateLimit, Has("maximum usage increase rate"), THROTTLED),
    row(41, G::RateLimit, Has("number of concurrent connections has exceeded"), THROTTLED),
    row(42, G::RateLimit, Code("enforced_spend_limit_reached"), Verdict { shared: true, ..SPENT }),
    row(
        42,
        G::RateLimit,
        Has("crossed its monthly api usage threshold"),
        Verdict { shared: true, ..SPENT },
    ),
    row(45, G::RateLimit, Starts("extra usage is required for long context"), LONG_CONTEXT),
    row(45, G::RateLimit, Starts("usage credits are required for long context"), LONG_CONTEXT),
    row(46, G::RateLimit, Starts("usage credits are required for this model"), CREDITS),
    row(47, G::RateLimit, NoLimits, THROTTLED),
];

/// What a group means when no row fits.
pub(crate) const fn default_of(group: Group) -> Verdict {
    match group {
        G::Auth | G::Permission => REFUSED,
        G::Billing => CREDIT,
        G::Edge => verdict(K::Server, Scope::Upstream, "edge-refused"),
        // Not about a model: a wrong path or an id of something else.
        G::Invalid | G::NotFound => FORMAT,
        G::Overloaded => verdict(K::Overloaded, Scope::Model, "overloaded"),
        G::RateLimit => LIMITED,
        G::Server => verdict(K::Server, Scope::Upstream, "upstream"),
        G::Timeout => verdict(K::Timeout, Scope::Upstream, "timeout"),
        G::TooLarge => OVERFLOW,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_quoted_text_can_set_a_profile_aside() {
        for row in ROWS {
            let quotes = matches!(row.group, G::Invalid | G::Auth | G::Permission | G::NotFound);
            let harmless = row.verdict.scope == Scope::Request;
            let anchored = !matches!(row.clue, Has(_));
            assert!(!quotes || harmless || anchored, "row {}", row.number);
        }
    }

    #[test]
    fn clues_are_in_lower_case_and_codes_have_pages() {
        let pages = || moltbot_core::CODES.iter().chain(crate::PLUGIN.codes);
        for row in ROWS {
            if let Starts(text) | Has(text) | Code(text) = row.clue {
                assert_eq!(text, text.to_lowercase());
            }
            assert!(pages().any(|page| page.id == row.verdict.code), "{}", row.verdict.code);
        }
        for sort in SORTS {
            let code = default_of(sort.group).code;
            assert!(pages().any(|page| page.id == code), "{code}");
        }
    }
}

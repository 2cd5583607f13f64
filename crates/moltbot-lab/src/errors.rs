//! The error bodies the lab can answer with: one row per numbered body of spec 09 E.
//!
//! Every row names where that body was seen, because a client and its test server written by the
//! same people would otherwise only agree with each other. A fault names a row by number or name;
//! the lab's own request checks build [`ApiError`]s directly.

use serde_json::{Value, json};

/// One known error reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorSpec {
    /// The number in spec 09 E, or 0 where the service documents a status without a known body.
    pub number: u8,
    /// The name a fault plan may use instead of the number.
    pub name: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// `error.type` of the body.
    pub kind: &'static str,
    /// `error.message` of the body; the whole body when [`ErrorSpec::shape`] is plain text.
    pub message: &'static str,
    /// `error.details.error_code`, where one is known.
    pub code: Option<&'static str>,
    /// How the body is built around the message.
    pub shape: Shape,
    /// What the rate-limit headers of this reply say.
    pub limits: Limits,
    /// Where this body was seen (an issue, a page) or `documented`.
    pub source: &'static str,
}

/// How an error body is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{"type":"error","error":{..},"request_id":"req_.."}`
    Api,
    /// The same with `"request_id":null`.
    NullId,
    /// `{"error":{..}}`: no outer type, no id.
    Bare,
    /// Plain text.
    Text,
}

/// What the `anthropic-ratelimit-*` headers of an error reply say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limits {
    /// The usual figures.
    Usual,
    /// The per-minute figures with nothing remaining.
    Spent,
    /// The subscription window spent: `anthropic-ratelimit-unified-status: rejected`.
    Window,
    /// No rate-limit headers.
    Absent,
}

/// Returns every known error body, in the order of spec 09 E.
pub fn error_table() -> &'static [ErrorSpec] {
    TABLE
}

/// Finds a row by its number (1 and up) or its name.
pub fn find_error(reference: &str) -> Option<&'static ErrorSpec> {
    let number = reference.parse::<u8>().ok().filter(|n| *n > 0);
    TABLE.iter().find(|spec| match number {
        Some(number) => spec.number == number,
        None => spec.name == reference,
    })
}

/// An error reply ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) kind: String,
    pub(crate) message: String,
    pub(crate) details: Option<Box<Value>>,
    pub(crate) shape: Shape,
    pub(crate) limits: Limits,
}

impl ApiError {
    /// Builds an error in the usual shape.
    pub(crate) fn new(status: u16, kind: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind: kind.to_owned(),
            message: message.into(),
            details: None,
            shape: Shape::Api,
            limits: Limits::Usual,
        }
    }

    /// Builds a 400 `invalid_request_error`.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request_error", message)
    }

    /// Builds a 404 `not_found_error`.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, "not_found_error", message)
    }

    /// Builds the reply of one row of the table.
    pub(crate) fn from_spec(spec: &ErrorSpec) -> Self {
        Self {
            status: spec.status,
            kind: spec.kind.to_owned(),
            message: spec.message.to_owned(),
            details: spec.code.map(|code| Box::new(json!({ "error_code": code }))),
            shape: spec.shape,
            limits: spec.limits,
        }
    }

    /// Builds the reply of the row called `name`.
    ///
    /// # Panics
    /// Panics when the table has no such row; every caller passes a name the tests check.
    pub(crate) fn named(name: &str) -> Self {
        Self::from_spec(find_error(name).expect("callers name rows of the table"))
    }

    /// Returns the content type of [`ApiError::body`].
    pub(crate) fn content_type(&self) -> &'static str {
        if self.shape == Shape::Text { "text/plain" } else { "application/json" }
    }

    /// Returns the body with `request_id` filled in where the shape has one.
    pub(crate) fn body(&self, request_id: &str) -> String {
        let mut error = json!({ "type": self.kind, "message": self.message });
        if let Some(details) = &self.details {
            error["details"] = (**details).clone();
        }
        match self.shape {
            Shape::Api => {
                json!({ "type": "error", "error": error, "request_id": request_id }).to_string()
            }
            Shape::NullId => {
                json!({ "type": "error", "error": error, "request_id": null }).to_string()
            }
            Shape::Bare => json!({ "error": error }).to_string(),
            Shape::Text => self.message.clone(),
        }
    }
}

const fn row(
    number: u8,
    name: &'static str,
    status: u16,
    message: &'static str,
    source: &'static str,
) -> ErrorSpec {
    let kind = match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    let limits = match status {
        429 => Limits::Spent,
        401 | 413 | 503 | 504 => Limits::Absent,
        _ => Limits::Usual,
    };
    ErrorSpec { number, name, status, kind, message, code: None, shape: Shape::Api, limits, source }
}

const fn coded(mut spec: ErrorSpec, code: &'static str) -> ErrorSpec {
    spec.code = Some(code);
    spec
}

const fn shaped(mut spec: ErrorSpec, shape: Shape) -> ErrorSpec {
    spec.shape = shape;
    spec
}

const fn limited(mut spec: ErrorSpec, limits: Limits) -> ErrorSpec {
    spec.limits = limits;
    spec
}

const fn typed(mut spec: ErrorSpec, kind: &'static str) -> ErrorSpec {
    spec.kind = kind;
    spec
}

// The messages are those of spec 09 E; where it marks a cut, the text ends at the cut or goes on
// with values of ours (a date, a tool id). Sources are quoted from there: `c#n` is an issue of
// anthropics/claude-code, `pd` a page of platform.claude.com.
#[rustfmt::skip]
const TABLE: &[ErrorSpec] = &[
    row(1, "credit-balance", 400, "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits.", "sdk-typescript#618 (09)"),
    row(2, "claude-code-only", 400, "This credential is only authorized for use with Claude Code and cannot be used for other API requests.", "c#24690"),
    row(3, "third-party-extra-usage", 400, "Third-party apps now draw from your extra usage, not your plan limits", "hermes-agent#31668"),
    row(4, "extra-usage-spent", 400, "You're out of extra usage", "pi#2943"),
    coded(row(5, "organization-disabled", 400, "This organization has been disabled.", "c#60648"), "organization_on_hold"),
    row(6, "usage-limit", 400, "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC.", "c#1047"),
    coded(row(7, "client-too-old", 400, "Claude Code 2.1.257 does not support this model", "jcode#1390"), "claude_code_version_too_old"),
    row(8, "prompt-too-long", 400, "prompt is too long: 208310 tokens > 200000 maximum", "c#12186"),
    row(9, "context-limit", 400, "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input length or `max_tokens` and try again", "docker-agent#569"),
    row(10, "tool-use-unanswered", 400, "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: toolu_lab. Each `tool_use` block must have a corresponding `tool_result` block in the next message.", "c#8210"),
    row(11, "tool-result-unexpected", 400, "messages.1.content.0: unexpected `tool_use_id` found in `tool_result` blocks: toolu_lab. Each `tool_result` block must have a corresponding `tool_use` block in the previous message.", "c#13460"),
    row(12, "ttl-order", 400, "messages.0.content.0.cache_control.ttl: a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block. Note that blocks are processed in the following order: `tools`, `system`, `messages`.", "claude-code-cache-fix#44"),
    row(13, "too-many-breakpoints", 400, "A maximum of 4 blocks with cache_control may be provided. Found 5.", "opencode-claude-auth#121"),
    row(14, "thinking-signature", 400, "messages.1.content.0: Invalid `signature` in `thinking` block", "c#10627"),
    row(15, "thinking-bound", 400, "messages.1.content.0: The block is bound to a different conversation", "pydantic-ai#7984"),
    row(16, "thinking-modified", 400, "messages.1.content.0: `thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified", "pd"),
    row(17, "block-binding-beta", 400, "thinking.adaptive.block_binding: Extra inputs are not permitted", "sub2api#6677"),
    row(18, "beta-unknown", 400, "Unexpected value(s) `x` for the `anthropic-beta` header", "c#21767"),
    row(19, "thinking-enabled", 400, "\"thinking.type.enabled\" is not supported for this model", "pd"),
    row(20, "prefill", 400, "This model does not support assistant message prefill. The conversation must end with a user message.", "pd"),
    row(21, "temperature", 400, "`temperature` is deprecated for this model.", "pi#5251"),
    row(22, "temperature-version", 400, "temperature: Extra inputs are not permitted", "Synthorai"),
    row(23, "tool-choice", 400, "tool_choice: type \"tool\" and \"any\" are not supported", "oh-my-pi#12939"),
    row(24, "system-role", 400, "role 'system' is not supported on this model", "anthropics/skills"),
    row(25, "content-filter", 400, "Output blocked by content filtering policy", "c#58367 (also as an SSE error)"),
    row(26, "invalid-json", 400, "The request body is not valid JSON", "c#77525"),
    row(27, "invalid-key", 401, "invalid x-api-key", "opencode-websearch#15"),
    row(28, "invalid-bearer", 401, "Invalid bearer token", "c#84903"),
    row(29, "invalid-credentials", 401, "Invalid authentication credentials", "llxprt#2131; transient too, c#61912"),
    row(30, "token-expired", 401, "OAuth token has expired. Please obtain a new token or refresh your existing token.", "c#12879"),
    row(31, "invalid-oauth-token", 401, "Invalid OAuth token", "c#3252"),
    row(0, "billing", 402, "Your account has a billing problem. Check the payment method in your settings.", "documented (status and type only)"),
    row(32, "oauth-not-allowed", 403, "OAuth authentication is currently not allowed for this organization.", "c#65714 (401 in c#6312)"),
    row(33, "token-revoked", 403, "OAuth token has been revoked. Please obtain a new token.", "c#9635"),
    row(34, "token-scope", 403, "OAuth token does not meet scope requirement user:profile", "c#24654"),
    typed(limited(row(35, "forbidden", 403, "Request not allowed", "continue#11159 (edge)"), Limits::Absent), "forbidden"),
    row(36, "model-not-found", 404, "model: claude-2.1", "spring-ai#2387"),
    row(37, "model-suggestion", 404, "model: claude-opus-4.5 was not found. Did you mean claude-opus-4-5?", "llm-gateway#1193"),
    row(0, "conflict", 409, "The request conflicts with the current state of the resource.", "documented (status and type only)"),
    shaped(row(38, "too-large", 413, "Request exceeds the maximum size", "c#10314"), Shape::Bare),
    row(39, "rate-limit", 429, "This request would exceed your organization's rate limit of 30,000 input tokens per minute", "c#55132"),
    row(40, "acceleration", 429, "This request would exceed the maximum usage increase rate for your organization", "public repositories"),
    row(41, "concurrency", 429, "Number of concurrent connections has exceeded your rate limit. Please try again later or contact sales to discuss your options for a rate limit increase.", "cline#4351"),
    limited(coded(row(42, "spend-limit", 429, "Your organization has crossed its monthly API usage threshold", "pd"), "enforced_spend_limit_reached"), Limits::Usual),
    limited(row(43, "subscription-limit", 429, "This request would exceed your account's rate limit. Please try again later.", "c#71505"), Limits::Window),
    limited(row(44, "throttled", 429, "Rate limited", "c#71504"), Limits::Absent),
    limited(row(45, "long-context-credits", 429, "Extra usage is required for long context requests.", "c#41054; `Usage credits..` c#64982"), Limits::Usual),
    limited(row(46, "model-credits", 429, "Usage credits are required for this model.", "c#78611"), Limits::Usual),
    limited(row(47, "bare-429", 429, "Error", "hermes-agent#17169"), Limits::Absent),
    limited(row(48, "token-endpoint-limit", 429, "Rate limited. Please try again later.", "llm-gateway#2159"), Limits::Absent),
    row(49, "server-error", 500, "Internal server error", "c#3867"),
    shaped(row(50, "upstream", 503, "upstream connect error or disconnect/reset before headers. reset reason: connection termination", "c#7402"), Shape::Text),
    row(0, "timeout", 504, "The request timed out.", "documented (status and type only)"),
    row(51, "overloaded", 529, "Overloaded", "c#12401"),
    shaped(row(51, "overloaded-null-id", 529, "Overloaded", "c#12401 (request_id null)"), Shape::NullId),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_from_1_to_51_has_a_row_and_names_are_unique() {
        for number in 1..=51u8 {
            let spec = find_error(&number.to_string()).unwrap();
            assert_eq!(spec.number, number);
            assert!(!spec.source.is_empty(), "{} cites no source", spec.name);
        }
        let mut names: Vec<_> = TABLE.iter().map(|spec| spec.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
        assert!(find_error("0").is_none() && find_error("52").is_none());
    }

    #[test]
    fn bodies_have_the_shape_the_service_gives_them() {
        let body = |name| ApiError::named(name).body("req_1");
        assert_eq!(
            body("invalid-key"),
            r#"{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"},"request_id":"req_1"}"#
        );
        assert_eq!(
            body("too-large"),
            r#"{"error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}"#
        );
        assert!(body("upstream").starts_with("upstream connect error"));
        assert!(body("overloaded-null-id").ends_with(r#""request_id":null}"#));
        assert!(
            body("spend-limit")
                .contains(r#""details":{"error_code":"enforced_spend_limit_reached"}"#)
        );
    }
}

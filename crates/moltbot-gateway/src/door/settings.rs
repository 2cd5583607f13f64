//! What a gateway is told about itself: who may come in, as whom, and how much.

use std::net::IpAddr;

use moltbot_core::Secret;

/// Who may use the gateway, and what for. Replaced as a whole when the config changes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The accepted tokens and passwords; without any, nobody gets in.
    pub access: Vec<Access>,
    /// The agent of requests that name none.
    pub default_agent: String,
    /// Whether logins and tokens of subscriptions serve requests (decision 7).
    pub allow_subscription: bool,
    /// Whether a client's own login is sent on, instead of a credential of the agent's.
    pub passthrough_login: bool,
    /// Whether another configured model may answer when the one asked for cannot.
    pub model_fallback: bool,
    /// Whether the dialect of `/v1/chat/completions` is spoken.
    pub chat_completions: bool,
    /// The longest body of `/v1/responses`, in bytes; `None` if that is not spoken.
    pub responses: Option<usize>,
    /// Proxies whose word about a client's address is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// Names beside the address itself under which clients may ask for this gateway.
    pub hosts: Vec<String>,
    /// How long a request waits for a resting profile, in milliseconds.
    pub max_wait_ms: u64,
    /// Whether a login may be followed by a credential that is paid per use (decision 8).
    pub allow_paid_fallback: bool,
}

/// One way in.
#[derive(Clone, Debug)]
pub struct Access {
    /// What logs and metrics call it.
    pub name: String,
    /// The token or password.
    pub secret: Secret,
    /// The one agent it acts as; `None` for the owner's, which may choose.
    pub agent: Option<String>,
    /// The only models it may ask for.
    pub models: Option<Vec<String>>,
    /// Requests at the same time.
    pub concurrency: Option<u32>,
    /// Requests in a minute.
    pub per_minute: Option<u32>,
}

impl Access {
    /// Makes the owner's way in: every agent, every model, no limit.
    pub fn owner(secret: Secret) -> Self {
        Self {
            name: "owner".into(),
            secret,
            agent: None,
            models: None,
            concurrency: None,
            per_minute: None,
        }
    }
}

/// How a gateway runs; fixed from start to end.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Threads that serve requests, each with an event loop of its own; 0 for one per two cores.
    pub workers: usize,
    /// Connections at the same time, over all threads.
    pub connections: usize,
    /// The longest body of a JSON request, in bytes.
    pub max_body: usize,
    /// The longest body of an upload, in bytes.
    pub max_upload: u64,
    /// How long a client may take for the head of a request, in milliseconds.
    pub head_ms: u64,
    /// How long a client may pause within a body, in milliseconds.
    pub body_idle_ms: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            workers: 0,
            connections: 10_000,
            max_body: 32 << 20,
            max_upload: 500 << 20,
            head_ms: 10_000,
            body_idle_ms: 30_000,
        }
    }
}

/// The variable that some clients prefer to those of [`client_env`]: the user's own key, which has
/// no business at a gateway.
pub const IN_THE_WAY: &str = "ANTHROPIC_API_KEY";

/// Lists the variables that point clients at a gateway, for both of its dialects.
pub fn client_env(url: &str, token: &Secret) -> Vec<(&'static str, Secret)> {
    vec![
        ("ANTHROPIC_BASE_URL", Secret::new(url)),
        ("ANTHROPIC_AUTH_TOKEN", token.clone()),
        ("OPENAI_BASE_URL", Secret::new(format!("{url}/v1"))),
        ("OPENAI_API_KEY", token.clone()),
    ]
}

//! `auth`: which profiles exist, in which order they are used, how long a failing one rests.

use std::collections::BTreeMap;

use super::{NonEmpty, Positive, Rest, SecureUrl, Unchecked, choice, section};

section! {
    /// What stands under `auth`.
    #[derive(Default)]
    Auth {
        /// Profiles by id. They hold no secret; the secret is in the agent's store.
        #[serde(default)]
        profiles "profiles": BTreeMap<String, AuthProfile>,
        /// Profile ids in the order of use, by provider. An empty list means: none.
        #[serde(default)]
        order "order": BTreeMap<String, Vec<String>>,
        /// How long a profile rests after a failure.
        cooldowns "cooldowns": Option<Cooldowns>,
        /// Whether a paid credential may stand in for a subscription that failed; unset: inside one
        /// provider only, with a warning.
        allow_paid_fallback "allowPaidFallback": Option<bool>,
        /// Seconds to wait for a profile that cools down, when all do; unset: 30.
        max_wait_seconds "maxWaitSeconds": Option<u32>,
        /// How to choose among usable profiles of the same kind and payer; unset: order.
        strategy "strategy": Option<Strategy>,
        /// Token endpoints for OAuth credentials that are ours to renew, by provider.
        #[serde(default)]
        oauth "oauth": BTreeMap<String, OauthEndpoint>,
    } and Rest::PluginSettings,
    /// Settings of plugins by key, checked against what they declare.
    plugins: BTreeMap<String, Unchecked>
}

section! {
    /// One entry of `auth.profiles`.
    AuthProfile {
        /// The provider that the profile signs in to.
        provider "provider": NonEmpty,
        /// The kind of credential.
        mode "mode": AuthMode,
        /// The account, for display.
        email "email": Option<String>,
    }
}

choice! {
    /// The kind of credential that a profile holds.
    AuthMode {
        /// An API key.
        ApiKey "api_key",
        /// An OAuth login that is renewed.
        Oauth "oauth",
        /// A bearer token that is not renewed.
        Token "token",
    }
}

section! {
    /// What stands under `auth.cooldowns`; hours.
    #[derive(Default)]
    Cooldowns {
        /// First rest after a billing failure; unset: 5. It doubles with each further one.
        billing_backoff_hours "billingBackoffHours": Option<Positive>,
        /// The same for single providers.
        #[serde(default)]
        billing_backoff_hours_by_provider "billingBackoffHoursByProvider": BTreeMap<String, Positive>,
        /// Longest rest after billing failures; unset: 24.
        billing_max_hours "billingMaxHours": Option<Positive>,
        /// Without a failure for this long, counting starts anew; unset: 24.
        failure_window_hours "failureWindowHours": Option<Positive>,
    }
}

choice! {
    /// How to choose among usable profiles.
    Strategy {
        /// By the configured order, else by kind and least recent use.
        Order "order",
        /// In turns: the one used longest ago first.
        RoundRobin "round-robin",
        /// The one of whose limits one starts anew first, so that nothing of it is left over.
        Drain "drain",
        /// The one whose tightest limit is used least, as the last replies told.
        LeastUsed "least-used",
    }
}

section! {
    /// One entry of `auth.oauth`.
    OauthEndpoint {
        /// Where refresh tokens are exchanged.
        token_url "tokenUrl": SecureUrl,
        /// The client id that the provider gave to you.
        client_id "clientId": NonEmpty,
        /// The scope to ask for; unset: what the login had.
        scope "scope": Option<String>,
    }
}

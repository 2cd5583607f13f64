//! `gateway`: where it listens, who may come in, what it forwards.

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};

use moltbot_core::Secret;

use super::{NonEmpty, Rest, Shape, Unchecked, choice, section};

section! {
    /// What stands under `gateway`.
    #[derive(Default)]
    Gateway {
        /// The port; unset: 18789.
        port "port": Option<NonZeroU16>,
        /// Whether the gateway runs here or elsewhere. Without it the gateway does not start.
        mode "mode": Option<GatewayMode>,
        /// Where it listens; unset: loopback.
        bind "bind": Option<Bind>,
        /// The address for bind "custom".
        custom_bind_host "customBindHost": Option<NonEmpty>,
        /// How clients prove themselves.
        auth "auth": Option<GatewayAuth>,
        /// Encryption.
        tls "tls": Option<Tls>,
        /// HTTP endpoints.
        http "http": Option<Http>,
        /// Tokens by name; each lets its bearer act as one agent.
        #[serde(default)]
        tokens "tokens": BTreeMap<String, GatewayToken>,
        /// Whether subscriptions may serve requests from outside; unset: false.
        allow_subscription "allowSubscription": Option<bool>,
        /// Whether a client's own login is forwarded untouched; unset: false.
        passthrough_login "passthroughLogin": Option<bool>,
        /// Whether another model may answer when the asked one fails; unset: false.
        model_fallback "modelFallback": Option<bool>,
        /// Addresses whose forwarded client addresses are believed.
        #[serde(default)]
        trusted_proxies "trustedProxies": Vec<String>,
        /// Publishing through Tailscale.
        tailscale "tailscale": Option<Tailscale>,
        /// The browser interface.
        control_ui "controlUi": Option<ControlUi>,
        /// The gateway elsewhere, for mode "remote".
        remote "remote": Option<Remote>,
        /// What to do when this file changes.
        reload "reload": Option<Reload>,
    } and Rest::Unchecked(&["nodes"])
}

choice! {
    /// Where the gateway runs.
    GatewayMode {
        /// On this machine.
        Local "local",
        /// On another one.
        Remote "remote",
    }
}

choice! {
    /// Where the gateway listens.
    Bind {
        /// Loopback if that is possible.
        Auto "auto",
        /// All addresses of this machine.
        Lan "lan",
        /// This machine only.
        Loopback "loopback",
        /// The address in `customBindHost`.
        Custom "custom",
        /// The address in the Tailscale network.
        Tailnet "tailnet",
    }
}

section! {
    /// What stands under `gateway.auth`.
    #[derive(Default)]
    GatewayAuth {
        /// By token or by password; unset: whichever is set.
        mode "mode": Option<GatewayAuthMode>,
        /// The token.
        token "token": Option<Secret>,
        /// The password.
        password "password": Option<Secret>,
        /// Whether Tailscale's identity headers are accepted instead.
        allow_tailscale "allowTailscale": Option<bool>,
    }
}

choice! {
    /// How clients prove themselves.
    GatewayAuthMode {
        /// By a token.
        Token "token",
        /// By a password.
        Password "password",
    }
}

section! {
    /// What stands under `gateway.tls`.
    #[derive(Default)]
    Tls {
        /// Whether to encrypt.
        enabled "enabled": Option<bool>,
        /// Whether to make a certificate.
        auto_generate "autoGenerate": Option<bool>,
        /// The certificate.
        cert_path "certPath": Option<String>,
        /// Its key.
        key_path "keyPath": Option<String>,
        /// The authority for client certificates.
        ca_path "caPath": Option<String>,
    } and Rest::Each(&Shape::Any)
}

section! {
    /// What stands under `gateway.http`.
    #[derive(Default)]
    Http {
        /// Endpoints for foreign dialects.
        endpoints "endpoints": Option<Endpoints>,
    }
}

section! {
    /// What stands under `gateway.http.endpoints`.
    #[derive(Default)]
    Endpoints {
        /// `/v1/chat/completions`.
        chat_completions "chatCompletions": Option<ChatCompletions>,
        /// `/v1/responses`.
        responses "responses": Option<Responses>,
    }
}

section! {
    /// What stands under `gateway.http.endpoints.chatCompletions`.
    #[derive(Default)]
    ChatCompletions {
        /// Whether it is served; unset: true.
        enabled "enabled": Option<bool>,
    }
}

section! {
    /// What stands under `gateway.http.endpoints.responses`.
    #[derive(Default)]
    Responses {
        /// Whether it is served; unset: true.
        enabled "enabled": Option<bool>,
        /// Longest body in bytes, 32 MiB at most; unset: 32 MiB.
        max_body_bytes "maxBodyBytes": Option<NonZeroU32>,
        /// Limits for files.
        files "files": Option<Unchecked>,
        /// Limits for images.
        images "images": Option<Unchecked>,
    }
}

section! {
    /// One entry of `gateway.tokens`.
    GatewayToken {
        /// The token.
        token "token": Secret,
        /// The agent that its bearer acts as.
        agent "agent": NonEmpty,
        /// The models that it may use; unset: all.
        models "models": Option<Vec<String>>,
        /// How much it may do.
        limits "limits": Option<TokenLimits>,
    }
}

section! {
    /// What stands under `gateway.tokens.*.limits`.
    #[derive(Default)]
    TokenLimits {
        /// Requests at the same time.
        concurrency "concurrency": Option<NonZeroU32>,
        /// Requests in a minute.
        requests_per_minute "requestsPerMinute": Option<NonZeroU32>,
    }
}

section! {
    /// What stands under `gateway.tailscale`.
    #[derive(Default)]
    Tailscale {
        /// Whether to publish, and to whom; unset: off.
        mode "mode": Option<TailscaleMode>,
        /// Whether to take it back at the end.
        reset_on_exit "resetOnExit": Option<bool>,
    }
}

choice! {
    /// Whether the gateway is published through Tailscale.
    TailscaleMode {
        /// It is not.
        Off "off",
        /// To the own network.
        Serve "serve",
        /// To everybody.
        Funnel "funnel",
    }
}

section! {
    /// What stands under `gateway.controlUi`.
    #[derive(Default)]
    ControlUi {
        /// Whether it is served.
        enabled "enabled": Option<bool>,
        /// Its path; unset: /.
        base_path "basePath": Option<String>,
        /// Whether it may sign in without encryption.
        allow_insecure_auth "allowInsecureAuth": Option<bool>,
        /// Whether unknown devices are let in.
        dangerously_disable_device_auth "dangerouslyDisableDeviceAuth": Option<bool>,
    }
}

section! {
    /// What stands under `gateway.remote`.
    #[derive(Default)]
    Remote {
        /// Its address.
        url "url": Option<String>,
        /// How to reach it.
        transport "transport": Option<Transport>,
        /// Its token.
        token "token": Option<Secret>,
        /// Its password.
        password "password": Option<Secret>,
        /// The fingerprint of its certificate.
        tls_fingerprint "tlsFingerprint": Option<String>,
        /// Where to sign in by SSH.
        ssh_target "sshTarget": Option<String>,
        /// With which identity.
        ssh_identity "sshIdentity": Option<String>,
    }
}

choice! {
    /// How to reach the gateway elsewhere.
    Transport {
        /// Through SSH.
        Ssh "ssh",
        /// Directly.
        Direct "direct",
    }
}

section! {
    /// What stands under `gateway.reload`.
    #[derive(Default)]
    Reload {
        /// What to do when the configuration changes.
        mode "mode": Option<ReloadMode>,
        /// How long to wait for further changes, in milliseconds.
        debounce_ms "debounceMs": Option<u32>,
    }
}

choice! {
    /// What to do when the configuration changes.
    ReloadMode {
        /// Nothing.
        Off "off",
        /// Start anew.
        Restart "restart",
        /// Take it over while running.
        Hot "hot",
        /// Take over what can be, else start anew.
        Hybrid "hybrid",
    }
}

//! Where the gateway listens and what clients prove: flags, environment and config in one, with
//! the refusals of spec G-3, G-4, L-46 and L-47.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

use clap::ArgMatches;
use moltbot_config::{Bind, Config, GatewayAuthMode, TailscaleMode};
use moltbot_core::Secret;

use crate::{Context, Failure};

/// The file in the state directory that a running gateway keeps locked.
pub(super) const RUN_FILE: &str = "gateway.json";

/// Where a gateway listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) port: u16,
    /// The first one must be had, the others are welcome.
    pub(super) addresses: Vec<IpAddr>,
    /// The word for it in messages.
    pub(super) bind: &'static str,
    pub(super) loopback: bool,
}

impl Place {
    /// Takes the addresses of sockets that were handed over for those of the config.
    pub(super) fn passed(&mut self, listeners: &[TcpListener]) -> Result<(), Failure> {
        if listeners.is_empty() {
            return Ok(());
        }
        let mut addresses = Vec::with_capacity(listeners.len());
        for listener in listeners {
            let address = listener.local_addr().map_err(|error| {
                Failure::new(format!("a socket that was handed over has no address: {error}"))
            })?;
            self.port = address.port();
            addresses.push(address.ip());
        }
        self.loopback = addresses.iter().all(IpAddr::is_loopback);
        (self.addresses, self.bind) = (addresses, "a socket that was handed over");
        Ok(())
    }
}

/// What clients prove.
pub(super) enum Proof {
    /// This token or password.
    Given(Secret),
    /// Nothing yet: a token is to be made.
    Missing,
}

/// Says why a config keeps the gateway from starting (spec L-47).
pub(super) fn check_mode(cx: &mut Context, allowed: bool) -> Result<(), Failure> {
    if allowed {
        return Ok(());
    }
    let loaded = cx.loaded()?;
    if loaded.files.is_empty() {
        return Err(refused(
            "Missing config. Run `moltbot onboard` or set gateway.mode=local (or pass \
             --allow-unconfigured).",
        )
        .hint("moltbot config set gateway.mode local"));
    }
    let mode = loaded.config.gateway.as_ref().and_then(|gateway| gateway.mode);
    match mode.map_or("unset", |mode| mode.as_str()) {
        "local" => Ok(()),
        other => Err(refused(format!(
            "Gateway start blocked: set gateway.mode=local (current: {other}) or pass \
             --allow-unconfigured."
        ))
        .hint("moltbot config set gateway.mode local")),
    }
}

/// Finds the port: flag, environment, config, 18789.
pub(super) fn port(cx: &mut Context, args: Option<&ArgMatches>) -> Result<u16, Failure> {
    let flag = args.and_then(|args| args.get_one::<String>("port").cloned());
    let raw = flag.or_else(|| {
        let names = ["MOLTBOT_GATEWAY_PORT", "CLAWDBOT_GATEWAY_PORT"];
        names.iter().find_map(|name| cx.process_env(name).map(String::from))
    });
    if let Some(raw) = raw {
        return match raw.trim().parse::<u16>() {
            // 0 is any free one: for tests, and for who reads the address from the first line.
            Ok(port) => Ok(port),
            Err(_) => Err(Failure::input("Invalid port").hint("a port is a number up to 65535")),
        };
    }
    let config = cx.config()?;
    let port = config.gateway.as_ref().and_then(|gateway| gateway.port);
    Ok(port.map_or_else(|| cx.globals.instance.default_port(), std::num::NonZero::get))
}

/// Finds where to listen. Never wider than asked for (spec G-4).
pub(super) fn place(cx: &mut Context, args: Option<&ArgMatches>) -> Result<Place, Failure> {
    let port = port(cx, args)?;
    let config = cx.config()?;
    let gateway = config.gateway.as_ref();
    let flag = args.and_then(|args| args.get_one::<String>("bind")).map(String::as_str);
    let configured = gateway.and_then(|gateway| gateway.bind).unwrap_or(Bind::Loopback);
    let bind = match flag {
        None => configured,
        Some("lan") => Bind::Lan,
        Some("tailnet") => Bind::Tailnet,
        Some("auto") => Bind::Auto,
        Some("custom") => Bind::Custom,
        Some(_) => Bind::Loopback,
    };
    let (addresses, word) = match bind {
        Bind::Loopback => (here(port), "loopback"),
        Bind::Auto => (here(port), "auto"),
        Bind::Lan => (vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)], "lan"),
        bind => {
            let host = gateway.and_then(|gateway| gateway.custom_bind_host.as_ref());
            let word = if bind == Bind::Custom { "custom" } else { "tailnet" };
            let Some(host) = host else {
                return Err(refused(format!(
                    "bind {word} needs gateway.customBindHost, the address to listen on"
                ))
                .hint("moltbot config set gateway.customBindHost 100.64.0.1"));
            };
            let address = host.as_str().parse::<IpAddr>().map_err(|_| {
                refused(format!(
                    "gateway.customBindHost is \"{}\", which is no IP address",
                    host.as_str()
                ))
            })?;
            (vec![address], word)
        }
    };
    let loopback = addresses.iter().all(IpAddr::is_loopback);
    Ok(Place { port, addresses, bind: word, loopback })
}

fn here(port: u16) -> Vec<IpAddr> {
    if port == 0 {
        return vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    }
    vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
}

/// Finds what clients prove (spec G-1), and refuses what would leave the door open (G-3).
pub(super) fn proof(
    cx: &mut Context,
    args: Option<&ArgMatches>,
    place: &Place,
) -> Result<Proof, Failure> {
    let config = cx.config()?;
    let mut given = |name: &'static str| -> Result<Option<Secret>, Failure> {
        let flag = args.and_then(|args| args.get_one::<String>(name).cloned());
        if let Some(raw) = flag {
            let secret = cx.secret_flag(&raw)?;
            return Ok(Some(Secret::new(secret.expose().trim())));
        }
        let auth = config.gateway.as_ref().and_then(|gateway| gateway.auth.as_ref());
        let configured = auth.and_then(|auth| match name {
            "token" => auth.token.clone(),
            _ => auth.password.clone(),
        });
        if configured.is_some() {
            return Ok(configured);
        }
        let env = cx.env()?;
        let upper = name.to_uppercase();
        let names = ["MOLTBOT", "CLAWDBOT"].map(|brand| format!("{brand}_GATEWAY_{upper}"));
        Ok(names.iter().find_map(|name| env.get(name).map(|(value, _)| Secret::new(value))))
    };
    let (token, password) = (given("token")?, given("password")?);
    let flag = args.and_then(|args| args.get_one::<String>("auth")).map(String::as_str);
    let configured = config.gateway.as_ref().and_then(|gateway| gateway.auth.as_ref()?.mode);
    let mode = match flag {
        Some("password") => Some(GatewayAuthMode::Password),
        Some(_) => Some(GatewayAuthMode::Token),
        None => configured,
    };
    check_tailscale(&config, args, place, password.is_some())?;
    let usable = |secret: Option<Secret>| secret.filter(|secret| !secret.is_blank());
    let chosen = match mode {
        Some(GatewayAuthMode::Password) => {
            let Some(password) = usable(password) else {
                return Err(refused(
                    "Gateway auth is set to password, but no password is configured.",
                )
                .hint("set gateway.auth.password, or CLAWDBOT_GATEWAY_PASSWORD"));
            };
            Some(password)
        }
        Some(_) => usable(token),
        None => usable(password).or_else(|| usable(token)),
    };
    match chosen {
        Some(secret) => Ok(Proof::Given(secret)),
        None if place.loopback => Ok(Proof::Missing),
        None if mode.is_some() => {
            Err(refused("Gateway auth is set to token, but no token is configured.")
                .hint("set gateway.auth.token, or CLAWDBOT_GATEWAY_TOKEN"))
        }
        None => {
            let text = format!("Refusing to bind gateway to {} without auth.", place.bind);
            Err(refused(text).hint("set gateway.auth.token, or CLAWDBOT_GATEWAY_TOKEN"))
        }
    }
}

/// Refuses what Tailscale would open (spec G-3), and what this build does not do.
fn check_tailscale(
    config: &Config,
    args: Option<&ArgMatches>,
    place: &Place,
    password: bool,
) -> Result<(), Failure> {
    let flag = args.and_then(|args| args.get_one::<String>("tailscale")).map(String::as_str);
    let configured = config.gateway.as_ref().and_then(|gateway| gateway.tailscale.as_ref()?.mode);
    let mode = flag.unwrap_or(match configured {
        Some(TailscaleMode::Serve) => "serve",
        Some(TailscaleMode::Funnel) => "funnel",
        _ => "off",
    });
    if mode == "off" {
        return Ok(());
    }
    if mode == "funnel" && !password {
        return Err(refused("tailscale funnel requires gateway auth mode=password"));
    }
    if !place.loopback {
        let text = "tailscale serve/funnel requires gateway bind=loopback (127.0.0.1)";
        return Err(refused(text));
    }
    Err(refused(format!("this build does not publish through Tailscale ({mode})"))
        .hint(format!("run `tailscale {mode} {}` beside the gateway", place.port)))
}

/// The failure of settings that do not do.
fn refused(text: impl Into<String>) -> Failure {
    Failure::new(text).code("gateway-config")
}

//! The gateway's settings that onboarding writes (spec L-17).

use moltbot_config::{Editor, KeyPath};
use moltbot_core::Secret;
use serde_json::{Value, json};

use super::flags::{Flags, GatewayFlags};
use crate::{Context, Failure};

/// The port without any setting.
const PORT: u16 = 18789;

/// What will be written under `gateway`, and what `--json` says about it.
pub(crate) struct Gateway {
    pub(crate) port: u16,
    pub(crate) bind: String,
    pub(crate) auth: &'static str,
    pub(crate) tailscale: String,
    edits: Vec<(Vec<&'static str>, Value)>,
}

/// Decides the gateway's settings: flags, then what the config has, then safe defaults. A token
/// that exists is kept. Pure but for `random`, 24 random bytes for a new token.
pub(crate) fn gateway(
    flags: &GatewayFlags,
    old: &Value,
    random: [u8; 24],
) -> Result<Gateway, Failure> {
    let text = |path: &str| old.pointer(path).and_then(Value::as_str).map(str::to_string);
    let mut edits: Vec<(Vec<&'static str>, Value)> = vec![(vec!["mode"], json!("local"))];

    let old_port =
        old.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
    let port = flags.port.or(old_port).unwrap_or(PORT);
    if flags.port.is_some() {
        edits.push((vec!["port"], json!(port)));
    }

    let tailscale =
        flags.tailscale.clone().or_else(|| text("/tailscale/mode")).unwrap_or_else(|| "off".into());
    if flags.tailscale.is_some() {
        edits.push((vec!["tailscale", "mode"], json!(tailscale)));
    }
    if flags.tailscale_reset {
        edits.push((vec!["tailscale", "resetOnExit"], json!(true)));
    }

    let mut bind =
        flags.bind.clone().or_else(|| text("/bind")).unwrap_or_else(|| "loopback".into());
    if tailscale != "off" && bind != "loopback" {
        // Tailscale forwards to loopback; any other address would be a second way in.
        bind = "loopback".into();
        edits.push((vec!["bind"], json!(bind)));
    } else if flags.bind.is_some() {
        edits.push((vec!["bind"], json!(bind)));
    }

    let old_auth = text("/auth/mode");
    let asked = flags.auth.clone().or(old_auth).unwrap_or_else(|| "token".into());
    let auth = match asked.as_str() {
        _ if tailscale == "funnel" => "password",
        "password" => "password",
        "off" if bind == "loopback" => "off",
        _ => "token",
    };
    match auth {
        "password" => {
            let password = flags.password.as_ref().map(Secret::expose).map(str::to_string);
            let Some(password) = password.or_else(|| text("/auth/password")) else {
                return Err(Failure::input("Missing --gateway-password for password auth."));
            };
            edits.push((vec!["auth", "mode"], json!("password")));
            edits.push((vec!["auth", "password"], json!(password)));
        }
        "token" => {
            let given = flags.token.as_ref().map(Secret::expose).map(str::to_string);
            let token = given.or_else(|| text("/auth/token")).unwrap_or_else(|| hex(&random));
            edits.push((vec!["auth", "mode"], json!("token")));
            edits.push((vec!["auth", "token"], json!(token)));
        }
        _ => {}
    }
    Ok(Gateway { port, bind, auth, tailscale, edits })
}

impl Gateway {
    /// Writes what differs from the config as it is.
    pub(crate) fn write(&self, editor: &mut Editor<'_>) -> Result<(), Failure> {
        for (keys, value) in &self.edits {
            let path = KeyPath::keys(std::iter::once("gateway").chain(keys.iter().copied()));
            if editor.get(&path).as_ref() != Some(value) {
                editor.set(&path, value)?;
            }
        }
        Ok(())
    }
}

/// Writes the settings of a gateway that runs elsewhere.
pub(crate) fn write_remote(cx: &mut Context, flags: &Flags) -> Result<(), Failure> {
    let Some(url) = &flags.remote_url else {
        return Err(Failure::input("Missing --remote-url for remote mode."));
    };
    cx.edit(|editor| {
        let gateway = KeyPath::keys(["gateway"]);
        editor.set(&gateway.key("mode"), &json!("remote"))?;
        editor.set(&gateway.key("remote").key("url"), &json!(url))?;
        if let Some(token) = &flags.remote_token {
            editor.set(&gateway.key("remote").key("token"), &json!(token.expose()))?;
        }
        Ok(())
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(tailscale: &str, bind: &str, auth: &str) -> GatewayFlags {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_string());
        GatewayFlags {
            tailscale: given(tailscale),
            bind: given(bind),
            auth: given(auth),
            ..GatewayFlags::default()
        }
    }

    #[test]
    fn defaults_are_loopback_and_a_token_of_48_digits() {
        let made = gateway(&GatewayFlags::default(), &json!({}), [0xab; 24]).unwrap();
        assert_eq!((made.port, made.bind.as_str(), made.auth), (18789, "loopback", "token"));
        let token = made.edits.iter().find(|(path, _)| path[..] == ["auth", "token"]).unwrap();
        assert_eq!(token.1, json!("ab".repeat(24)));
    }

    #[test]
    fn what_exists_is_kept() {
        let old =
            json!({ "port": 1234, "bind": "lan", "auth": { "mode": "token", "token": "old" } });
        let made = gateway(&GatewayFlags::default(), &old, [0; 24]).unwrap();
        assert_eq!((made.port, made.bind.as_str()), (1234, "lan"));
        assert!(
            made.edits.iter().any(|(path, value)| path[..] == ["auth", "token"] && value == "old")
        );
    }

    #[test]
    fn unsafe_combinations_become_safe_ones() {
        let old = json!({});
        let made = |flags| gateway(&flags, &old, [0; 24]);
        assert_eq!(made(flags("", "lan", "off")).unwrap().auth, "token");
        assert_eq!(made(flags("", "", "off")).unwrap().auth, "off");
        assert_eq!(made(flags("serve", "lan", "")).unwrap().bind, "loopback");
        let error = made(flags("funnel", "", "token")).err().unwrap();
        assert_eq!(error.message, "Missing --gateway-password for password auth.");
    }
}

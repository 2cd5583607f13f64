//! Where the identity token comes from, and the exchange itself (spec 09 F).

use moltbot_core::*;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::offer;

/// What the exchange is called on the wire.
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const BETA: &str = "oidc-federation-2026-04-01";

/// How long a token lives whose reply does not say so, and the bounds of what is believed, in
/// seconds.
const USUAL: i64 = 3_600;
const SHORTEST: i64 = 60;
const LONGEST: i64 = 86_400;

/// Obtains the identity token from what the profile names: command, file, else the variable.
/// `None` if nothing is named and the variable is not set.
pub(crate) async fn identity(
    cx: &Cx<'_>,
    profile: &Credential,
) -> Result<Option<Secret>, AuthError> {
    let named = |id: &str| profile.rest.get(id).and_then(Value::as_str).map(str::to_string);
    let text = if let Some(command) = named(offer::COMMAND) {
        let ran = cx.run(run("sh", &["-c", &command])).await?;
        if ran.exit != Some(0) {
            let code = ran.exit.map_or("a signal".to_string(), |code| format!("code {code}"));
            let message = format!("The command for the identity token ended with {code}");
            return Err(AuthError::NotFound { message });
        }
        ran.stdout
    } else if let Some(path) = named(offer::FILE).or_else(|| named(offer::PATH)) {
        let (dir, name) = path.rsplit_once('/').unwrap_or((".", &path));
        let dir = if dir.is_empty() { "/" } else { dir }.to_string();
        let file = FileRef { dir_env: None, dir: dir.into(), path: name.to_string().into() };
        let state = cx.read(file).await?;
        let why = match &state.problem {
            Some(FileProblem::Unreadable { reason }) => reason.clone(),
            _ => "there is no such file".into(),
        };
        state.content.ok_or_else(|| AuthError::NotFound {
            message: format!("The identity token cannot be read from {}: {why}", state.shown),
        })?
    } else {
        match cx.run(run("printenv", &[offer::VARIABLE])).await {
            Ok(ran) if ran.exit == Some(0) => ran.stdout,
            Ok(_) | Err(AuthError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
    };
    let token = text.expose().trim();
    match token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        false => Ok(Some(Secret::new(token))),
        true if token.is_empty() => Ok(None),
        true => {
            Err(AuthError::NotFound { message: "The identity token is more than one word".into() })
        }
    }
}

/// What the token endpoint answers.
#[derive(Deserialize)]
struct Granted {
    access_token: Secret,
    #[serde(default)]
    expires_in: Option<f64>,
}

/// Sends the identity token and puts what comes back into the profile.
pub(crate) async fn exchange(
    cx: &Cx<'_>,
    profile: Credential,
    identity: Secret,
) -> Result<Credential, AuthError> {
    let reply = cx.http(request(cx, &profile, &identity)).await?;
    let now = cx.clock().await?;
    let refused = || {
        let code = serde_json::from_str::<Value>(reply.body.expose()).ok();
        let code = code.as_ref().and_then(|body| body["error"].as_str()).unwrap_or_default();
        // Only a plain word is told: a description may repeat what was sent.
        let plain = !code.is_empty()
            && code.len() <= 40
            && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let code = if plain { format!(" ({code})") } else { String::new() };
        format!("the token endpoint answered the exchange with {}{code}", reply.status)
    };
    match reply.status {
        200..=299 => {}
        408 | 429 | 500..=599 => return Err(AuthError::Transient { reason: refused() }),
        _ => return Err(AuthError::Denied { reason: refused() }),
    }
    let granted: Granted = serde_json::from_str(reply.body.expose()).map_err(|_| {
        let reason = "the token endpoint's answer holds no access_token".to_string();
        AuthError::Denied { reason }
    })?;
    if granted.access_token.is_blank() {
        let reason = "the token endpoint's answer holds an empty access_token".to_string();
        return Err(AuthError::Denied { reason });
    }
    let seconds = granted.expires_in.filter(|seconds| seconds.is_finite()).unwrap_or(USUAL as f64);
    let seconds = (seconds as i64).clamp(SHORTEST, LONGEST);
    Ok(Credential {
        token: Some(granted.access_token),
        expires: Some(now.plus(seconds * 1_000)),
        ..profile
    })
}

fn request(cx: &Cx<'_>, profile: &Credential, identity: &Secret) -> HttpRequest {
    let named = |id: &str| profile.rest.get(id).and_then(Value::as_str);
    let own = || format!("{}/v1/oauth/token", cx.provider.base_url.trim_end_matches('/'));
    let mut body = Map::new();
    body.insert("grant_type".into(), GRANT.into());
    body.insert("assertion".into(), identity.expose().into());
    for (member, id) in [
        ("federation_rule_id", offer::RULE),
        ("organization_id", offer::ORGANIZATION),
        ("service_account_id", offer::ACCOUNT),
        ("workspace_id", offer::WORKSPACE),
    ] {
        if let Some(value) = named(id) {
            body.insert(member.into(), value.into());
        }
    }
    HttpRequest {
        method: "POST".into(),
        url: named(offer::URL).map_or_else(own, str::to_string),
        headers: vec![
            ("content-type".into(), Secret::new("application/json")),
            ("anthropic-beta".into(), Secret::new(BETA)),
        ],
        body: Some(Secret::new(Value::Object(body).to_string())),
        timeout_ms: Some(30_000),
    }
}

fn run(program: &'static str, args: &[&str]) -> Run {
    Run {
        program: program.into(),
        args: args.iter().map(|arg| arg.to_string().into()).collect(),
        env: Vec::new(),
        input: None,
        terminal: false,
        timeout_ms: Some(60_000),
    }
}

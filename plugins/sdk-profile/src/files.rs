//! Where the SDKs keep their profiles, and what is in there (spec 09 F).

use moltbot_core::*;
use serde::Deserialize;

const DIR: &str = "~/.config/anthropic";
const DIR_ENV: &str = "ANTHROPIC_CONFIG_DIR";

/// The profile that is active if no file says which.
const USUAL: &str = "default";

/// What was found of a profile.
pub(crate) enum Reading {
    /// A login.
    Login {
        access: Secret,
        expires: Option<Timestamp>,
        /// The file, for people.
        place: String,
        /// Whether others may read it.
        exposed: bool,
    },
    /// None; in words.
    Absent { words: String },
    /// Something that cannot be used; in words.
    Unusable { words: String },
}

/// Names every file that is read.
pub(crate) fn all() -> [FileRef; 3] {
    [file("active_config"), file("configs/*.json"), file("credentials/*.json")]
}

fn file(path: impl Into<Text>) -> FileRef {
    FileRef { dir_env: Some(DIR_ENV.into()), dir: DIR.into(), path: path.into() }
}

/// Tells whether a text can be a profile's name: it becomes part of a path.
pub(crate) fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=64).contains(&text.len()) && !text.starts_with('.') && text.chars().all(fits)
}

#[derive(Deserialize)]
struct Settings {
    #[serde(default)]
    base_url: Option<String>,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(default)]
    access_token: Option<Secret>,
    #[serde(default)]
    expires_at: Option<f64>,
}

/// Reads the named profile, or the active one.
pub(crate) async fn read(cx: &Cx<'_>, name: Option<&str>) -> Result<Reading, AuthError> {
    let name = match name {
        Some(name) => name.to_string(),
        None => {
            let active = cx.read(file("active_config")).await?;
            let active =
                active.content.as_ref().map_or("", |text| text.expose()).trim().to_string();
            if active.is_empty() { USUAL.to_string() } else { active }
        }
    };
    if !is_name(&name) {
        let words = format!("{DIR}/active_config does not hold the name of a profile");
        return Ok(Reading::Unusable { words });
    }
    let settings = cx.read(file(format!("configs/{name}.json"))).await?;
    if let Some(text) = &settings.content {
        let Ok(found) = serde_json::from_str::<Settings>(text.expose()) else {
            let words = format!("{} is not as the SDKs write it", settings.shown);
            return Ok(Reading::Unusable { words });
        };
        if let Some(elsewhere) = found.base_url.filter(|url| !belongs(url, &cx.provider)) {
            let words = format!(
                "the profile {name} of the Anthropic SDKs is for {}, and is not sent elsewhere",
                redact(&elsewhere)
            );
            return Ok(Reading::Unusable { words });
        }
    }
    let kept = cx.read(file(format!("credentials/{name}.json"))).await?;
    let text = match (&kept.content, &kept.problem) {
        (Some(text), _) => text,
        (None, Some(FileProblem::Unreadable { reason })) => {
            let words = format!("{} cannot be read: {reason}", kept.shown);
            return Ok(Reading::Unusable { words });
        }
        (None, _) => {
            let words = format!("The Anthropic SDKs have no login at {}", kept.shown);
            return Ok(Reading::Absent { words });
        }
    };
    let Ok(tokens) = serde_json::from_str::<Tokens>(text.expose()) else {
        let words = format!("{} is not as the SDKs write it", kept.shown);
        return Ok(Reading::Unusable { words });
    };
    let Some(access) = tokens.access_token.filter(|token| !token.is_blank()) else {
        let words = format!("{} holds no access token", kept.shown);
        return Ok(Reading::Absent { words });
    };
    let expires = tokens.expires_at.filter(|at| at.is_finite() && *at > 0.0);
    // The SDKs count in seconds.
    let expires = expires.map(|at| Timestamp::from_millis((at * 1_000.0) as i64));
    Ok(Reading::Login { access, expires, place: kept.shown, exposed: kept.exposed })
}

/// Tells whether an address is one of the provider's own.
fn belongs(url: &str, provider: &ProviderInfo) -> bool {
    let url = url.trim_end_matches('/');
    let own = provider.origins.iter().chain([&provider.base_url]);
    own.into_iter().any(|own| own.trim_end_matches('/').eq_ignore_ascii_case(url))
}

impl Reading {
    /// Says whether it can be used now.
    pub(crate) fn state(&self, now: Timestamp) -> CredentialState {
        match self {
            Self::Login { expires: Some(at), .. } if *at <= now => CredentialState::Expired,
            Self::Login { .. } => CredentialState::Ready,
            Self::Absent { .. } => CredentialState::Absent,
            Self::Unusable { .. } => CredentialState::Unreadable,
        }
    }

    /// Says what is there, in one clause.
    pub(crate) fn words(&self, now: Timestamp) -> String {
        match self {
            Self::Login { place, .. } if self.state(now) == CredentialState::Expired => format!(
                "the login of the Anthropic SDKs in {place} has expired; `ant`, or any program that uses it, renews it"
            ),
            Self::Login { place, .. } => {
                format!("the login of the Anthropic SDKs in {place} is good")
            }
            Self::Absent { words } | Self::Unusable { words } => words.clone(),
        }
    }

    /// Lists what is odd about the file.
    pub(crate) fn remarks(&self) -> Option<String> {
        match self {
            Self::Login { place, exposed: true, .. } => {
                Some(format!("{place} can be read by other users"))
            }
            _ => None,
        }
    }
}

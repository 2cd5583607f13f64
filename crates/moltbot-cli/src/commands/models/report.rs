//! What `models status` knows, in the shape of its JSON (spec L-36). Key order is output order.

use std::collections::BTreeMap;
use std::path::PathBuf;

use moltbot_config::Source as EnvSource;
use moltbot_core::{CredentialKind, CredentialState, Timestamp, mask};
use moltbot_gateway::{
    AgentPaths, Engine, ProfileView, ProviderSetup, Source as Credential, SourceKind, Survey,
};
use moltbot_profiles::{
    Health, Profiles, SkipReason, Unusable, WARN_MS, display_name, health, label,
    normalize_provider, provider_health,
};
use serde::Serialize;

use super::probe::Probes;
use super::windows::Windows;
use crate::commands::terms;
use crate::context::iso;
use crate::out::clean;
use crate::{Context, Failure, why};

/// Everything that `models status` shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) config_path: PathBuf,
    pub(super) agent_dir: PathBuf,
    pub(super) default_model: String,
    pub(super) resolved_default: String,
    pub(super) fallbacks: Vec<String>,
    pub(super) image_model: Option<String>,
    pub(super) image_fallbacks: Vec<String>,
    pub(super) aliases: BTreeMap<String, String>,
    pub(super) allowed: Vec<String>,
    pub(super) auth: Auth,
    /// What the next request would use, for people.
    #[serde(skip)]
    pub(super) next: String,
    /// What only people need to know, one line each: label and text.
    #[serde(skip)]
    pub(super) facts: Vec<(&'static str, String)>,
    /// Who pays and what the vendor says, by profile or variable.
    #[serde(skip)]
    pub(super) terms: Vec<(String, String)>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Auth {
    pub(super) store_path: PathBuf,
    pub(super) shell_env_fallback: ShellEnv,
    #[serde(rename = "providersWithOAuth")]
    pub(super) providers_with_oauth: Vec<String>,
    pub(super) missing_providers_in_use: Vec<String>,
    pub(super) providers: Vec<Provider>,
    pub(super) unusable_profiles: Vec<Unusable>,
    pub(super) oauth: Oauth,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) probes: Option<Probes>,
    /// The limits of each profile; with `--usage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<Vec<Windows>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ShellEnv {
    pub(super) enabled: bool,
    pub(super) applied_keys: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Provider {
    pub(super) provider: String,
    pub(super) effective: Effective,
    pub(super) profiles: Counts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) env: Option<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) models_json: Option<Shown>,
}

#[derive(Debug, Serialize)]
pub(super) struct Effective {
    pub(super) kind: &'static str,
    pub(super) detail: String,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Counts {
    pub(super) count: usize,
    pub(super) oauth: usize,
    pub(super) token: usize,
    pub(super) api_key: usize,
    pub(super) labels: Vec<String>,
    /// The login that the provider's own program keeps, if it can be used.
    #[serde(skip)]
    pub(super) login: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Shown {
    pub(super) value: String,
    pub(super) source: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Oauth {
    pub(super) warn_after_ms: i64,
    pub(super) profiles: Vec<Profile>,
    pub(super) providers: Vec<ProviderHealth>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Profile {
    pub(super) profile_id: String,
    pub(super) provider: String,
    #[serde(rename = "type")]
    pub(super) kind: CredentialKind,
    pub(super) status: Health,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remaining_ms: Option<i64>,
    pub(super) source: String,
    pub(super) label: String,
    /// Whether it is in the order of its provider and hence counts for `--check`.
    #[serde(skip)]
    pub(super) counts: bool,
    /// For a login that another program owns, what is there of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) login: Option<Standing>,
    /// Why it is not ready, for people.
    #[serde(skip)]
    pub(super) detail: Option<String>,
}

/// What is there of a login that another program owns: three questions, told apart.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Standing {
    /// Whether anything stands where its owner keeps it.
    pub(super) present: bool,
    /// Whether that is a login, as its owner writes one.
    pub(super) valid: bool,
    /// Whether a request could use it at this moment.
    pub(super) usable: bool,
    /// What is wrong or odd, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detail: Option<String>,
}

impl Standing {
    fn of(view: &ProfileView) -> Option<Self> {
        view.stored.source.as_ref()?;
        let state = view.state.state;
        Some(Self {
            present: state != CredentialState::Absent,
            valid: matches!(state, CredentialState::Ready | CredentialState::Expired),
            usable: state == CredentialState::Ready,
            detail: view.detail(),
        })
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProviderHealth {
    pub(super) provider: String,
    pub(super) status: Health,
    pub(super) profiles: Vec<Profile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remaining_ms: Option<i64>,
}

/// Looks at config, environment, store and links; changes nothing and asks no service.
pub(super) fn gather(
    cx: &mut Context,
    engine: &Engine,
    agent: &AgentPaths,
) -> Result<Report, Failure> {
    let now = cx.now();
    let store = cx.store(agent).load_blocking()?;
    for note in &store.notes {
        cx.out.warn(note);
    }
    for problem in store.profiles.problems() {
        cx.out.warn(format!("{} is not used: {}", problem.place, problem.reason));
    }
    // Without profiles there is nothing to resolve, hence no runtime to start.
    let survey = match store.profiles.is_empty() {
        true => Survey::default(),
        false => cx.block_on(engine.survey(&store.profiles))?,
    };
    let mut survey = survey;
    let usual = engine.models().primary().model.provider;
    let lacking = store.profiles.is_empty() && engine.other_sources(&usual).0.is_empty();
    let owned = |setup: &ProviderSetup| owns(setup) && (lacking || engine.is_used(&setup.id));
    if engine.providers().iter().any(owned) {
        // A program that keeps its own login is asked about it, which takes its time: only if it
        // is used, or is all there is.
        let added = cx.block_on(async {
            let views = engine.owners_logins(lacking).await;
            let mut choices = Vec::new();
            for view in &views {
                let provider = view.stored.provider.clone();
                let choice = engine.choice(&provider, "", store.profiles.clone()).await;
                choices.extend(choice.map(|choice| (provider, choice)));
            }
            (views, choices)
        })?;
        survey.views.extend(added.0);
        survey.views.sort_by(|a, b| a.id.cmp(&b.id));
        survey.choices.extend(added.1);
    }
    let models = engine.models();
    let listed = models.listed();
    let tagged = |wanted: fn(&str) -> bool| {
        let models = listed.iter().filter(move |listed| listed.tags.iter().any(|tag| wanted(tag)));
        models.map(|listed| listed.model.to_string()).collect::<Vec<_>>()
    };
    let mut in_use: Vec<String> = listed
        .iter()
        .filter(|listed| listed.tags.iter().any(|tag| is_use(tag)))
        .map(|listed| {
            let runtime = models.runtime(&listed.model);
            runtime.unwrap_or(&listed.model.provider).to_string()
        })
        .collect();
    in_use.sort();
    in_use.dedup();
    let mut gathered =
        Gathered { cx, engine, agent, profiles: &store.profiles, survey: &survey, now };
    let (providers, missing) = gathered.providers(&in_use);
    let profiles = gathered.profiles();
    let oauth = Oauth { warn_after_ms: WARN_MS, providers: gathered.health(&profiles), profiles };
    let facts = super::facts::gather(gathered.cx, engine, &survey.views)?;
    let terms = gathered.terms();
    let shell = shell(cx)?;
    let with_login = providers.iter().filter(|row| row.profiles.oauth + row.profiles.token > 0);
    Ok(Report {
        config_path: cx.paths().config_file().to_path_buf(),
        agent_dir: agent.dir.clone(),
        default_model: models.primary_raw(),
        resolved_default: models.primary().model.to_string(),
        fallbacks: tagged(|tag| tag.starts_with("fallback#")),
        image_model: tagged(|tag| tag == "image").into_iter().next(),
        image_fallbacks: tagged(|tag| tag.starts_with("img-fallback#")),
        aliases: models
            .aliases()
            .into_iter()
            .map(|(alias, model)| (alias, model.to_string()))
            .collect(),
        allowed: models.allowlist().into_iter().flatten().map(|key| key.to_string()).collect(),
        auth: Auth {
            store_path: agent.store.clone(),
            shell_env_fallback: shell,
            providers_with_oauth: with_login
                .map(|row| {
                    let count = row.profiles.oauth + row.profiles.token;
                    format!("{} ({count})", row.provider)
                })
                .collect(),
            missing_providers_in_use: missing,
            providers,
            unusable_profiles: store.profiles.unusable(now),
            oauth,
            probes: None,
            usage: Some(super::windows::of(&store.profiles, now)),
        },
        next: next(engine, &survey),
        facts,
        terms,
    })
}

/// Says what a request for the default model would be sent with now.
fn next(engine: &Engine, survey: &Survey) -> String {
    let model = engine.models().primary().model;
    let choice = survey.choices.get(&model.provider);
    if let Some(first) = choice.and_then(|choice| choice.candidates.first()) {
        return clean(&format!("profile:{} ({})", first.id, why::payer(first.payer))).into_owned();
    }
    let resting = choice.into_iter().flat_map(|choice| &choice.skipped);
    let soonest = resting.filter_map(|skipped| Some((skipped.until?, &skipped.id))).min();
    if let Some((until, id)) = soonest {
        return clean(&format!("none until {}, when {id} has rested", iso(until))).into_owned();
    }
    match engine.other_sources(&model.provider).0.first() {
        Some(source) => {
            clean(&format!("{} ({})", source.label, why::payer(source.payer))).into_owned()
        }
        None => "no credential".to_string(),
    }
}

/// Tells the tags of models that requests may go to from those that are merely allowed.
fn is_use(tag: &str) -> bool {
    tag == "default" || tag == "image" || tag.contains("fallback#")
}

struct Gathered<'a> {
    cx: &'a mut Context,
    engine: &'a Engine,
    agent: &'a AgentPaths,
    profiles: &'a Profiles,
    survey: &'a Survey,
    now: Timestamp,
}

impl Gathered<'_> {
    /// Makes the rows of providers that have any credential, and lists those that lack one.
    fn providers(&mut self, in_use: &[String]) -> (Vec<Provider>, Vec<String>) {
        let mut ids: Vec<String> = self.engine.providers().iter().map(|p| p.id.clone()).collect();
        ids.extend(self.profiles.providers().into_iter().map(String::from));
        ids.extend(in_use.iter().cloned());
        ids.sort();
        ids.dedup();
        let (mut rows, mut missing) = (Vec::new(), Vec::new());
        for id in ids {
            let row = self.provider(&id);
            if row.effective.kind != "missing" {
                rows.push(row);
            } else if in_use.contains(&id) {
                missing.push(id);
            }
        }
        (rows, missing)
    }

    fn provider(&self, id: &str) -> Provider {
        let counts = self.counts(id);
        let (sources, _) = self.engine.other_sources(id);
        let first = |kind: SourceKind| sources.iter().find(|source| source.kind == kind);
        let env = first(SourceKind::Env).map(shown);
        let models_json = first(SourceKind::Config).map(shown);
        let store = || Effective { kind: "profiles", detail: self.cx.shown(&self.agent.store) };
        let other = |kind, shown: &Shown| Effective { kind, detail: shown.value.clone() };
        let effective = match (&env, &models_json) {
            // Its own program may be given a token that another provider's profiles hold.
            _ if counts.count == 0 && self.first_is_stored(id) => store(),
            _ if counts.login.is_some() => {
                Effective { kind: "login", detail: counts.login.clone().unwrap_or_default() }
            }
            _ if counts.count > 0 && self.usable(id) => store(),
            (Some(env), _) => other("env", env),
            (None, Some(models_json)) => other("models.json", models_json),
            (None, None) if counts.count > 0 => store(),
            (None, None) => Effective { kind: "missing", detail: "missing".to_string() },
        };
        Provider { provider: id.to_string(), effective, profiles: counts, env, models_json }
    }

    /// Tells whether a chat would try a profile, now or when its cooldown ends.
    fn usable(&self, provider: &str) -> bool {
        let Some(choice) = self.survey.choices.get(provider) else { return false };
        let cooling = |reason: &SkipReason| {
            matches!(
                reason,
                SkipReason::Cooldown { .. }
                    | SkipReason::Disabled { .. }
                    | SkipReason::Empty { .. }
            )
        };
        !choice.candidates.is_empty() || choice.skipped.iter().any(|s| cooling(&s.reason))
    }

    fn first_is_stored(&self, provider: &str) -> bool {
        let first = self.survey.choices.get(provider).and_then(|c| c.candidates.first());
        first.is_some_and(|first| self.profiles.get(&first.id).is_some())
    }

    fn counts(&self, provider: &str) -> Counts {
        let mut counts = Counts::default();
        for view in self.survey.views.iter().filter(|view| of_provider(view, provider)) {
            if *kind(view) == CredentialKind::None {
                let ready = view.state.state == CredentialState::Ready;
                counts.login = Some(view.id.clone()).filter(|_| ready);
                continue;
            }
            counts.count += 1;
            match kind(view) {
                CredentialKind::Oauth => counts.oauth += 1,
                CredentialKind::Token => counts.token += 1,
                CredentialKind::ApiKey => counts.api_key += 1,
                CredentialKind::None | CredentialKind::Other(_) => {}
            }
            let credential = view.resolved.as_ref().map_or(&view.stored, |r| &r.credential);
            let stats = self.profiles.stats(&view.id);
            counts.labels.push(label(&view.id, credential, stats, self.now));
        }
        counts
    }

    fn profiles(&mut self) -> Vec<Profile> {
        let config = self.cx.config();
        let email = |id: &str| {
            let auth = config.as_ref().ok()?.auth.as_ref()?;
            auth.profiles.get(id)?.email.clone()
        };
        let mut rows = Vec::new();
        for view in &self.survey.views {
            let provider = normalize_provider(&view.stored.provider);
            let why_not = self.survey.choices.get(&provider).and_then(|c| c.why_not(&view.id));
            let kind = kind(view).clone();
            let expires = view.state.expires.filter(|_| kind != CredentialKind::ApiKey);
            let address = email(&view.id).or_else(|| view.stored.email.clone());
            rows.push(Profile {
                label: display_name(&view.id, address.as_deref()),
                status: health(&view.state, self.now),
                expires_at: expires,
                remaining_ms: expires.map(|at| at.since(self.now)),
                source: view.stored.source.clone().unwrap_or_else(|| {
                    let kept_there = kind == CredentialKind::None;
                    if kept_there { provider.clone() } else { "store".to_string() }
                }),
                counts: counts(why_not),
                login: Standing::of(view),
                detail: view.detail(),
                profile_id: view.id.clone(),
                provider,
                kind,
            });
        }
        rows
    }

    fn health(&self, profiles: &[Profile]) -> Vec<ProviderHealth> {
        let mut ids: Vec<&str> = profiles.iter().map(|row| row.provider.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        let one = |id: &str| {
            let own: Vec<Profile> =
                profiles.iter().filter(|row| row.provider == id).cloned().collect();
            let counted: Vec<&Profile> = own.iter().filter(|row| row.counts).collect();
            let status = provider_health(counted.iter().map(|row| (row.status, &row.kind)));
            let expires = counted.iter().filter_map(|row| row.expires_at).min();
            ProviderHealth {
                provider: id.to_string(),
                status,
                expires_at: expires,
                remaining_ms: expires.map(|at| at.since(self.now)),
                profiles: own,
            }
        };
        ids.into_iter().map(one).collect()
    }

    fn terms(&self) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        for view in &self.survey.views {
            let text = match (&view.offer, &view.missing_plugin) {
                (_, Some(why)) => clean(why).into_owned(),
                (Some(entry), None) if *kind(view) == CredentialKind::None => {
                    let state = view.detail().unwrap_or_default();
                    format!("{state}\n  {}", terms(entry.offer))
                }
                (Some(entry), None) => terms(entry.offer),
                (None, None) => continue,
            };
            lines.push((view.id.clone(), text));
        }
        for entry in self.cx.registry.offers() {
            let known = self.survey.views.iter().any(|view| view.id == entry.offer.profile);
            if entry.offer.kind == CredentialKind::None
                && !known
                && self.engine.is_offered(entry.offer)
            {
                let program = entry.offer.needs.programs.first().map_or("", AsRef::as_ref);
                let state = format!(
                    "{program} is installed; no model of the config uses it, `moltbot doctor` asks it for version and login"
                );
                let text = format!("{state}\n  {}", terms(entry.offer));
                lines.push((entry.offer.profile.to_string(), text));
            }
        }
        for setup in self.engine.providers() {
            for source in self.engine.other_sources(&setup.id).0 {
                let offers = self.cx.registry.offers().iter();
                let offer = offers
                    .filter(|entry| entry.provider.id == setup.id && !setup.borrowed)
                    .find(|entry| entry.offer.kind == source.credential.kind);
                if let Some(entry) = offer {
                    lines.push((source.label.clone(), terms(entry.offer)));
                }
            }
        }
        lines
    }
}

/// Tells whether a provider is a program with a login of its own.
fn owns(setup: &ProviderSetup) -> bool {
    setup.info.accepts.iter().any(|(id, kind)| *kind == CredentialKind::None && *id == setup.id)
}

fn of_provider(view: &ProfileView, provider: &str) -> bool {
    normalize_provider(&view.stored.provider) == provider
}

/// Returns the kind that counts: a link's own kind is known only when it was read.
fn kind(view: &ProfileView) -> &CredentialKind {
    view.resolved.as_ref().map_or(&view.stored.kind, |resolved| &resolved.credential.kind)
}

/// Tells whether a profile stands in the order of its provider, usable or not (spec L-35).
fn counts(why_not: Option<&SkipReason>) -> bool {
    !matches!(
        why_not,
        Some(
            SkipReason::NotInOrder {}
                | SkipReason::NotInConfig {}
                | SkipReason::OtherProvider { .. }
                | SkipReason::ModeMismatch { .. }
        )
    )
}

fn shown(source: &Credential) -> Shown {
    let value = match (source.kind, &source.credential.kind) {
        (SourceKind::Env, CredentialKind::Oauth | CredentialKind::Token) => "OAuth (env)".into(),
        _ => source.credential.secret().map_or_else(String::new, |secret| mask(secret.expose())),
    };
    Shown { value, source: source.label.clone() }
}

fn shell(cx: &mut Context) -> Result<ShellEnv, Failure> {
    let loaded = cx.loaded()?;
    let section = loaded.config.env.as_ref().and_then(|env| env.shell_env.as_ref());
    let enabled = section.and_then(|shell| shell.enabled);
    let wanted = moltbot_config::ShellImport::wanted(cx.outer_env(), enabled, None).is_some();
    let env = &loaded.env;
    let applied = env.names().filter(|name| matches!(env.get(name), Some((_, EnvSource::Shell))));
    Ok(ShellEnv { enabled: wanted, applied_keys: applied.map(String::from).collect() })
}

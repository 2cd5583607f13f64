//! From an offer to a stored profile: runs an auth method and keeps what it returns, or nothing.

use moltbot_config::{AuthMode, Editor, ProfileRecord};
use moltbot_core::{
    AuthMethod, Credential, CredentialKind, Generation, Login, Offer, OfferEntry, Secret,
};
use moltbot_gateway::AgentPaths;
use moltbot_profiles::Store;

use crate::front::{self, Answers};
use crate::out::clean;
use crate::{Context, Failure, why};

/// A profile that was stored.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The profile's id.
    pub(crate) profile: String,
    /// Its provider.
    pub(crate) provider: String,
    /// The mode that the config records.
    pub(crate) mode: String,
    /// The account, for display.
    email: Option<String>,
}

impl Kept {
    /// Records the profile in the config (spec L-16). A login that stays with the program it
    /// belongs to has no profile, hence nothing to record.
    pub(crate) fn record(&self, editor: &mut Editor<'_>) -> Result<(), Failure> {
        if self.mode == CredentialKind::None.as_str() {
            return Ok(());
        }
        let mode = match self.mode.as_str() {
            "oauth" => AuthMode::Oauth,
            "token" => AuthMode::Token,
            _ => AuthMode::ApiKey,
        };
        editor.record_profile(&ProfileRecord {
            id: &self.profile,
            provider: &self.provider,
            mode,
            email: self.email.as_deref(),
        })?;
        Ok(())
    }
}

/// Runs the method behind an offer. Nothing is stored yet.
pub(crate) fn obtain(
    cx: &mut Context,
    agent: &AgentPaths,
    entry: &OfferEntry,
    verb: Option<&str>,
    answers: Answers,
) -> Result<Login, Failure> {
    cx.set_front(front::with(answers));
    let engine = cx.engine(agent)?;
    Ok(cx.block_on_cancel(engine.login(entry, verb))??)
}

/// Collects the variables that an offer's questions name.
pub(crate) fn env_answers(
    cx: &mut Context,
    entry: &OfferEntry,
) -> Result<Vec<(String, Secret)>, Failure> {
    let env = cx.env()?;
    let fields = entry.offer.fields.iter().chain(entry.offer.verbs.iter().flat_map(|v| &v.fields));
    Ok(fields
        .filter_map(|field| field.env.as_deref())
        .filter_map(|name| Some((name.to_string(), Secret::new(env.get(name)?.0))))
        .collect())
}

/// Stores a login and reads it back. The config is left to [`Kept::record`].
pub(crate) fn keep(
    cx: &mut Context,
    agent: &AgentPaths,
    entry: &OfferEntry,
    login: Login,
) -> Result<Kept, Failure> {
    let provider = entry.provider.id.to_string();
    let profile = login.profile.clone().unwrap_or_else(|| entry.offer.profile.to_string());
    check_id(&profile, &provider)?;
    let kind = login.credential.kind.clone();
    let usual = kind == entry.offer.kind || entry.offer.accepts.contains(&kind);
    let mode = if usual { entry.offer.mode.as_ref() } else { kind.as_str() }.to_string();
    let email = login.credential.email.clone();

    if !login.existing {
        let method = method_of(cx, entry, &profile, &kind).map(|method| method.id().to_string());
        store(cx, agent, &profile, Credential { method, ..login.credential })?;
    } else {
        // It may stand in a file of an older version, which is imported now.
        cx.store(agent).import_blocking(cx.now())?;
    }
    for note in &login.notes {
        cx.out.note(clean(&note.text));
    }
    Ok(Kept { profile, provider, mode, email })
}

/// Says which credential the agent's next request would use.
pub(crate) fn announce(cx: &mut Context, agent: &AgentPaths, kept: &Kept) -> Result<(), Failure> {
    let line = format!("Auth profile: {} ({}/{})", kept.profile, kept.provider, kept.mode);
    cx.out.line(line);
    let engine = cx.engine(agent)?;
    // Copies of other programs' logins become links with the next write; what fails stays a copy.
    let _ = cx.block_on(engine.relink())?;
    // The profile is kept whatever the choice says; a model that cannot be resolved is reported by
    // `models status`, not here.
    if let Ok(record) = cx.block_on_cancel(engine.explain(None, None))?
        && let Some((model, credential)) = why::first(&record)
    {
        let why = why::reason(&record, Some(&kept.profile));
        let text = format!("Next request: {} with {}{why}", model.model, credential.source);
        cx.out.note(clean(&text));
    }
    Ok(())
}

/// Writes one profile under the store's lock and reads it back.
fn store(
    cx: &mut Context,
    agent: &AgentPaths,
    profile: &str,
    credential: Credential,
) -> Result<(), Failure> {
    let store = cx.store(agent);
    let now = cx.now();
    let wanted = Generation::of(&credential);
    let notes = cx.block_on(async move {
        let mut locked = store.lock(now).await?;
        let notes = locked.notes.clone();
        if let Some(old) = locked.profiles.get(profile)
            && old.kind == CredentialKind::ApiKey
            && credential.kind != CredentialKind::ApiKey
        {
            let message = format!(
                "Profile \"{profile}\" holds an API key and is not overwritten with a {}",
                credential.kind
            );
            return Err(Failure::input(message).hint("choose another profile id"));
        }
        locked.profiles.insert(profile.to_string(), credential);
        locked.commit().await?;
        let read = store.load().await?;
        if read.profiles.get(profile).map(Generation::of) != Some(wanted) {
            let message = format!("Profile \"{profile}\" was written but does not read back");
            return Err(Failure::new(message).code("store-unwritable"));
        }
        Ok(notes)
    })??;
    // A mode that was tightened, a network file system: said once, where a secret is stored.
    for note in &notes {
        cx.out.warn(clean(note));
    }
    Ok(())
}

/// Finds the method that will resolve and renew the profile: the offer's own, unless what it
/// returned is of another kind, which belongs to whoever offers that profile and kind.
fn method_of(
    cx: &Context,
    entry: &OfferEntry,
    profile: &str,
    kind: &CredentialKind,
) -> Option<&'static dyn AuthMethod> {
    let takes = |offer: &Offer| offer.kind == *kind || offer.accepts.contains(kind);
    if takes(entry.offer) {
        return Some(entry.method);
    }
    let offers = cx.registry.offers();
    let owner = offers.iter().find(|other| other.offer.profile == profile && takes(other.offer));
    owner.map(|other| other.method)
}

/// Checks that a profile id is `<provider>:<name>` (spec A-4).
fn check_id(profile: &str, provider: &str) -> Result<(), Failure> {
    let name = profile.split_once(':').filter(|(head, _)| *head == provider).map(|(_, name)| name);
    let ok = name.is_some_and(|name| {
        !name.is_empty() && name.chars().all(|c| !c.is_whitespace() && !c.is_control())
    });
    if ok {
        return Ok(());
    }
    let message = format!("\"{}\" is no profile id of {provider}", clean(profile));
    Err(Failure::input(message).hint(format!("use {provider}:<name>, such as {provider}:work")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_ids_belong_to_their_provider() {
        for good in ["acme:default", "acme:a@example.com", "acme:x:y"] {
            assert!(check_id(good, "acme").is_ok(), "{good}");
        }
        for bad in ["default", "acme", "acme:", "other:x", "acme:a b", "acme:\u{1b}"] {
            assert!(check_id(bad, "acme").is_err(), "{bad}");
        }
    }
}

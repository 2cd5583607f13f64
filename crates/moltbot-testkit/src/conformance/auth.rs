//! The part of the suite about auth methods.

use std::sync::Arc;

use moltbot_abi::{MethodHandle, PluginHandle};
use moltbot_core::{
    AuthError, AuthMethod, Call, Credential, CredentialKind, Field, Login, Needs, Offer,
    ProviderInfo, RenewReply, RenewSettings, Renewal, Secret, Timestamp,
};

use super::login::{Action, Outcome, Trial, host_of, secrets_of};
use super::{Conformance, MakeHost, Report, Scene, Sides};
use crate::{NOW, ScriptedHost, block_on, call, fake, headless, leaks, sample_answer, verb_call};

pub(super) fn check(
    suite: &Conformance,
    linked: &PluginHandle,
    carried: &PluginHandle,
    sides: &Sides<'_>,
    report: &mut Report,
) {
    for (n, method) in suite.plugin.auth.iter().enumerate() {
        let (linked, carried) = (&linked.methods[n], &carried.methods[n]);
        MethodCheck { suite, method: *method, linked, carried, sides }.run(report);
    }
}

struct MethodCheck<'a> {
    suite: &'a Conformance,
    method: &'a dyn AuthMethod,
    linked: &'a MethodHandle,
    carried: &'a MethodHandle,
    sides: &'a Sides<'a>,
}

impl MethodCheck<'_> {
    fn run(&self, report: &mut Report) {
        let place = format!("method {}", self.method.id());
        let mut offered = false;
        for provider in &self.suite.providers {
            let place = format!("{place}, provider {}", provider.id);
            for offer in self.offers(provider, &place, report) {
                offered = true;
                let place = format!("{place}, choice {}", offer.choice);
                check_offer(provider, &offer, &place, report);
                report.round_trip("the offer", &place, &offer);
                let logins = self.logins(provider, &offer, &place, report);
                self.stored(provider, &offer, logins, &place, report);
            }
        }
        if !offered {
            report.add(
                "the suite sees at least one offer of every method",
                &*place,
                "nothing is offered to any provider of the suite",
                "add the provider it is for with `.provider(info)`",
            );
        }
        let settings = report.calm(&place, || self.method.settings());
        let carried = block_on(self.carried.settings());
        if let Some(settings) = settings
            && carried.as_ref() != Ok(&settings)
        {
            report.add(
                "a plugin does the same linked and through the wire",
                format!("{place}, settings"),
                format!("{carried:?} instead of {settings:?}"),
                "make `settings` pure",
            );
        }
    }

    fn offers(&self, provider: &ProviderInfo, place: &str, report: &mut Report) -> Vec<Offer> {
        let once = report.calm(place, || self.method.offers(provider)).unwrap_or_default();
        let again = report.calm(place, || self.method.offers(provider)).unwrap_or_default();
        let carried = block_on(self.carried.offers(provider));
        if once != again || carried.as_ref() != Ok(&once) {
            report.add(
                "offers are pure: the same twice, linked and carried",
                place,
                format!("{once:?}, then {again:?}, carried {carried:?}"),
                "compute offers from the provider's info alone",
            );
        }
        once
    }

    /// Logs in in every scene; returns what the successful ones would store.
    fn logins(
        &self,
        provider: &ProviderInfo,
        offer: &Offer,
        place: &str,
        report: &mut Report,
    ) -> Vec<Credential> {
        let mut stored = Vec::new();
        let onboard = call(provider, offer);
        let verbs = offer.verbs.iter().map(|verb| verb_call(provider, offer, &verb.name));
        for call in std::iter::once(onboard).chain(verbs) {
            let place = match &call.verb {
                Some(verb) => format!("{place}, verb {verb}"),
                None => place.to_string(),
            };
            self.login_alone(&call, offer, &place, report);
            let mut succeeded = false;
            for scene in self.scenes(provider, offer, &call) {
                let place = format!("{place}, scene \"{}\"", scene.name);
                let trial =
                    self.trial(call.clone(), &offer.needs, Action::Login, scene.host, place);
                if let Some(Ok(Outcome::Login(login))) = trial.check(report) {
                    succeeded = true;
                    check_login(&login, provider, offer, &trial.place, report);
                    stored.push(login.credential);
                }
            }
            if !succeeded {
                report.add(
                    "some scene of the suite ends in a login",
                    &*place,
                    "every scene ends in an error, so that the successful way is not checked",
                    "add one with `.scene_for(choice or verb, name, || ScriptedHost::new()…)`",
                );
            }
        }
        stored
    }

    /// Nobody is there and nothing is given: the login ends, and says what was missing.
    fn login_alone(&self, call: &Call, offer: &Offer, place: &str, report: &mut Report) {
        let place = format!("{place}, nobody there");
        let host: MakeHost = Arc::new(ScriptedHost::new);
        let trial = self.trial(headless(call.clone()), &offer.needs, Action::Login, host, place);
        match trial.check(report) {
            None
            | Some(Ok(_))
            | Some(Err(AuthError::NotInteractive { .. } | AuthError::NotFound { .. })) => {}
            Some(Err(error)) => report.add(
                "with nobody there a login succeeds or says what is missing",
                &*trial.place,
                format!("{error:?}"),
                "pass HostError::NotInteractive and NotFound on with `?`",
            ),
        }
    }

    fn scenes(&self, provider: &ProviderInfo, offer: &Offer, call: &Call) -> Vec<Scene> {
        let answers: Vec<_> = call
            .fields
            .iter()
            .map(|field| (field.id.to_string(), sample_answer(field, provider)))
            .collect();
        let typed = answers.clone();
        let sample = move |from_flag: bool| {
            answers.iter().fold(ScriptedHost::new(), |host, (id, value)| match from_flag {
                true => host.answer_flag(id, value),
                false => host.answer(id, value),
            })
        };
        let twice = move || {
            // A refused first answer is asked again; each plugin's check sees an empty one.
            typed.iter().fold(ScriptedHost::new(), |host, (id, value)| {
                host.answer(id, "").answer(id, value)
            })
        };
        let flags = sample.clone();
        let scene = |name: &str, host: MakeHost| Scene { name: name.to_string(), only: None, host };
        let mut scenes = vec![
            scene("samples typed", Arc::new(move || sample(false))),
            scene("samples in flags", Arc::new(move || flags(true))),
            scene("nothing typed at first", Arc::new(twice)),
        ];
        let fits = |only: &String| {
            *only == offer.choice || call.verb.as_ref().is_some_and(|verb| verb == only)
        };
        let own = self.suite.scenes.iter().filter(|it| it.only.as_ref().is_none_or(fits));
        scenes.extend(own.cloned());
        scenes
    }

    /// Resolves, renews, refreshes and examines stored credentials.
    fn stored(
        &self,
        provider: &ProviderInfo,
        offer: &Offer,
        logins: Vec<Credential>,
        place: &str,
        report: &mut Report,
    ) {
        let mut all = logins;
        all.dedup();
        all.extend(self.suite.stored.iter().map(|make| make()));
        all.extend(samples(provider, &offer.kind));
        let mut hosts: Vec<(String, MakeHost)> =
            vec![("nothing there".into(), Arc::new(ScriptedHost::new))];
        for scene in &self.suite.scenes {
            if scene.only.as_ref().is_none_or(|only| *only == offer.choice) {
                hosts.push((scene.name.clone(), scene.host.clone()));
            }
        }
        let call = Call { fields: Vec::new(), ..call(provider, offer) };
        for (name, host) in &hosts {
            let trial = |action, what: &str| {
                let place = format!("{place}, {what}, scene \"{name}\"");
                self.trial(call.clone(), &offer.needs, action, host.clone(), place)
            };
            for (n, credential) in all.iter().enumerate() {
                let what = format!("resolve of credential {n}");
                let resolve = trial(Action::Resolve(credential.clone()), &what);
                if let Some(Ok(Outcome::Resolved(resolved))) = resolve.check(report)
                    && credential.is_link()
                    && resolved.credential.refresh.is_some()
                {
                    report.add(
                        "a link hands out no refresh token",
                        &*resolve.place,
                        "the resolved credential has one",
                        "leave `refresh` out: it belongs to the owner of the login",
                    );
                }
                let what = format!("refresh of credential {n}");
                trial(Action::Refresh(credential.clone()), &what).check(report);
            }
            trial(Action::Doctor(all.clone()), "doctor").check(report);
        }
        for credential in &all {
            for settings in &self.suite.renew {
                self.renew(settings, credential, offer, place, report);
            }
            self.renewed(credential, place, report);
        }
    }

    fn renew(
        &self,
        settings: &RenewSettings,
        old: &Credential,
        offer: &Offer,
        place: &str,
        report: &mut Report,
    ) {
        let place = format!("{place}, renew");
        for now in [NOW, Timestamp::from_millis(0), NOW.plus(400 * 86_400_000)] {
            let once = report.calm(&place, || self.method.renew(settings, old, now));
            let again = report.calm(&place, || self.method.renew(settings, old, now));
            let carried = block_on(self.carried.renew(settings, old, now));
            if once != again || once.as_ref() != Some(&carried) {
                report.add(
                    "renewing is decided purely: the same twice, linked and carried",
                    &*place,
                    format!("{once:?}, then {again:?}, carried {carried:?}"),
                    "decide from the arguments alone; `now` is one of them",
                );
            }
            let shown = match &once {
                Some(Ok(Renewal::Http { request })) => {
                    let host = host_of(&request.url);
                    let configured = settings.token_url.as_deref().map(host_of);
                    let allowed = offer.needs.hosts.iter().any(|it| it == host);
                    if configured != Some(host) && !allowed {
                        report.add(
                            "a renewal is only sent where the config or `needs` says",
                            &*place,
                            format!("the host {host}"),
                            "take `settings.token_url`, or name the host in `Offer.needs`",
                        );
                    }
                    request.url.clone()
                }
                Some(Err(error)) => format!("{error} {error:?}"),
                _ => String::new(),
            };
            leak_check(&shown, &secrets_of(old), &place, report);
        }
    }

    fn renewed(&self, old: &Credential, place: &str, report: &mut Report) {
        let place = format!("{place}, renewed");
        let fresh = fake("fresh-");
        let answer = format!(r#"{{"access_token":"{fresh}","expires_in":3600,"x":[]}}"#);
        let deep = "[".repeat(100_000);
        let bodies = [
            answer.as_str(),
            "",
            "{}",
            "null",
            "[1]",
            "<html>",
            r#"{"access_token":5,"expires_in":"soon"}"#,
            r#"{"access_token":"","expires_in":-1e300}"#,
            r#"{"error":"invalid_grant","error_description":"spent"}"#,
            r#"{"error":{"type":"invalid_grant"}}"#,
            &deep,
        ];
        for status in [200, 204, 302, 400, 401, 429, 500, 503] {
            for body in bodies {
                if body.len() > 1000 && status != 200 {
                    continue;
                }
                let reply = RenewReply { status, body: Secret::new(body) };
                let once = report.calm(&place, || self.method.renewed(old, &reply, NOW));
                let Some(once) = once else { continue };
                let carried = block_on(self.carried.renewed(old, &reply, NOW));
                if once != carried {
                    report.add(
                        "a plugin does the same linked and through the wire",
                        &*place,
                        format!("{carried:?} instead of {once:?}"),
                        "read the reply purely",
                    );
                }
                let mut secrets = secrets_of(old);
                secrets.push(fresh.clone());
                match &once {
                    Ok(new) => check_renewed(old, new, &place, report),
                    Err(error) => {
                        leak_check(&format!("{error} {error:?}"), &secrets, &place, report);
                    }
                }
            }
        }
    }

    fn trial(
        &self,
        call: Call,
        needs: &Needs,
        action: Action,
        host: MakeHost,
        place: String,
    ) -> Trial<'_> {
        let (linked, carried, sides) = (self.linked, self.carried, self.sides);
        Trial { linked, carried, sides, call, needs: needs.clone(), action, host, place }
    }
}

fn check_offer(provider: &ProviderInfo, offer: &Offer, place: &str, report: &mut Report) {
    let mut plain = |good: bool, found: String, fix| {
        if !good {
            report.add("an offer is complete and well spelled", place, found, fix);
        }
    };
    for (what, text) in [("choice", &offer.choice), ("label", &offer.label), ("mode", &offer.mode)]
    {
        plain(!text.is_empty(), format!("an empty {what}"), "fill it in");
    }
    let prefix = format!("{}:", provider.id);
    plain(
        offer.profile.starts_with(&prefix) && offer.profile.len() > prefix.len(),
        format!("the profile \"{}\"", offer.profile),
        "name it `PROVIDER:NAME`",
    );
    plain(
        !matches!(offer.kind, CredentialKind::Other(_)),
        format!("the kind \"{}\"", offer.kind),
        "use a kind that this version knows",
    );
    for verb in &offer.verbs {
        plain(is_kebab(&verb.name), format!("the verb \"{}\"", verb.name), "use lower-case kebab");
        plain(!verb.about.is_empty(), format!("no help for \"{}\"", verb.name), "fill in `about`");
    }
    let of_verbs = offer.verbs.iter().map(|verb| &verb.fields);
    for fields in std::iter::once(&offer.fields).chain(of_verbs) {
        for (n, field) in fields.iter().enumerate() {
            let id = &field.id;
            let twice = fields[..n].iter().any(|other| other.id == *id);
            plain(!id.is_empty() && !twice, format!("the field id \"{id}\""), "make ids unique");
            plain(!field.label.is_empty(), format!("no label for \"{id}\""), "fill it in");
            check_names(field, &mut plain);
        }
    }
}

fn check_names(field: &Field, plain: &mut impl FnMut(bool, String, &'static str)) {
    if let Some(flag) = &field.flag {
        plain(
            is_kebab(flag),
            format!("the flag \"{flag}\""),
            "use lower-case kebab, no dashes first",
        );
    }
    if let Some(env) = &field.env {
        let upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let good = env.starts_with(|c: char| c.is_ascii_uppercase()) && env.chars().all(upper);
        plain(good, format!("the variable \"{env}\""), "use upper case with underscores");
    }
}

fn is_kebab(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.split('-').all(part)
}

fn check_login(
    login: &Login,
    provider: &ProviderInfo,
    offer: &Offer,
    place: &str,
    report: &mut Report,
) {
    let credential = &login.credential;
    let same = credential.provider == provider.id
        || provider.legacy_ids.iter().any(|id| *id == credential.provider);
    if !same {
        report.add(
            "a login is for the provider it was asked for",
            place,
            format!("provider \"{}\"", credential.provider),
            "take `cx.provider.id`",
        );
    }
    // Under a profile of its own a login may be of another kind: a pasted API key, say.
    let elsewhere = login.profile.as_ref().is_some_and(|name| *name != offer.profile);
    if !elsewhere && credential.kind != offer.kind && !offer.accepts.contains(&credential.kind) {
        report.add(
            "a login has the kind that was offered",
            place,
            format!("kind {}", credential.kind),
            "set `Offer.kind`, add the kind to `accepts`, or name another `Login.profile`",
        );
    }
}

fn check_renewed(old: &Credential, new: &Credential, place: &str, report: &mut Report) {
    let lost: Vec<_> = old.rest.keys().filter(|name| !new.rest.contains_key(*name)).collect();
    if !lost.is_empty() || new.provider != old.provider || new.kind != old.kind {
        report.add(
            "a renewal keeps the provider, the kind and every field it does not know",
            place,
            format!("lost: {lost:?}"),
            "start from `old.clone()`",
        );
    }
    if old.refresh.is_some() && new.refresh.is_none() {
        report.add(
            "a reply without `refresh_token` keeps the old one",
            place,
            "the refresh token is gone",
            "replace `refresh` only if the reply has one that is not empty",
        );
    }
    if new.access.as_ref().is_none_or(Secret::is_blank) {
        report.add(
            "a renewal ends with an access token or an error",
            place,
            "a credential without one",
            "answer `AuthError::Transient` when the reply has none",
        );
    }
}

fn leak_check(text: &str, secrets: &[String], place: &str, report: &mut Report) {
    if secrets.iter().any(|secret| leaks(text, secret)) {
        report.add(
            "no secret shows in a note, page, argument, error, Debug or transcript",
            place,
            "12 or more characters of a secret",
            "keep it in `Secret` and use `mask` in texts",
        );
    }
}

/// Credentials as they may be found in a store: sound, expired, empty and linked.
fn samples(provider: &ProviderInfo, kind: &CredentialKind) -> Vec<Credential> {
    let id = provider.id.to_string();
    let mut login = Credential::new(CredentialKind::Oauth, &*id);
    login.access = Some(Secret::new(fake("access-")));
    login.refresh = Some(Secret::new(fake("refresh-")));
    login.expires = Some(NOW.plus(-1));
    login.rest.insert("x-kept".to_string(), serde_json::json!({"a": [1]}));
    vec![
        login,
        Credential::token(&*id, Secret::new(fake("token-")), Some(NOW.plus(1))),
        Credential::api_key(&*id, Secret::new(fake("key-"))),
        Credential::new(kind.clone(), &*id),
        Credential::link(CredentialKind::Oauth, &*id, "another-tool"),
    ]
}

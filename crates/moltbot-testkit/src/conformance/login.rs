//! One call that may need effects, run in every way: linked, carried, cancelled, dropped.

use std::pin::pin;
use std::task::{Context, Waker};

use moltbot_abi::MethodHandle;
use moltbot_core::{
    AuthError, Call, Credential, Cx, Effect, Exposed, FieldKind, Finding, Login, Needs, Resolved,
};

use super::{MakeHost, Report, Sides};
use crate::{ScriptedHost, block_on, leaks};

/// What is called.
pub(super) enum Action {
    Login,
    Resolve(Credential),
    Refresh(Credential),
    Doctor(Vec<Credential>),
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Outcome {
    Login(Login),
    Resolved(Resolved),
    Credential(Credential),
    Findings(Vec<Finding>),
}

impl PartialEq for Outcome {
    fn eq(&self, other: &Self) -> bool {
        self.wire() == other.wire()
    }
}

impl Outcome {
    fn wire(&self) -> String {
        let text = match self {
            Self::Login(login) => serde_json::to_string(&Exposed(login)),
            Self::Resolved(resolved) => serde_json::to_string(&Exposed(resolved)),
            Self::Credential(credential) => serde_json::to_string(&Exposed(credential)),
            Self::Findings(findings) => serde_json::to_string(findings),
        };
        text.unwrap_or_else(|error| error.to_string())
    }

    /// Returns what people may come to see of it.
    fn shown(&self) -> String {
        let mut text = format!("{self:?}");
        match self {
            Self::Login(login) => {
                login.notes.iter().for_each(|note| text += &note.text);
                text += login.profile.as_deref().unwrap_or_default();
            }
            Self::Resolved(resolved) => text += resolved.detail.as_deref().unwrap_or_default(),
            Self::Findings(found) => found.iter().for_each(|it| {
                text += &it.text;
                text += it.fix.as_deref().unwrap_or_default();
            }),
            Self::Credential(_) => {}
        }
        text
    }
}

/// One call in one world.
pub(super) struct Trial<'a> {
    pub(super) linked: &'a MethodHandle,
    pub(super) carried: &'a MethodHandle,
    pub(super) sides: &'a Sides<'a>,
    pub(super) call: Call,
    pub(super) needs: Needs,
    pub(super) action: Action,
    pub(super) host: MakeHost,
    pub(super) place: String,
}

impl Trial<'_> {
    /// Runs the call in every way; returns what came of the plain one.
    pub(super) fn check(&self, report: &mut Report) -> Option<Result<Outcome, AuthError>> {
        let host = (self.host)();
        let linked = self.run(self.linked, &host, report)?;
        self.inspect(&host, &linked, report);
        self.compare(&host, &linked, report);
        for n in 0..host.count() {
            self.cancel(n, report);
            self.abandon(n, report);
        }
        Some(linked)
    }

    fn run(
        &self,
        handle: &MethodHandle,
        host: &ScriptedHost,
        report: &mut Report,
    ) -> Option<Result<Outcome, AuthError>> {
        report.calm(&self.place, || block_on(self.act(handle, host)))
    }

    async fn act(&self, handle: &MethodHandle, host: &ScriptedHost) -> Result<Outcome, AuthError> {
        let cx = Cx::new(host, &self.call);
        match &self.action {
            Action::Login => handle.login(&cx).await.map(Outcome::Login),
            Action::Resolve(stored) => handle.resolve(&cx, stored).await.map(Outcome::Resolved),
            Action::Refresh(old) => handle.refresh(&cx, old).await.map(Outcome::Credential),
            Action::Doctor(stored) => handle.doctor(&cx, stored).await.map(Outcome::Findings),
        }
    }

    fn compare(
        &self,
        host: &ScriptedHost,
        linked: &Result<Outcome, AuthError>,
        report: &mut Report,
    ) {
        let other = (self.host)();
        let Some(carried) = self.run(self.carried, &other, report) else { return };
        let (here, there) = (host.transcript(), other.transcript());
        if here != there || *linked != carried {
            let end = |outcome: &Result<Outcome, AuthError>| match outcome {
                Ok(_) => "success".to_string(),
                Err(error) => error.to_string(),
            };
            report.add(
                "a plugin does the same linked and through the wire",
                &*self.place,
                format!("linked:\n{here}{}\ncarried:\n{there}{}", end(linked), end(&carried)),
                "await nothing but the host, keep no state between calls, return only plain data",
            );
        }
    }

    fn inspect(
        &self,
        host: &ScriptedHost,
        outcome: &Result<Outcome, AuthError>,
        report: &mut Report,
    ) {
        let named = self.named(host);
        for effect in host.effects() {
            self.inspect_effect(&effect, &named, report);
        }
        let made = match outcome {
            Ok(Outcome::Login(login)) => Some(&login.credential),
            Ok(Outcome::Credential(credential)) => Some(credential),
            _ => None,
        };
        let invented = made.map(|made| self.needs.named_in(made)).unwrap_or_default();
        if invented.iter().any(|place| !named.contains(place)) {
            report.add(
                "a profile names only the places that the user named",
                &*self.place,
                "a member listed in `needs.answers` that nobody answered",
                "keep the answer as it was given, without the white space around it",
            );
        }
        let mut secrets = host.canaries();
        secrets.extend(self.stored_secrets());
        let mut shown: Vec<(&str, String)> = host
            .effects()
            .iter()
            .map(|effect| ("an effect that others can see", visible(effect)))
            .collect();
        match outcome {
            Ok(value) => shown.push(("the result's Debug, notes and texts", value.shown())),
            Err(error) => shown.push(("an error", format!("{error} {error:?}"))),
        }
        shown.push(("the transcript", host.transcript()));
        for (what, text) in shown {
            // The text itself would put the secret into the test's output.
            if secrets.iter().any(|secret| leaks(&text, secret)) {
                report.add(
                    "no secret shows in a note, page, argument, error, Debug or transcript",
                    format!("{}, {what}", self.place),
                    "12 or more characters of a secret",
                    "keep it in `Secret`, hand it on as environment, input, header or body, and use `mask` in texts",
                );
            }
        }
        if let Err(AuthError::Plugin { message }) = outcome {
            report.add(
                "a plugin keeps its contract",
                &*self.place,
                message.clone(),
                "return the error that says what the user can do",
            );
        }
    }

    /// Returns what the user named, in answers and in the stored profile.
    fn named(&self, host: &ScriptedHost) -> Vec<String> {
        let mut named = host.answers_to(&self.needs.answers);
        if let Action::Resolve(stored) | Action::Refresh(stored) = &self.action {
            named.extend(self.needs.named_in(stored));
        }
        named
    }

    fn inspect_effect(&self, effect: &Effect, named: &[String], report: &mut Report) {
        let (needed, found) = match effect {
            Effect::Ask { field, .. } => {
                if !self.call.fields.contains(field) {
                    report.add(
                        "every question asked is declared",
                        &*self.place,
                        format!("the field \"{}\" was asked", field.id),
                        "add it to the offer's `fields`, or to the verb's, and ask by its id",
                    );
                }
                return;
            }
            Effect::Http { request } => {
                let host = host_of(&request.url);
                let (name, port) = match host.rsplit_once(':') {
                    Some((name, port)) => (name, port.parse().unwrap_or(0)),
                    None => (host, 443),
                };
                (self.needs.covers_host(name, port, named), format!("hosts: \"{host}\""))
            }
            Effect::Keyring { entry, .. } => (
                self.needs.keyring.contains(&entry.service),
                format!("keyring: \"{}\"", entry.service),
            ),
            Effect::Read { file } => (
                self.needs.covers_file(file, named),
                format!("files: dir \"{}\", path \"{}\"", file.dir, file.path),
            ),
            Effect::Run { run } => {
                let secret_env =
                    run.env.iter().find(|(name, _)| !self.needs.secret_env.contains(name));
                if let Some((name, _)) = secret_env {
                    report.add(
                        "`needs` covers every effect",
                        &*self.place,
                        format!("the variable {name} was set"),
                        "add it to `Offer.needs.secret_env`",
                    );
                }
                (
                    self.needs.programs.contains(&run.program),
                    format!("programs: \"{}\"", run.program),
                )
            }
            _ => return,
        };
        if !needed {
            report.add(
                "`needs` covers every effect",
                &*self.place,
                format!("not covered: {found}"),
                "add it to `Offer.needs`; the host refuses what is not there",
            );
        }
    }

    /// Stops at the n-th effect, as Ctrl-C does.
    fn cancel(&self, n: usize, report: &mut Report) {
        for handle in [self.linked, self.carried] {
            let host = (self.host)().cancel_at(n);
            let Some(outcome) = self.run(handle, &host, report) else { return };
            let asked_again = host
                .effects()
                .iter()
                .skip(n + 1)
                .any(|effect| !matches!(effect, Effect::Tell { .. }));
            let stopped = outcome == Err(AuthError::Cancelled {});
            let must_stop = matches!(self.action, Action::Login | Action::Refresh(_));
            if asked_again || (must_stop && !stopped) {
                report.add(
                    "stopping at any effect ends the call with Cancelled and nothing else happens",
                    &*self.place,
                    format!(
                        "stopped at effect {n}: {}, after it {} effects",
                        if stopped { "Cancelled" } else { "something else" },
                        host.count() - n - 1
                    ),
                    "pass HostError::Cancelled on with `?` before anything else",
                );
            }
        }
    }

    /// Drops the call while the n-th effect is under way.
    fn abandon(&self, n: usize, report: &mut Report) {
        for handle in [self.linked, self.carried] {
            let host = (self.host)().hang_at(n);
            let waiting = report.calm(&self.place, || {
                let mut future = pin!(self.act(handle, &host));
                let mut context = Context::from_waker(Waker::noop());
                future.as_mut().poll(&mut context).is_pending()
            });
            let open = self.sides.memory.guest().open_tasks();
            if waiting == Some(true) && (host.in_flight() > 0 || open > 0) {
                report.add(
                    "a dropped call leaves nothing behind",
                    &*self.place,
                    format!("{} effects and {open} tasks after effect {n}", host.in_flight()),
                    "let the plugin's future own what it waits for",
                );
            }
        }
    }

    fn stored_secrets(&self) -> Vec<String> {
        let stored: &[Credential] = match &self.action {
            Action::Login => &[],
            Action::Resolve(it) | Action::Refresh(it) => std::slice::from_ref(it),
            Action::Doctor(all) => all,
        };
        stored.iter().flat_map(secrets_of).collect()
    }
}

/// Lists the secrets that a credential holds.
pub(super) fn secrets_of(credential: &Credential) -> Vec<String> {
    let fields = ["key", "token", "access", "refresh"];
    let secret = |name| Some(credential.secret_field(name)?.expose().to_string());
    fields.into_iter().filter_map(secret).collect()
}

/// Returns the parts of an effect that people or other processes see.
fn visible(effect: &Effect) -> String {
    match effect {
        Effect::Ask { field, refused } => {
            let mut shown = format!("{} {}", field.label, refused.as_deref().unwrap_or_default());
            if let FieldKind::Select { options } = &field.kind {
                options.iter().for_each(|it| shown = format!("{shown} {} {}", it.label, it.value));
            }
            shown + field.default.as_deref().unwrap_or_default()
        }
        Effect::Http { request } => request.url.clone(),
        Effect::Open { url } => url.clone(),
        Effect::Read { file } => format!("{} {}", file.dir, file.path),
        Effect::Keyring { entry, .. } => format!("{} {}", entry.service, entry.account),
        Effect::Run { run } => format!("{} {}", run.program, run.args.join(" ")),
        Effect::Tell { note } => note.text.clone(),
        _ => String::new(),
    }
}

/// Returns `host` or `host:port` of a URL, as `needs` spells it.
pub(super) fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}

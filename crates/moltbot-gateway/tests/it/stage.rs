//! A stage for one test: a lab, a store, a config, a clock that only tests move.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use moltbot_config::{Config, Env};
use moltbot_core::*;
use moltbot_gateway::*;
use moltbot_lab::{Lab, LabOptions, LogEntry, parse_plan};
use moltbot_profiles::{FileStore, Profiles, STORE_FILE};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const ONE: &str = "sk-ant-api03-FAKE0000000000000000000000000one";
pub(crate) const TWO: &str = "sk-ant-api03-FAKE0000000000000000000000000two";
pub(crate) const TOKEN: &str = "sk-ant-oat01-FAKE00000000000000000000000token";

/// A method of a made-up house: a plan with logins that renew at the config's endpoint.
struct House;

#[async_trait]
impl AuthMethod for House {
    fn id(&self) -> &str {
        "house"
    }

    fn offers(&self, provider: &ProviderInfo) -> Vec<Offer> {
        if provider.id != "anthropic" {
            return Vec::new();
        }
        vec![Offer {
            choice: "house".into(),
            profile: "anthropic:house".into(),
            kind: CredentialKind::Oauth,
            mode: "oauth".into(),
            accepts: vec![CredentialKind::Oauth, CredentialKind::Token],
            caps: AuthCaps { refresh: true, ..AuthCaps::default() },
            payer: Payer::Subscription,
            ..Offer::default()
        }]
    }

    async fn login(&self, _: &Cx<'_>) -> Result<Login, AuthError> {
        Ok(Login::new(Credential::token("anthropic", Secret::new(TOKEN), None)))
    }

    fn renew(
        &self,
        settings: &RenewSettings,
        old: &Credential,
        now: Timestamp,
    ) -> Result<Renewal, AuthError> {
        if !old.is_expired(now) && !settings.force {
            return Ok(Renewal::NotDue {});
        }
        let (Some(url), Some(refresh)) = (&settings.token_url, &old.refresh) else {
            return Err(AuthError::LoginAgain {
                reason: "no token endpoint is configured".into(),
                hint: "log in again".into(),
            });
        };
        let body = json!({
            "grant_type": "refresh_token",
            "refresh_token": refresh.expose(),
            "client_id": settings.client_id,
        });
        let request = HttpRequest {
            method: "POST".into(),
            url: url.clone(),
            headers: vec![("content-type".into(), Secret::new("application/json"))],
            body: Some(Secret::new(body.to_string())),
            timeout_ms: None,
        };
        Ok(Renewal::Http { request })
    }

    fn renewed(
        &self,
        old: &Credential,
        reply: &RenewReply,
        received_at: Timestamp,
    ) -> Result<Credential, AuthError> {
        let body: Value = serde_json::from_str(reply.body.expose()).unwrap_or_default();
        if reply.status != 200 {
            let reason = format!("HTTP {} {}", reply.status, body["error"].as_str().unwrap_or("?"));
            return Err(AuthError::LoginAgain { reason, hint: "log in again".into() });
        }
        let text = |name: &str| body[name].as_str().map(Secret::new);
        let mut new = old.clone();
        new.access = text("access_token");
        new.refresh = text("refresh_token").or(new.refresh);
        let seconds = body["expires_in"].as_i64().unwrap_or(0);
        new.expires = Some(received_at.plus(seconds * 1_000));
        Ok(new)
    }
}

/// A link: the login is in a file that its owner's program writes.
struct Link;

pub(crate) fn link_file() -> FileRef {
    FileRef { dir_env: Some("OWNER_DIR".into()), dir: "~/.owner".into(), path: "login".into() }
}

#[async_trait]
impl AuthMethod for Link {
    fn id(&self) -> &str {
        "link"
    }

    fn offers(&self, provider: &ProviderInfo) -> Vec<Offer> {
        if provider.id != "anthropic" {
            return Vec::new();
        }
        vec![Offer {
            choice: "link".into(),
            profile: "anthropic:link".into(),
            kind: CredentialKind::Oauth,
            mode: "oauth".into(),
            accepts: vec![CredentialKind::Oauth],
            caps: AuthCaps { refresh: true, external: true, ..AuthCaps::default() },
            needs: Needs {
                files: vec![link_file()],
                programs: vec!["owner".into()],
                ..Needs::default()
            },
            payer: Payer::Subscription,
            ..Offer::default()
        }]
    }

    async fn login(&self, _: &Cx<'_>) -> Result<Login, AuthError> {
        Ok(Login::new(Credential::link(CredentialKind::Oauth, "anthropic", "owner")))
    }

    async fn resolve(&self, cx: &Cx<'_>, stored: &Credential) -> Result<Resolved, AuthError> {
        let file = cx.read(link_file()).await?;
        let Some(text) = file.content else {
            return Ok(Resolved {
                state: CredentialState::LoggedOut,
                ..Resolved::judged(stored.clone(), cx.now)
            });
        };
        // `token` or `token expiry`.
        let mut words = text.expose().split_whitespace();
        let mut live = stored.clone();
        live.access = words.next().map(Secret::new);
        live.expires = words.next().and_then(|word| word.parse().ok()).map(Timestamp::from_millis);
        Ok(Resolved::judged(live, cx.now))
    }

    fn renew(
        &self,
        settings: &RenewSettings,
        old: &Credential,
        now: Timestamp,
    ) -> Result<Renewal, AuthError> {
        match old.is_expired(now) || settings.force {
            true => Ok(Renewal::Run {}),
            false => Ok(Renewal::NotDue {}),
        }
    }

    async fn refresh(&self, cx: &Cx<'_>, old: &Credential) -> Result<Credential, AuthError> {
        let run = Run {
            program: "owner".into(),
            args: vec!["renew".into()],
            env: vec![],
            input: None,
            terminal: false,
            timeout_ms: None,
        };
        let ran = cx.run(run).await?;
        if ran.exit != Some(0) {
            let reason = format!("the owner's program ended with {:?}", ran.exit);
            return Err(AuthError::Transient { reason });
        }
        Ok(self.resolve(cx, old).await?.credential)
    }
}

pub(crate) static HOUSE: Plugin = Plugin {
    id: "house",
    version: "0",
    about: "",
    core: VERSION,
    auth: &[&House, &Link],
    providers: &[],
    codes: &[],
};

pub(crate) fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let plugins =
            vec![&moltbot_plugin_anthropic::PLUGIN, &moltbot_plugin_api_key::PLUGIN, &HOUSE];
        Registry::new(plugins, &[]).unwrap()
    })
}

/// Hears everything that is told.
#[derive(Default)]
pub(crate) struct Ears(pub(crate) Mutex<Vec<String>>);

#[async_trait]
impl Front for Ears {
    fn interactive(&self) -> bool {
        false
    }

    async fn ask(&self, field: &Field, refused: Option<&str>) -> Result<Answer, HostError> {
        Silent.ask(field, refused).await
    }

    async fn tell(&self, note: &Note) -> Result<(), HostError> {
        self.0.lock().unwrap().push(note.text.clone());
        Ok(())
    }

    async fn open(&self, url: &str) -> Result<(), HostError> {
        Silent.open(url).await
    }

    async fn run_on_terminal(&self, run: TerminalRun) -> Result<Option<i32>, HostError> {
        Silent.run_on_terminal(run).await
    }
}

pub(crate) struct Stage {
    pub(crate) lab: Lab,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) ears: Arc<Ears>,
    pub(crate) dir: TempDir,
    pub(crate) config: Value,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) limits: Limits,
    /// Whether every provider is asked at the lab.
    pub(crate) at_lab: bool,
}

impl Stage {
    /// Sets a stage with a lab that follows `plan`.
    pub(crate) fn new(plan: &str) -> Self {
        let plan = parse_plan(plan, "plan").unwrap();
        let lab = Lab::start_on_thread(LabOptions { plan, ..LabOptions::default() }).unwrap();
        Self {
            lab,
            // The lab names points in time, so that the clocks have to agree at the start.
            clock: Arc::new(TestClock::at(SystemClock.now())),
            ears: Arc::default(),
            dir: tempfile::tempdir().unwrap(),
            config: json!({}),
            env: Vec::new(),
            limits: Limits::default(),
            at_lab: true,
        }
    }

    pub(crate) fn config(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    pub(crate) fn key(self, id: &str, key: &str) -> Self {
        self.with(id, Credential::api_key("anthropic", Secret::new(key)))
    }

    pub(crate) fn with(self, id: &str, credential: Credential) -> Self {
        self.change(|profiles| {
            profiles.insert(id, credential);
        });
        self
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Profiles)) {
        self.store().update_blocking(self.clock.now(), change).unwrap();
    }

    pub(crate) fn store(&self) -> FileStore {
        FileStore::new(self.dir.path().join(STORE_FILE))
    }

    pub(crate) fn profiles(&self) -> Profiles {
        self.store().load_blocking().unwrap().profiles
    }

    pub(crate) fn blocked(&self, id: &str, model: &str) -> bool {
        let (profiles, now) = (self.profiles(), self.clock.now());
        profiles.stats(id).and_then(|stats| stats.blocked(Some(model), now)).is_some()
    }

    pub(crate) fn engine(&self) -> Engine {
        let dir = self.dir.path().to_path_buf();
        Engine::new(EngineParts {
            registry: registry(),
            config: Arc::new(config(self.config.clone())),
            env: Env::new(self.env.clone()),
            home: Some(dir.clone()),
            agent: AgentPaths {
                id: "main".into(),
                store: dir.join(STORE_FILE),
                sessions: dir.join("sessions"),
                dir,
            },
            store: Arc::new(self.store()),
            front: self.ears.clone(),
            clock: self.clock.clone(),
            lab_base_url: self.at_lab.then(|| self.lab.url()),
            limits: self.limits,
        })
    }

    /// Says `hi` and returns the reply and what was shown.
    pub(crate) fn chat(&self) -> (Result<ChatReply, ChatError>, String) {
        self.say(ChatRequest::default())
    }

    pub(crate) fn say(&self, request: ChatRequest) -> (Result<ChatReply, ChatError>, String) {
        let mut shown = String::new();
        let mut sink = |event: &Event| {
            if let Event::Text { text, .. } = event {
                shown.push_str(text);
            }
        };
        let prompt = if request.prompt.is_empty() { "hi".into() } else { request.prompt.clone() };
        let request = ChatRequest { prompt, ..request };
        let result = block_on(self.engine().chat(request, &mut sink));
        (result, shown)
    }

    /// The requests for messages, as the lab saw them.
    pub(crate) fn requests(&self) -> Vec<LogEntry> {
        let log = self.lab.log().into_iter();
        log.filter(|entry| entry.path() == "/v1/messages").collect()
    }

    pub(crate) fn told(&self) -> String {
        self.ears.0.lock().unwrap().join("\n")
    }

    pub(crate) fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }
}

pub(crate) fn config(value: Value) -> Config {
    serde_json::from_value(value).unwrap()
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Which fake key a request carried: the last word of it.
pub(crate) fn key_of(entry: &LogEntry) -> &'static str {
    let seen = &entry.credentials[0].sha256;
    for (key, name) in [(ONE, "one"), (TWO, "two"), (TOKEN, "token")] {
        if *seen == moltbot_lab::fingerprint(key) {
            return name;
        }
    }
    "other"
}

pub(crate) fn fallbacks(models: &[&str]) -> Value {
    json!({"agents": {"defaults": {"model": {"fallbacks": models}}}})
}

//! A made-up provider and a temporary home, so that tests run whole commands in this process.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use moltbot_core::{
    ApiKeySpec, AuthCaps, AuthError, AuthMethod, ChatView, Code, Credential, CredentialKind,
    CredentialView, Cx, Decoder, DecoderMode, Ended, EnvKey, Exchange, Failure, FailureKind, Field,
    FieldKind, Finding, Level, Login, ModelInfo, Offer, Payer, Plugin, Policy, Price, Provider,
    ProviderError, ProviderInfo, Registry, RenewSettings, Renewal, Scope, SettingsSpec, Timestamp,
    async_trait,
};
use moltbot_gateway::TestClock;
use moltbot_profiles::FileHook;
use serde_json::{Value, json};

use crate::out::{Buffer, Out, Terminal};
use crate::{World, run_in};

/// The time of every test: 2026-09-21T14:13:20Z.
pub(crate) const NOW: i64 = 1_790_000_000_000;
/// A key of the made-up provider.
pub(crate) const KEY: &str = "acme-FAKEFAKEFAKEFAKEFAKEFAKEFAKE-key";
/// A token of the made-up provider.
pub(crate) const TOKEN: &str = "acme-FAKEFAKEFAKEFAKEFAKEFAKEFAKE-token";

/// A home directory and an environment to run commands in.
pub(crate) struct Bench {
    pub(crate) registry: &'static Registry,
    home: tempfile::TempDir,
    env: RefCell<Vec<(String, String)>>,
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: u8,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Bench {
    pub(crate) fn new() -> Self {
        static REGISTRY: OnceLock<Registry> = OnceLock::new();
        let registry = REGISTRY
            .get_or_init(|| Registry::new(vec![&ACME], crate::tree::RESERVED_FLAGS).unwrap());
        Self { registry, home: tempfile::tempdir().unwrap(), env: RefCell::default() }
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn env(&self, name: &str, value: &str) {
        self.env.borrow_mut().push((name.to_string(), value.to_string()));
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.home().join(".moltbot/moltbot.json")
    }

    pub(crate) fn store_path(&self) -> PathBuf {
        self.home().join(".moltbot/agents/main/agent/auth-profiles.json")
    }

    pub(crate) fn config(&self, text: &str) {
        write(&self.config_path(), text);
    }

    pub(crate) fn config_text(&self) -> String {
        fs::read_to_string(self.config_path()).unwrap()
    }

    pub(crate) fn config_value(&self) -> Value {
        json5::from_str(&self.config_text()).unwrap()
    }

    pub(crate) fn store(&self, text: &str) {
        write(&self.store_path(), text);
    }

    pub(crate) fn key_and_token(&self) {
        let store = json!({ "version": 1, "profiles": {
            "acme:default": { "type": "api_key", "provider": "acme", "key": KEY },
            "acme:manual": { "type": "token", "provider": "acme", "token": TOKEN },
        } });
        self.store(&store.to_string());
    }

    /// Lists every file below home with its bytes.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        fn walk(dir: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                } else {
                    let bytes = fs::read(&path).unwrap();
                    found.push((path, bytes));
                }
            }
        }
        let mut found = Vec::new();
        walk(self.home(), &mut found);
        found.sort();
        found
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, "")
    }

    pub(crate) fn run_with(&self, args: &[&str], stdin: &str) -> Ran {
        self.run_hooked(args, stdin, None)
    }

    /// Runs a command with somebody who is asked before every change of a store.
    pub(crate) fn run_hooked(
        &self,
        args: &[&str],
        stdin: &str,
        store_hook: Option<Arc<dyn FileHook>>,
    ) -> Ran {
        let (stdout, stderr) = (Buffer::default(), Buffer::default());
        let streams = (Box::new(stdout.clone()), Box::new(stderr.clone()));
        let world = World {
            args: args.iter().map(Into::into).collect(),
            env: self.env.borrow().clone(),
            home: Some(self.home().to_path_buf()),
            cwd: self.home().to_path_buf(),
            clock: Arc::new(TestClock::at(Timestamp::from_millis(NOW))),
            stdin: Box::new(std::io::Cursor::new(stdin.to_string())),
            out: Out::new(streams.0, streams.1, Terminal::default()),
            front: None,
            store_hook,
        };
        let code = run_in(world, self.registry);
        Ran { code, stdout: stdout.text(), stderr: stderr.text() }
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

static ACME: Plugin = Plugin {
    id: "acme",
    version: "1.2.3",
    about: "A made-up provider and two ways to log in to it.",
    core: moltbot_core::VERSION,
    auth: &[&Keys, &Logins],
    providers: &[&Acme],
    codes: &[Code::new("acme-closed", "Acme is closed", "It is Sunday.", "Wait for Monday.")],
};

struct Acme;

impl Provider for Acme {
    fn info(&self) -> ProviderInfo {
        let model = |id: &'static str, images, input, retires: Option<&'static str>| ModelInfo {
            id: id.into(),
            name: id.into(),
            images,
            context_window: 200_000,
            max_output: 8_000,
            price: Price::new(input, 25.0, 0.5, 6.25, 10.0),
            retires: retires.map(Into::into),
            ..ModelInfo::default()
        };
        let env = |name: &'static str, kind| EnvKey { name: name.into(), kind };
        ProviderInfo {
            id: "acme".into(),
            label: "Acme".into(),
            api_key: Some(ApiKeySpec { env: "ACME_API_KEY".into(), ..ApiKeySpec::default() }),
            env: vec![
                env("ACME_OAUTH_TOKEN", CredentialKind::Oauth),
                env("ACME_API_KEY", CredentialKind::ApiKey),
            ],
            ignored_env: vec!["ACME_BASE_URL".into()],
            base_url: "https://api.acme.test".into(),
            origins: vec!["https://api.acme.test".into()],
            dialect: "acme-chat".into(),
            catalog: vec![
                model("big-1", true, 15.0, None),
                model("big-2", true, 5.0, None),
                model("tiny", false, 0.0, None),
                model("old-1", false, 1.0, Some("2026-10-01")),
            ],
            default_model: "big-1".into(),
            recommended_model: "big-2".into(),
            aliases: vec![("big".into(), "big-2".into())],
            short_names: vec![("big".into(), "big-2".into())],
            ..ProviderInfo::default()
        }
    }

    fn request(
        &self,
        _: &ChatView<'_>,
        _: &CredentialView<'_>,
        _: Timestamp,
    ) -> Result<Exchange, ProviderError> {
        Err(ProviderError::Invalid { message: "nothing is sent in these tests".into() })
    }

    fn failure(&self, _: &Ended, _: Timestamp) -> Failure {
        Failure {
            kind: FailureKind::Unknown,
            scope: Scope::Request,
            reset: None,
            account: None,
            code: "upstream".into(),
            message: String::new(),
            advice: None,
        }
    }

    fn decoder(&self, _: DecoderMode) -> Box<dyn Decoder> {
        unreachable!("nothing is sent in these tests")
    }
}

struct Keys;

#[async_trait]
impl AuthMethod for Keys {
    fn id(&self) -> &str {
        "acme-keys"
    }

    fn offers(&self, provider: &ProviderInfo) -> Vec<Offer> {
        let key = Field {
            id: "key".into(),
            flag: Some("acme-api-key".into()),
            env: Some("ACME_API_KEY".into()),
            label: "Acme API key".into(),
            kind: FieldKind::Secret {},
            ..Field::default()
        };
        vec![Offer {
            choice: "acmeKey".into(),
            label: "API key".into(),
            profile: format!("{}:default", provider.id).into(),
            kind: CredentialKind::ApiKey,
            mode: "api_key".into(),
            fields: vec![key],
            caps: AuthCaps { recommended: true, ..AuthCaps::default() },
            policy: Some(Policy {
                line: "Keys may be used by anybody".into(),
                source: "https://acme.test/terms".into(),
                checked: "2026-01-02".into(),
            }),
            payer: Payer::Metered,
            ..Offer::default()
        }]
    }

    async fn login(&self, _: &Cx<'_>) -> Result<Login, AuthError> {
        Err(AuthError::Cancelled {})
    }
}

struct Logins;

#[async_trait]
impl AuthMethod for Logins {
    fn id(&self) -> &str {
        "acme-logins"
    }

    fn offers(&self, provider: &ProviderInfo) -> Vec<Offer> {
        vec![Offer {
            choice: "acmeLogin".into(),
            label: "Log in".into(),
            profile: format!("{}:login", provider.id).into(),
            kind: CredentialKind::Oauth,
            mode: "oauth".into(),
            migrates_from: vec!["token".into()],
            caps: AuthCaps { refresh: true, ..AuthCaps::default() },
            payer: Payer::Subscription,
            ..Offer::default()
        }]
    }

    fn settings(&self) -> Option<SettingsSpec> {
        let schema =
            json!({ "type": "object", "properties": { "refresh": { "enum": ["owner", "off"] } } });
        Some(SettingsSpec { key: "acmeLogin".into(), schema })
    }

    async fn login(&self, _: &Cx<'_>) -> Result<Login, AuthError> {
        Err(AuthError::Cancelled {})
    }

    fn renew(
        &self,
        settings: &RenewSettings,
        _: &Credential,
        _: Timestamp,
    ) -> Result<Renewal, AuthError> {
        match settings.token_url {
            Some(_) => Ok(Renewal::Run {}),
            None => Err(AuthError::Unsupported { what: "renewing".into() }),
        }
    }

    async fn doctor(&self, _: &Cx<'_>, stored: &[Credential]) -> Result<Vec<Finding>, AuthError> {
        let broken = stored.iter().any(|one| one.email.as_deref() == Some("broken@acme.test"));
        let finding = |level, text: &str| Finding {
            level,
            text: text.to_string(),
            fix: Some("Ask Acme".to_string()),
        };
        Ok(if broken {
            vec![finding(Level::Error, "The Acme login is broken")]
        } else {
            Vec::new()
        })
    }
}

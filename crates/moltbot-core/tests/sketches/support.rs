//! A host made of one closure, behind JSON; a driver of futures; a provider to log in to.

use std::fmt::Debug;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use moltbot_core::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

/// Drives a future that waits for nothing but the host of this module.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the sketch waits for something that is not the host"),
    }
}

/// Sends a value through JSON; it must come back whole.
pub(crate) fn wire<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) -> T {
    let text = serde_json::to_string(&value).unwrap();
    let back = serde_json::from_str(&text).unwrap();
    assert_eq!(value, back, "{text}");
    back
}

/// The same for values that hold secrets.
pub(crate) fn exposed_wire<T: Expose + DeserializeOwned + PartialEq + Debug>(value: T) -> T {
    let text = serde_json::to_string(&Exposed(&value)).unwrap();
    let back = serde_json::from_str(&text).unwrap();
    assert_eq!(value, back, "{text}");
    back
}

type Rule<'a> = Box<dyn FnMut(Effect) -> Result<Reply, HostError> + Send + 'a>;

/// A host that does what a closure says.
pub(crate) struct World<'a>(Mutex<Rule<'a>>);

impl<'a> World<'a> {
    pub(crate) fn new(rule: impl FnMut(Effect) -> Result<Reply, HostError> + Send + 'a) -> Self {
        Self(Mutex::new(Box::new(rule)))
    }
}

#[async_trait]
impl Host for World<'_> {
    async fn perform(&self, effect: Effect) -> Result<Reply, HostError> {
        let effect = exposed_wire(effect);
        let outcome = (self.0.lock().unwrap())(effect);
        outcome.map(exposed_wire).map_err(wire)
    }
}

pub(crate) fn provider() -> ProviderInfo {
    ProviderInfo {
        id: "acme".into(),
        label: "Acme".into(),
        api_key: Some(ApiKeySpec {
            choice: "acmeApiKey".into(),
            flag: "acme-api-key".into(),
            env: "ACME_API_KEY".into(),
            label: "Acme API key".into(),
            prefix: "acme-".into(),
            policy: None,
        }),
        base_url: "https://api.acme.example".into(),
        origins: vec!["https://api.acme.example".into()],
        dialect: "acme-chat".into(),
        ..ProviderInfo::default()
    }
}

pub(crate) fn call(choice: &str, fields: Vec<Field>) -> Call {
    wire(Call {
        provider: provider(),
        choice: choice.to_string().into(),
        verb: None,
        fields,
        now: NOW,
        interactive: true,
        os: "linux".into(),
        settings: serde_json::Value::Null,
    })
}

pub(crate) fn file(content: Option<&str>) -> Reply {
    let problem = content.is_none().then_some(FileProblem::Absent {});
    let content = content.map(Secret::new);
    let shown = "~/.acme/login.json".to_string();
    let file =
        FileState { shown, content, problem, symlink: false, exposed: false, modified: Some(NOW) };
    Reply::File { file }
}

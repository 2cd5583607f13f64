//! Decision record ids and error codes, the host's and a plugin's; and a registry that finds both.

use std::collections::HashSet;

use moltbot_core::*;

use crate::support::{NOW, provider, wire};

struct Verbs(&'static str);

#[async_trait]
impl AuthMethod for Verbs {
    fn id(&self) -> &str {
        self.0
    }

    fn offers(&self, provider: &ProviderInfo) -> Vec<Offer> {
        vec![Offer {
            choice: format!("{}-{}", provider.id, self.0).into(),
            verbs: vec![Verb { name: "paste-it".into(), ..Verb::default() }],
            ..Offer::default()
        }]
    }

    async fn login(&self, _: &Cx<'_>) -> Result<Login, AuthError> {
        Err(AuthError::Cancelled {})
    }
}

struct Named(&'static str, &'static str);

impl Provider for Named {
    fn info(&self) -> ProviderInfo {
        ProviderInfo { id: self.0.into(), legacy_ids: vec![self.1.into()], ..provider() }
    }

    fn request(
        &self,
        _: &ChatView<'_>,
        _: &CredentialView<'_>,
        _: Timestamp,
    ) -> Result<Exchange, ProviderError> {
        Err(ProviderError::Invalid { message: "nothing is sent in this sketch".into() })
    }

    fn failure(&self, _: &Ended, _: Timestamp) -> Failure {
        unreachable!("nothing is sent in this sketch")
    }

    fn decoder(&self, _: DecoderMode) -> Box<dyn Decoder> {
        unreachable!("nothing is sent in this sketch")
    }
}

static LEFT: Verbs = Verbs("left");
static RIGHT: Verbs = Verbs("right");
static ONE: Named = Named("one", "uno");
static TWO: Named = Named("two", "due");
const CODES_OF_PLUGIN: &[Code] =
    &[Code::new("tool-broken", "The tool is broken", "It fell.", "Mend it.")];

const fn plugin(
    id: &'static str,
    auth: &'static [&'static dyn AuthMethod],
    providers: &'static [&'static dyn Provider],
) -> Plugin {
    let (version, core, about) = ("1.0.0", VERSION, "a sketch");
    Plugin { id, version, about, core, auth, providers, codes: CODES_OF_PLUGIN }
}

static THREE: Named = Named("three", "uno");
static PROVIDERS: Plugin = plugin("providers", &[], &[&ONE, &TWO]);
static METHOD: Plugin = plugin("method", &[&LEFT], &[]);
static IMPOSTOR: Plugin = plugin("impostor", &[], &[&THREE]);
static RIVAL: Plugin = plugin("rival", &[&RIGHT], &[]);

#[test]
fn ids_sort_by_time_and_are_read_back() {
    let ids: Vec<_> = (0..50_u64)
        .map(|n| RecordId::new(NOW.plus(i64::try_from(n / 2).unwrap()), (n % 2) << 51 | n))
        .collect();
    assert!(ids.is_sorted() && ids.iter().collect::<HashSet<_>>().len() == 50);
    for id in &ids {
        assert_eq!(RecordId::parse(&format!(" {id}\n")).as_ref(), Some(id));
        assert_eq!(wire(id.clone()), *id);
    }
    let early = RecordId::new(Timestamp::from_millis(-1), u64::MAX);
    assert_eq!(early, RecordId::new(Timestamp::from_millis(0), (1 << 52) - 1));
    for text in ["", "mb_", "mb_0123456789abcdefghi0", "mb_0123456789ABCDEFGHJK", "x"] {
        assert_eq!(RecordId::parse(text), None, "{text}");
    }
}

#[test]
fn a_code_is_found_wherever_it_comes_from() {
    let registry = Registry::new(vec![&METHOD], &[]).unwrap();
    assert_eq!(registry.code("tool-broken").unwrap().fix, "Mend it.");
    assert_eq!(wire(registry.code("billing").unwrap().clone()).id, "billing");
    assert!(registry.code("no-such-code").is_none());
    assert_eq!(registry.codes().count(), CODES.len() + 1);
}

#[test]
fn two_providers_share_a_verb_and_two_methods_do_not() {
    let registry = Registry::new(vec![&METHOD, &PROVIDERS], &[]).unwrap();
    assert_eq!(registry.offers().len(), 2);
    assert!(registry.choice("one-left").is_some() && registry.method("left").is_some());
    assert_eq!(registry.provider("due").unwrap().info.id, "two");
    let error = Registry::new(vec![&RIVAL, &METHOD, &PROVIDERS], &[]).err().unwrap();
    let RegistryError::Twice { name, first, second, .. } = &error else { panic!("{error}") };
    assert_eq!(
        (name.as_str(), first.as_str(), second.as_str()),
        ("paste-it --provider one", "method", "rival")
    );
}

#[test]
fn an_older_spelling_belongs_to_one_provider() {
    let error = Registry::new(vec![&PROVIDERS, &IMPOSTOR], &[]).err().unwrap();
    let expected = "provider \"uno\" is claimed by both impostor and providers";
    assert_eq!(error.to_string(), expected);
}

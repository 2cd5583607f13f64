//! Providers, answers and calls to test with.

use moltbot_core::{
    ApiKeySpec, AuthError, AuthMethod, Call, Cx, EnvKey, Field, FieldKind, Login, ModelInfo, Offer,
    ProviderInfo, Timestamp,
};

use crate::{ScriptedHost, block_on};

/// The start of every call made here: 2026-09-21.
pub const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

/// Returns a provider that takes an API key: `acme`, with keys that begin with `acme-`.
pub fn sample_provider() -> ProviderInfo {
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
        env: vec![EnvKey {
            name: "ACME_API_KEY".into(),
            kind: moltbot_core::CredentialKind::ApiKey,
        }],
        base_url: "https://api.acme.example".into(),
        origins: vec!["https://api.acme.example".into()],
        dialect: "acme-chat".into(),
        catalog: vec![ModelInfo {
            id: "acme-1".into(),
            name: "Acme One".into(),
            ..ModelInfo::default()
        }],
        default_model: "acme-1".into(),
        recommended_model: "acme-1".into(),
        ..ProviderInfo::default()
    }
}

/// Makes a secret that is obviously none: `prefix`, then `FAKE` and digits, 108 characters.
pub fn fake(prefix: &str) -> String {
    let filler = "FAKE0123456789abcdefghijklmnopqrstuvwxyz".chars().cycle();
    prefix.chars().chain(filler).take(108).collect()
}

/// Returns an answer that has the form a field asks for.
pub fn sample_answer(field: &Field, provider: &ProviderInfo) -> String {
    match &field.kind {
        FieldKind::Secret {} => {
            fake(provider.api_key.as_ref().map_or("", |spec| spec.prefix.as_ref()))
        }
        FieldKind::Duration {} => "365d".to_string(),
        FieldKind::Confirm {} => "true".to_string(),
        FieldKind::Select { options } => {
            options.first().map_or(String::new(), |option| option.value.to_string())
        }
        _ => field.default.as_ref().map_or_else(|| "sample".to_string(), ToString::to_string),
    }
}

/// Finds an offer by its choice; panics with the choices there are.
pub fn offer(method: &dyn AuthMethod, provider: &ProviderInfo, choice: &str) -> Offer {
    let offers = method.offers(provider);
    let there: Vec<_> = offers.iter().map(|offer| offer.choice.to_string()).collect();
    offers.into_iter().find(|offer| offer.choice == choice).unwrap_or_else(|| {
        panic!("{} offers no \"{choice}\" to {}, only {there:?}", method.id(), provider.id)
    })
}

/// Makes an interactive call of `onboard` for an offer.
pub fn call(provider: &ProviderInfo, offer: &Offer) -> Call {
    Call {
        provider: provider.clone(),
        choice: offer.choice.clone(),
        verb: None,
        fields: offer.fields.clone(),
        now: NOW,
        interactive: true,
        os: "linux".into(),
        settings: serde_json::Value::Null,
    }
}

/// Makes an interactive call of `models auth VERB`; panics with the verbs there are.
pub fn verb_call(provider: &ProviderInfo, offer: &Offer, verb: &str) -> Call {
    let there: Vec<_> = offer.verbs.iter().map(|verb| &verb.name).collect();
    let Some(found) = offer.verbs.iter().find(|it| it.name == verb) else {
        panic!("the offer \"{}\" has no verb \"{verb}\", only {there:?}", offer.choice)
    };
    Call { verb: Some(found.name.clone()), fields: found.fields.clone(), ..call(provider, offer) }
}

/// Says that nobody is there to answer.
pub fn headless(call: Call) -> Call {
    Call { interactive: false, ..call }
}

/// Runs a login to its end.
pub fn login(
    method: &dyn AuthMethod,
    host: &ScriptedHost,
    call: &Call,
) -> Result<Login, AuthError> {
    block_on(method.login(&Cx::new(host, call)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fake_is_recognised_as_one() {
        let text = fake("acme-");
        assert_eq!((text.len(), crate::canaries_in(&text)), (108, vec![text.clone()]));
    }

    #[test]
    fn an_answer_has_the_form_of_its_field() {
        let field = |kind| Field { kind, ..Field::default() };
        let provider = sample_provider();
        assert!(sample_answer(&field(FieldKind::Secret {}), &provider).starts_with("acme-"));
        assert_eq!(sample_answer(&field(FieldKind::Confirm {}), &provider), "true");
    }
}

//! A key that is typed, given by flag or variable, and checked by the plugin.

use moltbot_core::*;

use crate::support::{World, block_on, call, exposed_wire, provider, wire};

struct ApiKey;

#[async_trait]
impl AuthMethod for ApiKey {
    fn id(&self) -> &str {
        "key"
    }

    fn offers(&self, provider: &ProviderInfo) -> Vec<Offer> {
        let Some(spec) = &provider.api_key else { return Vec::new() };
        vec![Offer {
            choice: spec.choice.clone(),
            label: spec.label.clone(),
            profile: format!("{}:default", provider.id).into(),
            kind: CredentialKind::ApiKey,
            mode: "api_key".into(),
            accepts: vec![CredentialKind::ApiKey],
            fields: vec![Field {
                id: "key".into(),
                flag: Some(spec.flag.clone()),
                env: Some(spec.env.clone()),
                label: spec.label.clone(),
                kind: FieldKind::Secret {},
                ..Field::default()
            }],
            caps: AuthCaps { recommended: true, ..AuthCaps::default() },
            payer: Payer::Metered,
            ..Offer::default()
        }]
    }

    async fn login(&self, cx: &Cx<'_>) -> Result<Login, AuthError> {
        let prefix = cx.provider.api_key.as_ref().map_or("", |spec| spec.prefix.as_ref());
        let check = |text: &str| match text.trim() {
            "" => Err("Required".to_string()),
            key if key.starts_with(prefix) => Ok(Secret::new(key)),
            _ => Err(format!("Expected a key that begins with {prefix}")),
        };
        let key = cx.ask("key", check).await?;
        Ok(Login::new(Credential::api_key(cx.provider.id.clone(), key)))
    }
}

fn offer() -> Offer {
    wire(ApiKey.offers(&provider()).remove(0))
}

fn answer(value: &str, typed: bool) -> Result<Reply, HostError> {
    Ok(Reply::Answer { value: Secret::new(value), typed })
}

#[test]
fn a_person_is_asked_again_and_told_why() {
    let mut answers = ["", "wrong", " acme-FAKE "].into_iter();
    let mut refusals = Vec::new();
    let host = World::new(|effect| {
        let Effect::Ask { field, refused } = effect else { panic!("{effect:?}") };
        assert_eq!(field, offer().fields[0]);
        refusals.push(refused.map(String::from));
        answer(answers.next().unwrap(), true)
    });
    let call = call("acmeApiKey", offer().fields);
    let login = exposed_wire(block_on(ApiKey.login(&Cx::new(&host, &call))).unwrap());
    drop(host);
    assert_eq!(login.credential, Credential::api_key("acme", Secret::new("acme-FAKE")));
    let again = |text: &str| Some(text.to_string());
    let expected = [None, again("Required"), again("Expected a key that begins with acme-")];
    assert_eq!(refusals, expected);
}

#[test]
fn a_flag_is_not_asked_again() {
    let mut asked = 0;
    let host = World::new(|_| {
        asked += 1;
        answer("wrong", false)
    });
    let call = call("acmeApiKey", offer().fields);
    let error = wire(block_on(ApiKey.login(&Cx::new(&host, &call))).unwrap_err());
    drop(host);
    assert_eq!((asked, error.to_string().as_str()), (1, "Expected a key that begins with acme-"));
}

#[test]
fn nobody_there_is_told_what_to_pass() {
    let host = World::new(|effect| match effect {
        Effect::Ask { field, .. } => Err(HostError::NotInteractive {
            label: field.label.into(),
            flag: field.flag.map(String::from),
            env: field.env.map(String::from),
        }),
        other => panic!("{other:?}"),
    });
    let call = call("acmeApiKey", offer().fields);
    let error = wire(block_on(ApiKey.login(&Cx::new(&host, &call))).unwrap_err());
    let expected = "Acme API key is missing: pass --acme-api-key or set ACME_API_KEY";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_stored_key_is_judged_without_an_effect() {
    let host = World::new(|effect| panic!("{effect:?}"));
    let call = call("acmeApiKey", Vec::new());
    let resolve = |stored: Credential| {
        exposed_wire(block_on(ApiKey.resolve(&Cx::new(&host, &call), &stored)).unwrap()).state
    };
    assert_eq!(resolve(Credential::api_key("acme", Secret::new("k"))), CredentialState::Ready);
    assert_eq!(resolve(Credential::api_key("acme", Secret::new(" "))), CredentialState::Absent);
    let renewal = ApiKey.renew(
        &RenewSettings::default(),
        &Credential::api_key("a", Secret::new("k")),
        call.now,
    );
    assert!(matches!(renewal, Err(AuthError::Unsupported { .. })), "keys are not renewed");
}

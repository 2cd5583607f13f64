//! Hiding secrets in what `config get` prints (spec L-22).

use moltbot_core::mask;
use serde_json::Value;

use crate::keypath::{KeyPath, Step};

/// Endings of keys whose values are secrets, in lower case.
const SECRET_ENDINGS: [&str; 9] = [
    "apikey",
    "api_key",
    "token",
    "password",
    "passphrase",
    "secret",
    "key",
    "credential",
    "authorization",
];

/// Returns a value with every secret in it masked; `path` says where the value stands.
///
/// Secrets are texts under keys such as `apiKey`, `token` or `password`, everything under `env`
/// and `headers`, and texts that look like a key wherever they stand. A reference `${NAME}` is no
/// secret and stays.
///
/// ```
/// use moltbot_config::{KeyPath, mask_value};
/// use serde_json::json;
/// let shown = mask_value(&KeyPath::keys(["env"]), &json!({"A_KEY": "FAKE-0123456789-KEY"}));
/// assert_eq!(shown, json!({"A_KEY": "FAKE...-KEY"}));
/// let shown = mask_value(&KeyPath::root(), &json!({"gateway": {"auth": {"token": "${T}"}}}));
/// assert_eq!(shown["gateway"]["auth"]["token"], "${T}");
/// ```
pub fn mask_value(path: &KeyPath, value: &Value) -> Value {
    masked(&mut path.steps().to_vec(), value)
}

/// Tells whether a text at this place is a secret, whatever it says.
pub fn is_secret_path(path: &KeyPath) -> bool {
    is_secret(path.steps())
}

fn masked(steps: &mut Vec<Step>, value: &Value) -> Value {
    let mut below = |step: Step, value: &Value| {
        steps.push(step);
        let masked = masked(steps, value);
        steps.pop();
        masked
    };
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), below(Step::Key(key.clone()), value)))
            .collect(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(at, item)| below(Step::Index(at), item)).collect()
        }
        Value::String(text) if is_reference(text) => value.clone(),
        Value::String(text) if is_secret(steps) || looks_secret(text) => mask(text).into(),
        // A password may be written as a number.
        Value::Number(number) if is_secret(steps) => mask(&number.to_string()).into(),
        _ => value.clone(),
    }
}

fn is_secret(steps: &[Step]) -> bool {
    let mut keys = steps.iter().filter_map(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Index(_) => None,
    });
    let first = keys.clone().next();
    if first == Some("env") {
        // Only what says how to ask the shell is no variable.
        return keys.nth(1) != Some("shellEnv");
    }
    let mut inside_headers = false;
    let mut last = None;
    for key in keys {
        inside_headers |= last == Some("headers") || last == Some("env");
        last = Some(key);
    }
    let ends_like_one = last.is_some_and(|last| {
        let last = last.to_lowercase();
        SECRET_ENDINGS.iter().any(|ending| last.ends_with(ending))
    });
    inside_headers || ends_like_one
}

fn is_reference(text: &str) -> bool {
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(|name| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// Finds what the redaction layer would find in running text.
fn looks_secret(text: &str) -> bool {
    text.trim_start().starts_with("sk-")
        || moltbot_core::redact(text) != text && !text.contains(' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_are_found_by_place_and_by_look() {
        let value = json!({
            "env": {"shellEnv": {"enabled": true, "timeoutMs": 1}, "vars": {"A": "FAKE-FAKE-FAKE"}, "B": "FAKE-FAKE-FAKE"},
            "channels": {"telegram": {"botToken": "FAKE-FAKE-FAKE", "name": "plain"}},
            "models": {"providers": {"p": {"baseUrl": "https://a.example", "headers": {"x": "FAKE-FAKE-FAKE"}}}},
            "auth": {"profiles": {"p:default": {"provider": "p", "mode": "api_key"}}},
            "agents": {"defaults": {"workspace": "sk-FAKE-FAKE-FAKE", "models": {"a/b": {"params": {"maxTokens": 7}}}}},
            "password": 1234567890123_u64,
        });
        let shown = mask_value(&KeyPath::root(), &value).to_string();
        assert!(!shown.contains("FAKE-FAKE"), "{shown}");
        assert!(!shown.contains("1234567890123"), "{shown}");
        for plain in [
            "plain",
            "https://a.example",
            "\"maxTokens\":7",
            "\"mode\":\"api_key\"",
            "\"timeoutMs\":1",
        ] {
            assert!(shown.contains(plain), "{plain}: {shown}");
        }
    }

    #[test]
    fn a_part_is_masked_by_its_whole_path() {
        let path: KeyPath = "models.providers.p.apiKey".parse().unwrap();
        assert_eq!(mask_value(&path, &json!("FAKE0123456789abcdef")), json!("FAKE...cdef"));
        let path: KeyPath = "env.vars.K".parse().unwrap();
        assert_eq!(mask_value(&path, &json!("short")), json!("s...t"));
        assert!(is_secret_path(&path));
        assert!(!is_secret_path(&"auth.oauth.p.tokenUrl".parse().unwrap()));
    }
}

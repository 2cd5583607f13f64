//! What the plugins of this build add to the config's schema.

use moltbot_config::{Extensions, ModeMigration, PluginSettings, Setting, SettingKind};
use moltbot_core::{Registry, SettingsSpec};
use serde_json::Value;

/// Collects settings, dialects and mode migrations from the registry.
pub(crate) fn of(registry: &Registry) -> Extensions {
    let methods = registry.plugins().iter().flat_map(|plugin| plugin.auth.iter());
    let auth = methods.filter_map(|method| method.settings()).map(|spec| settings(&spec)).collect();
    let dialects =
        registry.providers().iter().map(|entry| entry.info.dialect.to_string()).collect();
    let modes = registry
        .offers()
        .iter()
        .flat_map(|entry| {
            entry.offer.migrates_from.iter().map(|from| ModeMigration {
                profile: entry.offer.profile.to_string(),
                from: from.to_string(),
                to: entry.offer.mode.to_string(),
            })
        })
        .collect();
    Extensions { auth: Some(auth), dialects: Some(dialects), modes }
}

/// Reads the part of JSON Schema that settings use: one object of plain properties.
fn settings(spec: &SettingsSpec) -> PluginSettings {
    let properties = spec.schema.get("properties").and_then(Value::as_object);
    let settings = properties
        .into_iter()
        .flatten()
        .map(|(name, schema)| Setting {
            name: name.clone(),
            kind: kind(schema),
            doc: schema["description"].as_str().unwrap_or_default().to_string(),
        })
        .collect();
    PluginSettings { key: spec.key.to_string(), settings }
}

fn kind(schema: &Value) -> SettingKind {
    if let Some(words) = schema["enum"].as_array() {
        let words = words.iter().filter_map(Value::as_str).map(String::from).collect();
        return SettingKind::OneOf(words);
    }
    match schema["type"].as_str() {
        Some("boolean") => SettingKind::Flag,
        Some("number" | "integer") => SettingKind::Number,
        _ => SettingKind::Text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_becomes_settings() {
        let spec = SettingsSpec {
            key: "acme".into(),
            schema: json!({ "type": "object", "properties": {
                "refresh": { "enum": ["owner", "off"], "description": "Who renews." },
                "loud": { "type": "boolean" },
                "seconds": { "type": "integer" },
                "name": { "type": "string" },
            }}),
        };
        let kinds: Vec<_> = settings(&spec).settings.into_iter().map(|s| s.kind).collect();
        let words = SettingKind::OneOf(vec!["owner".into(), "off".into()]);
        assert_eq!(kinds, [words, SettingKind::Flag, SettingKind::Number, SettingKind::Text]);
    }

    #[test]
    fn the_registry_says_all_of_it() {
        let extensions = of(crate::testing::Bench::new().registry);
        assert_eq!(extensions.dialects.unwrap(), ["acme-chat"]);
        assert_eq!(extensions.auth.unwrap()[0].key, "acmeLogin");
        assert_eq!(extensions.modes[0].profile, "acme:login");
    }
}

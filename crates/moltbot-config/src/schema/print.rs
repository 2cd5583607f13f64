//! The table as a JSON Schema, for editors and for `config schema`.

use serde_json::{Map, Value, json};

use super::{
    Config, Extensions, FOREIGN_DIALECTS, Rest, Section, Setting, SettingKind, Shape, Shaped,
    TextRule,
};

/// Returns the JSON Schema (draft 2020-12) of the whole document, settings of plugins included.
///
/// ```
/// let schema = moltbot_config::json_schema(&Default::default());
/// assert_eq!(schema["properties"]["gateway"]["properties"]["port"]["maximum"], 65535);
/// ```
pub fn json_schema(extensions: &Extensions) -> Value {
    let mut schema = shape(&Config::SHAPE, extensions);
    if let Value::Object(map) = &mut schema {
        map.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        map.insert("title".into(), "moltbot configuration".into());
    }
    schema
}

fn shape(of: &Shape, extensions: &Extensions) -> Value {
    match of {
        Shape::Any => json!({}),
        Shape::Bool => json!({"type": "boolean"}),
        Shape::Text(TextRule::Free) => json!({"type": "string"}),
        Shape::Text(TextRule::NonEmpty) => json!({"type": "string", "pattern": "\\S"}),
        Shape::Text(TextRule::SecureUrl) => json!({"type": "string", "pattern": "^https?://"}),
        Shape::Text(TextRule::Sha256) => {
            json!({"type": "string", "pattern": "^[0-9a-fA-F]{64}$"})
        }
        Shape::Int(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Shape::Number { above, inclusive: true } => json!({"type": "number", "minimum": above}),
        Shape::Number { above, inclusive: false } => {
            json!({"type": "number", "exclusiveMinimum": above})
        }
        Shape::OneOf(words) => json!({"type": "string", "enum": words}),
        Shape::Dialect => match &extensions.dialects {
            None => json!({"type": "string"}),
            Some(ours) => {
                let words: Vec<&str> =
                    ours.iter().map(String::as_str).chain(FOREIGN_DIALECTS).collect();
                json!({"type": "string", "enum": words})
            }
        },
        Shape::List(inner) => json!({"type": "array", "items": shape(inner, extensions)}),
        Shape::Map(inner) => {
            json!({"type": "object", "additionalProperties": shape(inner, extensions)})
        }
        Shape::Section(inner) => section(inner, extensions),
        Shape::TextOr(inner) => {
            json!({"anyOf": [{"type": "string"}, section(inner, extensions)]})
        }
    }
}

fn section(of: &Section, extensions: &Extensions) -> Value {
    let mut properties = Map::new();
    for field in of.fields {
        let mut schema = shape(field.shape, extensions);
        describe(&mut schema, field.doc);
        properties.insert(field.name.to_string(), schema);
    }
    let mut additional = json!(false);
    match &of.rest {
        Rest::Refused => {}
        Rest::Unchecked(names) => {
            properties.extend(names.iter().map(|name| (name.to_string(), json!({}))));
        }
        Rest::Each(inner) => additional = shape(inner, extensions),
        Rest::PluginSettings => match &extensions.auth {
            None => additional = json!({}),
            Some(plugins) => {
                for plugin in plugins {
                    let settings: Map<String, Value> =
                        plugin.settings.iter().map(|s| (s.name.clone(), setting(s))).collect();
                    let schema = json!({
                        "type": "object", "properties": settings, "additionalProperties": false,
                    });
                    properties.insert(plugin.key.clone(), schema);
                }
            }
        },
    }
    let required: Vec<&str> =
        of.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let mut schema = json!({
        "type": "object", "properties": properties, "additionalProperties": additional,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn setting(of: &Setting) -> Value {
    let mut schema = match &of.kind {
        SettingKind::Flag => json!({"type": "boolean"}),
        SettingKind::Number => json!({"type": "number", "minimum": 0}),
        SettingKind::OneOf(words) => json!({"type": "string", "enum": words}),
        SettingKind::Text => json!({"type": "string"}),
    };
    describe(&mut schema, &of.doc);
    schema
}

fn describe(schema: &mut Value, doc: &str) {
    let doc = doc.split_whitespace().collect::<Vec<_>>().join(" ");
    schema["description"] = Value::String(doc);
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;
    use crate::tree::{self, Node};

    /// Makes values that a shape allows: every choice and both ends of every range once.
    fn samples(of: &Shape) -> Vec<Value> {
        match of {
            Shape::Any => vec![json!({"any": [1, null]})],
            Shape::Bool => vec![json!(true), json!(false)],
            Shape::Text(TextRule::Sha256) => vec![json!("0aF".repeat(22)[..64].to_string())],
            Shape::Text(TextRule::SecureUrl) => {
                vec![json!("https://a.example/t"), json!("http://127.0.0.1:1/t")]
            }
            Shape::Text(_) => vec![json!("text")],
            Shape::Int(least, most) => vec![json!(least), json!(most)],
            Shape::Number { above, inclusive } => {
                vec![if *inclusive { json!(above) } else { json!(above + 0.5) }, json!(7)]
            }
            Shape::OneOf(words) => words.iter().map(|word| json!(word)).collect(),
            Shape::Dialect => vec![json!("openai-responses")],
            Shape::List(inner) => vec![json!([]), Value::Array(samples(inner))],
            Shape::Map(inner) => samples(inner).into_iter().map(|v| json!({"k": v})).collect(),
            Shape::Section(section) => sections(section),
            Shape::TextOr(section) => {
                let mut all = sections(section);
                all.push(json!("text"));
                all
            }
        }
    }

    fn sections(section: &Section) -> Vec<Value> {
        let first = |field: &super::super::Field| samples(field.shape).remove(0);
        let required: Map<String, Value> = section
            .fields
            .iter()
            .filter(|field| field.required)
            .map(|field| (field.name.to_string(), first(field)))
            .collect();
        let mut all = vec![Value::Object(required.clone())];
        for field in section.fields {
            for value in samples(field.shape) {
                let mut map = required.clone();
                map.insert(field.name.to_string(), value);
                all.push(Value::Object(map));
            }
        }
        if let Rest::Unchecked(names) = section.rest {
            let mut map = required.clone();
            map.extend(names.iter().map(|name| (name.to_string(), json!([1]))));
            all.push(Value::Object(map));
        }
        all
    }

    fn node(value: &Value) -> Node {
        let mut source = crate::source::Source {
            path: "x".into(),
            text: value.to_string(),
            bom: false,
            parsed: false,
        };
        tree::parse(&mut source, 0).unwrap()
    }

    #[test]
    fn what_the_table_allows_the_types_read() {
        let all = samples(&Config::SHAPE);
        assert!(all.len() > 150, "{}", all.len());
        for value in all {
            let problems = check(&node(&value), &Config::SHAPE, &Extensions::default());
            assert!(problems.is_empty(), "{value}: {problems:?}");
            serde_json::from_value::<Config>(value.clone())
                .unwrap_or_else(|error| panic!("{value}: {error}"));
        }
    }

    /// Every scalar in every sample is replaced by an object and must then be refused by the table.
    #[test]
    fn what_the_types_refuse_the_table_refuses() {
        fn spoil(value: &Value, wrong: &Value, out: &mut Vec<Value>) {
            match value {
                Value::Object(map) => {
                    for key in map.keys() {
                        let mut inner = Vec::new();
                        spoil(&map[key], wrong, &mut inner);
                        for spoiled in inner {
                            let mut copy = map.clone();
                            copy.insert(key.clone(), spoiled);
                            out.push(Value::Object(copy));
                        }
                    }
                }
                Value::Array(list) => {
                    for at in 0..list.len() {
                        let mut inner = Vec::new();
                        spoil(&list[at], wrong, &mut inner);
                        for spoiled in inner {
                            let mut copy = list.clone();
                            copy[at] = spoiled;
                            out.push(Value::Array(copy));
                        }
                    }
                }
                _ => out.push(wrong.clone()),
            }
        }
        let mut refused = 0;
        for value in samples(&Config::SHAPE) {
            for wrong in [json!(-1), json!(0.5), json!(null), json!([[]]), json!("?"), json!(true)]
            {
                let mut spoiled = Vec::new();
                spoil(&value, &wrong, &mut spoiled);
                for value in spoiled {
                    let problems = check(&node(&value), &Config::SHAPE, &Extensions::default());
                    if serde_json::from_value::<Config>(value.clone()).is_err() {
                        assert!(!problems.is_empty(), "only the types refuse {value}");
                        refused += 1;
                    }
                }
            }
        }
        assert!(refused > 500, "{refused}");
    }

    #[test]
    fn every_key_is_described() {
        fn walk(schema: &Value, path: &str) {
            let Some(properties) = schema["properties"].as_object() else { return };
            for (name, inner) in properties {
                let path = format!("{path}.{name}");
                let described = inner["description"].as_str().is_some_and(|d| d.ends_with('.'));
                assert!(described || inner == &json!({}), "{path}: {inner}");
                walk(inner, &path);
            }
        }
        walk(&json_schema(&Extensions::default()), "");
    }

    #[test]
    fn plugins_add_their_settings() {
        let kind = SettingKind::OneOf(vec!["owner".into(), "off".into()]);
        let settings = vec![Setting { name: "refresh".into(), kind, doc: "Who renews.".into() }];
        let plugin = super::super::PluginSettings { key: "acmeSso".into(), settings };
        let extensions = Extensions { auth: Some(vec![plugin]), ..Extensions::default() };
        let schema = json_schema(&extensions);
        let auth = &schema["properties"]["auth"];
        assert_eq!(auth["additionalProperties"], false);
        assert_eq!(auth["properties"]["acmeSso"]["properties"]["refresh"]["enum"][0], "owner");
        let messages = |text: &str| -> Vec<String> {
            let value: Value = json5::from_str(text).unwrap();
            let problems = check(&node(&value), &Config::SHAPE, &extensions);
            problems.into_iter().map(|p| format!("{}: {}", p.path, p.message)).collect()
        };
        assert_eq!(messages("{auth: {acmeSso: {refresh: 'owner'}}}"), Vec::<String>::new());
        assert_eq!(
            messages("{auth: {acmeSso: {refresh: 'ower', x: 1}, foo: {}}}"),
            [
                "auth.acmeSso.refresh: expected one of \"owner\", \"off\"",
                "auth.acmeSso.x: unknown key",
                "auth.foo: unknown key"
            ]
        );
    }
}

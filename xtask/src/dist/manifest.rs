//! Manifests as tables: what a package inherits is written out, and its links to other packages
//! point into the staged tree.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

/// Replaces everything `manifest` inherits by what `workspace`, the root's `[workspace]` table,
/// says, and takes out what only matters in the workspace: tests, lints, profiles.
pub(crate) fn flatten(manifest: &mut Table, workspace: &Table) -> Result<()> {
    for section in ["lints", "workspace", "profile", "patch", "replace", "test", "bench", "example"]
    {
        manifest.remove(section);
    }
    let shared = workspace.get("package").and_then(Value::as_table);
    let package = manifest.get_mut("package").and_then(Value::as_table_mut);
    let package = package.context("a manifest without [package]")?;
    // These name files of the workspace's root.
    for key in ["readme", "license-file"] {
        if package.get(key).is_some_and(inherits) {
            package.remove(key);
        }
    }
    for (key, value) in package.iter_mut().filter(|(_, value)| inherits(value)) {
        let found = shared.and_then(|shared| shared.get(key));
        *value = found.with_context(|| format!("[workspace.package] has no {key}"))?.clone();
    }
    let known = workspace.get("dependencies").and_then(Value::as_table);
    each_section(manifest, &mut |section, table| {
        if section == "dev-dependencies" {
            table.clear();
            return Ok(());
        }
        for (name, value) in table.iter_mut().filter(|(_, value)| inherits(value)) {
            let base = known.and_then(|known| known.get(name));
            let base = base.with_context(|| format!("[workspace.dependencies] has no {name}"))?;
            *value = inherited(base, value);
        }
        Ok(())
    })?;
    manifest.retain(|_, value| !value.as_table().is_some_and(Table::is_empty));
    manifest.remove("dev-dependencies");
    Ok(())
}

/// Lists the packages that the manifest depends on, by their own names.
pub(crate) fn dependencies(manifest: &Table) -> Result<Vec<String>> {
    let mut names = Vec::new();
    each_section(&mut manifest.clone(), &mut |section, table| {
        if section != "dev-dependencies" {
            names.extend(table.iter().map(|(key, value)| package_of(key, value)));
        }
        Ok(())
    })?;
    Ok(names)
}

/// Lets every dependency on a staged package point to its place, seen from a package two levels
/// below the root. A required version stays, so that cargo still compares it.
pub(crate) fn localize(manifest: &mut Table, staged: &BTreeMap<String, String>) -> Result<()> {
    each_section(manifest, &mut |_, table| {
        for (key, value) in table.iter_mut() {
            let package = package_of(key, value);
            if let Some(place) = staged.get(&package) {
                let mut link = match &*value {
                    Value::Table(table) => table.clone(),
                    version => Table::from_iter([("version".to_string(), version.clone())]),
                };
                for source in ["git", "branch", "tag", "rev", "registry", "registry-index"] {
                    link.remove(source);
                }
                link.insert("path".into(), format!("../../{place}").into());
                *value = Value::Table(link);
            } else if let Some(path) = value.get("path").and_then(Value::as_str)
                && (path.starts_with('/') || path.split('/').any(|part| part == ".."))
            {
                bail!(
                    "it depends on {package} at {path}, outside its own directory: \
                     move that into the directory, or publish it"
                );
            }
        }
        Ok(())
    })
}

/// Returns a manifest's `[package]` value of that name.
pub(crate) fn package_text<'m>(manifest: &'m Table, key: &str) -> Option<&'m str> {
    manifest.get("package")?.get(key)?.as_str()
}

/// Returns what a package asks of others by `[package.metadata.moltbot] features`: plugin id and
/// features. `metadata` is the `[package.metadata]` table, as JSON.
///
/// A plugin says so that it needs a part of another one which is a feature there:
///
/// ```toml
/// [package.metadata.moltbot]
/// features = { anthropic = ["bearer"] }
/// ```
pub(crate) fn asked_features(
    metadata: &serde_json::Value,
) -> Result<BTreeMap<String, Vec<String>>> {
    match metadata.pointer("/moltbot/features") {
        None => Ok(BTreeMap::new()),
        Some(features) => serde_json::from_value(features.clone()).context(
            "[package.metadata.moltbot] features must name plugins and lists of their features",
        ),
    }
}

/// Returns which features of the program itself a plugin needs:
/// `[package.metadata.moltbot] host-features = ["keyring"]`.
pub(crate) fn host_features(metadata: &serde_json::Value) -> Result<Vec<String>> {
    match metadata.pointer("/moltbot/host-features") {
        None => Ok(Vec::new()),
        Some(features) => serde_json::from_value(features.clone())
            .context("[package.metadata.moltbot] host-features must be a list of features"),
    }
}

fn inherits(value: &Value) -> bool {
    value.get("workspace").and_then(Value::as_bool) == Some(true)
}

/// Writes out one inherited dependency: features add up, the rest is the workspace's.
fn inherited(base: &Value, own: &Value) -> Value {
    let mut whole = match base {
        Value::Table(table) => table.clone(),
        version => Table::from_iter([("version".to_string(), version.clone())]),
    };
    for (key, value) in own.as_table().into_iter().flatten() {
        match (key.as_str(), value) {
            ("workspace", _) => {}
            ("features", Value::Array(more)) => {
                let features = whole.entry("features").or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(features) = features {
                    features.extend(more.iter().cloned());
                }
            }
            // As cargo reads it: a member can only switch the default features on.
            ("default-features", Value::Boolean(false)) => {}
            _ => {
                whole.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Table(whole)
}

fn package_of(key: &str, value: &Value) -> String {
    value.get("package").and_then(Value::as_str).unwrap_or(key).to_string()
}

const SECTIONS: [&str; 3] = ["dependencies", "build-dependencies", "dev-dependencies"];

/// Visits each table of dependencies, those of single platforms too.
fn each_section(
    manifest: &mut Table,
    visit: &mut dyn FnMut(&str, &mut Table) -> Result<()>,
) -> Result<()> {
    let mut platforms = Vec::new();
    let (mut own, mut target) = (None, None);
    for (key, value) in manifest.iter_mut() {
        if SECTIONS.contains(&key.as_str()) {
            own.get_or_insert_with(Vec::new).push((key.clone(), value));
        } else if key == "target" {
            target = value.as_table_mut();
        }
    }
    for (_, platform) in target.into_iter().flatten() {
        for (key, value) in platform.as_table_mut().into_iter().flatten() {
            if SECTIONS.contains(&key.as_str()) {
                platforms.push((key.clone(), value));
            }
        }
    }
    for (key, value) in own.into_iter().flatten().chain(platforms) {
        visit(&key, value.as_table_mut().with_context(|| format!("[{key}] is not a table"))?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        text.parse().unwrap()
    }

    fn workspace() -> Table {
        table(
            r#"
            [package]
            version = "1.2.3"
            edition = "2024"
            [dependencies]
            serde = { version = "1", features = ["derive"] }
            sha2 = "0.10"
            moltbot-core = { path = "crates/moltbot-core" }
            quiet = { version = "2", default-features = false }
            "#,
        )
    }

    #[test]
    fn what_is_inherited_is_written_out() {
        let mut manifest = table(
            r#"
            package = { name = "a", version.workspace = true, edition.workspace = true, readme.workspace = true }
            lints.workspace = true
            [dependencies]
            serde = { workspace = true, features = ["rc"], optional = true }
            sha2.workspace = true
            own = "3"
            quiet = { workspace = true, default-features = false }
            [target.'cfg(unix)'.dependencies]
            moltbot-core.workspace = true
            [dev-dependencies]
            gone = "1"
            [target.'cfg(unix)'.dev-dependencies]
            gone = "1"
            [[test]]
            name = "gone"
            [[bin]]
            name = "kept"
            "#,
        );
        flatten(&mut manifest, &workspace()).unwrap();
        let expected = table(
            r#"
            package = { name = "a", version = "1.2.3", edition = "2024" }
            [dependencies]
            serde = { version = "1", features = ["derive", "rc"], optional = true }
            sha2 = { version = "0.10" }
            own = "3"
            quiet = { version = "2", default-features = false }
            [target.'cfg(unix)'.dependencies]
            moltbot-core = { path = "crates/moltbot-core" }
            [target.'cfg(unix)'.dev-dependencies]
            [[bin]]
            name = "kept"
            "#,
        );
        assert_eq!(manifest, expected);
        assert_eq!(
            dependencies(&manifest).unwrap(),
            ["serde", "sha2", "own", "quiet", "moltbot-core"]
        );
    }

    #[test]
    fn what_nobody_declares_cannot_be_inherited() {
        for (text, complaint) in [
            ("package.homepage.workspace = true", "[workspace.package] has no homepage"),
            (
                "package.name = \"a\"\ndependencies.x.workspace = true",
                "[workspace.dependencies] has no x",
            ),
            ("[dependencies]\nx = \"1\"", "a manifest without [package]"),
        ] {
            let error = flatten(&mut table(text), &workspace()).unwrap_err();
            assert_eq!(error.to_string(), complaint);
        }
    }

    #[test]
    fn links_lead_into_the_staged_tree() {
        let staged = BTreeMap::from([
            ("moltbot-core".to_string(), "crates/moltbot-core".to_string()),
            ("moltbot-abi".to_string(), "crates/moltbot-abi".to_string()),
        ]);
        let mut manifest = table(
            r#"
            [dependencies]
            core = { package = "moltbot-core", git = "https://example.com/x", rev = "1", version = "0.1" }
            moltbot-abi = "0.1"
            mine = { path = "mine" }
            serde = "1"
            "#,
        );
        localize(&mut manifest, &staged).unwrap();
        let expected = table(
            r#"
            [dependencies]
            core = { package = "moltbot-core", version = "0.1", path = "../../crates/moltbot-core" }
            moltbot-abi = { version = "0.1", path = "../../crates/moltbot-abi" }
            mine = { path = "mine" }
            serde = "1"
            "#,
        );
        assert_eq!(manifest, expected);

        for path in ["../mine", "/mine", "a/../../mine"] {
            let mut manifest = table(&format!("[dependencies]\nmine = {{ path = \"{path}\" }}"));
            let error = localize(&mut manifest, &staged).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("it depends on mine at {path}, outside")),
                "{error}"
            );
        }
    }

    #[test]
    fn features_are_asked_for_by_plugin() {
        let metadata = serde_json::json!({ "moltbot": { "features": { "p": ["a", "b"] } } });
        assert_eq!(asked_features(&metadata).unwrap()["p"], ["a", "b"]);
        assert!(asked_features(&serde_json::Value::Null).unwrap().is_empty());
        let odd = serde_json::json!({ "moltbot": { "features": ["a"] } });
        assert!(asked_features(&odd).unwrap_err().to_string().contains("must name plugins"));
    }
}

//! The lock file of a staged tree, and the checks on what it resolves to: one core, the versions
//! that were asked for, nothing new that nobody asked for.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};
use sha2::{Digest, Sha256};
use toml::Table;

use super::build::Toolchain;
use super::manifest::{asked_features, host_features};
use super::stage::{Chosen, Features, HOST, PACKAGE, Plan};
use crate::workspace::output;

/// The package that there may be only one of.
const CORE: &str = "moltbot-core";

/// Lets cargo prune `seed` to what the tree in `root` needs and add what it lacks, and returns
/// what it resolved. Versions that are in `seed` stay.
pub(crate) fn lock(root: &Path, seed: Option<&str>, toolchain: &Toolchain) -> Result<Metadata> {
    if let Some(seed) = seed {
        std::fs::write(root.join("Cargo.lock"), seed)?;
    }
    let mut command = toolchain.cargo(root);
    command.args(["metadata", "--format-version", "1"]);
    command.args(["--filter-platform", toolchain.target()]);
    let text = output(&mut command).context("resolving the versions")?;
    Ok(MetadataCommand::parse(text)?)
}

/// Returns which features the chosen plugins ask of each other and of the program; what is asked of a plugin that is
/// not chosen does not matter.
pub(crate) fn features(metadata: &Metadata, plan: &Plan) -> Result<Features> {
    let mut features = Features::new();
    for plugin in &plan.plugins {
        let package = package(metadata, &plugin.package)?;
        let asked = asked_features(&package.metadata).with_context(|| plugin.package.clone())?;
        let host = host_features(&package.metadata).with_context(|| plugin.package.clone())?;
        if !host.is_empty() {
            features.entry(HOST.into()).or_default().extend(host);
        }
        for (id, names) in asked {
            if plan.plugins.iter().any(|other| other.id() == id) {
                features.entry(id).or_default().extend(names);
            }
        }
    }
    Ok(features)
}

/// Checks what was resolved against what was asked for.
pub(crate) fn check(metadata: &Metadata, plan: &Plan) -> Result<()> {
    let cores: Vec<&Package> =
        metadata.packages.iter().filter(|package| package.name.as_str() == CORE).collect();
    if cores.len() != 1 {
        let list: Vec<String> = cores.iter().map(|core| users(metadata, core)).collect();
        bail!(
            "there must be exactly one {CORE}, or plugins would register where nobody looks:\n  {}",
            list.join("\n  ")
        );
    }
    for plugin in &plan.plugins {
        let found = package(metadata, &plugin.package)?;
        ensure!(
            depends(metadata, &found.id, &cores[0].id),
            "{} {} does not depend on {CORE}: it is not a plugin",
            found.name,
            found.version
        );
        if let Some(required) = &plugin.required {
            ensure!(
                required.matches(&found.version),
                "{} {} was resolved, {required} was asked for",
                found.name,
                found.version
            );
        }
    }
    Ok(())
}

/// Lists the packages of the registry that `lock` has and `seed` has not.
pub(crate) fn additions(seed: &str, lock: &str) -> Result<Vec<String>> {
    let read = |text: &str| -> Result<BTreeSet<String>> {
        let lock: Table = text.parse().context("a lock file")?;
        Ok(packages(&lock)
            .filter(|package| package.contains_key("source"))
            .map(|package| format!("{} {}", text_of(package, "name"), text_of(package, "version")))
            .collect())
    };
    let (seed, lock) = (read(seed)?, read(lock)?);
    Ok(lock.difference(&seed).cloned().collect())
}

/// Lists the packages of a lock file.
pub(crate) fn packages(lock: &Table) -> impl Iterator<Item = &Table> {
    let list = lock.get("package").and_then(toml::Value::as_array);
    list.into_iter().flatten().filter_map(toml::Value::as_table)
}

/// Returns a text of a table, empty if it has none.
pub(crate) fn text_of<'t>(table: &'t Table, key: &str) -> &'t str {
    table.get(key).and_then(toml::Value::as_str).unwrap_or_default()
}

/// Finds a package that was resolved.
pub(crate) fn package<'m>(metadata: &'m Metadata, name: &str) -> Result<&'m Package> {
    let found = metadata.packages.iter().find(|package| package.name.as_str() == name);
    found.with_context(|| format!("{name} was not resolved"))
}

/// Lists what was resolved, each with whether it becomes part of the product; what only build
/// scripts and macros need does not.
pub(crate) fn parts(metadata: &Metadata) -> Result<Vec<(&Package, bool)>> {
    let root = &package(metadata, PACKAGE)?.id;
    let shipped = reach(metadata, root, &|kind| kind == DependencyKind::Normal)?;
    let used = reach(metadata, root, &|kind| kind != DependencyKind::Development)?;
    let mut parts: Vec<(&Package, bool)> = metadata
        .packages
        .iter()
        .filter(|package| used.contains(&package.id))
        .map(|package| (package, shipped.contains(&package.id)))
        .collect();
    parts.sort_by(|(a, _), (b, _)| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(parts)
}

/// Returns the version that was resolved for a plugin.
pub(crate) fn version(metadata: &Metadata, plugin: &Chosen) -> Result<String> {
    Ok(package(metadata, &plugin.package)?.version.to_string())
}

/// Computes a sha256 as hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn users(metadata: &Metadata, core: &Package) -> String {
    let users: Vec<String> = metadata
        .packages
        .iter()
        .filter(|package| depends(metadata, &package.id, &core.id))
        .map(|package| package.name.to_string())
        .collect();
    let place =
        core.source.as_ref().map_or_else(|| core.manifest_path.to_string(), ToString::to_string);
    format!("{CORE} {} of {place}, for {}", core.version, users.join(", "))
}

fn depends(metadata: &Metadata, from: &PackageId, to: &PackageId) -> bool {
    let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    nodes.filter(|node| node.id == *from).any(|node| node.dependencies.contains(to))
}

fn reach(
    metadata: &Metadata,
    root: &PackageId,
    follow: &dyn Fn(DependencyKind) -> bool,
) -> Result<BTreeSet<PackageId>> {
    let resolve = metadata.resolve.as_ref().context("cargo metadata without a resolution")?;
    let macros: BTreeSet<&PackageId> = metadata
        .packages
        .iter()
        .filter(|package| package.targets.iter().any(|target| target.is_proc_macro()))
        .map(|package| &package.id)
        .collect();
    let mut seen = BTreeSet::new();
    let mut open = vec![root.clone()];
    while let Some(id) = open.pop() {
        // A macro is run while building; only a walk that includes building enters it.
        if (macros.contains(&id) && !follow(DependencyKind::Build)) || !seen.insert(id.clone()) {
            continue;
        }
        for node in resolve.nodes.iter().filter(|node| node.id == id) {
            let followed = node
                .deps
                .iter()
                .filter(|dependency| dependency.dep_kinds.iter().any(|kind| follow(kind.kind)));
            open.extend(followed.map(|dependency| dependency.pkg.clone()));
        }
    }
    Ok(seen)
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What cargo would say of a binary with one plugin, a macro and `cores`.
    pub(crate) fn metadata(cores: &[&str], plugin: Value, uses_core: bool) -> Metadata {
        let mut packages = vec![
            entry("moltbot", "1.0.0", "lib", Value::Null),
            entry("moltbot-plugin-one", "1.2.3", "lib", plugin),
            entry("macros", "0.1.0+spec-1", "proc-macro", Value::Null),
        ];
        packages.extend(cores.iter().map(|version| entry(CORE, version, "lib", Value::Null)));
        let core = format!("{CORE}#{}", cores.first().unwrap_or(&"0"));
        let mut of_plugin = vec![dependency("macros#0.1.0+spec-1", Value::Null)];
        if uses_core {
            of_plugin.push(dependency(&core, Value::Null));
        }
        let mut nodes = vec![
            node("moltbot#1.0.0", vec![dependency("moltbot-plugin-one#1.2.3", Value::Null)]),
            node("moltbot-plugin-one#1.2.3", of_plugin),
            node("macros#0.1.0+spec-1", Vec::new()),
        ];
        nodes.extend(cores.iter().map(|version| node(&format!("{CORE}#{version}"), Vec::new())));
        let text = json!({
            "packages": packages, "workspace_members": ["moltbot#1.0.0"], "target_directory": "/t",
            "resolve": { "nodes": nodes, "root": "moltbot#1.0.0" },
            "workspace_root": "/r", "version": 1, "metadata": null,
        });
        MetadataCommand::parse(text.to_string()).unwrap()
    }

    fn entry(name: &str, version: &str, kind: &str, metadata: Value) -> Value {
        json!({
            "name": name, "version": version, "id": format!("{name}#{version}"),
            "license": "MIT/Apache-2.0", "source": null, "dependencies": [], "features": {},
            "manifest_path": format!("/r/{name}/Cargo.toml"), "metadata": metadata,
            "targets": [{ "kind": [kind], "crate_types": [kind], "name": name, "src_path": "/r/x.rs", "edition": "2024" }],
        })
    }

    fn node(id: &str, deps: Vec<Value>) -> Value {
        let names: Vec<&Value> = deps.iter().map(|dependency| &dependency["pkg"]).collect();
        json!({ "id": id, "dependencies": names, "deps": deps, "features": [] })
    }

    fn dependency(id: &str, kind: Value) -> Value {
        json!({ "name": "x", "pkg": id, "dep_kinds": [{ "kind": kind, "target": null }] })
    }

    fn plan(required: Option<&str>) -> Plan {
        let required = required.map(|text| semver::VersionReq::parse(text).unwrap());
        let package = "moltbot-plugin-one".into();
        Plan::of(vec![Chosen { package, origin: "workspace", required }])
    }

    #[test]
    fn one_core_and_the_version_that_was_asked_for() {
        let good = metadata(&["1.0.0"], Value::Null, true);
        check(&good, &plan(Some("^1.2"))).unwrap();
        assert_eq!(version(&good, &plan(None).plugins[0]).unwrap(), "1.2.3");
        let error = check(&good, &plan(Some("^2"))).unwrap_err().to_string();
        assert_eq!(error, "moltbot-plugin-one 1.2.3 was resolved, ^2 was asked for");

        let skewed = metadata(&["1.0.0", "2.0.0"], Value::Null, true);
        let error = check(&skewed, &plan(None)).unwrap_err().to_string();
        assert!(error.contains("exactly one moltbot-core"), "{error}");
        assert!(
            error.contains(
                "moltbot-core 1.0.0 of /r/moltbot-core/Cargo.toml, for moltbot-plugin-one"
            ),
            "{error}"
        );

        let stranger = metadata(&["1.0.0"], Value::Null, false);
        let error = check(&stranger, &plan(None)).unwrap_err().to_string();
        assert!(error.ends_with("does not depend on moltbot-core: it is not a plugin"), "{error}");
    }

    #[test]
    fn features_are_asked_only_of_what_is_chosen() {
        let asks = json!({ "moltbot": {
            "features": { "one": ["f"], "absent": ["g"] }, "host-features": ["keyring"] } });
        let found = features(&metadata(&["1.0.0"], asks, true), &plan(None)).unwrap();
        let set = |name: &str| BTreeSet::from([name.to_string()]);
        let expected = [("one".into(), set("f")), (HOST.into(), set("keyring"))];
        assert_eq!(found, Features::from(expected));
    }

    #[test]
    fn macros_do_not_ship() {
        let metadata = metadata(&["1.0.0"], Value::Null, true);
        let parts: Vec<_> = parts(&metadata)
            .unwrap()
            .iter()
            .map(|(p, ships)| (p.name.to_string(), *ships))
            .collect();
        let shipped: Vec<_> =
            parts.iter().filter(|part| part.1).map(|part| part.0.as_str()).collect();
        assert_eq!(shipped, ["moltbot", "moltbot-core", "moltbot-plugin-one"]);
        assert!(parts.contains(&("macros".to_string(), false)));
    }

    #[test]
    fn a_lock_may_shrink_but_what_it_gains_is_named() {
        let entry = |name: &str, version: &str, source: &str| {
            format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n{source}\n")
        };
        let registry = "source = \"registry+https://example.com\"";
        let seed = entry("a", "1.0.0", registry) + &entry("b", "1.0.0", registry);
        let lock = entry("a", "1.0.0", registry) + &entry("ours", "9.0.0", "");
        assert!(additions(&seed, &lock).unwrap().is_empty());
        let lock = entry("a", "1.0.1", registry) + &entry("c", "1.0.0", registry);
        assert_eq!(additions(&seed, &lock).unwrap(), ["a 1.0.1", "c 1.0.0"]);
    }
}

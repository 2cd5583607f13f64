//! The bill of materials: CycloneDX 1.6, from what cargo resolved and the lock file's checksums.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use cargo_metadata::{Metadata, Package};
use jiff::Timestamp;
use serde_json::{Value, json};
use toml::Table;

use super::resolve::{packages, parts, sha256, text_of};
use super::stage::PACKAGE;

/// Writes the bill of a binary of that name, version and sum. `epoch` is the date of its sources.
pub(crate) fn bill(
    name: &str,
    metadata: &Metadata,
    lock: &str,
    product_sha256: &str,
    epoch: i64,
) -> Result<Value> {
    let sums = checksums(lock)?;
    let parts = parts(metadata)?;
    let root = parts.iter().find(|(package, _)| package.name.as_str() == PACKAGE);
    let root = root.context("the program itself was not resolved")?.0;
    let listed: Vec<&Package> = parts.iter().map(|(package, _)| *package).collect();
    let components: Vec<Value> = parts
        .iter()
        .filter(|(package, _)| package.id != root.id)
        .map(|(package, ships)| component(package, *ships, &sums))
        .collect();
    let mut product = component(root, true, &BTreeMap::new());
    product["type"] = "application".into();
    product["name"] = name.into();
    product["hashes"] = json!([{ "alg": "SHA-256", "content": product_sha256 }]);
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial(product_sha256, lock),
        "version": 1,
        "metadata": {
            "timestamp": Timestamp::from_second(epoch)?.to_string(),
            "tools": { "components": [{ "type": "application", "name": "cargo xtask dist" }] },
            "component": product,
        },
        "components": components,
        "dependencies": dependencies(metadata, &listed),
    }))
}

fn component(package: &Package, ships: bool, sums: &BTreeMap<(String, String), String>) -> Value {
    let (name, version) = (package.name.to_string(), package.version.to_string());
    let mut component = json!({
        "type": "library",
        "bom-ref": reference(package),
        "name": name,
        "version": version,
        // What only runs while building is not part of the product.
        "scope": if ships { "required" } else { "excluded" },
        "purl": reference(package),
    });
    if let Some(license) = &package.license {
        // An older way to write a choice.
        let expression = license.replace('/', " OR ");
        component["licenses"] = json!([{ "expression": expression }]);
    }
    if let Some(sum) = sums.get(&(name, version)) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
    }
    component
}

fn reference(package: &Package) -> String {
    // In such an address a plus sign, as in 1.0.0+spec-1.1.0, is written by its number.
    let version = package.version.to_string().replace('+', "%2B");
    format!("pkg:cargo/{}@{version}", package.name)
}

fn dependencies(metadata: &Metadata, listed: &[&Package]) -> Vec<Value> {
    let names: BTreeMap<_, _> =
        listed.iter().map(|package| (&package.id, reference(package))).collect();
    let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    let mut entries: Vec<Value> = nodes
        .filter_map(|node| {
            let on: Vec<&String> =
                node.dependencies.iter().filter_map(|id| names.get(id)).collect();
            Some(json!({ "ref": names.get(&node.id)?, "dependsOn": on }))
        })
        .collect();
    entries.sort_by_key(|entry| entry["ref"].to_string());
    entries
}

fn checksums(lock: &str) -> Result<BTreeMap<(String, String), String>> {
    let lock: Table = lock.parse().context("the lock file")?;
    Ok(packages(&lock)
        .filter(|package| package.contains_key("checksum"))
        .map(|package| {
            let key =
                (text_of(package, "name").to_string(), text_of(package, "version").to_string());
            (key, text_of(package, "checksum").to_string())
        })
        .collect())
}

/// Derives the bill's own number from what it describes, so that the same build has the same one
/// (a UUID of version 8, RFC 9562).
fn serial(product: &str, lock: &str) -> String {
    let digits = sha256(format!("{product}\n{lock}").as_bytes());
    let d = &digits;
    format!("urn:uuid:{}-{}-8{}-a{}-{}", &d[..8], &d[8..12], &d[12..15], &d[15..18], &d[18..30])
}

#[cfg(test)]
mod tests {
    use super::super::resolve::tests::metadata;
    use super::*;

    #[test]
    fn every_part_is_listed_with_what_is_known_of_it() {
        let metadata = metadata(&["1.0.0"], Value::Null, true);
        let lock = "[[package]]\nname = \"macros\"\nversion = \"0.1.0+spec-1\"\nsource = \"registry+x\"\nchecksum = \"abc\"\n";
        let bill = bill("mybot", &metadata, lock, "f00d", 1_790_000_000).unwrap();
        assert_eq!(bill["metadata"]["component"]["name"], "mybot");
        assert_eq!(bill["metadata"]["component"]["hashes"][0]["content"], "f00d");
        let timestamp = bill["metadata"]["timestamp"].as_str().unwrap();
        assert!(timestamp.starts_with("2026-09-2") && timestamp.ends_with('Z'), "{timestamp}");
        let components = bill["components"].as_array().unwrap();
        let names: Vec<_> = components.iter().map(|c| c["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["macros", "moltbot-core", "moltbot-plugin-one"]);
        assert_eq!(components[0]["scope"], "excluded");
        assert_eq!(components[0]["hashes"][0]["content"], "abc");
        assert_eq!(components[0]["version"], "0.1.0+spec-1");
        assert_eq!(components[0]["purl"], "pkg:cargo/macros@0.1.0%2Bspec-1");
        assert_eq!(components[1]["scope"], "required");
        assert_eq!(components[1]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        let plugin = bill["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["ref"] == "pkg:cargo/moltbot-plugin-one@1.2.3");
        let on = plugin.unwrap()["dependsOn"].as_array().unwrap();
        assert_eq!(on.len(), 2);
    }

    #[test]
    fn the_serial_number_is_a_uuid_and_repeats() {
        let number = serial("a", "b");
        assert_eq!(number, serial("a", "b"));
        assert_ne!(number, serial("a", "c"));
        let uuid = number.strip_prefix("urn:uuid:").unwrap();
        let lengths: Vec<_> = uuid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
    }
}

//! What a build says of itself, for people and as JSON.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::stage::{Chosen, Plan};

/// What was built, and from what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// The name that was asked for.
    pub(crate) name: String,
    /// The file beside this report.
    pub(crate) file: String,
    /// The program's version.
    pub(crate) version: String,
    /// The target triple.
    pub(crate) target: String,
    /// The plugins in it, sorted by id.
    pub(crate) plugins: Vec<PluginReport>,
    /// Whether `moltbot lab` is in it.
    pub(crate) lab: bool,
    /// The parts of the program that were kept.
    #[serde(default)]
    pub(crate) host: Vec<String>,
    /// Whether a panic ends one task instead of the program.
    #[serde(default)]
    pub(crate) unwind: bool,
    /// Bytes of the file.
    pub(crate) size: u64,
    /// The sum of the file.
    pub(crate) sha256: String,
    /// The sum of the lock file.
    pub(crate) lock_sha256: String,
    /// Packages of the registry that the starting lock file did not have.
    pub(crate) added: Vec<String>,
    /// The sum of the workspace's sources.
    pub(crate) workspace_sha256: String,
    /// The first line of `rustc -vV`.
    pub(crate) rustc: String,
    /// The commit, if the workspace is a clone.
    pub(crate) commit: Option<String>,
    /// Whether files differed from that commit.
    pub(crate) dirty: bool,
    /// The date the build was told, seconds since 1970.
    pub(crate) source_date_epoch: i64,
    /// Whether the result was run and listed these plugins.
    pub(crate) ran: bool,
    /// Whether a second build elsewhere gave the same bytes; `null` if nobody asked.
    pub(crate) reproduced: Option<bool>,
    /// The stock binary of the same sources.
    pub(crate) stock: Option<Stock>,
}

/// One plugin of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PluginReport {
    /// Its id.
    pub(crate) id: String,
    /// Its package.
    pub(crate) package: String,
    /// Its version.
    pub(crate) version: String,
    /// `workspace`, `path` or `registry`.
    pub(crate) origin: String,
    /// The features that others asked of it.
    pub(crate) features: Vec<String>,
    /// Bytes of the symbols named after it, a lower bound.
    pub(crate) bytes: u64,
}

/// The stock binary, for comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stock {
    /// Bytes of it.
    pub(crate) size: u64,
    /// Its sum.
    pub(crate) sha256: String,
    /// How many bytes larger this build is.
    pub(crate) difference: i64,
}

impl Report {
    /// Adds the comparison with a stock binary.
    pub(crate) fn compare(&mut self, stock: &Report) {
        let difference = self.size as i64 - stock.size as i64;
        self.stock = Some(Stock { size: stock.size, sha256: stock.sha256.clone(), difference });
    }

    /// Writes the report for people.
    pub(crate) fn text(&self) -> String {
        let mut lines = vec![
            format!("{} {} for {}", self.name, self.version, self.target),
            format!("  size     {} bytes ({:.2} MiB)", self.size, mib(self.size as f64)),
            format!("  sha256   {}", self.sha256),
            format!("  rustc    {}", self.rustc),
        ];
        for plugin in &self.plugins {
            let features = match plugin.features.as_slice() {
                [] => String::new(),
                features => format!(" with {}", features.join(", ")),
            };
            lines.push(format!(
                "  plugin   {} {} ({}{features}), at least {:.1} KiB",
                plugin.id,
                plugin.version,
                plugin.origin,
                plugin.bytes as f64 / 1024.0
            ));
        }
        lines.extend(self.added.iter().map(|package| format!("  added    {package}")));
        if let Some(stock) = &self.stock {
            lines.push(format!(
                "  stock    {} bytes, this is {:+} bytes ({:+.2} MiB)",
                stock.size,
                stock.difference,
                mib(stock.difference as f64)
            ));
        }
        if self.reproduced == Some(true) {
            lines.push("  built twice in different directories: the same bytes".to_string());
        }
        lines.join("\n")
    }
}

/// Compares what a binary lists (`plugins list --json`) with what was asked for: these plugins in
/// these versions and no others.
pub(crate) fn listed(
    json: &str,
    plan: &Plan,
    version: &dyn Fn(&Chosen) -> Result<String>,
) -> Result<()> {
    let list: Value =
        serde_json::from_str(json).context("`plugins list --json` printed no JSON")?;
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_string();
    let plugins = list["plugins"].as_array().context("`plugins list --json` lists no plugins")?;
    let mut found: Vec<_> = plugins.iter().map(|p| (text(p, "id"), text(p, "version"))).collect();
    let mut asked = Vec::new();
    for plugin in &plan.plugins {
        asked.push((plugin.id().to_string(), version(plugin)?));
    }
    found.sort();
    asked.sort();
    let show = |list: &[(String, String)]| {
        let shown: Vec<String> =
            list.iter().map(|(id, version)| format!("{id} {version}")).collect();
        shown.join(", ")
    };
    anyhow::ensure!(
        found == asked,
        "the binary lists other plugins than were asked for\n  asked:  {}\n  listed: {}",
        show(&asked),
        show(&found)
    );
    Ok(())
}

fn mib(bytes: f64) -> f64 {
    bytes / 1_048_576.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_back_and_tells_the_difference() {
        let plugin = PluginReport {
            id: "one".into(),
            version: "1.2.3".into(),
            origin: "workspace".into(),
            features: vec!["f".into()],
            bytes: 2048,
            ..PluginReport::default()
        };
        let mut report = Report {
            name: "x".into(),
            version: "0.1.0".into(),
            target: "t".into(),
            size: 4_194_304,
            plugins: vec![plugin],
            added: vec!["new 1.0.0".into()],
            reproduced: Some(true),
            ..Report::default()
        };
        report.compare(&Report { size: 5_242_880, ..Report::default() });
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
        let text = report.text();
        for part in [
            "x 0.1.0 for t",
            "4194304 bytes (4.00 MiB)",
            "plugin   one 1.2.3 (workspace with f), at least 2.0 KiB",
            "added    new 1.0.0",
            "this is -1048576 bytes (-1.00 MiB)",
            "the same bytes",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_binary_must_list_what_was_asked_for() {
        let chosen =
            |package: &str| Chosen { package: package.into(), origin: "path", required: None };
        let plan = Plan::of(vec![chosen("moltbot-plugin-one"), chosen("acme")]);
        let version =
            |plugin: &Chosen| Ok(if plugin.id() == "acme" { "2.0.0" } else { "1.0.0" }.to_string());
        let one = r#"{"id":"one","version":"1.0.0"}"#;
        let good = format!(r#"{{"plugins":[{one},{{"id":"acme","version":"2.0.0"}}]}}"#);
        listed(&good, &plan, &version).unwrap();
        for (list, tail) in [
            (format!(r#"{{"plugins":[{one}]}}"#), "listed: one 1.0.0"),
            (good.replace("2.0.0", "2.0.1"), "listed: acme 2.0.1, one 1.0.0"),
            (
                good.replace("[", r#"[{"id":"b","version":"1.0.0"},"#),
                "listed: acme 2.0.0, b 1.0.0, one 1.0.0",
            ),
        ] {
            let error = listed(&list, &plan, &version).unwrap_err().to_string();
            assert!(
                error.ends_with(tail) && error.contains("asked:  acme 2.0.0, one 1.0.0"),
                "{error}"
            );
        }
        assert!(listed("oops", &plan, &version).unwrap_err().to_string().contains("no JSON"));
        assert!(
            listed("{}", &plan, &version).unwrap_err().to_string().contains("lists no plugins")
        );
    }
}

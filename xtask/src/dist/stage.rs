//! The staged tree: a package of its own with copies of everything of ours that it needs, so that
//! where the workspace lies leaves no trace in the binary.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use toml::Table;

use super::manifest::{dependencies, flatten, localize, package_text};
use super::options::{Options, Source};
use crate::sync::{DESCRIPTION, main_rs};
use crate::workspace::copy_tree;

/// What the staged tree is made from, before anything is written.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The plugins, sorted by package.
    pub(crate) plugins: Vec<Chosen>,
    /// Packages to copy, by name.
    pub(crate) copies: BTreeMap<String, Copied>,
    /// The root manifest of the workspace.
    workspace: Table,
}

/// One plugin that was chosen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chosen {
    /// The package's name.
    pub(crate) package: String,
    /// Where it comes from: `workspace`, `path`, `registry`.
    pub(crate) origin: &'static str,
    /// The required version, for one of the registry.
    pub(crate) required: Option<semver::VersionReq>,
}

impl Chosen {
    /// Returns the plugin's id, as `moltbot plugins list` shows it.
    pub(crate) fn id(&self) -> &str {
        self.package.strip_prefix(PREFIX).unwrap_or(&self.package)
    }

    /// Returns the name that Rust code calls its crate by.
    pub(crate) fn crate_name(&self) -> String {
        self.package.replace('-', "_")
    }
}

/// A package to copy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Copied {
    /// From where.
    from: PathBuf,
    /// To where, below the staged root: `crates/NAME`, `plugins/NAME`, `with/NAME`.
    pub(crate) to: String,
    /// Its manifest, written out and linked into the tree.
    manifest: Table,
}

const PREFIX: &str = "moltbot-plugin-";

/// Under this name the program itself stands among the plugins in [`Features`].
pub(crate) const HOST: &str = "(host)";

/// Features of plugins, by plugin id.
pub(crate) type Features = BTreeMap<String, BTreeSet<String>>;

impl Plan {
    /// Finds every package that the chosen plugins and the program need.
    pub(crate) fn make(root: &Path, options: &Options) -> Result<Self> {
        let workspace = read(&root.join("Cargo.toml"))?;
        let inherit = section(&workspace, "workspace");
        let mut known = BTreeMap::new();
        for group in ["crates", "plugins"] {
            for entry in std::fs::read_dir(root.join(group)).context(group)? {
                let from = entry?.path();
                if from.join("Cargo.toml").is_file() {
                    let mut manifest = read(&from.join("Cargo.toml"))?;
                    flatten(&mut manifest, &inherit).with_context(|| from.display().to_string())?;
                    let dir = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    let name = name_of(&manifest, &from)?;
                    known.insert(name, Copied { from, to: format!("{group}/{dir}"), manifest });
                }
            }
        }
        let mut plugins = Vec::new();
        let mut needed: VecDeque<String> =
            program(options).iter().map(|name| name.to_string()).collect();
        for name in &options.plugins {
            let package = format!("{PREFIX}{name}");
            needed.push_back(package.clone());
            plugins.push(Chosen { package, origin: "workspace", required: None });
        }
        for with in &options.with {
            let package = with.package.clone();
            ensure!(
                !known.contains_key(&package),
                "--with {package}: this workspace has a package of that name"
            );
            let (origin, required) = match &with.source {
                Source::Registry(required) => ("registry", Some(required.clone())),
                Source::Path(from) => {
                    let copied =
                        foreign(from, &package).with_context(|| format!("--with {package}"))?;
                    needed.push_back(package.clone());
                    known.insert(package.clone(), copied);
                    ("path", None)
                }
            };
            plugins.push(Chosen { package, origin, required });
        }
        plugins.sort_by(|a, b| a.package.cmp(&b.package));
        if let Some(twice) = plugins.windows(2).find(|pair| pair[0].package == pair[1].package) {
            anyhow::bail!("{} is chosen twice", twice[0].package);
        }
        Ok(Self { plugins, copies: closure(known, needed)?, workspace })
    }

    /// Writes the tree to `dir`, which must not exist.
    pub(crate) fn write(&self, dir: &Path, options: &Options, features: &Features) -> Result<()> {
        for (name, copied) in &self.copies {
            let to = dir.join(&copied.to);
            copy_tree(&copied.from, &to, &["tests", "benches", "Cargo.toml", "Cargo.lock"])
                .with_context(|| format!("copying {name}"))?;
            write(&to.join("Cargo.toml"), &copied.manifest.to_string())?;
        }
        std::fs::create_dir_all(dir.join("src"))?;
        write(&dir.join("src").join(source_name(options)), &self.source(options))?;
        if !options.unwinds() {
            write(&dir.join(NO_UNWINDING), LEAVE_OUT_TABLES)?;
        }
        self.write_manifest(dir, options, features)
    }

    /// Writes the root manifest, again once more features are known.
    pub(crate) fn write_manifest(
        &self,
        dir: &Path,
        options: &Options,
        features: &Features,
    ) -> Result<()> {
        write(&dir.join("Cargo.toml"), &self.manifest(options, features)?)
    }

    /// Writes the program, the same one as the stock binary's but for the list.
    fn source(&self, options: &Options) -> String {
        let crates: Vec<String> = self.plugins.iter().map(Chosen::crate_name).collect();
        if !options.cdylib {
            let about = format!("`{}`: the command line with the plugins below.", options.name);
            let program = main_rs(WRITER, &about, &crates);
            return if options.unwinds() { program } else { program + NO_BACKTRACE };
        }
        let named: String = crates.iter().map(|name| format!("    &{name}::PLUGIN,\n")).collect();
        format!(
            "// Written by `{WRITER}`; do not edit.\n\
             //! `{}`: the plugins below as one library to load.\n\
             \n\
             /// Names each plugin, so that the linker keeps it.\n\
             pub static PLUGINS: &[&moltbot_core::Plugin] = &[\n{named}];\n\
             \n\
             moltbot_abi::export_plugin!();\n",
            options.name
        )
    }

    /// Returns the workspace's profiles. Unless it says otherwise, `dist` is about size: code that
    /// is small rather than quick, and no code to unwind with. A library always unwinds: a panic
    /// in it must not end the program that loaded it.
    fn profiles(&self, options: &Options) -> Table {
        let mut profiles = section(&self.workspace, "profile");
        // It inherits what other builds make quick, crate by crate.
        if let Some(release) = profiles.get_mut("release").and_then(toml::Value::as_table_mut) {
            release.remove("package");
        }
        let mut dist = section(&profiles, "dist");
        dist.entry("opt-level").or_insert_with(|| "z".into());
        if !options.unwinds() {
            dist.entry("panic").or_insert_with(|| "abort".into());
        }
        profiles.insert("dist".into(), dist.into());
        profiles
    }

    fn manifest(&self, options: &Options, features: &Features) -> Result<String> {
        let shared = section(&section(&self.workspace, "workspace"), "package");
        let mut package = Table::new();
        package.insert("name".into(), PACKAGE.into());
        package.insert("description".into(), DESCRIPTION.into());
        package.extend(shared);
        let mut target = Table::new();
        target.insert(
            "name".into(),
            match options.cdylib {
                true => options.name.replace('-', "_").into(),
                false => options.name.clone().into(),
            },
        );
        target.insert("path".into(), format!("src/{}", source_name(options)).into());
        if options.cdylib {
            target.insert("crate-type".into(), vec!["cdylib"].into());
        }
        let mut depends = Table::new();
        for name in program(options) {
            let copied = self.copies.get(*name).with_context(|| format!("no crate {name}"))?;
            let mut parts = Vec::new();
            if *name == "moltbot-cli" {
                parts.extend(options.host.iter().cloned());
                parts.extend(options.lab.then(|| "lab".to_string()));
                parts.extend(features.get(HOST).into_iter().flatten().cloned());
            }
            depends.insert((*name).into(), link(&copied.to, &parts).into());
        }
        for plugin in &self.plugins {
            let asked: Vec<String> =
                features.get(plugin.id()).into_iter().flatten().cloned().collect();
            let value = match (&plugin.required, self.copies.get(&plugin.package)) {
                (Some(required), _) => {
                    let mut table = Table::new();
                    table.insert("version".into(), required.to_string().into());
                    if !asked.is_empty() {
                        table.insert("features".into(), asked.into());
                    }
                    table
                }
                (None, Some(copied)) => {
                    let mut table = link(&copied.to, &asked);
                    // Ours are cut down to what is asked for; others know their own defaults.
                    if plugin.origin != "workspace" {
                        table.remove("default-features");
                    }
                    table
                }
                (None, None) => anyhow::bail!("no copy of {}", plugin.package),
            };
            depends.insert(plugin.package.clone(), value.into());
        }
        let mut root = Table::new();
        root.insert("package".into(), package.into());
        if options.cdylib {
            root.insert("lib".into(), target.into());
        } else {
            root.insert("bin".into(), toml::Value::Array(vec![target.into()]));
        }
        root.insert("dependencies".into(), depends.into());
        if self.plugins.iter().any(|plugin| plugin.required.is_some()) {
            // Packages of the registry are built for a published core: here it is ours.
            let ours = SHARED.iter().filter_map(|name| Some((*name, self.copies.get(*name)?)));
            let patches: Table = ours
                .map(|(name, copied)| {
                    let path = Table::from_iter([("path".to_string(), copied.to.clone().into())]);
                    (name.to_string(), path.into())
                })
                .collect();
            root.insert(
                "patch".into(),
                Table::from_iter([("crates-io".to_string(), patches.into())]).into(),
            );
        }
        let mut own = Table::new();
        own.insert("resolver".into(), "3".into());
        // Not members: so the lock holds what is built and no test's dependency.
        own.insert("exclude".into(), vec!["crates", "plugins", "with"].into());
        root.insert("workspace".into(), own.into());
        root.insert("profile".into(), self.profiles(options).into());
        Ok(format!("# Written by `{WRITER}`; do not edit.\n{root}"))
    }
}

/// The name of the staged package; the binary has its own.
pub(crate) const PACKAGE: &str = "moltbot";

const WRITER: &str = "cargo xtask dist";

/// What the linker of a program in which nothing unwinds reads; beside the manifest.
pub(crate) const NO_UNWINDING: &str = "no-unwinding.ld";

/// Leaves out the tables for unwinding, also those that come with the standard library: an eighth of
/// the smallest binary.
const LEAVE_OUT_TABLES: &str = "\
SECTIONS { /DISCARD/ : { *(.eh_frame) *(.gcc_except_table .gcc_except_table.*) } }
INSERT AFTER .text;
";

/// Answers the standard library, in place of the system's library, that there is no frame to look
/// at: it would find none without the tables. So the reader of debug information that comes with it
/// has no caller, and the linker leaves it out. With musl the system's library is linked in whole.
const NO_BACKTRACE: &str = r#"
/// Walks no frame: nothing here unwinds.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(non_snake_case)]
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_visit: *const (), _argument: *const ()) -> std::ffi::c_int {
    const END_OF_STACK: std::ffi::c_int = 5;
    END_OF_STACK
}
"#;

/// What a plugin's author builds against.
const SHARED: [&str; 2] = ["moltbot-abi", "moltbot-core"];

/// Returns the crates that the generated source names beside the plugins.
fn program(options: &Options) -> &'static [&'static str] {
    let registry = options.with.iter().any(|with| matches!(with.source, Source::Registry(_)));
    match (options.cdylib, registry) {
        (true, _) => &SHARED,
        (false, true) => &["moltbot-cli", "moltbot-abi", "moltbot-core"],
        (false, false) => &["moltbot-cli"],
    }
}

fn source_name(options: &Options) -> &'static str {
    if options.cdylib { "lib.rs" } else { "main.rs" }
}

fn link(path: &str, features: &[String]) -> Table {
    let mut table = Table::new();
    table.insert("path".into(), path.into());
    table.insert("default-features".into(), false.into());
    if !features.is_empty() {
        table.insert("features".into(), features.to_vec().into());
    }
    table
}

/// Reads a plugin's directory outside the workspace.
fn foreign(from: &Path, package: &str) -> Result<Copied> {
    let mut manifest = read(&from.join("Cargo.toml"))?;
    let inherit = match section(&manifest, "workspace") {
        own if !own.is_empty() => own,
        _ => from
            .ancestors()
            .skip(1)
            .filter_map(|dir| read(&dir.join("Cargo.toml")).ok())
            .map(|manifest| section(&manifest, "workspace"))
            .find(|workspace| !workspace.is_empty())
            .unwrap_or_default(),
    };
    flatten(&mut manifest, &inherit)?;
    let found = name_of(&manifest, from)?;
    ensure!(found == package, "the package in {} is called {found}", from.display());
    Ok(Copied { from: from.to_path_buf(), to: format!("with/{package}"), manifest })
}

/// Takes what is needed out of what is known, and links it together.
fn closure(
    mut known: BTreeMap<String, Copied>,
    mut needed: VecDeque<String>,
) -> Result<BTreeMap<String, Copied>> {
    let places: BTreeMap<String, String> =
        known.iter().map(|(name, copied)| (name.clone(), copied.to.clone())).collect();
    let mut copies = BTreeMap::new();
    while let Some(name) = needed.pop_front() {
        let Some(mut copied) = known.remove(&name) else { continue };
        let ours =
            dependencies(&copied.manifest)?.into_iter().filter(|name| places.contains_key(name));
        needed.extend(ours);
        localize(&mut copied.manifest, &places).with_context(|| name.clone())?;
        copies.insert(name, copied);
    }
    Ok(copies)
}

fn read(file: &Path) -> Result<Table> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    text.parse().with_context(|| file.display().to_string())
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).with_context(|| file.display().to_string())
}

fn section(table: &Table, name: &str) -> Table {
    table.get(name).and_then(toml::Value::as_table).cloned().unwrap_or_default()
}

fn name_of(manifest: &Table, dir: &Path) -> Result<String> {
    let name = package_text(manifest, "name");
    Ok(name.with_context(|| format!("{}: a package without a name", dir.display()))?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace with the shapes of ours: a program, two plugins, a crate nobody needs.
    fn workspace() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let package = |path: &str, name: &str, rest: &str| {
            let at = dir.path().join(path);
            std::fs::create_dir_all(at.join("src")).unwrap();
            std::fs::create_dir_all(at.join("tests")).unwrap();
            std::fs::write(at.join("src/lib.rs"), format!("//! {name}")).unwrap();
            std::fs::write(at.join("tests/it.rs"), "").unwrap();
            let text = format!(
                "package = {{ name = \"{name}\", version.workspace = true }}\nlints.workspace = true\n{rest}"
            );
            std::fs::write(at.join("Cargo.toml"), text).unwrap();
        };
        std::fs::write(
            dir.path().join("Cargo.toml"),
            "[workspace]\nmembers = [\"crates/*\"]\n[workspace.package]\nversion = \"1.2.3\"\nedition = \"2024\"\n\
             [workspace.dependencies]\nmoltbot-core = { path = \"crates/moltbot-core\" }\n\
             moltbot-testkit = { path = \"crates/moltbot-testkit\" }\n[profile.dist]\ninherits = \"release\"\n",
        )
        .unwrap();
        let core = "dependencies.moltbot-core.workspace = true\ndev-dependencies.moltbot-testkit.workspace = true";
        package("crates/moltbot-core", "moltbot-core", "");
        package("crates/moltbot-abi", "moltbot-abi", core);
        package("crates/moltbot-cli", "moltbot-cli", core);
        package("crates/moltbot-testkit", "moltbot-testkit", core);
        package("plugins/one", "moltbot-plugin-one", core);
        package("plugins/two-b", "moltbot-plugin-two-b", core);
        package("elsewhere/acme", "acme", "dependencies.moltbot-core = \"1\"");
        dir
    }

    fn options(plugins: &[&str]) -> Options {
        Options {
            name: "x-y".into(),
            plugins: plugins.iter().map(ToString::to_string).collect(),
            ..Options::default()
        }
    }

    #[test]
    fn only_what_is_needed_is_copied() {
        let dir = workspace();
        let plan = Plan::make(dir.path(), &options(&["two-b"])).unwrap();
        let copies: Vec<_> = plan.copies.keys().cloned().collect();
        assert_eq!(copies, ["moltbot-cli", "moltbot-core", "moltbot-plugin-two-b"]);
        let staged = dir.path().join("staged");
        plan.write(&staged, &options(&["two-b"]), &Features::new()).unwrap();
        let manifest = std::fs::read_to_string(staged.join("plugins/two-b/Cargo.toml")).unwrap();
        let manifest: Table = manifest.parse().unwrap();
        assert_eq!(manifest["package"]["version"].as_str(), Some("1.2.3"));
        let link = manifest["dependencies"]["moltbot-core"]["path"].as_str();
        assert_eq!(link, Some("../../crates/moltbot-core"));
        assert!(!manifest.contains_key("dev-dependencies") && !manifest.contains_key("lints"));
        assert!(staged.join("plugins/two-b/src/lib.rs").is_file());
        assert!(!staged.join("plugins/two-b/tests").exists());
        assert!(!staged.join("crates/moltbot-testkit").exists());
    }

    #[test]
    fn the_program_names_the_plugins_and_their_features() {
        let dir = workspace();
        let options = options(&["one", "two-b"]);
        let plan = Plan::make(dir.path(), &options).unwrap();
        let source = plan.source(&options);
        assert!(
            source.contains("&moltbot_plugin_one::PLUGIN,\n        &moltbot_plugin_two_b::PLUGIN,")
        );
        assert!(source.starts_with("// Written by `cargo xtask dist`; do not edit.\n"));
        assert!(source.contains("_Unwind_Backtrace") && source.contains("target_env = \"gnu\""));
        let features = Features::from([("one".to_string(), BTreeSet::from(["f".to_string()]))]);
        let manifest: Table = plan.manifest(&options, &features).unwrap().parse().unwrap();
        let expected: Table = r#"
            moltbot-cli = { path = "crates/moltbot-cli", default-features = false }
            moltbot-plugin-one = { path = "plugins/one", default-features = false, features = ["f"] }
            moltbot-plugin-two-b = { path = "plugins/two-b", default-features = false }
        "#.parse().unwrap();
        assert_eq!(manifest["dependencies"].as_table(), Some(&expected));
        assert_eq!(manifest["bin"][0]["name"].as_str(), Some("x-y"));
        assert_eq!(manifest["package"]["edition"].as_str(), Some("2024"));
        assert_eq!(manifest["profile"]["dist"]["inherits"].as_str(), Some("release"));
        assert_eq!(manifest["profile"]["dist"]["opt-level"].as_str(), Some("z"));
        assert_eq!(manifest["profile"]["dist"]["panic"].as_str(), Some("abort"));
        let unwinding = Options { unwind: true, ..options };
        assert!(!plan.source(&unwinding).contains("_Unwind_Backtrace"));
        let manifest: Table = plan.manifest(&unwinding, &features).unwrap().parse().unwrap();
        assert!(manifest["profile"]["dist"].get("panic").is_none());
        assert!(!manifest.contains_key("patch"));
    }

    #[test]
    fn plugins_from_elsewhere_are_built_with_our_core() {
        let dir = workspace();
        let path = With::path("acme", dir.path().join("elsewhere/acme"));
        let options =
            Options { with: vec![path, With::registry("other", "^2")], ..options(&["one"]) };
        let plan = Plan::make(dir.path(), &options).unwrap();
        let origins: Vec<_> = plan.plugins.iter().map(|p| (p.id(), p.origin)).collect();
        assert_eq!(origins, [("acme", "path"), ("one", "workspace"), ("other", "registry")]);
        assert_eq!(plan.copies["acme"].to, "with/acme");
        let core = &plan.copies["acme"].manifest["dependencies"]["moltbot-core"];
        assert_eq!(core["path"].as_str(), Some("../../crates/moltbot-core"));
        assert_eq!(core["version"].as_str(), Some("1"));
        let manifest: Table = plan.manifest(&options, &Features::new()).unwrap().parse().unwrap();
        assert_eq!(manifest["dependencies"]["other"]["version"].as_str(), Some("^2"));
        assert!(manifest["dependencies"]["acme"].get("default-features").is_none());
        let patch = &manifest["patch"]["crates-io"]["moltbot-core"]["path"];
        assert_eq!(patch.as_str(), Some("crates/moltbot-core"));
    }

    /// A registry of two packages in a directory, as `cargo vendor` would make one.
    fn registry(dir: &Path) -> Toolchain {
        for (name, depends) in [("other", "moltbot-core = \"1\""), ("stranger", "")] {
            let at = dir.join("registry").join(name);
            std::fs::create_dir_all(at.join("src")).unwrap();
            std::fs::write(at.join("src/lib.rs"), "").unwrap();
            let package = format!("[package]\nname = \"{name}\"\nversion = \"2.1.0\"\n");
            let manifest = format!("{package}edition = \"2024\"\n[dependencies]\n{depends}\n");
            std::fs::write(at.join("Cargo.toml"), manifest).unwrap();
            let sums = format!("{{\"files\":{{}},\"package\":\"{}\"}}", "0".repeat(64));
            std::fs::write(at.join(".cargo-checksum.json"), sums).unwrap();
        }
        let config = format!(
            "source.crates-io.replace-with = \"here\"\nsource.here.directory = {:?}\n",
            dir.join("registry")
        );
        std::fs::create_dir(dir.join("home")).unwrap();
        std::fs::write(dir.join("home/config.toml"), config).unwrap();
        Toolchain::find(None).unwrap().at_home(&dir.join("home"))
    }

    #[test]
    fn plugins_of_the_registry_are_resolved_with_our_core() {
        let dir = workspace();
        let toolchain = registry(dir.path());
        for (name, required, complaint) in [
            ("other", "2", None),
            ("stranger", "2", Some("stranger 2.1.0 does not depend on moltbot-core")),
            ("other", "3", Some("`other = \"^3\"`")),
            ("missing", "1", Some("`missing`")),
        ] {
            let own = Options { with: vec![With::registry(name, required)], ..options(&["one"]) };
            let plan = Plan::make(dir.path(), &own).unwrap();
            let staged = tempfile::tempdir().unwrap();
            plan.write(staged.path(), &own, &Features::new()).unwrap();
            let found = resolve::lock(staged.path(), None, &toolchain)
                .and_then(|metadata| resolve::check(&metadata, &plan).map(|()| metadata));
            match (found, complaint) {
                (Ok(metadata), None) => {
                    let version = resolve::version(&metadata, &plan.plugins[1]).unwrap();
                    assert_eq!((plan.plugins[1].id(), version.as_str()), ("other", "2.1.0"));
                }
                (Err(error), Some(text)) => {
                    assert!(format!("{error:#}").contains(text), "{error:#}")
                }
                (found, _) => panic!("{name}@{required}: {:?}", found.map(|_| ())),
            }
        }
    }

    #[test]
    fn a_bundle_is_a_library() {
        let dir = workspace();
        let options = Options { cdylib: true, ..options(&["one"]) };
        let plan = Plan::make(dir.path(), &options).unwrap();
        let manifest: Table = plan.manifest(&options, &Features::new()).unwrap().parse().unwrap();
        assert_eq!(manifest["lib"]["name"].as_str(), Some("x_y"));
        assert_eq!(manifest["lib"]["crate-type"][0].as_str(), Some("cdylib"));
        assert!(manifest["profile"]["dist"].get("panic").is_none());
        assert!(plan.source(&options).contains("moltbot_abi::export_plugin!();"));
        assert!(!plan.copies.contains_key("moltbot-cli"));
    }

    #[test]
    fn tables_for_unwinding_are_left_out_where_nothing_unwinds() {
        let dir = workspace();
        for (own, left_out) in [
            (options(&["one"]), true),
            (Options { unwind: true, ..options(&["one"]) }, false),
            (Options { cdylib: true, ..options(&["one"]) }, false),
        ] {
            let to = tempfile::tempdir().unwrap();
            let plan = Plan::make(dir.path(), &own).unwrap();
            plan.write(to.path(), &own, &Features::new()).unwrap();
            assert_eq!(to.path().join(NO_UNWINDING).exists(), left_out, "{own:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let dir = workspace();
        let plan = |with: With| {
            let options = Options { with: vec![with], ..options(&["one"]) };
            format!("{:#}", Plan::make(dir.path(), &options).unwrap_err())
        };
        let acme = dir.path().join("elsewhere/acme");
        assert!(plan(With::path("other", acme)).contains("is called acme"));
        assert!(plan(With::path("acme", dir.path().join("no"))).contains("no/Cargo.toml"));
        assert!(plan(With::registry("moltbot-core", "1")).contains("has a package of that name"));
    }

    use super::super::build::Toolchain;
    use super::super::options::With;
    use super::super::resolve;

    impl With {
        fn path(name: &str, path: PathBuf) -> Self {
            Self { package: name.into(), source: Source::Path(path) }
        }

        fn registry(name: &str, required: &str) -> Self {
            let required = semver::VersionReq::parse(required).unwrap();
            Self { package: name.into(), source: Source::Registry(required) }
        }
    }

    impl Plan {
        /// Makes a plan of plugins and nothing else.
        pub(crate) fn of(plugins: Vec<Chosen>) -> Self {
            Self { plugins, copies: BTreeMap::new(), workspace: Table::new() }
        }
    }
}

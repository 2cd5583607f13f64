//! What a method declares that it will ask the host for, and what that covers.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Credential, FileRef, Text};

/// What a method will ask the host for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Needs {
    /// Hosts it sends HTTP requests to, as `host` or `host:port`.
    pub hosts: Vec<Text>,
    /// Files it reads. One `*` in a path stands for any text without a slash.
    pub files: Vec<FileRef>,
    /// Programs it runs.
    pub programs: Vec<Text>,
    /// Environment variables of its programs that carry a secret: it may set them, and those that
    /// are set for the host are passed on.
    pub secret_env: Vec<Text>,
    /// Services whose entries of the keyring it reads and writes.
    pub keyring: Vec<Text>,
    /// Fields whose answers name a file or an address of the user's own choice, which is then
    /// covered too. The profile keeps the answer in a member of the field's id; the host refuses
    /// a profile that names there what nobody answered.
    pub answers: Vec<Text>,
}

impl Needs {
    /// Tells whether a request to that host is covered; `named` is what the user named.
    ///
    /// ```
    /// # use moltbot_core::Needs;
    /// let needs = Needs { hosts: vec!["id.example.com".into()], ..Needs::default() };
    /// assert!(needs.covers_host("id.example.com", 443, &[]));
    /// assert!(!needs.covers_host("127.0.0.1", 80, &[]));
    /// assert!(needs.covers_host("127.0.0.1", 80, &["http://127.0.0.1:80/token".to_string()]));
    /// ```
    pub fn covers_host(&self, host: &str, port: u16, named: &[String]) -> bool {
        let with_port = format!("{host}:{port}");
        let fits = |place: &str| place == host || place == with_port;
        self.hosts.iter().any(|place| fits(place))
            || named.iter().filter_map(|text| authority(text)).any(fits)
    }

    /// Tells whether reading that file is covered; `named` is what the user named.
    ///
    /// ```
    /// # use moltbot_core::{FileRef, Needs};
    /// let file = |path: &'static str| FileRef { dir_env: None, dir: "~/.tool".into(), path: path.into() };
    /// let needs = Needs { files: vec![file("logins/*.json")], ..Needs::default() };
    /// assert!(needs.covers_file(&file("logins/work.json"), &[]));
    /// assert!(!needs.covers_file(&file("other.json"), &[]));
    /// assert!(needs.covers_file(&file("other.json"), &["~/.tool/other.json".to_string()]));
    /// ```
    pub fn covers_file(&self, file: &FileRef, named: &[String]) -> bool {
        let declared = |known: &FileRef| {
            known.dir_env == file.dir_env
                && known.dir == file.dir
                && fits_pattern(&known.path, &file.path)
        };
        let whole = format!("{}/{}", file.dir.trim_end_matches('/'), file.path);
        self.files.iter().any(declared) || (file.dir_env.is_none() && named.contains(&whole))
    }

    /// Returns what a stored profile says the user named.
    pub fn named_in(&self, stored: &Credential) -> Vec<String> {
        let text = |id: &Text| stored.rest.get(id.as_ref()).and_then(Value::as_str);
        self.answers.iter().filter_map(text).map(str::to_string).collect()
    }
}

/// Returns `host[:port]` of an address.
fn authority(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    rest.split(['/', '?', '#']).next().filter(|text| !text.is_empty() && !text.contains('@'))
}

fn fits_pattern(pattern: &str, path: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == path };
    let middle = path.strip_prefix(head).and_then(|rest| rest.strip_suffix(tail));
    middle.is_some_and(|middle| !middle.is_empty() && !middle.contains('/'))
}

//! Which conversations of a channel belong to which agent: the config's `bindings`. Channels are
//! served by other programs; here the entries are kept (spec L-40).

use moltbot_config::{AgentId, Editor, KeyPath};
use serde_json::{Value, json};

use crate::Failure;

/// One binding as typed: `channel` or `channel:account`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binding {
    channel: String,
    account: Option<String>,
}

impl Binding {
    /// Understands what was typed.
    pub(super) fn parse(raw: &str) -> Result<Self, Failure> {
        let (channel, account) = match raw.trim().split_once(':') {
            Some((channel, account)) => (channel, Some(account.trim().to_string())),
            None => (raw, None),
        };
        let channel = channel.trim().to_ascii_lowercase();
        if channel.is_empty() || account.as_ref().is_some_and(String::is_empty) {
            let text = format!("\"{raw}\" is no binding");
            return Err(Failure::input(text).hint("write CHANNEL or CHANNEL:ACCOUNT"));
        }
        Ok(Self { channel, account })
    }

    fn of(entry: &Value) -> Option<Self> {
        let found = &entry["match"];
        Some(Self {
            channel: found["channel"].as_str()?.to_string(),
            account: found["accountId"].as_str().map(String::from),
        })
    }
}

impl std::fmt::Display for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.account {
            Some(account) => write!(f, "{}:{account}", self.channel),
            None => f.write_str(&self.channel),
        }
    }
}

/// Lists the bindings of an agent.
pub(super) fn of_agent(all: &Value, id: &AgentId) -> Vec<String> {
    let own = |entry: &&Value| is_of(entry, id);
    let entries = all.as_array().into_iter().flatten().filter(own);
    entries.filter_map(Binding::of).map(|binding| binding.to_string()).collect()
}

/// Adds bindings; one that another agent has is refused.
pub(super) fn add(
    editor: &mut Editor<'_>,
    id: &AgentId,
    wanted: &[Binding],
) -> Result<(), Failure> {
    let path = KeyPath::keys(["bindings"]);
    for binding in wanted {
        let held = editor.get(&path).and_then(|held| held.as_array().cloned()).unwrap_or_default();
        let taken = held.iter().find(|entry| Binding::of(entry).as_ref() == Some(binding));
        match taken.and_then(|entry| entry["agentId"].as_str()) {
            Some(other) if AgentId::normalize(other) == *id => continue,
            Some(other) => {
                let text = format!("{binding} is bound to agent \"{other}\" already");
                return Err(Failure::input(text).hint("remove it from `bindings` first"));
            }
            None => {}
        }
        let mut found = json!({ "channel": binding.channel });
        if let Some(account) = &binding.account {
            found["accountId"] = json!(account);
        }
        let entry = json!({ "agentId": id.as_str(), "match": found });
        match held.is_empty() {
            true => editor.set(&path, &json!([entry]))?,
            false => editor.set(&path.index(held.len()), &entry)?,
        }
    }
    Ok(())
}

/// Removes the bindings of an agent; returns how many there were.
pub(super) fn remove(editor: &mut Editor<'_>, id: &AgentId) -> Result<usize, Failure> {
    let path = KeyPath::keys(["bindings"]);
    let held = editor.get(&path).and_then(|held| held.as_array().cloned()).unwrap_or_default();
    let own: Vec<usize> =
        (0..held.len()).filter(|at| held.get(*at).is_some_and(|entry| is_of(entry, id))).collect();
    for at in own.iter().rev() {
        editor.unset(&path.index(*at))?;
    }
    Ok(own.len())
}

fn is_of(entry: &Value, id: &AgentId) -> bool {
    entry["agentId"].as_str().is_some_and(|other| AgentId::normalize(other) == *id)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::Bench;

    #[test]
    fn bindings_come_and_go_with_their_agent() {
        let bench = Bench::new();
        let add =
            |args: &[&str]| bench.run(&[&["agents", "add", "--workspace", "~/w"], args].concat());
        let ran = add(&["work", "--bind", "telegram", "--bind", "Slack:T1", "--json"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let value: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(value["bindings"], json!(["telegram", "slack:T1"]));
        assert_eq!(
            bench.config_value()["bindings"],
            json!([{ "agentId": "work", "match": { "channel": "telegram" } },
                { "agentId": "work", "match": { "channel": "slack", "accountId": "T1" } }])
        );
        let before = bench.files();
        for (raw, part) in [("slack:T1", "bound to agent \"work\""), (":x", "is no binding")] {
            let ran = add(&["other", "--bind", raw]);
            assert_eq!(ran.code, 1);
            assert!(ran.stderr.contains(part), "{}", ran.stderr);
        }
        assert_eq!(bench.files(), before);
        let listed = bench.run(&["agents", "list", "--bindings", "--json"]).stdout;
        let listed: Value = serde_json::from_str(&listed).unwrap();
        assert_eq!(listed[1]["bindingDetails"], json!(["telegram", "slack:T1"]));
        let text = bench.run(&["agents", "--bindings"]).stdout;
        assert!(text.contains("telegram, slack:T1"), "{text}");
        assert_eq!(bench.run(&["agents", "delete", "work", "--force"]).code, 0);
        assert_eq!(bench.config_value()["bindings"], json!([]));
    }
}

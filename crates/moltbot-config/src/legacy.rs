//! Keys of older versions: where they stand today, and moving them there (spec C-32).

use serde_json::Value;

use crate::keypath::{KeyPath, Step};
use crate::tree::{Node, Span, What};

/// Channels that once stood at the top.
const CHANNELS: [&str; 7] =
    ["discord", "imessage", "msteams", "signal", "slack", "telegram", "whatsapp"];

/// A legacy key that was found.
#[derive(Debug)]
pub(crate) struct Legacy {
    pub(crate) path: KeyPath,
    pub(crate) span: Span,
    pub(crate) message: String,
    /// Whether it stands in a section that is not checked: then it is only noted.
    pub(crate) unchecked: bool,
    pub(crate) moves: Vec<Move>,
}

/// One step of a migration; the text of `from` is moved with its comments.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Move {
    /// Moves the value, unless something stands at the new place.
    Value { from: KeyPath, to: KeyPath },
    /// Sets a value that was computed from the one at `from`, which is removed.
    Turn { from: KeyPath, to: Vec<(KeyPath, Value)> },
    /// Removes what is empty or has no meaning any more.
    Drop { from: KeyPath },
}

/// Finds every legacy key, in the order of the document.
pub(crate) fn find(root: &Node) -> Vec<Legacy> {
    let What::Map(members) = &root.what else { return Vec::new() };
    let mut found = Vec::new();
    for member in members {
        let name = member.name.as_str();
        let mut report = |message: String, moves: Vec<Move>| {
            let path = KeyPath::keys([name]);
            found.push(Legacy { path, span: member.name_span, message, unchecked: false, moves });
        };
        match name {
            "agent" => {
                report("moved to `agents.defaults`".into(), agent_moves(&member.value));
            }
            "identity" => {
                let moves = identity_moves(root);
                report("moved to the agent in `agents.list`".into(), moves);
            }
            "routing" => {
                report(
                    "moved to `agents`, `bindings`, `channels`, `messages` and `tools`".into(),
                    routing_moves(&member.value),
                );
            }
            channel if CHANNELS.contains(&channel) => {
                let from = KeyPath::keys([channel]);
                let to = KeyPath::keys(["channels", channel]);
                let message = format!("moved to `{to}`");
                report(message, vec![Move::Value { from, to }]);
            }
            _ => {}
        }
    }
    let inside = [
        (&["gateway", "token"][..], &["gateway", "auth", "token"][..], false),
        (&["tools", "bash"], &["tools", "exec"], true),
    ];
    for (from, to, unchecked) in inside {
        let (from, to) = (KeyPath::keys(from.iter().copied()), KeyPath::keys(to.iter().copied()));
        if let Some(span) = key_span(root, &from) {
            let message = format!("moved to `{to}`");
            let moves = vec![Move::Value { from: from.clone(), to }];
            found.push(Legacy { path: from, span, message, unchecked, moves });
        }
    }
    let from = KeyPath::keys(["messages", "tts", "enabled"]);
    if let Some(span) = key_span(root, &from) {
        let on = matches!(root.find(&from).map(|node| &node.what), Some(What::Bool(true)));
        let to = KeyPath::keys(["messages", "tts", "auto"]);
        let word = Value::from(if on { "always" } else { "off" });
        let moves = vec![Move::Turn { from: from.clone(), to: vec![(to.clone(), word)] }];
        let message = format!("moved to `{to}`");
        found.push(Legacy { path: from, span, message, unchecked: true, moves });
    }
    found
}

/// Returns the document without the legacy keys that were found, for the strict check.
pub(crate) fn without(root: &Node, found: &[Legacy]) -> Node {
    let mut root = root.clone();
    for legacy in found.iter().filter(|legacy| !legacy.unchecked) {
        remove(&mut root, legacy.path.steps());
    }
    root
}

fn remove(node: &mut Node, steps: &[Step]) {
    let [Step::Key(key), rest @ ..] = steps else { return };
    let What::Map(members) = &mut node.what else { return };
    if rest.is_empty() {
        members.retain(|member| member.name != *key);
    } else if let Some(member) = members.iter_mut().find(|member| member.name == *key) {
        remove(&mut member.value, rest);
    }
}

fn key_span(root: &Node, path: &KeyPath) -> Option<Span> {
    let (last, parents) = path.steps().split_last()?;
    let parent = root.find(&KeyPath::from(parents.to_vec()))?;
    match last {
        Step::Key(key) => Some(parent.member(key)?.name_span),
        Step::Index(_) => None,
    }
}

/// `agent.*`: the model keys turn into today's shape, tools move to `tools`, the rest moves as it
/// is to `agents.defaults`.
fn agent_moves(agent: &Node) -> Vec<Move> {
    let old = KeyPath::keys(["agent"]);
    let new = KeyPath::keys(["agents", "defaults"]);
    let What::Map(members) = &agent.what else { return vec![Move::Drop { from: old }] };
    let mut moves = Vec::new();
    for member in members {
        let name = member.name.as_str();
        let from = old.key(name);
        let to = |keys: &[&str]| keys.iter().fold(new.clone(), |path, key| path.key(*key));
        let text = member.value.text();
        match (name, text) {
            ("model", Some(_)) => moves.push(Move::Value { from, to: to(&["model", "primary"]) }),
            ("modelFallbacks", _) => {
                moves.push(Move::Value { from, to: to(&["model", "fallbacks"]) });
            }
            ("imageModel", Some(_)) => {
                moves.push(Move::Value { from, to: to(&["imageModel", "primary"]) });
            }
            ("imageModelFallbacks", _) => {
                moves.push(Move::Value { from, to: to(&["imageModel", "fallbacks"]) });
            }
            ("allowedModels", _) => {
                let What::List(items) = &member.value.what else { continue };
                let models = items.iter().filter_map(Node::text);
                let set = models
                    .map(|model| (to(&["models", model]), Value::Object(Default::default())))
                    .collect();
                moves.push(Move::Turn { from, to: set });
            }
            ("modelAliases", _) => {
                let What::Map(aliases) = &member.value.what else { continue };
                let set = aliases
                    .iter()
                    .filter_map(|alias| Some((alias.name.as_str(), alias.value.text()?)))
                    .map(|(alias, model)| (to(&["models", model, "alias"]), Value::from(alias)))
                    .collect();
                moves.push(Move::Turn { from, to: set });
            }
            ("tools", _) => {
                moves.push(Move::Value { from, to: KeyPath::keys(["tools"]) });
            }
            ("elevated", _) => {
                moves.push(Move::Value { from, to: KeyPath::keys(["tools", "elevated"]) })
            }
            ("bash", _) => moves.push(Move::Value { from, to: KeyPath::keys(["tools", "exec"]) }),
            _ => moves.push(Move::Value { from, to: to(&[name]) }),
        }
    }
    moves.push(Move::Drop { from: old });
    moves
}

/// `identity` belongs to the default agent today; without a list there is `main`.
fn identity_moves(root: &Node) -> Vec<Move> {
    let from = KeyPath::keys(["identity"]);
    let list = KeyPath::keys(["agents", "list"]);
    let agents = match root.find(&list).map(|node| &node.what) {
        Some(What::List(agents)) => agents.as_slice(),
        _ => &[],
    };
    let marked =
        |agent: &Node| matches!(agent.get("default").map(|n| &n.what), Some(What::Bool(true)));
    let at = agents.iter().position(marked).unwrap_or(0);
    if agents.is_empty() {
        let identity = root.get("identity").map(Node::to_value).unwrap_or_default();
        let agent = serde_json::json!({"id": crate::paths::MAIN_AGENT, "identity": identity});
        return vec![Move::Turn { from, to: vec![(list, Value::Array(vec![agent]))] }];
    }
    vec![Move::Value { from, to: list.index(at).key("identity") }]
}

/// The parts of `routing` that have a place today; what has none stays and is reported again.
fn routing_moves(routing: &Node) -> Vec<Move> {
    let old = KeyPath::keys(["routing"]);
    let table: [(&[&str], &[&str]); 6] = [
        (&["allowFrom"], &["channels", "whatsapp", "allowFrom"]),
        (&["bindings"], &["bindings"]),
        (&["agentToAgent"], &["tools", "agentToAgent"]),
        (&["queue"], &["messages", "queue"]),
        (&["groupChat", "mentionPatterns"], &["messages", "groupChat", "mentionPatterns"]),
        (&["groupChat", "historyLimit"], &["messages", "groupChat", "historyLimit"]),
    ];
    let mut moves: Vec<Move> = table
        .into_iter()
        .map(|(from, to)| {
            let from = from.iter().fold(old.clone(), |path, key| path.key(*key));
            (from, KeyPath::keys(to.iter().copied()))
        })
        .filter(|(from, _)| {
            let below = KeyPath::from(from.steps()[1..].to_vec());
            routing.find(&below).is_some()
        })
        .map(|(from, to)| Move::Value { from, to })
        .collect();
    moves.push(Move::Drop { from: old.key("groupChat") });
    moves.push(Move::Drop { from: old });
    moves
}

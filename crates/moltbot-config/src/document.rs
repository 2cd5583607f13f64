//! The document as it stands in its files: reading, `$include`, merging (spec C-12, C-13).

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use crate::issue::{ConfigError, Issue, IssueCode};
use crate::keypath::KeyPath;
use crate::paths;
use crate::source::{Source, Unreadable};
use crate::tree::{self, MAX_DEPTH, Member, Node, Span, What};
use crate::write::real_target;

/// The key that pulls in other files.
pub(crate) const INCLUDE: &str = "$include";

/// How deep files may include files.
const MAX_INCLUDES_DEEP: usize = 10;

/// How many times files may be pulled in altogether: ten levels of ten files each would be more
/// than anyone means.
const MAX_INCLUDES: usize = 1_000;

/// Texts that take the place of files, by real path: edits that are not written yet.
pub(crate) type Overlay = BTreeMap<PathBuf, String>;

/// All files of a configuration, each parsed, and what they make together.
pub(crate) struct Document {
    /// The files; the main one first.
    pub(crate) sources: Vec<Source>,
    /// Their trees, in the same order, includes not followed.
    pub(crate) trees: Vec<Node>,
    /// The real path of each, for editing and for finding cycles.
    pub(crate) real: Vec<PathBuf>,
    /// Everything together.
    pub(crate) merged: Node,
    /// Whether the main file exists.
    pub(crate) exists: bool,
    /// How each `$include` resolved, by including file and text.
    links: HashMap<(usize, String), usize>,
}

impl Document {
    /// Reads the main file and everything that it includes. A missing main file is empty.
    pub(crate) fn read(main: &Path, home: &Path, overlay: &Overlay) -> Result<Self, ConfigError> {
        let mut reader = Reader {
            home,
            overlay,
            document: Self {
                sources: Vec::new(),
                trees: Vec::new(),
                real: Vec::new(),
                merged: Node::empty_map(0),
                exists: true,
                links: HashMap::new(),
            },
            broken: HashMap::new(),
            issues: Vec::new(),
            included: 0,
        };
        reader.run(main);
        if reader.issues.is_empty() {
            Ok(reader.document)
        } else {
            Err(ConfigError::invalid(main, reader.issues))
        }
    }

    /// Returns the files that an object with `$include` pulls in, in order.
    pub(crate) fn includes(&self, file: usize, node: &Node) -> Vec<usize> {
        include_texts(node)
            .into_iter()
            .flatten()
            .filter_map(|(text, _)| self.links.get(&(file, text.to_string())).copied())
            .collect()
    }

    /// Turns a span into an issue with place and excerpt.
    pub(crate) fn issue(&self, issue: Issue, span: Span) -> Issue {
        match self.sources.get(span.file) {
            Some(source) if self.exists || span.file > 0 => {
                issue.stands_in(source, span.start..span.end)
            }
            _ => issue,
        }
    }
}

struct Reader<'a> {
    home: &'a Path,
    overlay: &'a Overlay,
    document: Document,
    /// Files that were tried and did not parse; their issues are already reported.
    broken: HashMap<PathBuf, ()>,
    issues: Vec<Issue>,
    included: usize,
}

impl Reader<'_> {
    fn run(&mut self, main: &Path) {
        let real = real_target(main).unwrap_or_else(|_| main.to_path_buf());
        let Some(file) = self.load(main, &real, None) else { return };
        let tree = self.document.trees[file].clone();
        if !matches!(tree.what, What::Map(_)) {
            let message = format!("expected an object, got {}", tree.kind());
            let issue = Issue::new(IssueCode::WrongType, KeyPath::root(), message);
            self.issues.push(self.document.issue(issue, tree.caret()));
            return;
        }
        self.document.merged = self.expand(&tree, file, &KeyPath::root(), &mut vec![file], 0);
    }

    /// Reads and parses a file once; reports what is wrong with it once.
    fn load(&mut self, path: &Path, real: &Path, at: Option<(&KeyPath, Span)>) -> Option<usize> {
        if let Some(known) = self.document.real.iter().position(|known| known == real) {
            return Some(known);
        }
        if self.broken.contains_key(real) {
            return None;
        }
        let read = match self.overlay.get(real) {
            Some(text) => Source::from_bytes(path, text.clone().into_bytes()),
            None => Source::read(path),
        };
        let file = self.document.sources.len();
        let mut source = match read {
            Ok(source) => source,
            Err(unreadable) => {
                return self.unreadable(path, real, unreadable, at);
            }
        };
        let parsed = tree::parse(&mut source, file);
        match parsed {
            Ok(tree) => {
                self.document.sources.push(source);
                self.document.trees.push(tree);
                self.document.real.push(real.to_path_buf());
                Some(file)
            }
            Err(issues) => {
                self.issues.extend(issues);
                self.broken.insert(real.to_path_buf(), ());
                None
            }
        }
    }

    fn unreadable(
        &mut self,
        path: &Path,
        real: &Path,
        error: Unreadable,
        at: Option<(&KeyPath, Span)>,
    ) -> Option<usize> {
        let file = self.document.sources.len();
        if error.missing && at.is_none() {
            self.document.exists = false;
            self.document.sources.push(Source {
                path: path.to_path_buf(),
                text: String::new(),
                bom: false,
                parsed: true,
            });
            self.document.trees.push(Node::empty_map(file));
            self.document.real.push(real.to_path_buf());
            return Some(file);
        }
        self.broken.insert(real.to_path_buf(), ());
        let issue = match (error.nul, at) {
            (Some((text, offset)), _) => {
                let source = Source { path: path.into(), text, bom: false, parsed: false };
                Issue::new(IssueCode::Syntax, KeyPath::root(), error.message)
                    .stands_in(&source, offset..offset + 1)
            }
            (None, Some((path, span))) => {
                let issue = Issue::new(IssueCode::Include, path.clone(), error.message);
                self.document.issue(issue, span)
            }
            (None, None) => Issue::new(IssueCode::Io, KeyPath::root(), error.message),
        };
        self.issues.push(issue);
        None
    }

    /// Returns the node with every `$include` below it followed.
    fn expand(
        &mut self,
        node: &Node,
        file: usize,
        path: &KeyPath,
        stack: &mut Vec<usize>,
        level: usize,
    ) -> Node {
        if level > MAX_DEPTH {
            let message = format!("nested deeper than {MAX_DEPTH} levels, includes counted in");
            self.report(IssueCode::Include, path, message, node.caret());
            return Node { what: What::Null, span: node.span };
        }
        let what = match &node.what {
            What::List(items) => What::List(
                items
                    .iter()
                    .enumerate()
                    .map(|(at, item)| self.expand(item, file, &path.index(at), stack, level + 1))
                    .collect(),
            ),
            What::Map(members) => {
                let own: Vec<Member> = members
                    .iter()
                    .filter(|member| member.name != INCLUDE)
                    .map(|member| Member {
                        value: self.expand(
                            &member.value,
                            file,
                            &path.key(&member.name),
                            stack,
                            level + 1,
                        ),
                        ..member.clone()
                    })
                    .collect();
                if let Some(include) = node.member(INCLUDE) {
                    return self.include(node, include, own, file, path, stack, level);
                }
                What::Map(own)
            }
            other => other.clone(),
        };
        Node { what, span: node.span }
    }

    #[allow(clippy::too_many_arguments, reason = "the state of one recursion")]
    fn include(
        &mut self,
        node: &Node,
        include: &Member,
        own: Vec<Member>,
        file: usize,
        path: &KeyPath,
        stack: &mut Vec<usize>,
        level: usize,
    ) -> Node {
        let place = path.key(INCLUDE);
        let Some(texts) = include_texts(node) else {
            let message =
                format!("expected a path or an array of paths, got {}", include.value.kind());
            self.report(IssueCode::Include, &place, message, include.value.caret());
            return Node { what: What::Map(own), span: node.span };
        };
        let mut merged: Option<Node> = None;
        for (text, span) in texts {
            let Some(child) = self.follow(text, span, file, &place, stack) else { continue };
            let tree = self.document.trees[child].clone();
            stack.push(child);
            let expanded = self.expand(&tree, child, path, stack, level);
            stack.pop();
            if !own.is_empty() && !matches!(expanded.what, What::Map(_)) {
                let message = format!(
                    "this file holds {}; beside other keys it must hold an object",
                    expanded.kind()
                );
                self.report(IssueCode::Include, &place, message, span);
                continue;
            }
            merged = Some(match merged {
                Some(before) => merge(before, expanded),
                None => expanded,
            });
        }
        let own = Node { what: What::Map(own), span: node.span };
        match merged {
            None => own,
            Some(merged) if matches!(&own.what, What::Map(own) if own.is_empty()) => merged,
            Some(merged) => merge(merged, own),
        }
    }

    /// Finds the file behind one `$include` text.
    fn follow(
        &mut self,
        text: &str,
        span: Span,
        file: usize,
        place: &KeyPath,
        stack: &[usize],
    ) -> Option<usize> {
        if stack.len() > MAX_INCLUDES_DEEP {
            let message = format!("files include files more than {MAX_INCLUDES_DEEP} deep");
            self.report(IssueCode::Include, place, message, span);
            return None;
        }
        self.included += 1;
        if self.included > MAX_INCLUDES {
            if self.included == MAX_INCLUDES + 1 {
                let message = format!("more than {MAX_INCLUDES} includes altogether");
                self.report(IssueCode::Include, place, message, span);
            }
            return None;
        }
        let from = &self.document.sources[file].path;
        let base = from.parent().unwrap_or(Path::new(""));
        let path = match paths::expand_tilde(text, self.home) {
            Some(expanded) => PathBuf::from(expanded),
            None => base.join(text),
        };
        let path: PathBuf = path.components().collect();
        let real = std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        let known = self.document.real.iter().position(|known| *known == real);
        if let Some(start) = known.and_then(|known| stack.iter().position(|file| *file == known)) {
            let mut names: Vec<String> = stack[start..]
                .iter()
                .map(|file| file_name(&self.document.sources[*file].path))
                .collect();
            names.push(names[0].clone());
            let message = format!("files include each other in a circle: {}", names.join(" > "));
            self.report(IssueCode::Include, place, message, span);
            return None;
        }
        let child = self.load(&path, &real, Some((place, span)))?;
        self.document.links.insert((file, text.to_string()), child);
        Some(child)
    }

    fn report(&mut self, code: IssueCode, path: &KeyPath, message: String, span: Span) {
        let issue = Issue::new(code, path.clone(), message);
        self.issues.push(self.document.issue(issue, span));
    }
}

/// Lays `over` over `under`: objects merge, arrays follow each other, anything else is replaced.
pub(crate) fn merge(under: Node, over: Node) -> Node {
    let span = over.span;
    let what = match (under.what, over.what) {
        (What::Map(mut members), What::Map(over)) => {
            for member in over {
                match members.iter().position(|known| known.name == member.name) {
                    Some(at) => {
                        let under = std::mem::replace(
                            &mut members[at].value,
                            Node { what: What::Null, span },
                        );
                        let value = merge(under, member.value);
                        members[at] = Member { value, ..member };
                    }
                    None => members.push(member),
                }
            }
            What::Map(members)
        }
        (What::List(mut items), What::List(over)) => {
            items.extend(over);
            What::List(items)
        }
        (_, over) => over,
    };
    Node { what, span }
}

/// Returns the texts of an object's `$include`; `None` if it is neither a text nor a list of them.
fn include_texts(node: &Node) -> Option<Vec<(&str, Span)>> {
    let include = node.get(INCLUDE)?;
    match &include.what {
        What::Text(text) if !text.trim().is_empty() => Some(vec![(text.as_str(), include.span)]),
        What::List(items) => items
            .iter()
            .map(|item| item.text().filter(|t| !t.trim().is_empty()).map(|t| (t, item.span)))
            .collect(),
        _ => None,
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<String, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let main = dir.path().join(files[0].0);
        let document = Document::read(&main, dir.path(), &Overlay::new())?;
        Ok(document.merged.to_value().to_string())
    }

    #[test]
    fn arrays_follow_each_other_and_siblings_win() {
        let merged = read(&[
            ("m.json", "{ $include: ['a.json', 'sub/b.json'], list: [3], x: 3, m: { k: 3 } }"),
            ("a.json", "{ list: [1], x: 1, y: 1, m: { j: 1 } }"),
            ("sub/b.json", "{ list: [2], y: 2, m: { $include: './c.json' } }"),
            ("sub/c.json", "{ i: 2, k: 2 }"),
        ]);
        let expected = r#"{"list":[1,2,3],"x":3,"y":2,"m":{"j":1,"i":2,"k":3}}"#;
        assert_eq!(merged.unwrap(), expected);
    }

    #[test]
    fn an_element_and_a_whole_value_can_be_included() {
        let merged = read(&[
            ("m.json", "{ list: [{ $include: 'a.json' }, 2], v: { $include: 'v.json' } }"),
            ("a.json", "{ id: 'a' }"),
            ("v.json", "'text'"),
        ]);
        assert_eq!(merged.unwrap(), r#"{"list":[{"id":"a"},2],"v":"text"}"#);
    }

    #[test]
    fn one_file_may_be_included_twice_but_not_by_itself() {
        let files = [
            ("m.json", "{ a: { $include: 's.json' }, b: { $include: 's.json' } }"),
            ("s.json", "{x:1}"),
        ];
        assert_eq!(read(&files).unwrap(), r#"{"a":{"x":1},"b":{"x":1}}"#);
        let circle = [
            ("m.json", "{ $include: 'a.json' }"),
            ("a.json", "{ k: { $include: './b.json' } }"),
            ("b.json", "{ $include: 'a.json' }"),
        ];
        let error = read(&circle).unwrap_err();
        assert_eq!(error.issues().len(), 1);
        assert_eq!(
            error.issues()[0].message,
            "files include each other in a circle: a.json > b.json > a.json"
        );
        assert_eq!(error.issues()[0].path.to_string(), "k.$include");
    }

    #[test]
    fn ten_deep_is_the_end() {
        let name = |n: usize| format!("{n}.json");
        let files: Vec<(String, String)> = (0..12)
            .map(|n| (name(n), format!("{{ k{n}: {n}, $include: '{}' }}", name(n + 1))))
            .chain([(name(12), "{}".to_string())])
            .collect();
        let all: Vec<(&str, &str)> = files.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
        assert!(read(&all[2..]).is_ok(), "ten levels below the main file");
        let error = read(&all[1..]).unwrap_err();
        assert_eq!(error.issues()[0].message, "files include files more than 10 deep");
    }

    #[test]
    fn many_includes_do_not_explode() {
        let twelve = |n: usize| format!("{{ $include: [{}] }}", format!("'{n}.json',").repeat(12));
        let files: Vec<(String, String)> = (0..9)
            .map(|n| (format!("{n}.json"), twelve(n + 1)))
            .chain([("9.json".into(), "{}".into())])
            .collect();
        let all: Vec<(&str, &str)> = files.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
        let error = read(&all).unwrap_err();
        assert_eq!(error.issues()[0].message, "more than 1000 includes altogether");
    }

    #[test]
    fn depth_counts_across_files() {
        let nested = |inner: &str| format!("{}{inner}{}", "{a:".repeat(100), "}".repeat(100));
        let main = nested("{ $include: 'b.json' }");
        let error = read(&[("m.json", &main), ("b.json", &nested("1"))]).unwrap_err();
        assert_eq!(error.issues()[0].message, "nested deeper than 128 levels, includes counted in");
    }
}

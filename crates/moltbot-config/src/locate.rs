//! Which file an edit belongs to: every place that takes part in a value (decision on C-30).

use crate::document::{Document, INCLUDE};
use crate::keypath::{KeyPath, Step};
use crate::tree::{Node, What};

/// A place in one file that defines a path, or would hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) file: usize,
    /// The path inside that file, complete.
    pub(crate) steps: Vec<Step>,
    /// How many steps of the asked path exist there.
    depth: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Something that is neither an object nor an array stands in the way.
    Blocked,
    /// The container exists, but only to pull in files.
    IncludeOnly,
    Container,
    Scalar,
    Exact,
}

/// Why no single place was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unclear {
    /// Several files make up the value; their indices.
    Several(Vec<usize>),
    /// A value that is no object stands on the way, in this file.
    Blocked(usize),
}

impl Document {
    /// Finds the one place to write a value to; `scalar` says that the new value is one.
    ///
    /// A value that several files define can only be replaced if nothing merges: then the last
    /// definition is the one that counts.
    pub(crate) fn place_to_write(&self, path: &KeyPath, scalar: bool) -> Result<Spot, Unclear> {
        self.check_arrays(path)?;
        let spots = self.spots(path);
        let exact: Vec<&Spot> =
            spots.iter().filter(|s| matches!(s.kind, Kind::Exact | Kind::Scalar)).collect();
        match exact.as_slice() {
            [] => {}
            [one] => return Ok((*one).clone()),
            several if scalar && several.iter().all(|spot| spot.kind == Kind::Scalar) => {
                return Ok(several[several.len() - 1].clone());
            }
            several => return Err(Unclear::Several(files(several))),
        }
        let deepest = spots.iter().map(|spot| spot.depth).max().unwrap_or(0);
        let best = spots
            .iter()
            .filter(|spot| spot.depth == deepest)
            // Later ones win among equals: the file that includes comes last.
            .max_by_key(
                |spot| if deepest == 0 && spot.file == 0 { Kind::Exact } else { spot.kind },
            );
        match best {
            Some(spot) if spot.kind != Kind::Blocked => Ok(spot.clone()),
            Some(spot) => Err(Unclear::Blocked(spot.file)),
            None => {
                Ok(Spot { file: 0, steps: path.steps().to_vec(), depth: 0, kind: Kind::Container })
            }
        }
    }

    /// Finds the one place that defines a value; `None` if there is none.
    pub(crate) fn place_to_remove(&self, path: &KeyPath) -> Result<Option<Spot>, Unclear> {
        self.check_arrays(path)?;
        let spots = self.spots(path);
        let exact: Vec<&Spot> =
            spots.iter().filter(|s| matches!(s.kind, Kind::Exact | Kind::Scalar)).collect();
        match exact.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some((*one).clone())),
            several => Err(Unclear::Several(files(several))),
        }
    }

    /// An index counts through all files, so an array from several of them cannot be addressed.
    fn check_arrays(&self, path: &KeyPath) -> Result<(), Unclear> {
        for (at, step) in path.steps().iter().enumerate() {
            let prefix = KeyPath::from(path.steps()[..at].to_vec());
            let is_array =
                matches!(self.merged.find(&prefix).map(|n| &n.what), Some(What::List(_)));
            if matches!(step, Step::Index(_)) || is_array {
                let spots = self.spots(&prefix);
                let exact: Vec<&Spot> = spots
                    .iter()
                    .filter(|spot| matches!(spot.kind, Kind::Exact | Kind::Scalar))
                    .collect();
                if exact.len() > 1 {
                    return Err(Unclear::Several(files(&exact)));
                }
            }
        }
        Ok(())
    }

    fn spots(&self, path: &KeyPath) -> Vec<Spot> {
        let mut walk = Walk { document: self, spots: Vec::new(), depth: path.steps().len() };
        walk.node(0, &self.trees[0], &[], path.steps());
        walk.spots
    }
}

struct Walk<'a> {
    document: &'a Document,
    spots: Vec<Spot>,
    depth: usize,
}

impl Walk<'_> {
    fn node(&mut self, file: usize, node: &Node, here: &[Step], rest: &[Step]) {
        let includes = self.document.includes(file, node);
        for child in &includes {
            self.node(*child, &self.document.trees[*child], &[], rest);
        }
        let include_only = match &node.what {
            What::Map(members) => {
                !includes.is_empty() && members.iter().all(|member| member.name == INCLUDE)
            }
            _ => false,
        };
        let depth = self.depth - rest.len();
        let Some((step, further)) = rest.split_first() else {
            if !include_only {
                let container = matches!(node.what, What::Map(_) | What::List(_));
                let kind = if container { Kind::Exact } else { Kind::Scalar };
                self.spots.push(Spot { file, steps: here.to_vec(), depth, kind });
            }
            return;
        };
        // In an array a key of digits is an index.
        let step = match (step, &node.what) {
            (Step::Key(key), What::List(_)) => key.parse().map_or(step.clone(), Step::Index),
            _ => step.clone(),
        };
        let mut next = here.to_vec();
        next.push(step.clone());
        if let Some(child) = node.step(&step).filter(|_| step != Step::Key(INCLUDE.into())) {
            return self.node(file, child, &next, further);
        }
        next.extend_from_slice(further);
        let kind = match &node.what {
            What::Map(_) if include_only => Kind::IncludeOnly,
            What::Map(_) | What::List(_) => Kind::Container,
            _ => Kind::Blocked,
        };
        self.spots.push(Spot { file, steps: next, depth, kind });
    }
}

fn files(spots: &[&Spot]) -> Vec<usize> {
    let mut files: Vec<usize> = spots.iter().map(|spot| spot.file).collect();
    files.sort_unstable();
    files.dedup();
    files
}

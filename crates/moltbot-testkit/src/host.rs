//! A host whose replies are scripted, and that remembers what it was asked.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use moltbot_core::{
    Effect, Field, FieldKind, FileProblem, FileRef, FileState, Host, HostError, HttpReply,
    HttpRequest, Ran, Reply, Run, Secret, Text, Timestamp, async_trait,
};

use crate::leak::canaries_in;
use crate::{NOW, transcript};

type Program = Box<dyn Fn(&Run) -> Result<Ran, HostError> + Send + Sync>;
type Service = Box<dyn Fn(&HttpRequest) -> Result<HttpReply, HostError> + Send + Sync>;
type Files = Box<dyn Fn(&FileRef) -> Option<FileState> + Send + Sync>;

/// A [`Host`] without a world: what is not scripted is absent, and nobody is there to answer.
///
/// Built by value (`ScriptedHost::new().answer(..).file(..)`), then lent to a call. See the
/// crate's page for an example.
#[derive(Default)]
pub struct ScriptedHost {
    flags: HashMap<String, String>,
    env: HashMap<String, String>,
    files: HashMap<String, FileState>,
    files_by: Option<Files>,
    programs: HashMap<String, Program>,
    no_keyring: bool,
    service: Option<Service>,
    clock_step: i64,
    faults: BTreeMap<usize, Fault>,
    state: Mutex<State>,
}

#[derive(Clone)]
enum Fault {
    Fail(HostError),
    Hang,
}

#[derive(Default)]
struct State {
    answers: HashMap<String, VecDeque<String>>,
    http: VecDeque<(u16, String)>,
    keyring: HashMap<(String, String), Secret>,
    now: Option<Timestamp>,
    log: Vec<(Effect, Option<Result<Reply, HostError>>)>,
    in_flight: usize,
    canaries: Vec<String>,
}

impl ScriptedHost {
    /// Makes a host without answers, files, programs and services, at [`NOW`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets a person type an answer to the field of that id; several queue up.
    ///
    /// Once they are used up, or without any, the field's default answers, else nobody.
    pub fn answer(self, id: &str, value: impl Into<String>) -> Self {
        let value = value.into();
        let mut state = self.state();
        state.canaries.extend(canaries_in(&value));
        state.answers.entry(id.to_string()).or_default().push_back(value);
        drop(state);
        self
    }

    /// Answers the field of that id from a flag or variable: not typed, as often as asked.
    pub fn answer_flag(mut self, id: &str, value: impl Into<String>) -> Self {
        let value = value.into();
        self.state().canaries.extend(canaries_in(&value));
        self.flags.insert(id.to_string(), value);
        self
    }

    /// Sets the variable that names the directory of a [`FileRef`].
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_string(), value.to_string());
        self
    }

    /// Puts a file at `DIR/PATH`, as a [`FileRef`] spells them: `~/.tool/login.json`.
    pub fn file(self, path: &str, content: impl Into<String>) -> Self {
        let content = Some(Secret::new(content));
        self.file_state(path, FileState { content, ..empty_file(path) })
    }

    /// Puts a file in any state.
    pub fn file_state(mut self, path: &str, file: FileState) -> Self {
        let content = file.content.as_ref().map_or("", Secret::expose);
        self.state().canaries.extend(canaries_in(content));
        self.files.insert(path.to_string(), file);
        self
    }

    /// Puts a file that cannot be read.
    pub fn file_problem(self, path: &str, problem: FileProblem) -> Self {
        let problem = Some(problem);
        self.file_state(path, FileState { problem, ..empty_file(path) })
    }

    /// Decides about files by rule; where it returns `None` the other files count.
    pub fn files_by(
        mut self,
        rule: impl Fn(&FileRef) -> Option<FileState> + Send + Sync + 'static,
    ) -> Self {
        self.files_by = Some(Box::new(rule));
        self
    }

    /// Installs a program.
    pub fn program(
        mut self,
        name: &str,
        run: impl Fn(&Run) -> Result<Ran, HostError> + Send + Sync + 'static,
    ) -> Self {
        self.programs.insert(name.to_string(), Box::new(run));
        self
    }

    /// Installs a program that always prints the same and ends with the same code.
    pub fn ran(self, name: &str, exit: i32, stdout: impl Into<String>) -> Self {
        let stdout = stdout.into();
        self.program(name, move |_| {
            Ok(Ran { exit: Some(exit), stdout: Secret::new(&*stdout), stderr: Secret::default() })
        })
    }

    /// Puts an entry into the keyring, which is there and empty otherwise.
    pub fn keyring(self, service: &str, account: &str, secret: impl Into<String>) -> Self {
        let secret = secret.into();
        let mut state = self.state();
        state.canaries.push(secret.clone());
        state.keyring.insert((service.to_string(), account.to_string()), Secret::new(secret));
        drop(state);
        self
    }

    /// Takes the keyring away.
    pub fn without_keyring(mut self) -> Self {
        self.no_keyring = true;
        self
    }

    /// Answers HTTP requests by rule, once the replies of [`http_reply`](Self::http_reply) are
    /// used up.
    pub fn http(
        mut self,
        service: impl Fn(&HttpRequest) -> Result<HttpReply, HostError> + Send + Sync + 'static,
    ) -> Self {
        self.service = Some(Box::new(service));
        self
    }

    /// Answers the next HTTP request; several queue up.
    pub fn http_reply(self, status: u16, body: impl Into<String>) -> Self {
        self.state().http.push_back((status, body.into()));
        self
    }

    /// Sets the clock.
    pub fn clock(self, now: Timestamp) -> Self {
        self.state().now = Some(now);
        self
    }

    /// Lets the clock advance by that many milliseconds with every effect.
    pub fn clock_step(mut self, millis: i64) -> Self {
        self.clock_step = millis;
        self
    }

    /// Fails the `n`-th effect, counted from 0.
    pub fn fail_at(mut self, n: usize, error: HostError) -> Self {
        self.faults.insert(n, Fault::Fail(error));
        self
    }

    /// Lets the user stop at the `n`-th effect, counted from 0.
    pub fn cancel_at(self, n: usize) -> Self {
        self.fail_at(n, HostError::Cancelled {})
    }

    /// Never answers the `n`-th effect, counted from 0, so that the call can be dropped there.
    pub fn hang_at(mut self, n: usize) -> Self {
        self.faults.insert(n, Fault::Hang);
        self
    }

    /// Names a text that must never show, beside those that look like fakes.
    pub fn secret(self, text: &str) -> Self {
        self.state().canaries.push(text.to_string());
        self
    }

    /// Returns what was asked and replied, as lines for people.
    pub fn transcript(&self) -> String {
        let state = self.state();
        let mut lines = String::new();
        for (effect, outcome) in &state.log {
            lines += &transcript::effect(effect);
            let reply = outcome.as_ref().map_or("no reply yet".to_string(), transcript::outcome);
            lines += &format!("\n  -> {reply}\n");
        }
        // A plugin that shows a secret is caught elsewhere; a snapshot must not keep it.
        let hidden = state.canaries.iter().filter(|canary| canary.len() >= 6);
        hidden.fold(lines, |lines, canary| lines.replace(canary, "<secret>"))
    }

    /// Returns every effect so far.
    pub fn effects(&self) -> Vec<Effect> {
        self.state().log.iter().map(|(effect, _)| effect.clone()).collect()
    }

    /// Returns the ids of the fields asked so far.
    pub fn asked(&self) -> Vec<String> {
        let ask = |effect| match effect {
            Effect::Ask { field, .. } => Some(field.id.to_string()),
            _ => None,
        };
        self.effects().into_iter().filter_map(ask).collect()
    }

    /// Returns the answers given so far to the fields of these ids, trimmed.
    pub(crate) fn answers_to(&self, ids: &[Text]) -> Vec<String> {
        let state = self.state();
        let answer = |(effect, outcome): &(Effect, Option<Result<Reply, HostError>>)| match (
            effect, outcome,
        ) {
            (Effect::Ask { field, .. }, Some(Ok(Reply::Answer { value, .. })))
                if ids.contains(&field.id) =>
            {
                Some(value.expose().trim().to_string())
            }
            _ => None,
        };
        state.log.iter().filter_map(answer).collect()
    }

    /// Returns what the user was told so far.
    pub fn told(&self) -> Vec<String> {
        let tell = |effect| match effect {
            Effect::Tell { note } => Some(note.text),
            _ => None,
        };
        self.effects().into_iter().filter_map(tell).collect()
    }

    /// Returns how many effects were asked for so far.
    pub fn count(&self) -> usize {
        self.state().log.len()
    }

    /// Returns how many effects are neither answered nor abandoned.
    pub fn in_flight(&self) -> usize {
        self.state().in_flight
    }

    /// Returns every secret this host has handed out or may hand out.
    pub fn canaries(&self) -> Vec<String> {
        self.state().canaries.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reply(&self, effect: &Effect) -> Result<Reply, HostError> {
        match effect {
            Effect::Ask { field, .. } => self.ask(field),
            Effect::Http { request } => {
                let queued = self.state().http.pop_front();
                let response = match (queued, &self.service) {
                    (Some((status, body)), _) => {
                        HttpReply { status, headers: Vec::new(), body: Secret::new(body) }
                    }
                    (None, Some(service)) => service(request)?,
                    (None, None) => {
                        let message = "cannot connect (no reply is scripted)".to_string();
                        return Err(HostError::Network { message });
                    }
                };
                self.state().canaries.extend(canaries_in(response.body.expose()));
                Ok(Reply::Http { response })
            }
            Effect::Keyring { .. } if self.no_keyring => {
                Err(HostError::Unsupported { what: "the keyring".into() })
            }
            Effect::Keyring { entry, put } => {
                let place = (entry.service.to_string(), entry.account.to_string());
                let mut state = self.state();
                if let Some(put) = put {
                    state.keyring.insert(place.clone(), put.clone());
                }
                Ok(Reply::Kept { secret: state.keyring.get(&place).cloned() })
            }
            Effect::Now {} => Ok(Reply::Now { now: self.state().now.unwrap_or(NOW) }),
            Effect::Read { file } => Ok(Reply::File { file: self.read(file) }),
            Effect::Run { run } => {
                let Some(program) = self.programs.get(run.program.as_ref()) else {
                    return Err(HostError::NotFound { what: run.program.to_string() });
                };
                let ran = program(run)?;
                let mut state = self.state();
                state.canaries.extend(canaries_in(ran.stdout.expose()));
                state.canaries.extend(canaries_in(ran.stderr.expose()));
                Ok(Reply::Ran { ran })
            }
            Effect::Open { .. } | Effect::Tell { .. } => Ok(Reply::Done {}),
            _ => Err(HostError::Unsupported { what: "an effect of a newer version".into() }),
        }
    }

    fn ask(&self, field: &Field) -> Result<Reply, HostError> {
        if field.kind == FieldKind::Unknown {
            return Err(HostError::Unsupported { what: "a question of a newer version".into() });
        }
        let mut state = self.state();
        let queued = state.answers.get_mut(field.id.as_ref()).and_then(VecDeque::pop_front);
        let (value, typed) = match (queued, self.flags.get(field.id.as_ref()), &field.default) {
            (Some(value), _, _) => (value, true),
            (None, Some(value), _) => (value.clone(), false),
            (None, None, Some(default)) => (default.to_string(), false),
            (None, None, None) => {
                return Err(HostError::NotInteractive {
                    label: field.label.to_string(),
                    flag: field.flag.as_ref().map(ToString::to_string),
                    env: field.env.as_ref().map(ToString::to_string),
                });
            }
        };
        if field.kind == (FieldKind::Secret {}) {
            state.canaries.push(value.trim().to_string());
        }
        Ok(Reply::Answer { value: Secret::new(value), typed })
    }

    fn read(&self, file: &FileRef) -> FileState {
        let by_rule = self.files_by.as_ref().and_then(|rule| rule(file));
        let from_env = file.dir_env.as_ref().and_then(|name| self.env.get(name.as_ref()));
        let dir = from_env.map_or(file.dir.as_ref(), String::as_str);
        let path = format!("{dir}/{}", file.path);
        let found = by_rule.or_else(|| self.files.get(&path).cloned()).unwrap_or_else(|| {
            FileState { problem: Some(FileProblem::Absent {}), ..empty_file(&path) }
        });
        let content = found.content.as_ref().map_or("", Secret::expose);
        self.state().canaries.extend(canaries_in(content));
        found
    }
}

#[async_trait]
impl Host for ScriptedHost {
    async fn perform(&self, effect: Effect) -> Result<Reply, HostError> {
        let n = {
            let mut state = self.state();
            state.log.push((effect.clone(), None));
            let now = state.now.unwrap_or(NOW);
            state.now = Some(now.plus(self.clock_step));
            state.log.len() - 1
        };
        let _flight = Flight::begin(self);
        let outcome = match self.faults.get(&n).cloned() {
            Some(Fault::Fail(error)) => Err(error),
            Some(Fault::Hang) => std::future::pending().await,
            None => self.reply(&effect),
        };
        self.state().log[n].1 = Some(outcome.clone());
        outcome
    }
}

/// Counts an effect as under way until it is answered or its future is dropped.
struct Flight<'a>(&'a ScriptedHost);

impl<'a> Flight<'a> {
    fn begin(host: &'a ScriptedHost) -> Self {
        host.state().in_flight += 1;
        Self(host)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.state().in_flight -= 1;
    }
}

fn empty_file(path: &str) -> FileState {
    FileState {
        shown: path.to_string(),
        content: None,
        problem: None,
        symlink: false,
        exposed: false,
        modified: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_on;

    fn ask(host: &ScriptedHost, field: &Field) -> Result<Reply, HostError> {
        block_on(host.perform(Effect::Ask { field: field.clone(), refused: None }))
    }

    #[test]
    fn answers_queue_up_then_the_default_then_nobody() {
        let mut field = Field { id: "a".into(), label: "A".into(), ..Field::default() };
        let host = ScriptedHost::new().answer("a", "1").answer("a", "2");
        let answer = |value: &str, typed| Ok(Reply::Answer { value: Secret::new(value), typed });
        assert_eq!(ask(&host, &field), answer("1", true));
        assert_eq!(ask(&host, &field), answer("2", true));
        assert!(matches!(ask(&host, &field), Err(HostError::NotInteractive { .. })));
        field.default = Some("d".into());
        assert_eq!(ask(&host, &field), answer("d", false));
    }

    #[test]
    fn a_transcript_masks_what_a_plugin_shows() {
        let host = ScriptedHost::new().answer("a", "FAKE-0123456789");
        let field = Field { id: "a".into(), kind: FieldKind::Secret {}, ..Field::default() };
        ask(&host, &field).unwrap();
        block_on(host.perform(Effect::Open { url: "https://x/?k=FAKE-0123456789".into() }))
            .unwrap();
        let expected = "ask a (secret) \"\"\n  -> <secret 15>, typed\n\
            open https://x/?k=<secret>\n  -> done\n";
        assert_eq!(host.transcript(), expected);
    }

    #[test]
    fn a_variable_moves_a_directory() {
        let host = ScriptedHost::new().env("TOOL_DIR", "/t").file("/t/login", "x");
        let file =
            FileRef { dir_env: Some("TOOL_DIR".into()), dir: "~/.t".into(), path: "login".into() };
        let Reply::File { file } = block_on(host.perform(Effect::Read { file })).unwrap() else {
            panic!("no file")
        };
        assert_eq!(file.content, Some(Secret::new("x")));
    }
}

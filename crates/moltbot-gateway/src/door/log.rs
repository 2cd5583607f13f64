//! What remains of a request: one line of the log, the counters behind `/metrics`, and its
//! decision record. The thread that serves only leaves a note; a thread of its own writes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::mem::take;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::{HeaderName, HeaderValue};
use moltbot_core::{Failure, ModelInfo, Text, Timestamp, Usage, redact};

use super::access::Admitted;
use super::agent::{Agent, Route};
use super::written;
use crate::cache::CacheEffect;
use crate::record::ModelChoice;

/// Lines and records kept while nobody can write them; above it they are dropped and counted.
const MOST_BYTES: usize = 8 << 20;

/// Notes kept until the writer comes to them, and after how many it is woken before its time.
const MOST_NOTES: usize = 100_000;
const MANY_NOTES: usize = 512;

/// Written notes kept to be used again, and how large the buffers of lines and records may be that
/// are.
const MOST_SPARE: usize = 2 * MANY_NOTES;
const MOST_BUFFER: usize = 1 << 20;

/// How long a service's own id of a request may be.
const LONGEST_ID: usize = 200;

/// How long a note waits at most.
const PAUSE: Duration = Duration::from_millis(500);

/// Where a service names its own id of a request.
static SERVICE_ID: HeaderName = HeaderName::from_static("request-id");

/// Where notes go and counts are kept; shared by all threads.
#[derive(Default)]
pub(crate) struct Journal {
    notes: Mutex<Notes>,
    /// Signalled when there are many notes, and at the end.
    many: Condvar,
    lost: AtomicU64,
    open: AtomicU64,
    wanted: bool,
    work: Mutex<Work>,
}

#[derive(Default)]
#[expect(clippy::vec_box, reason = "a note is large and goes from hand to hand")]
struct Notes {
    notes: Vec<Box<Note>>,
    /// Written ones, to be used again with what they have allocated: a request then makes none, and
    /// none is given back by another thread than the one that made it.
    spare: Vec<Box<Note>>,
    over: bool,
}

/// What was made of notes and is not written yet, and what they add up to.
#[derive(Default)]
struct Work {
    lines: Vec<u8>,
    agents: BTreeMap<Arc<str>, Tally>,
    considered: written::Considered,
    lost: u64,
    attempts: u64,
    failovers: u64,
    disconnects: u64,
}

/// What the requests of one agent add up to.
#[derive(Default)]
struct Tally {
    /// Its decision records, one JSON line each.
    records: Vec<u8>,
    /// Requests by status.
    answered: BTreeMap<u16, u64>,
    usage: Option<AgentUsage>,
}

#[derive(Clone, Copy, Default)]
struct AgentUsage {
    tokens: Usage,
    cost: f64,
    saved: f64,
}

impl Journal {
    /// Makes one that writes a line per request, if lines are wanted.
    pub(crate) fn new(wanted: bool) -> Self {
        Self { wanted, ..Self::default() }
    }

    pub(crate) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes something beside a request.
    pub(crate) fn say(&self, text: &str) {
        let mut work = super::locked(&self.work);
        work.lines.extend_from_slice(redact(text).as_bytes());
        work.lines.push(b'\n');
    }

    /// Returns a note with nothing in it.
    fn blank(&self) -> Box<Note> {
        super::locked(&self.notes).spare.pop().unwrap_or_default()
    }

    fn leave(&self, note: Box<Note>) {
        let mut notes = super::locked(&self.notes);
        if notes.notes.len() >= MOST_NOTES {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        notes.notes.push(note);
        if notes.notes.len() == MANY_NOTES {
            self.many.notify_one();
        }
    }

    /// Waits for notes; `false` once there will be no more.
    pub(crate) fn wait(&self) -> bool {
        let notes = super::locked(&self.notes);
        let few = |notes: &mut Notes| notes.notes.len() < MANY_NOTES && !notes.over;
        let (notes, _) =
            self.many.wait_timeout_while(notes, PAUSE, few).unwrap_or_else(PoisonError::into_inner);
        !notes.over
    }

    /// Ends the writer after what has been left so far.
    pub(crate) fn close(&self) {
        super::locked(&self.notes).over = true;
        self.many.notify_all();
    }

    /// Makes lines, counts and records of the notes left so far.
    fn work(&self) -> std::sync::MutexGuard<'_, Work> {
        // In this order, so that nobody sees counts between two sets of notes.
        let mut work = super::locked(&self.work);
        let mut notes = take(&mut super::locked(&self.notes).notes);
        work.lost += self.lost.swap(0, Ordering::Relaxed);
        for note in &mut notes {
            work.add(note, self.wanted);
            note.empty();
        }
        let mut left = super::locked(&self.notes);
        let room = MOST_SPARE.saturating_sub(left.spare.len());
        left.spare.extend(notes.drain(..).take(room));
        if left.notes.is_empty() && notes.capacity() <= MOST_SPARE {
            left.notes = notes;
        }
        drop(left);
        work
    }

    /// Writes out what has come together: lines to `log`, records through `keep`, which gets an
    /// agent's name and its lines.
    pub(crate) fn flush(
        &self,
        log: Option<&mut Box<dyn Write + Send>>,
        mut keep: impl FnMut(&str, &[u8]),
    ) {
        let (lines, records, lost) = {
            let mut work = self.work();
            let records: Vec<(Arc<str>, Vec<u8>)> = work
                .agents
                .iter_mut()
                .filter(|(_, tally)| !tally.records.is_empty())
                .map(|(agent, tally)| (agent.clone(), take(&mut tally.records)))
                .collect();
            (take(&mut work.lines), records, take(&mut work.lost))
        };
        for (agent, lines) in &records {
            keep(agent, lines);
        }
        if let Some(log) = log {
            // A log that cannot be written must not stop the gateway.
            if !lines.is_empty() {
                let _ = log.write_all(&lines);
            }
            if lost > 0 {
                let _ = writeln!(log, "log lines dropped={lost}");
            }
            let _ = log.flush();
        }
        // As much will come together until the next time: what was allocated is used again.
        let mut work = super::locked(&self.work);
        give_back(&mut work.lines, lines);
        for (agent, lines) in records {
            if let Some(tally) = work.agents.get_mut(&agent) {
                give_back(&mut tally.records, lines);
            }
        }
    }

    /// Writes the counters for Prometheus.
    pub(crate) fn metrics(&self) -> String {
        let work = self.work();
        let mut out = String::new();
        let open = self.open.load(Ordering::Relaxed);
        for (name, kind, help, value) in [
            ("moltbot_attempts_total", "counter", "Requests sent to services.", work.attempts),
            (
                "moltbot_failovers_total",
                "counter",
                "Requests tried again elsewhere.",
                work.failovers,
            ),
            ("moltbot_disconnects_total", "counter", "Clients that left early.", work.disconnects),
            ("moltbot_connections", "gauge", "Open connections of clients.", open),
        ] {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
        let name = "moltbot_requests_total";
        let _ = writeln!(out, "# HELP {name} Requests answered.\n# TYPE {name} counter");
        for (agent, tally) in &work.agents {
            let agent = label(agent);
            for (status, count) in &tally.answered {
                let _ = writeln!(out, "{name}{{agent=\"{agent}\",status=\"{status}\"}} {count}");
            }
        }
        let usage = || work.agents.iter().filter_map(|(name, tally)| Some((name, tally.usage?)));
        let name = "moltbot_tokens_total";
        let _ = writeln!(out, "# HELP {name} Tokens by sort.\n# TYPE {name} counter");
        for (agent, used) in usage() {
            let agent = label(agent);
            let tokens = &used.tokens;
            for (kind, count) in [
                ("input", tokens.input),
                ("output", tokens.output),
                ("cache_read", tokens.cache_read),
                ("cache_write", tokens.cache_write),
            ] {
                let count = count.unwrap_or(0);
                let _ = writeln!(out, "{name}{{agent=\"{agent}\",kind=\"{kind}\"}} {count}");
            }
        }
        // What caching saved falls when more is written than read: no counter.
        for (name, kind, help) in [
            (
                "moltbot_cost_dollars_total",
                "counter",
                "Cost as the program that answered reckons it, else by list price.",
            ),
            ("moltbot_cache_saved_dollars", "gauge", "What the prompt cache saved so far."),
        ] {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (agent, used) in usage() {
                let agent = label(agent);
                let value = if name.contains("saved") { used.saved } else { used.cost };
                let _ = writeln!(out, "{name}{{agent=\"{agent}\"}} {value:.6}");
            }
        }
        out
    }
}

impl Work {
    fn add(&mut self, note: &Note, wanted: bool) {
        if !self.agents.contains_key(&note.agent) {
            self.agents.insert(note.agent.clone(), Tally::default());
        }
        let tally = self.agents.get_mut(&note.agent).expect("put there if it was not");
        *tally.answered.entry(note.status).or_default() += 1;
        let cost = note.cost();
        let attempts = note.tries.len() as u64;
        self.attempts += attempts;
        self.failovers += attempts.saturating_sub(1);
        self.disconnects += u64::from(!note.done);
        if let Some(usage) = &note.usage {
            let used = tally.usage.get_or_insert_default();
            used.tokens.add(usage);
            used.cost += cost.unwrap_or(0.0);
            if let Some(listed) = note.info.as_ref().and_then(|info| info.cost(usage)) {
                let plain = Usage {
                    input: Some(usage.all_input()),
                    output: usage.output,
                    ..Usage::default()
                };
                let plain = note.info.as_ref().and_then(|info| info.cost(&plain));
                used.saved += plain.map_or(0.0, |plain| plain - listed);
            }
        }
        if wanted {
            match self.lines.len() > MOST_BYTES {
                true => self.lost += 1,
                false => written::line(note, &mut self.lines),
            }
        }
        if note.recorded {
            match tally.records.len() > MOST_BYTES {
                true => self.lost += 1,
                false => {
                    written::record(note, cost, &mut self.considered, &mut tally.records);
                }
            }
        }
    }
}

/// Puts a buffer back where nothing has come since, unless it grew beyond what is usual.
fn give_back(place: &mut Vec<u8>, mut buffer: Vec<u8>) {
    if place.capacity() == 0 && buffer.capacity() <= MOST_BUFFER {
        buffer.clear();
        *place = buffer;
    }
}

fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// What is known of one request; dropping it leaves a note, however the request ended.
pub(crate) struct Ticket {
    pub(crate) journal: Arc<Journal>,
    pub(crate) note: OwnNote,
    pub(crate) started: Instant,
    /// The share of the token's limits, given back with the end of the request.
    pub(crate) admitted: Option<Admitted>,
    /// Whose conversation it is part of, and with which profile.
    pub(crate) holds: Option<(Arc<Agent>, u64, String)>,
}

/// The note of a ticket, there until the ticket is dropped.
pub(crate) struct OwnNote(Option<Box<Note>>);

impl Deref for OwnNote {
    type Target = Note;

    fn deref(&self) -> &Note {
        self.0.as_deref().expect("taken by the ticket's end only")
    }
}

impl DerefMut for OwnNote {
    fn deref_mut(&mut self) -> &mut Note {
        self.0.as_deref_mut().expect("taken by the ticket's end only")
    }
}

/// One request, as far as it is told. Nothing in it was said by client or service.
#[derive(Default)]
pub(crate) struct Note {
    pub(crate) id: String,
    pub(crate) at: Timestamp,
    pub(crate) method: hyper::Method,
    pub(crate) path: String,
    pub(crate) token: Arc<str>,
    pub(crate) agent: Arc<str>,
    pub(crate) model: Arc<str>,
    pub(crate) source: Arc<str>,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) ms: f64,
    pub(crate) usage: Option<Usage>,
    /// What the reply cost by its author's own reckoning, in US dollars.
    pub(crate) told_cost: Option<f64>,
    pub(crate) info: Option<Arc<ModelInfo>>,
    pub(crate) trouble: Option<String>,
    /// The code of a failure, for `moltbot explain`.
    pub(crate) code: Option<Cow<'static, str>>,
    /// Whether the reply was passed on to its end; without it the client left.
    pub(crate) done: bool,
    /// Whether it leaves a decision record.
    pub(crate) recorded: bool,
    /// The model as it was asked for.
    pub(crate) requested: Option<Arc<str>>,
    pub(crate) considered: Vec<Arc<ModelChoice>>,
    pub(crate) tries: Vec<Tried>,
    pub(crate) changed: Vec<Text>,
    pub(crate) warnings: Vec<String>,
    /// What a move to another profile did to the prompt cache.
    pub(crate) cache: Option<CacheEffect>,
    /// The hash that tells its conversation from others, where one was needed.
    pub(crate) session: Option<u64>,
}

/// One request to a service.
pub(crate) struct Tried {
    pub(crate) model: Arc<str>,
    pub(crate) source: Arc<str>,
    pub(crate) class: Option<&'static str>,
    pub(crate) status: Option<u16>,
    /// The service's own id of it, if it looks like one.
    pub(crate) request_id: Option<String>,
    pub(crate) began: Instant,
    pub(crate) ms: u64,
    pub(crate) until: Option<Timestamp>,
}

impl Ticket {
    pub(crate) fn new(
        journal: Arc<Journal>,
        id: &str,
        at: Timestamp,
        head: &hyper::http::request::Parts,
        nobody: &Arc<str>,
    ) -> Self {
        let mut note = journal.blank();
        note.id.push_str(id);
        note.at = at;
        note.method = head.method.clone();
        note.path.push_str(head.uri.path());
        (note.token, note.agent) = (nobody.clone(), nobody.clone());
        (note.model, note.source) = (nobody.clone(), nobody.clone());
        let (note, started) = (OwnNote(Some(note)), Instant::now());
        Self { journal, note, started, admitted: None, holds: None }
    }

    /// Notes that a request leaves for a service.
    pub(crate) fn leaves(&mut self, model: &Arc<str>, source: &Arc<str>) {
        self.note.source = source.clone();
        self.note.tries.push(Tried {
            model: model.clone(),
            source: source.clone(),
            class: None,
            status: None,
            request_id: None,
            began: Instant::now(),
            ms: 0,
            until: None,
        });
    }

    /// Notes what came of it.
    pub(crate) fn arrived(&mut self, status: Option<u16>, request_id: Option<&HeaderValue>) {
        if let Some(tried) = self.note.tries.last_mut() {
            // Copied: the value would keep the whole buffer it was read into.
            let id = request_id.and_then(|id| id.to_str().ok()).filter(|id| id.len() <= LONGEST_ID);
            (tried.status, tried.request_id) = (status, id.map(str::to_string));
        }
    }

    /// Notes the head of its reply.
    pub(crate) fn heard(&mut self, parts: &hyper::http::response::Parts) {
        self.arrived(Some(parts.status.as_u16()), parts.headers.get(&SERVICE_ID));
    }

    /// Notes where the request goes.
    pub(crate) fn goes(&mut self, route: &Route) {
        let note = &mut *self.note;
        (note.model, note.info) = (route.label.clone(), route.info.clone());
        note.requested.get_or_insert_with(|| route.requested.clone());
        note.considered.push(route.considered.clone());
    }

    /// Notes that it failed, and until when its credential rests.
    pub(crate) fn failed(&mut self, failure: &Failure, until: Option<Timestamp>) {
        let class = failure.kind.as_str();
        self.note.trouble = Some(class.into());
        self.note.code = Some(failure.code.clone());
        if let Some(tried) = self.note.tries.last_mut() {
            (tried.class, tried.until) = (Some(class), until);
            tried.ms = millis(tried.began);
        }
    }

    /// Notes that the last request was answered after all.
    pub(crate) fn succeeded(&mut self) {
        (self.note.trouble, self.note.code) = (None, None);
    }
}

impl Note {
    /// Returns what it cost in US dollars: as its author reckons, else by the list of prices.
    pub(crate) fn cost(&self) -> Option<f64> {
        let listed = || self.info.as_ref()?.cost(self.usage.as_ref()?);
        self.told_cost.or_else(listed)
    }

    /// Forgets everything but what was allocated for it, and what the next one writes over at once.
    fn empty(&mut self) {
        // Every field is named, so that nothing of one request can stay for another's record.
        let Self {
            id,
            at: _,
            method: _,
            path,
            token: _,
            agent: _,
            model: _,
            source: _,
            status,
            bytes,
            ms,
            usage,
            told_cost,
            info,
            trouble,
            code,
            done,
            recorded,
            requested,
            considered,
            tries,
            changed,
            warnings,
            cache,
            session,
        } = self;
        id.clear();
        path.clear();
        considered.clear();
        tries.clear();
        changed.clear();
        warnings.clear();
        (*status, *bytes, *ms, *done, *recorded) = (0, 0, 0.0, false, false);
        (*usage, *told_cost, *info, *trouble, *code) = (None, None, None, None, None);
        (*requested, *cache, *session) = (None, None, None);
    }
}

fn millis(began: Instant) -> u64 {
    whole_ms(began.elapsed())
}

fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.admitted = None;
        if let (Some((agent, conversation, profile)), Some(usage)) =
            (self.holds.take(), &self.note.usage)
        {
            agent.hold(conversation, &self.note.model, &profile, usage);
        }
        let Some(mut note) = self.note.0.take() else { return };
        let now = Instant::now();
        note.ms = now.duration_since(self.started).as_secs_f64() * 1e3;
        if let Some(tried) = note.tries.last_mut().filter(|tried| tried.class.is_none()) {
            tried.ms = whole_ms(now.duration_since(tried.began));
        }
        self.journal.leave(note);
    }
}

//! One line per request, written in the background, and the counters behind `/metrics`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use moltbot_core::{ModelInfo, Usage, redact};

use super::access::Admitted;

/// Lines kept while nobody writes them out; above it they are dropped and counted.
const MOST_BYTES: usize = 4 << 20;

/// Where lines go and counts are kept; shared by all workers.
#[derive(Default)]
pub(crate) struct Journal {
    lines: Mutex<String>,
    lost: AtomicU64,
    pub(crate) wanted: bool,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    requests: Mutex<BTreeMap<(String, u16), u64>>,
    usage: Mutex<BTreeMap<String, AgentUsage>>,
    attempts: AtomicU64,
    failovers: AtomicU64,
    disconnects: AtomicU64,
    pub(crate) open: AtomicU64,
}

#[derive(Clone, Copy, Default)]
struct AgentUsage {
    tokens: Usage,
    cost: f64,
    saved: f64,
}

impl Journal {
    pub(crate) fn new(wanted: bool) -> Self {
        Self { wanted, ..Self::default() }
    }

    pub(crate) fn opened(&self) {
        self.counts.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn closed(&self) {
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes something beside a request.
    pub(crate) fn say(&self, text: &str) {
        let mut lines = super::locked(&self.lines);
        lines.push_str(&redact(text));
        lines.push('\n');
    }

    /// Writes out what has come together.
    pub(crate) fn flush(&self, out: &mut dyn Write) {
        let lines = std::mem::take(&mut *super::locked(&self.lines));
        let lost = self.lost.swap(0, Ordering::Relaxed);
        // A log that cannot be written must not stop the gateway.
        if !lines.is_empty() {
            let _ = out.write_all(lines.as_bytes());
        }
        if lost > 0 {
            let _ = writeln!(out, "log lines dropped={lost}");
        }
        let _ = out.flush();
    }

    /// Writes the counters for Prometheus.
    pub(crate) fn metrics(&self) -> String {
        let mut out = String::new();
        let counts = &self.counts;
        let single = [
            ("moltbot_attempts_total", "counter", "Requests sent to services.", &counts.attempts),
            (
                "moltbot_failovers_total",
                "counter",
                "Requests tried again elsewhere.",
                &counts.failovers,
            ),
            (
                "moltbot_disconnects_total",
                "counter",
                "Clients that left early.",
                &counts.disconnects,
            ),
            ("moltbot_connections", "gauge", "Open connections of clients.", &counts.open),
        ];
        for (name, kind, help, value) in single {
            let value = value.load(Ordering::Relaxed);
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
        let name = "moltbot_requests_total";
        let _ = writeln!(out, "# HELP {name} Requests answered.\n# TYPE {name} counter");
        for ((agent, status), count) in super::locked(&counts.requests).iter() {
            let agent = label(agent);
            let _ = writeln!(out, "{name}{{agent=\"{agent}\",status=\"{status}\"}} {count}");
        }
        let usage = super::locked(&counts.usage).clone();
        let name = "moltbot_tokens_total";
        let _ = writeln!(out, "# HELP {name} Tokens by sort.\n# TYPE {name} counter");
        for (agent, used) in &usage {
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
        for (name, help) in [
            ("moltbot_cost_dollars_total", "Cost by list price."),
            ("moltbot_cache_saved_dollars_total", "What reading from the prompt cache saved."),
        ] {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
            for (agent, used) in &usage {
                let agent = label(agent);
                let value = if name.contains("saved") { used.saved } else { used.cost };
                let _ = writeln!(out, "{name}{{agent=\"{agent}\"}} {value:.6}");
            }
        }
        out
    }

    fn count(&self, ticket: &Ticket) {
        let key = (ticket.agent.to_string(), ticket.status);
        *super::locked(&self.counts.requests).entry(key).or_default() += 1;
        let attempts = u64::from(ticket.attempts);
        self.counts.attempts.fetch_add(attempts, Ordering::Relaxed);
        self.counts.failovers.fetch_add(attempts.saturating_sub(1), Ordering::Relaxed);
        if !ticket.done {
            self.counts.disconnects.fetch_add(1, Ordering::Relaxed);
        }
        let Some(usage) = &ticket.usage else { return };
        let mut all = super::locked(&self.counts.usage);
        let used = all.entry(ticket.agent.to_string()).or_default();
        used.tokens.add(usage);
        let Some(info) = &ticket.info else { return };
        used.cost += info.cost(usage).unwrap_or(0.0);
        let read = usage.cache_read.unwrap_or(0) as f64;
        used.saved += read * (info.price.input - info.price.cache_read).max(0.0) / 1e6;
    }
}

fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// What is known of one request; dropping it counts it and writes its line, however it ended.
pub(crate) struct Ticket {
    pub(crate) journal: Arc<Journal>,
    pub(crate) id: String,
    pub(crate) started: Instant,
    pub(crate) method: hyper::Method,
    pub(crate) path: String,
    pub(crate) token: Arc<str>,
    pub(crate) agent: Arc<str>,
    pub(crate) model: Arc<str>,
    pub(crate) source: Arc<str>,
    pub(crate) status: u16,
    pub(crate) attempts: u32,
    pub(crate) bytes: u64,
    pub(crate) usage: Option<Usage>,
    pub(crate) info: Option<Arc<ModelInfo>>,
    pub(crate) trouble: Option<String>,
    /// Whether the reply was passed on to its end; without it the client left.
    pub(crate) done: bool,
    /// The share of the token's limits, given back with the end of the request.
    pub(crate) admitted: Option<Admitted>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.admitted = None;
        self.journal.count(self);
        if !self.journal.wanted {
            return;
        }
        let mut lines = super::locked(&self.journal.lines);
        if lines.len() > MOST_BYTES {
            self.journal.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let ms = self.started.elapsed().as_secs_f64() * 1e3;
        let _ = write!(
            lines,
            "request id={} method={} path={} token={} agent={} model={} source={} status={} \
             attempts={} bytes={} ms={ms:.1}",
            self.id,
            self.method,
            Plain(&self.path),
            Plain(&self.token),
            Plain(&self.agent),
            Plain(&self.model),
            Plain(&self.source),
            self.status,
            self.attempts,
            self.bytes,
        );
        if let Some(usage) = &self.usage {
            let (input, output) = (usage.all_input(), usage.output.unwrap_or(0));
            let _ = write!(lines, " in={input} out={output}");
        }
        if !self.done {
            lines.push_str(" ended=client-left");
        } else if let Some(trouble) = &self.trouble {
            let _ = write!(lines, " ended={}", Plain(&redact(trouble)));
        }
        lines.push('\n');
    }
}

/// Writes a value so that it stays one word and cannot pretend to be another line.
struct Plain<'a>(&'a str);

impl std::fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("-");
        }
        let plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '=';
        if self.0.chars().all(plain) {
            return f.write_str(self.0);
        }
        write!(f, "{:?}", self.0.chars().take(200).collect::<String>())
    }
}

//! `cargo xtask bench gateway`: our gateway beside nginx and a bare hyper proxy, one worker each,
//! all over the same canned service in the same run.
//!
//! Rates are compared within a round, because a machine that is shared changes its mind between
//! rounds; each cell is the median of its rounds. Processor time per request is what hardly
//! depends on the neighbours.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ArgMatches;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::servers::{Server, TOKEN, bare, canned, free_port, gateway, has, ours, proxy};
use super::streams::{Paced, idle, leave, whole};
use super::wrk::{Load, run, script};
use super::{machine, middle};
use crate::workspace::{cargo, must, target_dir};

/// Sizes of request bodies: a short question, what Claude Code sends, a long conversation.
const SIZES: [(&str, usize); 3] = [("600 B", 600), ("76 KB", 76_000), ("400 KiB", 400 << 10)];

const CONNECTIONS: [usize; 4] = [1, 16, 64, 256];

/// Streams at once, and idle ones.
const STREAMS: usize = 1_000;
const IDLE: usize = 8_000;

const STARTS: usize = 10;

/// What the flags ask for.
struct Options {
    seconds: u32,
    rounds: usize,
    growth: u32,
    parts: Vec<String>,
    blocks: Vec<String>,
    sizes: usize,
}

impl Options {
    /// Tells whether a cell of the table is asked for.
    fn has(&self, size: usize, sse: bool, connections: usize) -> bool {
        let block = match (size, sse, connections) {
            (600, false, 1) => "latency",
            (600, false, _) => "json",
            (600, true, _) => "sse",
            _ => "bodies",
        };
        self.blocks.is_empty() || self.blocks.iter().any(|wanted| wanted == block)
    }
}

/// Runs what the flags ask for.
pub(crate) fn bench(args: &ArgMatches) -> Result<()> {
    let number = |name: &str| *args.get_one::<u32>(name).expect("has a default");
    let quick = args.get_flag("quick");
    let options = Options {
        seconds: number("seconds"),
        rounds: number("rounds") as usize,
        growth: number("growth"),
        parts: args.get_many::<String>("only").into_iter().flatten().cloned().collect(),
        blocks: args.get_many::<String>("block").into_iter().flatten().cloned().collect(),
        sizes: if quick { 1 } else { SIZES.len() },
    };
    println!("machine: {}", machine());
    let files = more_files()?;
    let binary = match args.get_one::<String>("binary") {
        Some(path) => PathBuf::from(path).canonicalize().with_context(|| path.clone())?,
        None => {
            must(cargo().args(["build", "--release", "--quiet", "--package", "moltbot"]))?;
            target_dir().join("release/moltbot")
        }
    };
    // A block is one of the table.
    let all = options.parts.is_empty() && options.blocks.is_empty();
    let wanted = |part: &str| {
        all || options.parts.iter().any(|p| p == part)
            || (part == "table" && !options.blocks.is_empty())
    };
    if wanted("table") {
        table(&options, &binary)?;
    }
    if wanted("streams") {
        streams(&binary, files)?;
    }
    if wanted("memory") {
        memory(&options, &binary)?;
    }
    Ok(())
}

/// Tells which programs are missing, if any are.
fn missing() -> Option<String> {
    let programs = [("nginx", "-v"), ("wrk", "--version")];
    let names: Vec<&str> =
        programs.iter().filter(|(name, probe)| !has(name, probe)).map(|(name, _)| *name).collect();
    (!names.is_empty()).then(|| names.join(" and "))
}

/// One way to the service.
struct Way<'a> {
    name: &'static str,
    server: Option<&'a Server>,
    json: SocketAddr,
    sse: SocketAddr,
}

/// What one way came to in one cell.
#[derive(Clone, Default)]
struct Cell {
    loads: Vec<Load>,
    /// Microseconds of the processor per request.
    cpu: Vec<f64>,
}

impl Cell {
    fn of(&self, pick: impl Fn(&Load) -> f64) -> f64 {
        middle(self.loads.iter().map(pick).collect())
    }

    fn cpu(&self) -> f64 {
        middle(self.cpu.clone())
    }
}

/// Prints the table of rates.
fn table(options: &Options, binary: &Path) -> Result<()> {
    if let Some(missing) = missing() {
        println!("SKIPPED: the table needs {missing} (apt-get install nginx wrk)");
        return Ok(());
    }
    // The control must be optimised, whatever this program was built as.
    let xtask = match cfg!(debug_assertions) {
        false => std::env::current_exe()?,
        true => {
            must(cargo().args(["build", "--release", "--quiet", "--package", "xtask"]))?;
            target_dir().join("release/xtask")
        }
    };
    let dir = tempfile::tempdir()?;
    let service = canned(dir.path(), REPLY, &events(60))?;
    let (nginx, unbuffered) = proxy(dir.path(), service.addr)?;
    let control = bare(&xtask, service.addr)?;
    let plain = ours(binary, &dir.path().join("plain"), service.addr, false)?;
    let ruled = ours(binary, &dir.path().join("ruled"), service.addr, true)?;
    let way = |name, server: &'_ Server| (name, server.addr, server.addr);
    let ways: Vec<Way<'_>> = [
        (way("direct", &service), None),
        (("nginx", nginx.addr, unbuffered), Some(&nginx)),
        (way("hyper", &control), Some(&control)),
        (way("ours", &plain), Some(&plain)),
        (way("ours+rule", &ruled), Some(&ruled)),
    ]
    .into_iter()
    .map(|((name, json, sse), server)| Way { name, server, json, sse })
    .collect();
    println!(
        "one worker each; {} rounds of {} s per cell, medians; CPU in us per request\n",
        options.rounds, options.seconds
    );
    println!(
        "| body | reply | conn. | way | req/s | of nginx | p50 ms | p99 ms | CPU | of nginx | bad |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut added = Vec::new();
    for (label, size) in SIZES.into_iter().take(options.sizes) {
        let script = script(dir.path(), size)?;
        for sse in [false, true] {
            for connections in CONNECTIONS {
                if !options.has(size, sse, connections) {
                    continue;
                }
                let mut cells = vec![Cell::default(); ways.len()];
                for _ in 0..options.rounds {
                    for (way, cell) in ways.iter().zip(&mut cells) {
                        let before = way.server.map_or(Ok(0.0), Server::cpu)?;
                        let addr = if sse { way.sse } else { way.json };
                        let load = run(addr, sse, &script, connections, options.seconds)?;
                        let used = way.server.map_or(Ok(0.0), Server::cpu)? - before;
                        cell.cpu.push(used / load.requests.max(1.0));
                        cell.loads.push(load);
                    }
                }
                let reply = if sse { "SSE" } else { "JSON" };
                print!("{}", rows(label, reply, connections, &ways, &cells));
                if connections == 1 {
                    added.push(format!("{label} {reply}: {}", added_p50(&ways, &cells)));
                }
                std::io::stdout().flush()?;
            }
        }
    }
    println!();
    for line in added {
        println!("added at 1 connection, {line}");
    }
    Ok(())
}

/// Says what each way adds to the median time of an answer, and its share of what nginx adds.
fn added_p50(ways: &[Way<'_>], cells: &[Cell]) -> String {
    let times: Vec<f64> = cells.iter().map(|cell| cell.of(|load| load.p50)).collect();
    let (direct, nginx) = (times[0], times[1] - times[0]);
    let one = |(way, time): (&Way<'_>, &f64)| {
        let added = time - direct;
        format!("{} {:.0} us ({:.2} of nginx's)", way.name, added * 1e3, added / nginx)
    };
    let ours: Vec<String> = ways.iter().zip(&times).skip(1).map(one).collect();
    format!("direct {:.0} us; {}", direct * 1e3, ours.join(", "))
}

fn rows(label: &str, reply: &str, connections: usize, ways: &[Way<'_>], cells: &[Cell]) -> String {
    let nginx = &cells[1];
    let mut out = String::new();
    for (way, cell) in ways.iter().zip(cells) {
        // Rates are compared round by round.
        let pairs = cell.loads.iter().zip(&nginx.loads);
        let share = middle(pairs.map(|(own, other)| own.rps / other.rps).collect());
        let (cpu, of) = match way.server {
            Some(_) => (format!("{:.1}", cell.cpu()), format!("{:.2}", cell.cpu() / nginx.cpu())),
            None => ("-".into(), "-".into()),
        };
        let bad: f64 = cell.loads.iter().map(|load| load.bad).sum();
        let _ = writeln!(
            out,
            "| {label} | {reply} | {connections} | {} | {:.0} | {share:.2} | {:.3} | {:.2} | \
             {cpu} | {of} | {bad} |",
            way.name,
            cell.of(|load| load.rps),
            cell.of(|load| load.p50),
            cell.of(|load| load.p99),
        );
    }
    out
}

/// Prints what many streams at once come to.
fn streams(binary: &Path, files: u64) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let service = Paced::start(false)?;
    let server = ours(binary, dir.path(), service.addr, false)?;
    let done = whole(&server, STREAMS)?;
    println!(
        "{STREAMS} streams of 200 events at once: {} equal by SHA-256, {} lost, {:.1} KiB of memory \
         each, {:.1} s",
        done.equal, done.lost, done.kib_per_stream, done.seconds
    );
    drop(server);
    let service = Paced::start(true)?;
    let server = ours(binary, dir.path(), service.addr, false)?;
    let mut left: Vec<f64> = Vec::new();
    for _ in 0..STARTS {
        left.push(leave(&server, &service)?);
    }
    println!("a client leaves; the service sees it after {:.2} ms (aim: under 250)", middle(left));
    // Two descriptors per stream in each of the programs.
    let count = IDLE.min(usize::try_from(files / 2).unwrap_or(IDLE).saturating_sub(200));
    let (count, memory) = idle(&server, &service, count)?;
    println!("{count} idle streams: {memory:.1} MiB (aim: under 320 for 8000)");
    Ok(())
}

/// Prints idle memory, the time of a start, and whether memory grows under load.
fn memory(options: &Options, binary: &Path) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let service = Paced::start(true)?;
    let server = ours(binary, dir.path(), service.addr, false)?;
    std::thread::sleep(Duration::from_secs(2));
    println!("idle memory: {:.1} MiB (aim: under 12)", server.memory("VmRSS")?);
    drop(server);
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        starts.push(start(binary, dir.path(), service.addr)?);
    }
    println!("start to first answered request: {:.1} ms (aim: under 30)", middle(starts));
    if options.growth == 0 {
        return Ok(());
    }
    if let Some(missing) = missing() {
        println!("SKIPPED: growth needs {missing} (apt-get install nginx wrk)");
        return Ok(());
    }
    let service = canned(dir.path(), REPLY, &events(60))?;
    let server = ours(binary, dir.path(), service.addr, false)?;
    let small = script(dir.path(), SIZES[0].1)?;
    let large = script(dir.path(), SIZES[1].1)?;
    let until = Instant::now() + Duration::from_secs(options.growth.into());
    let mut seen = Vec::new();
    while Instant::now() < until || seen.len() < 4 {
        run(server.addr, false, &small, 64, 1)?;
        run(server.addr, true, &large, 64, 1)?;
        seen.push(server.memory("VmRSS")?);
    }
    // The first look is warm already: buffers and tables have the size that the load needs. What is
    // in use at the moment of a look differs; what is never given back shows in the lowest.
    let quarter = seen.len() / 4;
    let of = |part: &[f64]| {
        let mean = part.iter().sum::<f64>() / part.len() as f64;
        let lowest = part.iter().copied().fold(f64::INFINITY, f64::min);
        format!("{lowest:.1} MiB at the lowest and {mean:.1} in the mean")
    };
    println!(
        "{} s of mixed load: in the second quarter {}, in the last {}; highest {:.1}",
        options.growth,
        of(&seen[quarter..quarter * 2]),
        of(&seen[seen.len() - quarter..]),
        seen.iter().copied().fold(0.0, f64::max)
    );
    Ok(())
}

/// Starts a gateway and asks it until it answers; returns milliseconds.
fn start(binary: &Path, home: &Path, to: SocketAddr) -> Result<f64> {
    let port = free_port()?;
    let mut command = gateway(binary, home, to, false, port)?;
    command.stdout(std::process::Stdio::null());
    let begun = Instant::now();
    let mut child = command.spawn()?;
    let answer = loop {
        if let Some(answer) = first_answer(port) {
            break Some(answer);
        }
        if begun.elapsed() > Duration::from_secs(20) {
            break None;
        }
        std::thread::sleep(Duration::from_micros(300));
    };
    let ms = begun.elapsed().as_secs_f64() * 1e3;
    child.kill()?;
    child.wait()?;
    let answer = answer.context("the gateway did not answer")?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "the gateway answered {answer}");
    Ok(ms)
}

fn first_answer(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let request = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nx-api-key: {TOKEN}\r\n\
         content-type: application/json\r\ncontent-length: 27\r\n\r\n{{\"model\":\"claude-opus-4-5\"}}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut some = [0; 64];
    let read = stream.read(&mut some).ok().filter(|read| *read > 0)?;
    Some(String::from_utf8_lossy(&some[..read]).into_owned())
}

/// Takes as many files as the system allows; children inherit them.
fn more_files() -> Result<u64> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(most)
}

const REPLY: &str = "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-opus-4-5\",\"content\":[{\"type\":\"text\",\"text\":\"Hello. How can I help you today with your work?\"}],\"stop_reason\":\"end_turn\",\"stop_sequence\":null,\"usage\":{\"input_tokens\":12,\"output_tokens\":14,\"cache_read_input_tokens\":0,\"cache_creation_input_tokens\":0}}";

/// Writes a stream as the service sends it.
fn events(count: usize) -> String {
    let mut out = String::from(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"content\":[],\"usage\":{\"input_tokens\":12,\"output_tokens\":1}}}\n\n\
         event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
    );
    for number in 4..count {
        let _ = write!(
            out,
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"word {number} and \"}}}}\n\n"
        );
    }
    out.push_str(
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":60}}\n\n\
         event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    );
    out
}

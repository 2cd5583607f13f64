//! The workers: each does one thing to one store, many times.

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use moltbot_config::Env;
use moltbot_core::{Credential, Registry, Secret, Timestamp};
use moltbot_gateway::{
    AgentPaths, Clock as _, Engine, EngineParts, Limits, Refreshed, Silent, SystemClock,
};
use moltbot_profiles::{FileStore, Profiles, StoreError};

use crate::hook::Hook;

/// Runs the worker that the arguments name; `None` if they name a command.
pub(crate) fn run(args: &[String], hook: &Arc<Hook>) -> Option<ExitCode> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["worker", "increments", store, count] => increments(&open(store, hook), number(count)),
        ["worker", "reader", store] => reader(&open(store, hook)),
        ["worker", "writer", store] => writer(&open(store, hook)),
        ["worker", "tasks", store, url, plugin, count, patience] => {
            let store = open(store, hook).lease_timeout(Duration::from_millis(number(patience)));
            tasks(store, url, Path::new(plugin), number(count))
        }
        ["worker", ..] => Err("unknown worker".into()),
        _ => return None,
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    })
}

type Done = Result<(), Box<dyn std::error::Error>>;

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}

fn open(path: &str, hook: &Arc<Hook>) -> FileStore {
    FileStore::new(path).hook(hook.clone()).timeout(Duration::from_secs(600))
}

fn now() -> Timestamp {
    SystemClock.now()
}

/// Adds one to a counter, so many times; a change that met an edit by hand is started anew.
fn increments(store: &FileStore, count: u64) -> Done {
    for _ in 0..count {
        loop {
            let add = |profiles: &mut Profiles| {
                let mut stats = profiles.stats("acme:count").cloned().unwrap_or_default();
                stats.whole.error_count += 1;
                profiles.set_stats("acme:count", stats);
            };
            match store.update_blocking(now(), add) {
                Err(StoreError::Changed { .. }) => {}
                done => break done?,
            }
        }
    }
    Ok(())
}

/// Reads until standard input ends; prints how often, and how often it failed.
fn reader(store: &FileStore) -> Done {
    let over = over();
    let (mut read, mut failed) = (0_u64, 0_u64);
    while !over.load(Ordering::Relaxed) {
        read += 1;
        // The first moments may be before the store.
        failed += u64::from(store.load_blocking().is_err());
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("{read} {failed}");
    Ok(())
}

/// Writes numbers until the end, and says which are acknowledged.
fn writer(store: &FileStore) -> Done {
    let mut out = std::io::stdout().lock();
    for count in 1.. {
        store.update_blocking(now(), |profiles| {
            let secret = Secret::new(format!("FAKE-{count}"));
            profiles.insert("acme:a", Credential::token("acme", secret, None));
        })?;
        writeln!(out, "{count}")?;
        out.flush()?;
    }
    Ok(())
}

/// Says when standard input ends.
fn over() -> Arc<AtomicBool> {
    let over = Arc::new(AtomicBool::new(false));
    let told = over.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().lock().read_line(&mut String::new());
        told.store(true, Ordering::Relaxed);
    });
    over
}

/// Waits for a line, then renews the same login from many tasks at once; prints how many were
/// told that it is good, and the last complaint.
fn tasks(store: FileStore, url: &str, plugin: &Path, count: u64) -> Done {
    let engine = Arc::new(engine(store, url, plugin)?);
    std::io::stdin().lock().read_line(&mut String::new())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (good, complaint) = runtime.block_on(async {
        let tasks: Vec<_> = (0..count)
            .map(|_| {
                let engine = engine.clone();
                tokio::spawn(async move { engine.refresh("acme:login", false).await })
            })
            .collect();
        let (mut good, mut complaint) = (0, String::new());
        for task in tasks {
            match task.await {
                Ok(Ok(
                    Refreshed::NotDue { expires }
                    | Refreshed::Adopted { expires }
                    | Refreshed::Renewed { expires },
                )) if expires.is_some_and(|at| at > now()) => good += 1,
                Ok(Ok(_)) => complaint = "an expired login was called good".into(),
                Ok(Err(error)) => complaint = error.message,
                Err(error) => complaint = error.to_string(),
            }
        }
        (good, complaint)
    });
    println!("{good} {complaint}");
    Ok(())
}

fn engine(
    store: FileStore,
    url: &str,
    plugin: &Path,
) -> Result<Engine, Box<dyn std::error::Error>> {
    use moltbot_abi::host;
    let dir = store.path().parent().ok_or("a store without a directory")?.to_path_buf();
    let file = host::read(plugin, None).map_err(|error| format!("{error:?}"))?;
    let (path, sha256) = (file.path.clone(), file.sha256.clone());
    let pin = host::Pin { path, sha256, kind: host::Kind::Library, allow_abort: false };
    let place = host::Place::new(dir.join("plugins"), &[]);
    let mut carried =
        host::open(&file, &pin, &place, false).map_err(|error| format!("{error:?}"))?;
    let plugins: Vec<_> = carried.iter_mut().map(|plugin| plugin.plugin()).collect();
    let registry = Registry::new(plugins, &[]).map_err(|error| error.to_string())?;
    let config = serde_json::json!({
        "auth": { "oauth": { "acme": { "tokenUrl": url, "clientId": "torture" } } },
    });
    Ok(Engine::new(EngineParts {
        registry: Box::leak(Box::new(registry)),
        config: Arc::new(serde_json::from_value(config)?),
        env: Env::new(Vec::<(String, String)>::new()),
        home: Some(dir.clone()),
        agent: AgentPaths {
            id: "main".into(),
            store: store.path().to_path_buf(),
            sessions: dir.join("sessions"),
            dir,
        },
        store: Arc::new(store),
        front: Arc::new(Silent),
        clock: Arc::new(SystemClock),
        lab_base_url: None,
        limits: Limits::default(),
    }))
}

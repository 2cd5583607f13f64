//! `moltbot models status --probe`: does each credential work? (spec L-33, L-37, L-38)

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::task::Poll;

use clap::{Arg, ArgAction, ArgMatches};
use moltbot_gateway::{Engine, ProbeOptions, ProbeResult, ProbeTarget};
use serde::Serialize;

use crate::commands::unknown_profile;
use crate::out::clean;
use crate::{Context, Failure};

/// The flags of a probe.
pub(super) fn args() -> Vec<Arg> {
    let text = |id: &'static str, name: &'static str, help: &'static str| {
        Arg::new(id).long(id).value_name(name).help(help).allow_hyphen_values(true)
    };
    vec![
        Arg::new("probe")
            .long("probe")
            .help("Send one tiny request with every credential")
            .action(ArgAction::SetTrue),
        text("probe-provider", "ID", "Probe only this provider"),
        text("probe-profile", "PROFILE", "Probe only these profiles (repeat, or use commas)")
            .action(ArgAction::Append)
            .value_delimiter(','),
        text("probe-timeout", "MS", "Give up after so many milliseconds [default: 8000]"),
        text("probe-concurrency", "N", "Probe so many at once [default: 2]"),
        text("probe-max-tokens", "N", "Ask for so many tokens [default: 8]"),
    ]
}

/// What the flags say, in the shape of the JSON output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Plan {
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    profile_ids: Vec<String>,
    timeout_ms: u64,
    concurrency: usize,
    max_tokens: u64,
}

impl Plan {
    /// Everything, with the usual figures.
    pub(super) fn usual(timeout_ms: u64) -> Self {
        Self { provider: None, profile_ids: Vec::new(), timeout_ms, concurrency: 2, max_tokens: 8 }
    }

    /// Reads and checks the flags; they are checked even without `--probe`.
    pub(super) fn parse(args: &ArgMatches) -> Result<Self, Failure> {
        let text = |name: &str| args.get_one::<String>(name).map(|text| text.trim());
        let number = |name: &str, default: u64, error: &str| match text(name) {
            None => Ok(default),
            Some(raw) => raw
                .parse::<f64>()
                .ok()
                .filter(|number| number.is_finite() && *number > 0.0)
                .map(|number| (number as u64).max(1))
                .ok_or_else(|| Failure::input(error)),
        };
        let timeout = "--probe-timeout must be a positive number (ms).";
        let ids = args.get_many::<String>("probe-profile").unwrap_or_default();
        Ok(Self {
            provider: text("probe-provider").filter(|id| !id.is_empty()).map(String::from),
            profile_ids: ids.map(|id| id.trim().to_string()).filter(|id| !id.is_empty()).collect(),
            timeout_ms: number("probe-timeout", 8000, timeout)?,
            concurrency: number("probe-concurrency", 2, "--probe-concurrency must be > 0.")?
                .try_into()
                .unwrap_or(usize::MAX),
            max_tokens: number("probe-max-tokens", 8, "--probe-max-tokens must be > 0.")?,
        })
    }
}

/// What came out, in the shape of the JSON output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Probes {
    started_at: i64,
    finished_at: i64,
    duration_ms: i64,
    total_targets: usize,
    options: Plan,
    pub(super) results: Vec<ProbeResult>,
}

/// Sends the probes, several at once, and returns their results in the order of the targets.
pub(super) fn run(cx: &mut Context, engine: &Engine, plan: Plan) -> Result<Probes, Failure> {
    check(cx, engine, &plan)?;
    let started = cx.now();
    let targets =
        cx.block_on(engine.probe_targets(plan.provider.as_deref(), &plan.profile_ids))??;
    let options = ProbeOptions { timeout_ms: plan.timeout_ms, max_tokens: plan.max_tokens };
    let probes = all(engine, &targets, &options, plan.concurrency);
    let results = cx.block_on_cancel(probes)?;
    let finished = cx.now();
    Ok(Probes {
        started_at: started.millis(),
        finished_at: finished.millis(),
        duration_ms: finished.since(started),
        total_targets: targets.len(),
        options: plan,
        results,
    })
}

/// Refuses a provider and profiles that do not exist.
fn check(cx: &mut Context, engine: &Engine, plan: &Plan) -> Result<(), Failure> {
    if let Some(id) = &plan.provider {
        known_provider(engine, id)?;
    }
    if plan.profile_ids.is_empty() {
        return Ok(());
    }
    let agent = engine.agent();
    let profiles = cx.store(agent).load_blocking()?.profiles;
    match plan.profile_ids.iter().find(|id| !profiles.contains(id)) {
        None => Ok(()),
        Some(id) => Err(unknown_profile(agent, &profiles, id)),
    }
}

/// Refuses a provider that neither this build nor the config knows.
pub(super) fn known_provider(engine: &Engine, id: &str) -> Result<(), Failure> {
    if engine.provider(id).is_some() {
        return Ok(());
    }
    let known: Vec<&str> = engine.providers().iter().map(|setup| setup.id.as_str()).collect();
    Err(Failure::input(format!("Unknown provider \"{}\"", clean(id)))
        .hint(format!("this build and the config know: {}", known.join(", "))))
}

/// Sends probes, several at once; the results come in the order of the targets.
pub(super) async fn all(
    engine: &Engine,
    targets: &[ProbeTarget],
    options: &ProbeOptions,
    at_once: usize,
) -> Vec<ProbeResult> {
    let next = Cell::new(0);
    let results: RefCell<Vec<Option<ProbeResult>>> =
        RefCell::new(targets.iter().map(|_| None).collect());
    let worker = async || {
        loop {
            let at = next.replace(next.get() + 1);
            let Some(target) = targets.get(at) else { break };
            let result = engine.probe(target, options).await;
            results.borrow_mut()[at] = Some(result);
        }
    };
    together((0..at_once.min(targets.len())).map(|_| worker())).await;
    results.into_inner().into_iter().flatten().collect()
}

/// Runs futures side by side on this task until all have ended.
async fn together<F: Future<Output = ()>>(futures: impl Iterator<Item = F>) {
    let mut futures: Vec<_> = futures.map(|future| Some(Box::pin(future))).collect();
    let all = std::future::poll_fn(move |context| {
        for slot in &mut futures {
            if slot.as_mut().is_some_and(|future| future.as_mut().poll(context).is_ready()) {
                *slot = None;
            }
        }
        if futures.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    });
    pin!(all).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Command;

    fn plan(line: &str) -> Result<Plan, String> {
        let command = Command::new("x").args(args());
        let words = std::iter::once("x").chain(line.split_whitespace());
        Plan::parse(&command.try_get_matches_from(words).unwrap()).map_err(|f| f.message)
    }

    #[test]
    fn flags_and_their_complaints() {
        let default = plan("").unwrap();
        assert_eq!((default.timeout_ms, default.concurrency, default.max_tokens), (8000, 2, 8));
        let some = plan("--probe-profile a,b --probe-profile c --probe-timeout 5").unwrap();
        assert_eq!((some.profile_ids.join(" "), some.timeout_ms), ("a b c".to_string(), 5));
        for raw in ["0", "-1", "x", "NaN", "inf"] {
            let timeout = plan(&format!("--probe-timeout {raw}")).unwrap_err();
            assert_eq!(timeout, "--probe-timeout must be a positive number (ms).");
            let concurrency = plan(&format!("--probe-concurrency {raw}")).unwrap_err();
            assert_eq!(concurrency, "--probe-concurrency must be > 0.");
            let tokens = plan(&format!("--probe-max-tokens {raw}")).unwrap_err();
            assert_eq!(tokens, "--probe-max-tokens must be > 0.");
        }
    }

    #[test]
    fn futures_run_side_by_side() {
        let order = RefCell::new(Vec::new());
        let one = |name: u8| {
            let order = &order;
            async move {
                order.borrow_mut().push(name);
                tokio::task::yield_now().await;
                order.borrow_mut().push(name);
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(together([one(1), one(2)].into_iter()));
        assert_eq!(*order.borrow(), [1, 2, 1, 2]);
    }
}

//! The subject of `cargo xtask torture` where it must be careless, frozen or short of disk from
//! the inside: the command line of the stock binary, and workers for what no command does.
//!
//! Only a test is made of this. The stock binary has no such switches: it never sets
//! [`World::store_hook`], and its clock is the machine's.

mod hook;
mod workers;

use std::process::ExitCode;
use std::sync::Arc;

use moltbot_cli::World;
use moltbot_core::{Plugin, Registry, Timestamp, async_trait};
use moltbot_gateway::{Clock, SystemClock};

/// The plugins of the stock binary, but for the one that starts the vendor's program.
const PLUGINS: &[&Plugin] = &[
    &moltbot_plugin_anthropic::PLUGIN,
    &moltbot_plugin_api_key::PLUGIN,
    &moltbot_plugin_claude_cli_oauth::PLUGIN,
    &moltbot_plugin_setup_token::PLUGIN,
];

fn main() -> ExitCode {
    let hook = Arc::new(hook::from_env());
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(code) = workers::run(&args, &hook) {
        hook.after();
        return code;
    }
    let mut world = World::process();
    world.store_hook = Some(hook.clone());
    if let Some(clock) = Shifted::from_env() {
        world.clock = Arc::new(clock);
    }
    let registry = Registry::linked(PLUGINS, &[]).expect("the stock plugins go together");
    let code = moltbot_cli::run_in(world, Box::leak(Box::new(registry)));
    hook.after();
    ExitCode::from(code)
}

/// A clock that is wrong by so many milliseconds.
struct Shifted(i64);

impl Shifted {
    fn from_env() -> Option<Self> {
        std::env::var("TORTURE_CLOCK").ok()?.parse().ok().map(Self)
    }
}

#[async_trait]
impl Clock for Shifted {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus(self.0)
    }

    async fn sleep(&self, ms: u64) {
        SystemClock.sleep(ms).await;
    }
}

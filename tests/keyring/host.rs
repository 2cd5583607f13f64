//! A binary with the plugin `keyring` and what is behind it, as `cargo xtask dist` would make one;
//! the stock binary has neither.

use std::process::ExitCode;

fn main() -> ExitCode {
    moltbot_cli::run(&[
        &moltbot_plugin_anthropic::PLUGIN,
        &moltbot_plugin_api_key::PLUGIN,
        &moltbot_plugin_keyring::PLUGIN,
    ])
}

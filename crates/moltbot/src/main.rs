// Written by `cargo xtask sync`; do not edit.
//! The stock binary: the command line with the plugins of this workspace.

fn main() -> std::process::ExitCode {
    moltbot_cli::run(&[
        &moltbot_plugin_anthropic::PLUGIN,
        &moltbot_plugin_api_key::PLUGIN,
        &moltbot_plugin_claude_cli::PLUGIN,
        &moltbot_plugin_claude_cli_oauth::PLUGIN,
        &moltbot_plugin_command::PLUGIN,
        &moltbot_plugin_sdk_profile::PLUGIN,
        &moltbot_plugin_setup_token::PLUGIN,
        &moltbot_plugin_workload_identity::PLUGIN,
    ])
}

//! Starts a lab on its own: `cargo run -p moltbot-lab --example serve -- [PORT] [PLAN]`.

use std::path::PathBuf;

use moltbot_lab::{RunOptions, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().map_or(Ok(0), |port| port.parse())?;
    let plan = arguments.next().map(PathBuf::from);
    let stop = async {
        // Without a signal handler the process simply ends on Ctrl-C.
        let _ = tokio::signal::ctrl_c().await;
    };
    run(RunOptions { port, plan }, |addr| println!("http://{addr}"), stop).await?;
    Ok(())
}

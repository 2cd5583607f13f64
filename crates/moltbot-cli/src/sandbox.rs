//! `--lab`: a throwaway home, a made-up key and a lab server, so that nothing of the user's is read
//! or sent.

use moltbot_lab::{Lab, LabOptions};

use crate::{Context, Failure};

/// A lab and the directory that stands for the home; both are gone when it is dropped.
pub(crate) struct Sandbox {
    lab: Lab,
    _home: tempfile::TempDir,
}

impl Sandbox {
    /// Starts a lab and moves the context into an empty home that knows one key for each provider.
    pub(crate) fn enter(cx: &mut Context) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::new(format!("The lab cannot start: {error}"));
        let home = tempfile::Builder::new().prefix("moltbot-lab-").tempdir().map_err(failed)?;
        let lab = Lab::start_on_thread(LabOptions::default()).map_err(failed)?;
        let keys = cx.registry.providers().iter().filter_map(|entry| {
            let spec = entry.info.api_key.as_ref()?;
            let key = format!("{}03-lab-{}", spec.prefix, "0".repeat(40));
            Some((spec.env.to_string(), key))
        });
        let env = keys.collect();
        cx.move_to(home.path().to_path_buf(), env);
        cx.out.note("lab: no request leaves this machine");
        Ok(Self { lab, _home: home })
    }

    /// Returns where the lab listens.
    pub(crate) fn url(&self) -> String {
        self.lab.url()
    }
}

//! Renewal before it is due, where nobody waits for it.

use moltbot_core::CredentialState;

use super::{How, Refreshed, renew};
use crate::engine::Engine;
use crate::error::ChatError;

impl Engine {
    /// Renews the logins that end soon: some minutes before, spread by profile and process. For a
    /// background task of a long-lived process, every half minute or so; a failure is returned,
    /// rests for a minute, and harms nobody, as the login still works.
    pub async fn renew_early(&self) -> Vec<(String, Result<Refreshed, ChatError>)> {
        let seed = u64::from(std::process::id());
        let Ok(views) = self.resolve_profiles(None).await else { return Vec::new() };
        let mut done = Vec::new();
        for view in views.iter().filter(|view| view.state.refreshable) {
            if view.state.state != CredentialState::Ready || view.state.expires.is_none() {
                continue;
            }
            match renew(self, &view.id, None, How::Early { seed }).await {
                Ok((_, Refreshed::NotDue { .. })) => {}
                Ok((_, refreshed)) => done.push((view.id.clone(), Ok(refreshed))),
                Err(error) => {
                    let cause = format!("{} was not renewed early: {}", view.id, error.cause());
                    done.push((view.id.clone(), Err(ChatError::new(error.code(), cause))));
                }
            }
        }
        done
    }
}

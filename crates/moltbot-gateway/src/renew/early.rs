//! Renewal before it is due, where nobody waits for it.

use moltbot_core::{CredentialState, Generation};

use super::{How, Refreshed, renew};
use crate::engine::Engine;
use crate::error::ChatError;
use crate::select::ProfileView;

impl Engine {
    /// Renews the logins that end soon: some minutes before, spread by profile and process. For a
    /// background task of a long-lived process, every half minute or so; a failure is returned,
    /// rests for a minute, and harms nobody, as the login still works. What belongs to another
    /// program is left to that one.
    pub async fn renew_early(&self) -> Vec<(String, Result<Refreshed, ChatError>)> {
        let seed = u64::from(std::process::id());
        let Ok(views) = self.resolve_profiles(None).await else { return Vec::new() };
        let mut done = Vec::new();
        let mine = |view: &&ProfileView| view.state.refreshable && !view.stored.is_link();
        for view in views.iter().filter(mine) {
            if view.state.state != CredentialState::Ready || view.state.expires.is_none() {
                continue;
            }
            let (generation, now) = (Generation::of(&view.stored), self.now());
            let flights = self.flights();
            if flights.resting(&view.id, &generation, now).is_some()
                || flights.early_lately(&view.id, now)
            {
                continue;
            }
            match renew(self, &view.id, None, How::Early { seed }).await {
                Ok((_, Refreshed::NotDue { .. })) => {}
                Ok((_, refreshed)) => {
                    flights.set_early(&view.id, now);
                    done.push((view.id.clone(), Ok(refreshed)));
                }
                Err(error) => {
                    let cause = format!("{} was not renewed early: {}", view.id, error.cause());
                    done.push((view.id.clone(), Err(ChatError::new(error.code(), cause))));
                }
            }
        }
        done
    }
}

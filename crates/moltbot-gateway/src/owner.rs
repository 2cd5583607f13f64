//! Logins that a program of the user's own keeps: nothing of them is stored here, so the program is
//! asked what they are worth (decision 16).

use moltbot_core::{CredentialKind, Offer, Resolved};

use crate::engine::Engine;
use crate::host::EffectHost;
use crate::select::{ProfileView, owners_login};

impl Engine {
    /// Asks the programs that answer for models of the config about their logins, with `unused`
    /// also those that are installed and could. Each answer is a virtual profile; it takes as long
    /// as the program takes to start. Nothing is changed.
    pub async fn owners_logins(&self, unused: bool) -> Vec<ProfileView> {
        let methods = self.methods();
        let mut views = Vec::new();
        for setup in self.providers() {
            let Some(mut view) = owners_login(&methods, setup, self.now()) else { continue };
            let could = || view.offer.is_some_and(|entry| self.is_offered(entry.offer));
            let wanted = self.is_used(&setup.id) || (unused && could());
            if !wanted {
                continue;
            }
            if let Some(entry) = view.offer {
                let call = methods.call(&entry, None);
                let host = methods.host_for(&entry.offer.needs);
                let cx = moltbot_core::Cx::new(&host, &call);
                view.resolved = entry.method.resolve(&cx, &view.stored).await;
                let judged = view
                    .resolved
                    .clone()
                    .unwrap_or_else(|_| Resolved::judged(view.stored.clone(), self.now()));
                view.state = methods.state(&view.id, Some(&entry), &judged, self.now());
            }
            views.push(view);
        }
        views
    }

    /// Ends the programs that wait for a next turn, each by itself, so that it keeps what it wants
    /// to keep of its conversation. Dropping the engine instead kills them.
    pub async fn end_programs(&self) {
        self.children.end().await;
    }

    /// Tells whether a model that the config mentions is answered by a provider, under its own
    /// name or as the `runtime` of another's.
    pub fn is_used(&self, provider: &str) -> bool {
        let models = self.models();
        models.listed().iter().any(|listed| {
            models.runtime(&listed.model).unwrap_or(&listed.model.provider) == provider
        })
    }

    /// Tells whether an offer makes sense on this machine: a login that a program keeps needs the
    /// program.
    pub fn is_offered(&self, offer: &Offer) -> bool {
        let host = EffectHost::new(&self.host, &offer.needs);
        offer.kind != CredentialKind::None
            || offer.needs.programs.iter().all(|name| host.find_program(name).is_ok())
    }
}

//! Turns a stored copy of a login that another program owns into a link to it (decision 5).
//!
//! Older versions copied such logins. Whether the owner's own login is at least as new is for the
//! auth method to say: it then resolves the copy to what the owner has. Otherwise the copy stays.

use moltbot_core::Credential;
use moltbot_profiles::{Cause, StoreError};

use crate::engine::Engine;
use crate::error::ChatError;
use crate::select::ProfileView;

/// Returns the link that should stand in the place of a copy.
pub(crate) fn link_for(view: &ProfileView) -> Option<Credential> {
    let entry = view.offer.filter(|entry| entry.offer.caps.external)?;
    let resolved = view.resolved.as_ref().ok()?;
    let source = resolved.credential.source.clone()?;
    if view.stored.source.is_some() {
        return None;
    }
    let kind = resolved.credential.kind.clone();
    let mut link = Credential::link(kind, view.stored.provider.as_str(), source);
    link.email.clone_from(&view.stored.email);
    link.method = Some(entry.method.id().to_string());
    Some(link)
}

impl Engine {
    /// Lists the copies whose owner has a login at least as new.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn copies(&self) -> Result<Vec<String>, ChatError> {
        Ok(self.links().await?.into_iter().map(|(view, _)| view.id).collect())
    }

    async fn links(&self) -> Result<Vec<(ProfileView, Credential)>, ChatError> {
        let views = self.resolve_profiles(None).await?;
        let with_link = |view: ProfileView| link_for(&view).map(|link| (view, link));
        Ok(views.into_iter().filter_map(with_link).collect())
    }

    /// Puts links in the place of copies that their owners' logins supersede, and returns their
    /// ids. The copies are not kept for an undo: their secrets are the owner's.
    ///
    /// # Errors
    /// A store that cannot be read or written; nothing was changed then.
    pub async fn relink(&self) -> Result<Vec<String>, ChatError> {
        let links = self.links().await?;
        if links.is_empty() {
            return Ok(Vec::new());
        }
        let mut locked = self.store.lock(self.now()).await?;
        let mut done = Vec::new();
        for (view, link) in links {
            // Somebody may have logged in anew since it was read.
            if locked.profiles.get(&view.id) == Some(&view.stored) {
                locked.profiles.insert(view.id.clone(), link);
                done.push(view.id);
            }
        }
        match locked.commit_for(Cause { purge: true, ..Cause::default() }).await {
            // Edited by hand at this moment: the next write does it.
            Err(StoreError::Changed { .. }) => Ok(Vec::new()),
            written => Ok(written.map(|_| done)?),
        }
    }
}

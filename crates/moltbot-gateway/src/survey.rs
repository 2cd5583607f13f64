//! What an agent's store is worth now, provider by provider, by the resolver that chats use: for
//! `models status`, which reads the store once.

use std::collections::{BTreeMap, HashSet};

use moltbot_core::Credential;
use moltbot_profiles::{
    Choice, ChoiceInput, Pin, Profiles, ResolvedState, normalize_provider, order,
};

use crate::engine::Engine;
use crate::select::ProfileView;

/// Every stored profile as it is now, and the choice among them.
#[derive(Clone, Default)]
pub struct Survey {
    /// The profiles, by id.
    pub views: Vec<ProfileView>,
    /// The choice that a chat would make now, by provider; only of providers with profiles.
    pub choices: BTreeMap<String, Choice>,
}

impl Survey {
    /// Finds a profile.
    pub fn view(&self, id: &str) -> Option<&ProfileView> {
        let at = self.views.binary_search_by(|view| view.id.as_str().cmp(id)).ok()?;
        self.views.get(at)
    }
}

impl Engine {
    /// Makes the choices that chats would make now among `profiles`, which were read already.
    /// Logins that others own are looked at; nothing is sent, nothing is changed.
    pub async fn survey(&self, profiles: &Profiles) -> Survey {
        let mut survey = Survey::default();
        for setup in self.providers() {
            if profiles.of_provider(&setup.id).next().is_none() {
                continue;
            }
            let model = self.usual_model(setup).unwrap_or_default();
            let selection = self.select(setup, &model, profiles.clone(), Pin::None).await;
            let own = |view: &ProfileView| {
                normalize_provider(&view.stored.provider) == setup.id && profiles.contains(&view.id)
            };
            survey.views.extend(selection.views.into_values().filter(own));
            survey.choices.insert(setup.id.clone(), selection.choice);
        }
        self.add_strangers(profiles, &mut survey).await;
        survey.views.sort_by(|a, b| a.id.cmp(&b.id));
        survey
    }

    /// Adds the profiles of providers that this build cannot serve.
    async fn add_strangers(&self, profiles: &Profiles, survey: &mut Survey) {
        let now = self.now();
        let methods = self.methods();
        let judge = |_: &str, stored: &Credential| ResolvedState::stored(stored, false, now);
        let seen: HashSet<String> = survey.views.iter().map(|view| view.id.clone()).collect();
        for (id, stored) in profiles.iter().filter(|(id, _)| !seen.contains(*id)) {
            let provider = normalize_provider(&stored.provider);
            survey.views.push(ProfileView::read(&methods, id, stored).await);
            survey.choices.entry(provider).or_insert_with_key(|provider| {
                order(&ChoiceInput::new(profiles, self.rules(), provider, &judge, now))
            });
        }
    }
}

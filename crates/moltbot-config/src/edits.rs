//! The changes that commands make, each in one call: profiles, models, aliases, fallbacks.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::edit::Editor;
use crate::issue::{ConfigError, Issue, IssueCode};
use crate::keypath::KeyPath;
use crate::schema::AuthMode;

/// Which of the two model choices is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelSlot {
    /// `agents.defaults.model`.
    Main,
    /// `agents.defaults.imageModel`.
    Image,
}

/// What adding an alias did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AliasAdded {
    /// The alias stands.
    Added,
    /// It did before.
    Unchanged,
    /// The alias stands, and with it the first entry of `agents.defaults.models`: from now on only
    /// the models there may be chosen.
    AddedAndLimited,
}

/// One profile as a command records it.
#[derive(Clone, Debug)]
pub struct ProfileRecord<'a> {
    /// Its id.
    pub id: &'a str,
    /// The provider it signs in to.
    pub provider: &'a str,
    /// The kind of credential.
    pub mode: AuthMode,
    /// The account, for display.
    pub email: Option<&'a str>,
}

impl Editor<'_> {
    /// Records a profile; if its provider has an order, the id moves to its front (spec L-16). An
    /// order is never created.
    ///
    /// # Errors
    ///
    /// As [`Editor::set`].
    pub fn record_profile(&mut self, profile: &ProfileRecord<'_>) -> Result<(), ConfigError> {
        let path = KeyPath::keys(["auth", "profiles", profile.id]);
        let mut fields = vec![("provider", profile.provider), ("mode", profile.mode.as_str())];
        fields.extend(profile.email.map(|email| ("email", email)));
        if self.get(&path).is_some() {
            // Field by field, so that comments beside them stay.
            for (key, value) in fields {
                self.set(&path.key(key), &Value::from(value))?;
            }
        } else {
            let entry: Map<String, Value> =
                fields.into_iter().map(|(key, value)| (key.to_string(), value.into())).collect();
            self.set(&path, &Value::Object(entry))?;
        }
        let order = KeyPath::keys(["auth", "order", profile.provider]);
        if let Some(Value::Array(ids)) = self.get(&order) {
            match ids.iter().position(|id| id == profile.id) {
                None => self.prepend(&order, &Value::from(profile.id))?,
                // Each place keeps its comments; only the ids change places.
                Some(old) => {
                    for at in (1..=old).rev() {
                        self.set(&order.index(at), &ids[at - 1])?;
                    }
                    self.set(&order.index(0), &Value::from(profile.id))?;
                }
            }
        }
        Ok(())
    }

    /// Removes a profile and its place in every order; returns whether it was there.
    ///
    /// # Errors
    ///
    /// As [`Editor::unset`].
    pub fn forget_profile(&mut self, id: &str) -> Result<bool, ConfigError> {
        let orders = KeyPath::keys(["auth", "order"]);
        if let Some(Value::Object(all)) = self.get(&orders) {
            for (provider, ids) in all {
                let Value::Array(ids) = ids else { continue };
                let path = orders.key(provider);
                let places: Vec<usize> = (0..ids.len()).rev().filter(|at| ids[*at] == id).collect();
                if !ids.is_empty() && places.len() == ids.len() {
                    // An empty order means "none", which nobody asked for.
                    self.unset(&path)?;
                } else {
                    for at in places {
                        self.unset(&path.index(at))?;
                    }
                }
            }
        }
        self.unset(&KeyPath::keys(["auth", "profiles", id]))
    }

    /// Sets the model; fallbacks stay (spec L-25). If `agents.defaults.models` limits the choice,
    /// the model is added there; where there is no limit, none is made.
    ///
    /// # Errors
    ///
    /// As [`Editor::set`].
    pub fn set_model(&mut self, slot: ModelSlot, model: &str) -> Result<(), ConfigError> {
        let path = slot.path();
        match self.get(&path) {
            Some(Value::String(_)) => self.set(&path, &Value::from(model))?,
            _ => self.set(&path.key("primary"), &Value::from(model))?,
        }
        self.allow_model(model)
    }

    /// Adds a model to `agents.defaults.models` if there are any.
    ///
    /// # Errors
    ///
    /// As [`Editor::set`].
    pub fn allow_model(&mut self, model: &str) -> Result<(), ConfigError> {
        let models = models_path();
        let limited = matches!(self.get(&models), Some(Value::Object(map)) if !map.is_empty());
        if limited && self.get(&models.key(model)).is_none() {
            self.set(&models.key(model), &json!({}))?;
        }
        Ok(())
    }

    /// Returns the aliases with their models.
    pub fn aliases(&self) -> BTreeMap<String, String> {
        let Some(Value::Object(models)) = self.get(&models_path()) else { return BTreeMap::new() };
        models
            .iter()
            .filter_map(|(model, settings)| {
                let alias = settings.get("alias")?.as_str()?.trim();
                (!alias.is_empty()).then(|| (alias.to_string(), model.clone()))
            })
            .collect()
    }

    /// Gives a model a short name of letters, digits and `_ . : -` (spec L-26).
    ///
    /// # Errors
    ///
    /// Code `config-edit` if the name has other characters or belongs to another model; otherwise
    /// as [`Editor::set`].
    pub fn add_alias(&mut self, alias: &str, model: &str) -> Result<AliasAdded, ConfigError> {
        let fine = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
        if alias.is_empty() || !alias.chars().all(fine) {
            return Err(
                self.complain("an alias consists of letters, digits, `_`, `.`, `:` and `-`")
            );
        }
        let same = |known: &str| known.eq_ignore_ascii_case(alias);
        if let Some((known, owner)) = self.aliases().into_iter().find(|(known, _)| same(known)) {
            if owner != model {
                return Err(self.complain(&format!("Alias {known} already points to {owner}.")));
            }
            if known == alias {
                return Ok(AliasAdded::Unchanged);
            }
        }
        let limited =
            matches!(self.get(&models_path()), Some(Value::Object(map)) if !map.is_empty());
        self.set(&models_path().key(model).key("alias"), &Value::from(alias))?;
        Ok(if limited { AliasAdded::Added } else { AliasAdded::AddedAndLimited })
    }

    /// Removes an alias; returns the model it stood for, `None` if there was none.
    ///
    /// # Errors
    ///
    /// As [`Editor::unset`].
    pub fn remove_alias(&mut self, alias: &str) -> Result<Option<String>, ConfigError> {
        let same = |known: &str| known.eq_ignore_ascii_case(alias);
        let Some((_, model)) = self.aliases().into_iter().find(|(known, _)| same(known)) else {
            return Ok(None);
        };
        // The entry stays, even if it is empty now: it also says that the model may be chosen.
        self.unset(&models_path().key(&model).key("alias"))?;
        Ok(Some(model))
    }

    /// Returns the models to fall back on, in order.
    pub fn fallbacks(&self, slot: ModelSlot) -> Vec<String> {
        match self.get(&slot.path().key("fallbacks")) {
            Some(Value::Array(models)) => {
                models.iter().filter_map(Value::as_str).map(String::from).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Adds a model to fall back on, after the others; returns whether it was new (spec L-27).
    ///
    /// # Errors
    ///
    /// As [`Editor::set`].
    pub fn add_fallback(&mut self, slot: ModelSlot, model: &str) -> Result<bool, ConfigError> {
        let mut all = self.fallbacks(slot);
        if all.iter().any(|known| known == model) {
            return Ok(false);
        }
        all.push(model.to_string());
        self.write_fallbacks(slot, all)?;
        self.allow_model(model)?;
        Ok(true)
    }

    /// Removes a model to fall back on; returns whether it was there.
    ///
    /// # Errors
    ///
    /// As [`Editor::set`].
    pub fn remove_fallback(&mut self, slot: ModelSlot, model: &str) -> Result<bool, ConfigError> {
        let all = self.fallbacks(slot);
        let left: Vec<String> = all.iter().filter(|known| *known != model).cloned().collect();
        if left.len() == all.len() {
            return Ok(false);
        }
        self.write_fallbacks(slot, left)?;
        Ok(true)
    }

    /// Removes all models to fall back on.
    ///
    /// # Errors
    ///
    /// As [`Editor::set`].
    pub fn clear_fallbacks(&mut self, slot: ModelSlot) -> Result<(), ConfigError> {
        if self.fallbacks(slot).is_empty() {
            Ok(())
        } else {
            self.write_fallbacks(slot, Vec::new())
        }
    }

    fn write_fallbacks(&mut self, slot: ModelSlot, all: Vec<String>) -> Result<(), ConfigError> {
        let path = slot.path();
        // The short form has no room for fallbacks.
        if let Some(Value::String(primary)) = self.get(&path) {
            return self.set(&path, &json!({"primary": primary, "fallbacks": all}));
        }
        let old = self.fallbacks(slot);
        let list = path.key("fallbacks");
        // Adding to the end leaves comments between the others alone.
        if let (Some((last, front)), false) = (all.split_last(), old.is_empty())
            && front == old
        {
            return self.set(&list.index(old.len()), &Value::from(last.as_str()));
        }
        let gone = old.iter().position(|model| !all.contains(model));
        if let (Some(at), true) = (gone, all.len() + 1 == old.len() && !all.is_empty()) {
            return self.unset(&list.index(at)).map(drop);
        }
        self.set(&list, &Value::from(all))
    }

    fn complain(&self, message: &str) -> ConfigError {
        self.unchanged(Issue::new(IssueCode::Edit, KeyPath::root(), message))
    }
}

impl ModelSlot {
    fn path(self) -> KeyPath {
        match self {
            Self::Main => KeyPath::keys(["agents", "defaults", "model"]),
            Self::Image => KeyPath::keys(["agents", "defaults", "imageModel"]),
        }
    }
}

fn models_path() -> KeyPath {
    KeyPath::keys(["agents", "defaults", "models"])
}

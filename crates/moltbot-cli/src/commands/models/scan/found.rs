//! What a scan found, row by row: offered and known, offered and new, known and not offered.

use moltbot_core::{ModelInfo, Price, Timestamp};
use moltbot_gateway::{Engine, ModelRef, Offered, OfferedModel, ProbeResult, ProbeStatus};
use serde::Serialize;

use super::super::list::Cost;
use crate::Failure;
use crate::context::iso;

/// A day in milliseconds.
const DAY: f64 = 86_400_000.0;

/// Which models are of interest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Filters {
    /// In days; what has no date is older.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_age_days: Option<f64>,
    /// In billions, by the name alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) min_params: Option<f64>,
}

/// How a model of the service and one of the catalog go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// Offered, and not in the catalog.
    New,
    /// Offered, and in the catalog.
    Known,
    /// In the catalog, and not offered to this account.
    NotOffered,
}

/// What came of trying a model.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tried {
    status: ProbeStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<u64>,
}

/// One model, in the shape of the JSON output.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub(super) key: String,
    #[serde(skip)]
    pub(super) provider: String,
    /// As the service is asked for it.
    #[serde(skip)]
    pub(super) model: String,
    name: String,
    pub(super) status: Status,
    #[serde(rename = "createdAt")]
    pub(super) created: Option<Timestamp>,
    context_window: Option<u64>,
    pub(super) images: bool,
    tags: Vec<String>,
    cost: Option<Cost>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) probe: Option<Tried>,
}

/// Lays a service's list beside the catalog: what is offered in the service's order, then what is
/// not.
pub(super) fn rows(engine: &Engine, provider: &str, offered: &Offered) -> Vec<Row> {
    let catalog = engine.provider(provider).map_or(&[][..], |setup| &setup.info.catalog);
    let of =
        |id: &str| catalog.iter().find(|info| info.id == id || info.also.iter().any(|a| a == id));
    let mut rows: Vec<Row> = Vec::new();
    for model in &offered.models {
        let row = row(engine, provider, Some(model), of(&model.id));
        // A service that lists a model under two ids has one model.
        if !rows.iter().any(|known| known.key == row.key) {
            rows.push(row);
        }
    }
    let missing: Vec<Row> = catalog
        .iter()
        .map(|info| row(engine, provider, None, Some(info)))
        .filter(|row| !rows.iter().any(|known| known.key == row.key))
        .collect();
    rows.extend(missing);
    rows
}

fn row(
    engine: &Engine,
    provider: &str,
    offered: Option<&OfferedModel>,
    info: Option<&ModelInfo>,
) -> Row {
    let id = info.map(|info| info.id.to_string()).or(offered.map(|model| model.id.clone()));
    let model = id.unwrap_or_default();
    let reference = ModelRef { provider: provider.to_string(), model: model.clone() };
    let listed = engine.models().listed().into_iter().find(|listed| listed.model == reference);
    let name = info.map(|info| info.name.to_string()).filter(|name| !name.is_empty());
    let told = offered.and_then(|model| model.name.clone());
    let window = info.map(|info| info.context_window).filter(|size| *size > 0);
    let time = |text: &str| text.parse::<jiff::Timestamp>().ok().map(|at| at.as_millisecond());
    Row {
        key: reference.to_string(),
        provider: provider.to_string(),
        name: name.or(told).unwrap_or_else(|| model.clone()),
        model,
        status: match (offered, info) {
            (Some(_), Some(_)) => Status::Known,
            (Some(_), None) => Status::New,
            (None, _) => Status::NotOffered,
        },
        created: offered
            .and_then(|model| time(model.created_at.as_deref()?))
            .map(Timestamp::from_millis),
        context_window: window.or(offered.and_then(|model| model.context_window)),
        images: info
            .map(|info| info.images)
            .or(offered.and_then(OfferedModel::images))
            .unwrap_or(false),
        tags: listed.map(|listed| listed.tags).unwrap_or_default(),
        cost: info.map(|info| info.price).filter(Price::is_known).map(Cost::from),
        probe: None,
    }
}

impl Filters {
    /// Leaves out what is not of interest; returns how many were left out because their names
    /// tell no size.
    ///
    /// # Errors
    ///
    /// Refuses a size if no name tells one: nothing could be said about any model.
    pub(super) fn apply(&self, rows: &mut Vec<Row>, now: Timestamp) -> Result<usize, Failure> {
        if let Some(days) = self.max_age_days {
            rows.retain(|row| row.created.is_some_and(|at| now.since(at) as f64 <= days * DAY));
        }
        let Some(wanted) = self.min_params else { return Ok(0) };
        let unsized_names = rows.iter().filter(|row| size(&row.model).is_none()).count();
        if unsized_names == rows.len() && !rows.is_empty() {
            let message = "--min-params cannot be applied: no model found tells its size in its \
                           name, as llama-70b does";
            return Err(Failure::input(message));
        }
        rows.retain(|row| size(&row.model).is_some_and(|size| size >= wanted));
        Ok(unsized_names)
    }
}

/// Reads the number of parameters out of a name, in billions: `70b`, `1.5B`, `8x7b`.
fn size(name: &str) -> Option<f64> {
    let name = name.to_ascii_lowercase();
    name.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').find_map(|word| {
        let number = word.strip_suffix('b')?;
        let (times, each) = number.split_once('x').unwrap_or(("1", number));
        let plain =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if !plain(times) || !plain(each) {
            return None;
        }
        let size = times.parse::<f64>().ok()? * each.parse::<f64>().ok()?;
        (size > 0.0).then_some(size)
    })
}

impl Row {
    /// Tells whether it may be used: it answered, or nobody asked.
    pub(super) fn works(&self) -> bool {
        self.probe.as_ref().is_none_or(|tried| tried.status == ProbeStatus::Ok)
    }

    pub(super) fn is_fallback(&self) -> bool {
        self.tags.iter().any(|tag| tag.starts_with("fallback#"))
    }

    /// Says in few words what is known of it.
    pub(super) fn hint(&self) -> String {
        let mut parts = Vec::new();
        if let Some(tried) = &self.probe {
            parts.push(tried.text());
        }
        if let Some(cost) = &self.cost {
            parts.push(format!("${:.2} in, ${:.2} out", cost.input, cost.output));
        }
        parts.join(", ")
    }

    pub(super) fn cells(&self) -> Vec<String> {
        let dash = || "-".to_string();
        let price = |pick: fn(&Cost) -> f64| {
            self.cost.as_ref().map_or_else(dash, |cost| format!("{:.2}", pick(cost)))
        };
        let state = match self.status {
            Status::New => "new",
            Status::Known => "known",
            Status::NotOffered => "not offered",
        };
        vec![
            self.key.clone(),
            state.to_string(),
            self.created.map_or_else(dash, |at| iso(at).chars().take(10).collect()),
            self.context_window.map_or_else(dash, |size| format!("{}k", size.div_ceil(1000))),
            price(|cost| cost.input),
            price(|cost| cost.output),
            self.probe.as_ref().map_or_else(dash, Tried::text),
            self.tags.join(","),
        ]
    }
}

impl Tried {
    fn text(&self) -> String {
        let word = serde_json::json!(self.status).as_str().unwrap_or_default().to_string();
        self.latency_ms.map_or_else(|| word.clone(), |ms| format!("{word}, {ms} ms"))
    }
}

impl From<ProbeResult> for Tried {
    fn from(result: ProbeResult) -> Self {
        Self { status: result.status, error: result.error, latency_ms: result.latency_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(model: &str, created: Option<i64>) -> Row {
        Row {
            key: format!("acme/{model}"),
            provider: "acme".into(),
            model: model.into(),
            name: model.into(),
            status: Status::New,
            created: created.map(Timestamp::from_millis),
            context_window: None,
            images: false,
            tags: Vec::new(),
            cost: None,
            probe: None,
        }
    }

    #[test]
    fn a_size_stands_in_a_name_or_does_not() {
        for (name, expected) in [
            ("llama-3.1-70b-instruct", Some(70.0)),
            ("meta/Llama-70B:free", Some(70.0)),
            ("qwen_1.5b", Some(1.5)),
            ("mixtral-8x7b", Some(56.0)),
            ("claude-opus-4-5", None),
            ("gpt-4b-turbo2", Some(4.0)),
            ("0b", None),
            ("b", None),
            ("bob-ab", None),
            ("1.2.3b", None),
            ("x7b", None),
        ] {
            assert_eq!(size(name), expected, "{name}");
        }
    }

    #[test]
    fn what_is_old_small_or_says_nothing_is_left_out() {
        let day = 86_400_000;
        let now = Timestamp::from_millis(100 * day);
        let all =
            || vec![row("a-70b", Some(99 * day)), row("b-7b", Some(10 * day)), row("c", None)];
        let mut rows = all();
        let young = Filters { max_age_days: Some(1.0), min_params: None };
        assert_eq!(young.apply(&mut rows, now).unwrap(), 0);
        assert_eq!(rows.iter().map(|row| row.model.as_str()).collect::<Vec<_>>(), ["a-70b"]);
        let mut rows = all();
        let large = Filters { max_age_days: None, min_params: Some(8.0) };
        assert_eq!(large.apply(&mut rows, now).unwrap(), 1);
        assert_eq!(rows.len(), 1);
        let refused = large.apply(&mut vec![row("claude-opus-4-5", None)], now).unwrap_err();
        assert!(refused.message.starts_with("--min-params cannot be applied"), "{refused}");
        assert_eq!(large.apply(&mut Vec::new(), now).unwrap(), 0);
    }
}

//! The list of models where the service's own does not fit: in OpenAI's shape, or cut down to
//! what a token may use.

use bytes::Bytes;
use moltbot_core::ModelInfo;
use serde_json::{Value, json};

use super::error::{Refusal, Shape};
use super::serve::Asked;

/// Answers `/v1/models` and `/v1/models/{id}` from the catalog.
pub(crate) fn answer(asked: &Asked<'_>, path: &str) -> Result<Bytes, Refusal> {
    let models: Vec<(String, &ModelInfo)> = asked
        .agent
        .engine
        .providers()
        .iter()
        .flat_map(|setup| setup.info.catalog.iter().map(move |info| (setup.id.clone(), info)))
        .filter(|(provider, info)| {
            asked.token.allows(&[&info.id, &format!("{provider}/{}", info.id)])
        })
        .collect();
    let entry = |(provider, info): &(String, &ModelInfo)| match asked.shape {
        Shape::OpenAi => {
            json!({ "id": info.id, "object": "model", "created": 0, "owned_by": provider })
        }
        Shape::Messages => json!({
            "type": "model",
            "id": info.id,
            "display_name": info.name,
            "created_at": "1970-01-01T00:00:00Z",
        }),
    };
    if let Some(id) = path.strip_prefix("/v1/models/") {
        let found = models
            .iter()
            .find(|(_, info)| info.id == id || info.also.iter().any(|also| also == id));
        let unknown = || Refusal::not_found(format!("model: {id}")).code("model-not-found");
        let found = found.ok_or_else(unknown)?;
        return Ok(entry(found).to_string().into());
    }
    let data: Vec<Value> = models.iter().map(entry).collect();
    let list = match asked.shape {
        Shape::OpenAi => json!({ "object": "list", "data": data }),
        Shape::Messages => {
            let id = |entry: Option<&Value>| entry.map_or(Value::Null, |entry| entry["id"].clone());
            json!({
                "first_id": id(data.first()), "last_id": id(data.last()), "has_more": false,
                "data": data,
            })
        }
    };
    Ok(list.to_string().into())
}

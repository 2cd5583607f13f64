//! The limits of each profile as the last replies told them: remaining share and reset, without
//! asking anybody (`models status --usage`, `status --usage`; spec T-33).

use moltbot_core::Timestamp;
use moltbot_profiles::{Profiles, Window, remaining_text};
use serde::Serialize;

use crate::Context;
use crate::context::iso;

/// The limits of one profile.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Windows {
    pub(crate) profile_id: String,
    pub(crate) windows: Vec<Window>,
}

/// Lists what is known and still true, by profile.
pub(crate) fn of(profiles: &Profiles, now: Timestamp) -> Vec<Windows> {
    let all = profiles.all_stats().map(|(id, stats)| Windows {
        profile_id: id.to_string(),
        windows: stats.quota.iter().filter(|window| !window.is_over(now)).cloned().collect(),
    });
    let mut known: Vec<Windows> = all.filter(|row| !row.windows.is_empty()).collect();
    known.sort_by(|a, b| a.profile_id.cmp(&b.profile_id));
    known
}

/// Prints them as a table.
pub(crate) fn print(cx: &mut Context, known: &[Windows]) {
    if known.is_empty() {
        cx.out.line("no limit is known yet; replies tell them");
        return;
    }
    let now = cx.now();
    let rows: Vec<Vec<String>> = known
        .iter()
        .flat_map(|row| row.windows.iter().map(move |window| cells(&row.profile_id, window, now)))
        .collect();
    cx.out.table(&["Profile", "Limit", "Models", "Used", "Left", "Anew", "State"], &rows);
}

fn cells(profile: &str, window: &Window, now: Timestamp) -> Vec<String> {
    let models = match (&window.model, &window.family) {
        (Some(model), _) => model.clone(),
        (None, Some(family)) => format!("*{family}*"),
        (None, None) => "all".to_string(),
    };
    let reset = window.reset.map_or_else(
        || "-".to_string(),
        |at| format!("in {}, {}", remaining_text(Some(at.since(now))), iso(at)),
    );
    vec![
        profile.to_string(),
        window.name.clone(),
        models,
        format!("{:.0} %", window.used * 100.0),
        window.remaining.map_or_else(|| "-".to_string(), |left| format!("{left:.0}")),
        reset,
        if window.empty { "empty" } else { "open" }.to_string(),
    ]
}

//! The exact sentences that users see about profiles.

use std::path::Path;

use crate::SkipReason;

/// What `moltbot doctor` would change after a failed renewal; part of the message of A-25.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairHint {
    /// The id that the config names.
    pub config_id: String,
    /// The logins in the store.
    pub oauth_ids: Vec<String>,
    /// The one to use instead.
    pub suggested: String,
}

/// Says that a login could not be renewed (spec A-25). `cause` holds status and error code of the
/// token endpoint, no secret; a full stop at its end is dropped.
pub fn refresh_failed_message(provider: &str, cause: &str, hint: Option<&RepairHint>) -> String {
    let cause = cause.trim().trim_end_matches('.');
    let mut text = format!(
        "OAuth token refresh failed for {provider}: {cause}. Please try again or re-authenticate."
    );
    if let Some(RepairHint { config_id, oauth_ids, suggested }) = hint {
        let ids = match oauth_ids.is_empty() {
            true => "(none)".to_string(),
            false => oauth_ids.join(", "),
        };
        text.push_str(&format!(
            "\n\nDoctor hint (for GitHub issue):\n- provider: {provider}\n- config: {config_id}\n\
             - oauth profiles: {ids}\n- suggested profile: {suggested}\n\
             Fix: run \"moltbot doctor --yes\""
        ));
    }
    text
}

/// Says that every profile rests (spec S-11).
pub fn all_cooling_message(provider: &str) -> String {
    format!("No available auth profile for {provider} (all in cooldown or unavailable).")
}

/// Says that nothing at all was found for a provider (spec S-25).
pub fn no_key_message(provider: &str, store: &Path, agent_dir: &Path) -> String {
    format!(
        "No API key found for provider \"{provider}\". Auth store: {} (agentDir: {}). Configure \
         auth for this agent (moltbot agents add <id>) or copy auth-profiles.json from the main \
         agentDir.",
        store.display(),
        agent_dir.display()
    )
}

/// Says that a pinned profile cannot be used (spec S-26), and why where that is known.
pub fn no_credentials_message(id: &str, why: Option<&SkipReason>) -> String {
    match why {
        Some(why) => format!("No credentials found for profile \"{id}\". Cause: {why}."),
        None => format!("No credentials found for profile \"{id}\"."),
    }
}

/// Says that a provider's own configuration gave no key (spec S-27).
pub fn no_key_resolved_message(provider: &str, mode: &str) -> String {
    format!("No API key resolved for provider \"{provider}\" (auth mode: {mode}).")
}

/// Says that a pinned profile is not in the order (spec S-10).
pub fn not_configured_message(id: &str, provider: &str) -> String {
    format!("Auth profile \"{id}\" is not configured for {provider}.")
}

/// Warns that another credential is used, which may be billed differently (spec A-26).
pub fn switched_message(failed: &str, cause: &str, next: Option<&str>) -> String {
    let cause = cause.trim().trim_end_matches('.');
    match next {
        Some(next) => format!(
            "Profile \"{failed}\" could not be used: {cause}. Using \"{next}\" instead, which may \
             be billed differently."
        ),
        None => format!("Profile \"{failed}\" could not be used: {cause}."),
    }
}

/// Returns a remaining time as short text (spec L-7): `unknown`, `0m`, `5m`, `47h`, `2d`.
///
/// ```
/// # use moltbot_profiles::remaining_text;
/// assert_eq!(remaining_text(Some(58_289)), "1m");
/// assert_eq!(remaining_text(None), "unknown");
/// ```
pub fn remaining_text(millis: Option<i64>) -> String {
    const MINUTE: i64 = 60_000;
    let Some(millis) = millis else { return "unknown".into() };
    if millis <= 0 {
        return "0m".into();
    }
    let rounded = |unit: i64| millis.saturating_add(unit / 2) / unit;
    let (minutes, hours, days) =
        (rounded(MINUTE).max(1), rounded(60 * MINUTE), rounded(24 * 60 * MINUTE));
    if minutes < 60 {
        format!("{minutes}m")
    } else if hours < 48 {
        format!("{hours}h")
    } else {
        format!("{days}d")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remaining_times_are_short() {
        let minute = 60_000;
        for (millis, text) in [
            (i64::MIN, "0m"),
            (0, "0m"),
            (1, "1m"),
            (89_999, "1m"),
            (90_000, "2m"),
            (59 * minute, "59m"),
            (60 * minute, "1h"),
            (5 * 60 * minute, "5h"),
            (47 * 60 * minute, "47h"),
            (48 * 60 * minute, "2d"),
            (365 * 24 * 60 * minute, "365d"),
        ] {
            assert_eq!(remaining_text(Some(millis)), text, "{millis}");
        }
        assert!(remaining_text(Some(i64::MAX)).ends_with('d'));
    }

    #[test]
    fn sentences_are_exact() {
        assert_eq!(
            refresh_failed_message("acme", "HTTP 400 invalid_grant.", None),
            "OAuth token refresh failed for acme: HTTP 400 invalid_grant. Please try again or \
             re-authenticate."
        );
        let hint = RepairHint {
            config_id: "acme:default".into(),
            oauth_ids: vec!["acme:a@x.org".into()],
            suggested: "acme:a@x.org".into(),
        };
        let text = refresh_failed_message("acme", "x", Some(&hint));
        let block = text.split_once("\n\n").unwrap().1;
        assert_eq!(
            block,
            "Doctor hint (for GitHub issue):\n- provider: acme\n- config: acme:default\n\
             - oauth profiles: acme:a@x.org\n- suggested profile: acme:a@x.org\n\
             Fix: run \"moltbot doctor --yes\""
        );
        assert_eq!(
            all_cooling_message("acme"),
            "No available auth profile for acme (all in cooldown or unavailable)."
        );
        assert_eq!(
            no_key_message("acme", Path::new("/a/auth-profiles.json"), Path::new("/a")),
            "No API key found for provider \"acme\". Auth store: /a/auth-profiles.json (agentDir: \
             /a). Configure auth for this agent (moltbot agents add <id>) or copy \
             auth-profiles.json from the main agentDir."
        );
        assert_eq!(
            no_credentials_message("acme:manual", Some(&SkipReason::Expired {})),
            "No credentials found for profile \"acme:manual\". Cause: expired."
        );
        assert_eq!(
            not_configured_message("acme:x", "acme"),
            "Auth profile \"acme:x\" is not configured for acme."
        );
        assert_eq!(
            no_key_resolved_message("acme", "api-key"),
            "No API key resolved for provider \"acme\" (auth mode: api-key)."
        );
    }
}

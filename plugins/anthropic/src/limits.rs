//! What the headers of a reply say about limits: how much is left, and when there is more.
//!
//! Two families: `anthropic-ratelimit-<dimension>-{limit,remaining,reset}` for API keys, and
//! `anthropic-ratelimit-unified-*` for subscriptions (spec 09 D). All of them may be missing,
//! doubled or nonsense; nonsense counts as missing.

use moltbot_core::{Covers, Header, Observed, Quota, Timestamp, header};

/// Names the organization behind the credential.
pub(crate) const ACCOUNT: &str = "anthropic-organization-id";

const FAMILY: &str = "anthropic-ratelimit-";
const UNIFIED: &str = "anthropic-ratelimit-unified-";
const DIMENSIONS: [&str; 4] = ["requests", "tokens", "input-tokens", "output-tokens"];

/// The windows of a subscription as header names and as claims spell them.
const WINDOWS: [(&str, &str); 2] = [("5h", "five_hour"), ("7d", "seven_day")];

/// Reads what a reply tells beside its body. Pure.
pub(crate) fn observe(headers: &[Header<'_>], now: Timestamp) -> Observed {
    let text = |name| header(headers, name).map(str::to_string);
    Observed {
        request_id: text("request-id"),
        account: text(ACCOUNT),
        quotas: Limits::read(headers, now).quotas,
    }
}

/// The limits of one reply.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Limits {
    quotas: Vec<Quota>,
    /// The longest wait that `retry-after` asks for.
    retry_at: Option<Timestamp>,
    any: bool,
}

impl Limits {
    /// Reads the headers. `now` turns waits into times.
    pub(crate) fn read(headers: &[Header<'_>], now: Timestamp) -> Self {
        let begins = |header: &Header<'_>, with: &str| {
            let start = header.name.get(..with.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(with))
        };
        let any = |with: &str| headers.iter().any(|header| begins(header, with));
        let limits = any(FAMILY);
        let retry_at = headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case("retry-after"))
            .filter_map(|header| retry_after(&header.value, now))
            .max();
        // Of most families there is nothing: this is done at every reply.
        let mut quotas = if limits { dimensions(headers) } else { Vec::new() };
        if limits && any(UNIFIED) {
            quotas.extend(windows(headers));
        }
        Self { quotas, retry_at, any: retry_at.is_some() || limits }
    }

    /// Tells whether the reply says anything about limits.
    pub(crate) fn any(&self) -> bool {
        self.any
    }

    /// Tells whether a window that all models share is used up.
    pub(crate) fn window_of_account_is_spent(&self) -> bool {
        let shared = |name: &str| WINDOWS.iter().any(|(_, claim)| *claim == name);
        self.quotas.iter().any(|quota| quota.rejected && shared(&quota.name))
    }

    /// Returns when to try again: the later of `retry-after` and the used-up windows, of which the
    /// latest counts; without them the reset of the used-up dimensions.
    pub(crate) fn reset(&self, now: Timestamp) -> Option<Timestamp> {
        let latest = |of_window: bool| {
            let is_window = |quota: &&Quota| !DIMENSIONS.contains(&quota.name.as_ref());
            self.quotas
                .iter()
                .filter(|quota| quota.rejected && is_window(quota) == of_window)
                .filter_map(|quota| quota.reset)
                .filter(|reset| *reset > now)
                .max()
        };
        latest(true).max(self.retry_at).or_else(|| latest(false))
    }
}

/// Finds `2026-12-01 at 00:00 UTC` after "regain access on" (spec 09 E 6).
pub(crate) fn date_in_text(message: &str) -> Option<Timestamp> {
    let (_, rest) = message.split_once("regain access on ")?;
    let (day, rest) = rest.split_once(" at ")?;
    let time = rest.split_once(" UTC")?.0;
    let day = day.trim();
    rfc3339(&format!("{day}T{}:00Z", time.trim()))
}

/// Reads seconds, fractions included, or an HTTP date; what is negative or past is nonsense.
fn retry_after(value: &str, now: Timestamp) -> Option<Timestamp> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        // `as` saturates; the host caps what is absurdly long.
        let wait = (seconds * 1000.0) as i64;
        return (seconds >= 0.0).then(|| now.plus(wait));
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    Some(Timestamp::from_millis(date.as_millisecond())).filter(|at| *at > now)
}

/// Reads the dimensions of an API key in one pass, for this is done at every reply. They are
/// limits of one model.
fn dimensions(headers: &[Header<'_>]) -> Vec<Quota> {
    let mut read: [(Option<f64>, Option<f64>, Option<Timestamp>); DIMENSIONS.len()] =
        Default::default();
    for header in headers {
        let Some((start, rest)) = header.name.split_at_checked(FAMILY.len()) else { continue };
        if !start.eq_ignore_ascii_case(FAMILY) {
            continue;
        }
        let Some((dimension, what)) = rest.rsplit_once('-') else { continue };
        let at = DIMENSIONS.iter().position(|known| known.eq_ignore_ascii_case(dimension));
        let Some((limit, remaining, reset)) = at.map(|at| &mut read[at]) else { continue };
        let number = || header.value.trim().parse().ok().filter(|number: &f64| *number >= 0.0);
        match what {
            what if what.eq_ignore_ascii_case("limit") => *limit = limit.or_else(number),
            what if what.eq_ignore_ascii_case("remaining") => {
                *remaining = remaining.or_else(number);
            }
            what if what.eq_ignore_ascii_case("reset") => {
                *reset = reset.or_else(|| moment(&header.value));
            }
            _ => {}
        }
    }
    let mut quotas = Vec::new();
    for (dimension, (limit, remaining, reset)) in DIMENSIONS.into_iter().zip(read) {
        let (Some(limit), Some(remaining)) = (limit, remaining) else { continue };
        let used = if limit > 0.0 { 1.0 - remaining / limit } else { 1.0 };
        quotas.push(Quota {
            name: dimension.into(),
            used,
            rejected: remaining <= 0.0,
            reset,
            limit: Some(limit),
            remaining: Some(remaining),
            covers: Covers::Model {},
        });
    }
    quotas
}

/// Reads `unified-<window>-{status,utilization,reset}`, windows in order of appearance, and the
/// overall verdict. A window's own `rejected` counts only if the request was not served anyway,
/// which extra usage does; `overage` itself is no window.
fn windows(headers: &[Header<'_>]) -> Vec<Quota> {
    let unified = |name: &str| header(headers, &format!("{UNIFIED}{name}")).map(str::trim);
    let status = unified("status").unwrap_or_default();
    let served = status.starts_with("allowed");
    let mut quotas: Vec<Quota> = Vec::new();
    for header in headers {
        let name = header.name.to_ascii_lowercase();
        let Some((window, what)) =
            name.strip_prefix(UNIFIED).and_then(|rest| rest.rsplit_once('-'))
        else {
            continue;
        };
        let Some(window) = claim(window) else { continue };
        let at = quotas.iter().position(|quota| quota.name == window).unwrap_or_else(|| {
            quotas.push(window_of(window.clone(), 0.0));
            quotas.len() - 1
        });
        let quota = &mut quotas[at];
        match what {
            "status" => quota.rejected = !served && header.value.trim() == "rejected",
            "utilization" => {
                quota.used =
                    header.value.trim().parse().ok().filter(|u: &f64| u.is_finite()).unwrap_or(0.0);
            }
            "reset" => quota.reset = moment(&header.value),
            _ => {}
        }
    }
    if status == "rejected" {
        let reset = unified("reset").and_then(moment);
        let name = unified("representative-claim").unwrap_or("unified");
        match quotas.iter_mut().find(|quota| quota.name == name) {
            Some(quota) => {
                quota.rejected = true;
                quota.reset = quota.reset.max(reset);
            }
            None => {
                quotas.push(Quota { rejected: true, reset, ..window_of(name.to_string(), 1.0) });
            }
        }
    }
    quotas
}

/// Makes a window of a subscription. `seven_day_opus` is drawn on by one family of models only.
fn window_of(name: String, used: f64) -> Quota {
    let family = WINDOWS.iter().find_map(|(_, claim)| {
        name.strip_prefix(claim)?.strip_prefix('_').map(|word| word.replace('_', "-"))
    });
    let covers = match family {
        Some(word) if !word.is_empty() => Covers::Named { word: word.into() },
        _ => Covers::Everything {},
    };
    let name = name.into();
    Quota { name, used, rejected: false, reset: None, limit: None, remaining: None, covers }
}

/// Turns a window of a header name into the service's word for the claim: `5h` → `five_hour`,
/// `7d_opus` → `seven_day_opus`.
fn claim(window: &str) -> Option<String> {
    WINDOWS.iter().find_map(|(short, long)| {
        let rest = window.strip_prefix(short).or_else(|| window.strip_prefix(long))?;
        let whole = rest.is_empty() || rest.starts_with(['_', '-']);
        whole.then(|| format!("{long}{}", rest.replace('-', "_")))
    })
}

/// Reads a time in RFC 3339 or in seconds since 1970.
fn moment(value: &str) -> Option<Timestamp> {
    let value = value.trim();
    match value.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 => Some(Timestamp::from_millis((seconds * 1000.0) as i64)),
        Ok(_) => None,
        Err(_) => rfc3339(value),
    }
}

fn rfc3339(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp::from_millis(time.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn headers(lines: &[(&'static str, &'static str)]) -> Vec<Header<'static>> {
        lines.iter().map(|(name, value)| Header::new(*name, *value)).collect()
    }

    fn wait(lines: &[(&'static str, &'static str)]) -> Option<i64> {
        Limits::read(&headers(lines), NOW).reset(NOW).map(|at| at.since(NOW))
    }

    #[test]
    fn every_form_of_retry_after() {
        // 1,790,000,000 is Mon, 21 Sep 2026 14:13:20 GMT.
        for (value, expected) in [
            ("2", Some(2_000)),
            (" 0 ", Some(0)),
            ("0.25", Some(250)),
            ("7999", Some(7_999_000)),
            ("-1", None),
            ("NaN", None),
            ("soon", None),
            ("", None),
            ("Mon, 21 Sep 2026 14:13:50 GMT", Some(30_000)),
            ("Mon, 21 Sep 2026 14:13:10 GMT", None),
        ] {
            assert_eq!(wait(&[("Retry-After", value)]), expected, "{value}");
        }
        assert_eq!(wait(&[]), None);
        assert_eq!(
            wait(&[("retry-after", "5"), ("retry-after", "9"), ("retry-after", "x")]),
            Some(9_000)
        );
        assert!(wait(&[("retry-after", "1e300")]).is_some_and(|wait| wait > 1 << 60));
    }

    #[test]
    fn a_used_up_dimension_names_its_reset() {
        let spent = [
            ("anthropic-ratelimit-requests-limit", "50"),
            ("anthropic-ratelimit-requests-remaining", "49"),
            ("anthropic-ratelimit-requests-reset", "2026-09-21T15:13:20Z"),
            ("anthropic-ratelimit-input-tokens-limit", "30000"),
            ("anthropic-ratelimit-input-tokens-remaining", "0"),
            ("anthropic-ratelimit-input-tokens-reset", "2026-09-21T14:14:20Z"),
        ];
        assert_eq!(wait(&spent), Some(60_000));
        let observed = observe(&headers(&spent), NOW);
        let used: Vec<_> = observed
            .quotas
            .iter()
            .map(|q| (q.name.as_ref(), q.rejected, (q.used * 100.0).round()))
            .collect();
        assert_eq!(used, [("requests", false, 2.0), ("input-tokens", true, 100.0)]);
        let requests = &observed.quotas[0];
        assert_eq!((requests.limit, requests.remaining), (Some(50.0), Some(49.0)));
        assert_eq!(requests.covers, Covers::Model {});
    }

    #[test]
    fn of_several_rejected_windows_the_latest_reset_counts() {
        let both = [
            ("anthropic-ratelimit-unified-status", "rejected"),
            ("anthropic-ratelimit-unified-representative-claim", "five_hour"),
            ("anthropic-ratelimit-unified-reset", "1790000100"),
            ("anthropic-ratelimit-unified-5h-status", "rejected"),
            ("anthropic-ratelimit-unified-5h-reset", "1790000100"),
            ("anthropic-ratelimit-unified-5h-utilization", "1.04"),
            ("anthropic-ratelimit-unified-7d-status", "rejected"),
            ("anthropic-ratelimit-unified-7d-reset", "2026-09-23T14:13:20Z"),
            ("retry-after", "2"),
        ];
        assert_eq!(wait(&both), Some(2 * 86_400_000));
        assert!(Limits::read(&headers(&both), NOW).window_of_account_is_spent());
    }

    #[test]
    fn a_served_request_rejects_nothing() {
        let served = [
            ("anthropic-ratelimit-unified-status", "allowed_warning"),
            ("anthropic-ratelimit-unified-5h-status", "rejected"),
            ("anthropic-ratelimit-unified-overage-status", "rejected"),
            ("anthropic-ratelimit-unified-7d_opus-utilization", "0.5"),
        ];
        let observed = observe(&headers(&served), NOW);
        let seen: Vec<_> =
            observed.quotas.iter().map(|q| (q.name.as_ref(), q.rejected, q.used)).collect();
        assert_eq!(seen, [("five_hour", false, 0.0), ("seven_day_opus", false, 0.5)]);
        let covers: Vec<_> = observed.quotas.iter().map(|q| q.covers.clone()).collect();
        assert_eq!(covers, [Covers::Everything {}, Covers::Named { word: "opus".into() }]);
    }

    #[test]
    fn a_window_of_one_model_is_not_the_accounts() {
        let opus = [
            ("anthropic-ratelimit-unified-status", "rejected"),
            ("anthropic-ratelimit-unified-representative-claim", "seven_day_opus"),
            ("anthropic-ratelimit-unified-reset", "1790003600"),
        ];
        let limits = Limits::read(&headers(&opus), NOW);
        assert!(!limits.window_of_account_is_spent());
        assert_eq!(limits.reset(NOW).map(|at| at.since(NOW)), Some(3_600_000));
    }

    #[test]
    fn the_reply_says_who_answered() {
        let observed = observe(
            &headers(&[("Request-Id", "req_1"), ("Anthropic-Organization-Id", "org_1")]),
            NOW,
        );
        assert_eq!(observed.request_id.as_deref(), Some("req_1"));
        assert_eq!(observed.account.as_deref(), Some("org_1"));
        assert!(observed.quotas.is_empty());
    }

    #[test]
    fn a_date_in_the_message_is_read() {
        let text = "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC.";
        let at = date_in_text(text).unwrap();
        assert_eq!(at.millis(), 1_796_083_200_000);
        assert_eq!(date_in_text("You will regain access on a day at noon UTC"), None);
    }
}

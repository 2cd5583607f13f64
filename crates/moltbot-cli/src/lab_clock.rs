//! The lab's clock: it stands where the variable `MOLTBOT_LAB_CLOCK` puts it, and a wait moves it on
//! instead of taking time. Hours of rests are tried out in a moment with it, and the times in what
//! is printed are the same in every run.

use std::time::Duration;

use moltbot_core::{Timestamp, async_trait};
use moltbot_gateway::{Clock, TestClock};

/// The variable with the time; only that of the process counts.
pub(crate) const VARIABLE: &str = "MOLTBOT_LAB_CLOCK";

/// How long a wait really takes at most, so that nobody who waits in a loop spins.
const REAL_WAIT_MS: u64 = 10;

/// A clock that waits move on, and nothing else.
pub(crate) struct LabClock(TestClock);

impl LabClock {
    /// Reads the time: ISO 8601 with a zone, or milliseconds since 1970.
    pub(crate) fn parse(raw: &str) -> Result<Self, String> {
        let raw = raw.trim();
        let iso = || raw.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond);
        let at = raw.parse::<i64>().ok().or_else(iso).ok_or_else(|| {
            format!("{VARIABLE} is \"{raw}\", which is no time such as 2026-11-22T12:00:00Z")
        })?;
        Ok(Self(TestClock::at(Timestamp::from_millis(at))))
    }
}

#[async_trait]
impl Clock for LabClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    async fn sleep(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms.min(REAL_WAIT_MS))).await;
        self.0.sleep(ms).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_still_and_skips_waits() {
        let clock = LabClock::parse("2026-09-21T14:13:20Z").unwrap();
        assert_eq!(clock.now().millis(), 1_790_000_000_000);
        let clock = LabClock::parse("1790000000000").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(clock.sleep(3_600_000));
        assert_eq!(clock.now().millis(), 1_790_003_600_000);
        assert!(LabClock::parse("noon").is_err_and(|text| text.contains("\"noon\"")));
    }
}

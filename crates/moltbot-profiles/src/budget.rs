//! How often trouble may be answered by asking again: a tenth of all traffic. Pure.
//!
//! A service in trouble gets more of it if everybody asks twice. One budget over all requests of
//! a process keeps what is added below a tenth, whatever single requests would wish for.

/// One retry in so many requests.
const SHARE: u64 = 10;

/// Retries before there was traffic to share in: a first request may ask again twice, and one
/// more may.
const START: u64 = 3;

/// The most retries that a quiet time saves up.
const MOST_SAVED: u64 = 100;

/// Counts requests, and the retries that they earn.
///
/// ```
/// let mut budget = moltbot_profiles::RetryBudget::default();
/// let mut again = 0;
/// for _ in 0..1_000 {
///     budget.request();
///     again += u32::from(budget.take());
/// }
/// assert_eq!(again, 100);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryBudget {
    requests: u64,
    retries: u64,
}

impl RetryBudget {
    /// Counts a request of a client.
    pub fn request(&mut self) {
        self.requests = self.requests.saturating_add(1);
        self.retries = self.retries.max((self.requests / SHARE).saturating_sub(MOST_SAVED));
    }

    /// Takes one retry out of the budget; `false` if there is none.
    pub fn take(&mut self) -> bool {
        let left = self.left() > 0;
        self.retries += u64::from(left);
        left
    }

    /// Returns how many retries there are now.
    pub fn left(&self) -> u64 {
        (self.requests / SHARE).max(START).saturating_sub(self.retries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_a_tenth_but_for_the_first_three() {
        let mut budget = RetryBudget::default();
        let mut retries = 0;
        for requests in 1..=10_000_u64 {
            budget.request();
            while budget.take() {
                retries += 1;
            }
            assert!(retries <= (requests / 10).max(3), "{retries} after {requests}");
        }
        assert_eq!(retries, 1_000);
    }

    #[test]
    fn a_quiet_time_saves_up_a_hundred() {
        let mut budget = RetryBudget::default();
        (0..1_000_000).for_each(|_| budget.request());
        let burst = (0..1_000).filter(|_| budget.take()).count();
        assert_eq!(burst, 100);
    }
}

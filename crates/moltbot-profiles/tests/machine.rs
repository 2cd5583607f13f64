//! Requests, failures of every class, successes that arrive late, clocks that jump, edits of the
//! order, and restarts: after every step the pure functions agree with the small model below.
//!
//! 100,000 cases, the same ones in every run: a case is its number. A disagreement names the case
//! and lists its steps.

#![allow(clippy::unwrap_used)] // helpers of tests

use moltbot_core::{
    Covers, Credential, Failure, FailureKind, Payer, Quota, Scope, Secret, Timestamp,
};
use moltbot_profiles::{
    AuthRules, Choice, ChoiceInput, CooldownRules, Pin, Profiles, ResolvedState, Strategy, order,
};

const CASES: u64 = 100_000;
/// Cases are dealt out to so many tests, which run side by side.
const PARTS: u64 = 4;

const START: i64 = 1_790_000_000_000;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

const IDS: [&str; 4] = ["acme:key", "acme:plan", "acme:second", "acme:third"];
const MODELS: [&str; 2] = ["big", "small"];

/// The classes of failures, and whom each concerns.
const CLASSES: [(FailureKind, Scope); 12] = [
    (FailureKind::RateLimit, Scope::ProfileModel),
    (FailureKind::RateLimit, Scope::Profile),
    (FailureKind::Auth, Scope::Profile),
    (FailureKind::Billing, Scope::Profile),
    (FailureKind::Unknown, Scope::ProfileModel),
    (FailureKind::Overloaded, Scope::Upstream),
    (FailureKind::Timeout, Scope::Upstream),
    (FailureKind::Server, Scope::Upstream),
    (FailureKind::ModelNotFound, Scope::Model),
    (FailureKind::ContextOverflow, Scope::Request),
    (FailureKind::Format, Scope::Profile),
    (FailureKind::Refused, Scope::ProfileModel),
];

// ---------------------------------------------------------------------------------------------
// The model: what the documentation says, in plain numbers, without a thought for speed.

/// What a profile, or a profile with one model, went through.
#[derive(Clone, Default, Debug)]
struct Book {
    errors: usize,
    bills: u32,
    rests_until: i64,
    out_until: i64,
    last_failure: Option<i64>,
}

impl Book {
    fn mistrusted(&self, now: i64) -> bool {
        self.last_failure.is_some_and(|at| at > now + MINUTE)
    }

    fn blocked(&self, now: i64) -> Option<i64> {
        let until = self.rests_until.max(self.out_until);
        (until > now && !self.mistrusted(now)).then_some(until)
    }

    fn fails(&mut self, billing: bool, reset: Option<i64>, now: i64, started: i64) {
        if self.mistrusted(now) {
            *self = Self::default();
        }
        let measured = reset.filter(|at| *at > now).map(|at| at.min(now + 7 * DAY));
        let same_trouble = self.last_failure.is_some_and(|at| started < at);
        if same_trouble && self.blocked(now).is_some() {
            let until = if billing { &mut self.out_until } else { &mut self.rests_until };
            *until = (*until).max(measured.unwrap_or(0));
            return;
        }
        if self.last_failure.is_some_and(|at| now - at > DAY) {
            (self.errors, self.bills) = (0, 0);
        }
        self.errors += 1;
        self.bills += u32::from(billing);
        self.last_failure = Some(now);
        let guess = match billing {
            true => now + [5, 10, 20, 24][self.bills.min(4) as usize - 1] * HOUR,
            false => now + [1, 5, 25, 60][self.errors.min(4) - 1] * MINUTE,
        };
        let until = if billing { &mut self.out_until } else { &mut self.rests_until };
        let standing = Some(*until).filter(|at| *at <= now + 7 * DAY).unwrap_or(0);
        *until = measured.unwrap_or(guess.max(standing));
    }

    fn succeeds(&mut self, now: i64, started: i64) {
        if self.last_failure.is_none_or(|at| at <= started) || self.mistrusted(now) {
            *self = Self::default();
        }
    }
}

#[derive(Clone, Default, Debug)]
struct Modelled {
    whole: Book,
    models: [Book; 2],
    used: i64,
    /// Share, reset, empty, when it was told.
    window: Option<(f64, Option<i64>, bool, i64)>,
}

impl Modelled {
    fn window(&self, now: i64) -> Option<(f64, Option<i64>, bool)> {
        let (share, reset, empty, at) = self.window?;
        (reset.unwrap_or(at + DAY) > now && at <= now + MINUTE).then_some((share, reset, empty))
    }

    fn blocked(&self, model: usize, now: i64) -> Option<i64> {
        let empty = self.window(now).filter(|(_, _, empty)| *empty).and_then(|(_, reset, _)| reset);
        [self.whole.blocked(now), self.models[model].blocked(now), empty]
            .into_iter()
            .flatten()
            .max()
    }
}

#[derive(Default)]
struct World {
    profiles: [Modelled; 4],
    order: Option<Vec<usize>>,
    strategy: Strategy,
}

impl World {
    /// What may be tried, and what rests and until when.
    fn choose(&self, model: usize, now: i64) -> (Vec<usize>, Vec<(usize, i64)>) {
        let listed = self.order.clone().unwrap_or_else(|| vec![0, 1, 2, 3]);
        let until = |n: usize| self.profiles[n].blocked(model, now);
        let mut ready: Vec<usize> =
            listed.iter().copied().filter(|n| until(*n).is_none()).collect();
        let mut resting: Vec<(usize, i64)> =
            listed.iter().filter_map(|n| Some((*n, until(*n)?))).collect();
        resting.sort_by_key(|(_, until)| *until);
        // Number 1 is paid by a plan; the others are keys.
        let sort = |n: &usize| usize::from(*n != 1);
        let rank = |n: &usize| {
            let profile = &self.profiles[*n];
            let window = profile.window(now);
            let wish = match self.strategy {
                Strategy::Order | Strategy::RoundRobin => 0,
                Strategy::Drain => window.and_then(|w| w.1).unwrap_or(i64::MAX),
                Strategy::LeastUsed => window.map_or(0, |w| (w.0 * 1e6) as i64),
            };
            (sort(n), wish, profile.used.min(now))
        };
        match (&self.order, self.strategy) {
            (None, _) => ready.sort_by_key(rank),
            (Some(_), Strategy::Order) => {}
            (Some(_), _) => {
                // Bubbles: an equal neighbour goes ahead if it ranks before.
                for _ in 0..ready.len() {
                    for at in 1..ready.len() {
                        let (a, b) = (ready[at - 1], ready[at]);
                        if sort(&a) == sort(&b) && rank(&b) < rank(&a) {
                            ready.swap(at - 1, at);
                        }
                    }
                }
            }
        }
        (ready, resting)
    }

    /// Restarts forget what is over.
    fn restart(&mut self, now: i64) {
        for profile in &mut self.profiles {
            for book in &mut profile.models {
                let old = book.last_failure.is_none_or(|at| now - at > DAY) || book.mistrusted(now);
                if book.blocked(now).is_none() && old {
                    *book = Book::default();
                }
            }
            if profile.window(now).is_none() {
                profile.window = None;
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------
// The machine under test, and the steps.

/// A small generator (splitmix64): the cases are the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.roll(length as u64)).unwrap()
    }

    fn span(&mut self, most: i64) -> i64 {
        i64::try_from(self.roll(most as u64)).unwrap()
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Ask { model: usize },
    Serve { which: usize, told: Option<(u32, i64)> },
    Fail { which: usize, class: usize, reset: Option<i64> },
    Pass(i64),
    Jump(i64),
    Order(u64),
    Restart,
}

fn steps(dice: &mut Dice) -> Vec<Step> {
    let pauses = [1_000, 20_000, 2 * MINUTE, 30 * MINUTE, 6 * HOUR, 30 * HOUR];
    let count = 3 + dice.roll(12);
    (0..count)
        .map(|_| match dice.roll(32) {
            0..=10 => Step::Ask { model: dice.index(2) },
            11..=15 => {
                let told = (dice.roll(2) == 0).then(|| {
                    let share = u32::try_from(dice.roll(5)).unwrap() * 25;
                    (share, dice.span(3 * HOUR) - 10 * MINUTE)
                });
                Step::Serve { which: dice.index(8), told }
            }
            16..=23 => {
                let class = dice.index(CLASSES.len());
                let reset = (dice.roll(2) == 0).then(|| match dice.roll(4) {
                    0 => -dice.span(HOUR),
                    1 => dice.span(30 * DAY),
                    _ => dice.span(2 * HOUR),
                });
                Step::Fail { which: dice.index(8), class, reset }
            }
            24..=27 => Step::Pass(dice.span(pauses[dice.0 as usize % pauses.len()])),
            28 => Step::Jump(dice.span(4 * DAY) - 2 * DAY),
            29..=30 => Step::Order(dice.roll(6)),
            _ => Step::Restart,
        })
        .collect()
}

struct Machine {
    profiles: Profiles,
    rules: AuthRules,
    now: i64,
    /// Requests under way: profile, model, start.
    open: Vec<(usize, usize, i64)>,
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn stored() -> Profiles {
    let mut profiles = Profiles::default();
    for id in IDS {
        let secret = Secret::new("FAKE");
        let credential = match id {
            "acme:plan" => Credential::token("acme", secret, None),
            _ => Credential::api_key("acme", secret),
        };
        profiles.insert(id, credential);
    }
    profiles
}

impl Machine {
    fn choose(&self, profiles: &Profiles, model: usize) -> Choice {
        let now = at(self.now);
        let resolved = |_: &str, stored: &Credential| ResolvedState {
            payer: Payer::Unknown,
            ..ResolvedState::stored(stored, false, now)
        };
        let input = ChoiceInput::new(profiles, &self.rules, "acme", &resolved, now);
        order(&ChoiceInput { model: Some(MODELS[model]), pin: Pin::None, ..input })
    }

    /// Does one step on both sides.
    fn go(&mut self, step: Step, world: &mut World) {
        match step {
            Step::Ask { model } => {
                let choice = self.choose(&self.profiles, model);
                let first = choice.candidates.first().map(|candidate| candidate.id.clone());
                let first = first.and_then(|id| IDS.iter().position(|known| *known == id));
                self.open.extend(first.map(|n| (n, model, self.now)));
            }
            Step::Serve { which, told } => {
                let Some((n, model, started)) = self.ended(which) else { return };
                let (now, begun) = (at(self.now), at(started));
                self.profiles.reward(IDS[n], Some(MODELS[model]), now, begun);
                let modelled = &mut world.profiles[n];
                modelled.whole.succeeds(self.now, started);
                modelled.models[model].succeeds(self.now, started);
                modelled.used = self.now;
                if let Some(window) = &mut modelled.window
                    && window.3 <= started
                {
                    window.2 = false;
                }
                let Some((percent, reset)) = told else { return };
                let (used, rejected) = (f64::from(percent) / 100.0, percent >= 100);
                let quota = Quota {
                    name: "w".into(),
                    used,
                    rejected,
                    reset: Some(now.plus(reset)),
                    limit: None,
                    remaining: None,
                    covers: Covers::Everything {},
                };
                self.profiles.observe(IDS[n], Some(MODELS[model]), &[quota], true, now);
                let reset = Some(self.now + reset).filter(|_| reset > 0);
                modelled.window = Some((used, reset, rejected && reset.is_some(), self.now));
            }
            Step::Fail { which, class, reset } => {
                let Some((n, model, started)) = self.ended(which) else { return };
                let (kind, scope) = CLASSES[class];
                let reset = reset.map(|ms| self.now + ms);
                let failure = Failure {
                    kind,
                    scope,
                    reset: reset.map(at),
                    account: None,
                    code: "x".into(),
                    message: String::new(),
                    advice: None,
                };
                let (now, begun) = (at(self.now), at(started));
                let rules = CooldownRules::default();
                self.profiles.punish(IDS[n], Some(MODELS[model]), &failure, &rules, now, begun);
                let billing = kind == FailureKind::Billing;
                match class {
                    0 | 4 => {
                        world.profiles[n].models[model].fails(billing, reset, self.now, started)
                    }
                    1..=3 => world.profiles[n].whole.fails(billing, reset, self.now, started),
                    // Nobody's fault, or not the profile's.
                    _ => {}
                }
            }
            Step::Pass(ms) | Step::Jump(ms) => self.now += ms,
            Step::Order(which) => {
                let lists: [&[usize]; 6] =
                    [&[], &[3, 2, 1, 0], &[0, 1, 2, 3], &[2], &[1, 0], &[0, 3, 2]];
                let list = lists[usize::try_from(which).unwrap()];
                let ids = list.iter().map(|n| IDS[*n].to_string()).collect();
                self.profiles.set_order("acme", ids);
                world.order = Some(list.to_vec()).filter(|list| !list.is_empty());
            }
            Step::Restart => {
                let text = self.profiles.to_json(at(self.now));
                self.profiles = Profiles::parse(text.expose()).unwrap();
                world.restart(self.now);
            }
        }
    }

    fn ended(&mut self, which: usize) -> Option<(usize, usize, i64)> {
        let count = self.open.len();
        (count > 0).then(|| self.open.remove(which % count))
    }
}

fn case(number: u64) {
    let mut dice = Dice(number.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let strategy = [Strategy::Order, Strategy::RoundRobin, Strategy::Drain, Strategy::LeastUsed]
        [dice.index(4)];
    let mut world = World { strategy, ..World::default() };
    let mut machine = Machine {
        profiles: stored(),
        rules: AuthRules { strategy, ..AuthRules::default() },
        now: START,
        open: Vec::new(),
    };
    let steps = steps(&mut dice);
    for (done, step) in steps.iter().enumerate() {
        machine.go(*step, &mut world);
        let model = done % 2;
        let choice = machine.choose(&machine.profiles, model);
        let place = |id: &str| IDS.iter().position(|known| *known == id).unwrap();
        let ready: Vec<usize> = choice.candidates.iter().map(|c| place(&c.id)).collect();
        let resting: Vec<(usize, i64)> = choice
            .skipped
            .iter()
            .filter_map(|skipped| Some((place(&skipped.id), skipped.until?.millis())))
            .collect();
        let expected = world.choose(model, machine.now);
        assert_eq!(
            (ready, resting),
            expected,
            "case {number}, {strategy:?}, after step {done} of {steps:#?}\nmodel: {:#?}",
            world.profiles
        );
    }
    // Another process reads the same store and chooses the same. (A restart is another process
    // too, so that not every case has to end with one.)
    if number % 40 >= PARTS {
        return;
    }
    let text = machine.profiles.to_json(at(machine.now));
    let other = Profiles::parse(text.expose()).unwrap();
    for model in 0..2 {
        let (one, two) = (machine.choose(&machine.profiles, model), machine.choose(&other, model));
        assert_eq!(one, two, "case {number}: two processes disagree");
    }
}

fn part(number: u64) {
    (0..CASES).filter(|case| case % PARTS == number).for_each(case);
}

#[test]
fn model_and_rules_agree_first_quarter() {
    part(0);
}

#[test]
fn model_and_rules_agree_second_quarter() {
    part(1);
}

#[test]
fn model_and_rules_agree_third_quarter() {
    part(2);
}

#[test]
fn model_and_rules_agree_last_quarter() {
    part(3);
}

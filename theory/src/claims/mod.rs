//! The paper's claims as things: each states itself, is measured on random instances, and shows where it stops.
//!
//! A claim is a value of [`Claim`]. Its `measure` draws instances from [`Trials`], which keys the random stream of each
//! by seed, claim and instance, so the numbers do not depend on the number of threads. What it returns are
//! [`Findings`]: quantities with the limit each must keep, and controls, in which a precondition is broken and the
//! statement must visibly fail. A claim with its control takes twenty lines:
//!
//! ```
//! use rebel_theory::claims::{Claim, Findings, Quantity, Settings, Tag};
//! use rebel_theory::solve::mirror::tilt;
//!
//! const OFFSET: Claim = Claim {
//!     id: "offset",
//!     title: "Only differences of rewards matter",
//!     statement: "The tilt by r + c is the tilt by r, for every constant c.",
//!     formula: r"\pi_{r+c}=\pi_r",
//!     preconditions: &["c is the same for all responses of a context"],
//!     tag: Tag::True,
//!     section: "1.1",
//!     family: "random bandits, |X| <= 4, |Y| <= 8",
//!     measure: |trials| {
//!         let [constant, varying] = trials.worst("offset", |draw| {
//!             let bandit = draw.bandit(4, 8);
//!             let (pi, r) = (draw.policy(&bandit), bandit.reward());
//!             let plain = tilt(&pi, r, 1.0);
//!             Ok([tilt(&pi, &(r + 5.0), 1.0).distance(&plain), tilt(&pi, &(r * 5.0), 1.0).distance(&plain)])
//!         })?;
//!         Ok(Findings::new()
//!             .measured(Quantity::at_most("largest change of a probability", constant, 1e-12))
//!             .control("a factor instead of a constant", Quantity::at_least("largest change", varying, 0.1)))
//!     },
//! };
//!
//! let report = OFFSET.run(&Settings { instances: 100, ..Settings::default() })?;
//! assert!(report.passed());
//! # Ok::<(), rebel_theory::error::InputError>(())
//! ```

mod bandit_regret;
mod binary_feedback;
mod bounded_predictor;
mod composition;
mod conservativity;
mod coverage_cost;
mod deterministic_transitions;
mod dimension_free;
mod estimating_eps;
mod example1_rate;
mod fast_rate;
mod finite_sample_npg;
mod gauss_newton_npg;
mod hybrid_improvement;
mod instances;
mod lemma1;
mod lemma2;
mod md_equivalence;
mod monotone_improvement;
mod objectives;
mod online_ipo;
mod ppo_not_conservative;
mod preference_games;
mod realisable_exactness;
mod regularised_last_iterate;
mod reparametrisation;
mod reward_model_limits;
mod selfplay_average;
mod sequence_as_arm;
mod sign_dpo;
mod slow_rate;
mod sppo_apa;
mod tabular_npg;
mod theorem1;
mod theorem2;
mod token_npg;
mod unbiased_noise;
mod variance_reduction;
mod worst_of_n;

pub use instances::{Draw, Features, Trials};

use crate::error::InputError;
use crate::statistics::Estimate;
use serde::{Deserialize, Serialize};

/// Every claim, in the order of the project's table.
pub fn all() -> Vec<&'static Claim> {
    vec![
        &md_equivalence::CLAIM,
        &composition::CLAIM,
        &tabular_npg::CLAIM,
        &monotone_improvement::CLAIM,
        &conservativity::CLAIM,
        &fast_rate::CLAIM,
        &dimension_free::CLAIM,
        &reparametrisation::CLAIM,
        &gauss_newton_npg::CLAIM,
        &hybrid_improvement::CLAIM,
        &finite_sample_npg::CLAIM,
        &variance_reduction::CLAIM,
        &realisable_exactness::CLAIM,
        &example1_rate::CLAIM,
        &estimating_eps::CLAIM,
        &lemma1::CLAIM,
        &lemma2::CLAIM,
        &theorem1::CLAIM,
        &coverage_cost::CLAIM,
        &slow_rate::CLAIM,
        &bounded_predictor::CLAIM,
        &unbiased_noise::CLAIM,
        &bandit_regret::CLAIM,
        &worst_of_n::CLAIM,
        &selfplay_average::CLAIM,
        &theorem2::CLAIM,
        &binary_feedback::CLAIM,
        &online_ipo::CLAIM,
        &sppo_apa::CLAIM,
        &reward_model_limits::CLAIM,
        &regularised_last_iterate::CLAIM,
        &ppo_not_conservative::CLAIM,
        &sign_dpo::CLAIM,
        &objectives::CLAIM,
        &sequence_as_arm::CLAIM,
        &token_npg::CLAIM,
        &deterministic_transitions::CLAIM,
    ]
}

/// The claim of that id.
pub fn find(id: &str) -> Option<&'static Claim> {
    all().into_iter().find(|claim| claim.id == id)
}

/// How a statement of the paper stands after checking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tag {
    /// True as the paper states it.
    #[serde(rename = "T")]
    True,
    /// True, and a sharper or more general form holds.
    #[serde(rename = "T+")]
    Sharper,
    /// True only under an assumption the paper leaves implicit.
    #[serde(rename = "A")]
    Assumption,
    /// False as worded.
    #[serde(rename = "F")]
    False,
}

/// A claim and the way it is measured.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// Its name on the command line.
    pub id: &'static str,
    /// A title of one line.
    pub title: &'static str,
    /// The statement that is checked, with its constants.
    pub statement: &'static str,
    /// The same as one formula, in LaTeX.
    pub formula: &'static str,
    /// What must be true for it to hold.
    pub preconditions: &'static [&'static str],
    /// How the paper's wording stands.
    pub tag: Tag,
    /// The section of the project's notes on the theory.
    pub section: &'static str,
    /// The instances it is measured on.
    pub family: &'static str,
    /// The measurement.
    pub measure: fn(&Trials) -> Result<Findings, InputError>,
}

/// How a claim is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Seed of every random stream.
    pub seed: u64,
    /// Random instances of each measurement.
    pub instances: usize,
    /// Twice as large contexts and response sets.
    pub thorough: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { seed: 0, instances: 1000, thorough: false }
    }
}

/// What a quantity must keep to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Not above this.
    AtMost(f64),
    /// Not below this.
    AtLeast(f64),
    /// Between these two.
    Within(f64, f64),
}

/// A measured number beside its limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quantity {
    /// What was measured.
    pub name: String,
    /// The number: a worst error, a worst ratio of measured to bound, an exponent.
    pub value: f64,
    /// What it must keep to.
    pub limit: Limit,
    /// The two-sided 95% interval of a sampled number.
    pub interval: Option<(f64, f64)>,
    /// Whether it does.
    pub holds: bool,
}

impl Quantity {
    fn new(name: &str, value: f64, limit: Limit) -> Self {
        let holds = match limit {
            Limit::AtMost(high) => value <= high,
            Limit::AtLeast(low) => value >= low,
            Limit::Within(low, high) => low <= value && value <= high,
        };
        Self { name: name.to_owned(), value, limit, interval: None, holds }
    }

    /// A number that must not exceed `limit`: the worst error of an identity.
    pub fn at_most(name: &str, value: f64, limit: f64) -> Self {
        Self::new(name, value, Limit::AtMost(limit))
    }

    /// A number that must reach `limit`: how much a broken precondition costs, how tight a bound is.
    pub fn at_least(name: &str, value: f64, limit: f64) -> Self {
        Self::new(name, value, Limit::AtLeast(limit))
    }

    /// The worst ratio of measured to bound: at most 1, rounding aside.
    pub fn ratio(name: &str, value: f64) -> Self {
        Self::at_most(name, value, 1.0 + 1e-9)
    }

    /// A number that must lie between `low` and `high`.
    pub fn between(name: &str, value: f64, low: f64, high: f64) -> Self {
        Self::new(name, value, Limit::Within(low, high))
    }

    /// The same quantity with the interval of its estimate.
    pub fn sampled(self, estimate: Estimate) -> Self {
        Self { interval: Some((estimate.low, estimate.high)), ..self }
    }

    /// A sampled exponent that must lie within `margin` of `expected`.
    pub fn exponent(name: &str, slope: Estimate, expected: f64, margin: f64) -> Self {
        let limit = Limit::Within(expected - margin, expected + margin);
        Self { interval: Some((slope.low, slope.high)), ..Self::new(name, slope.value, limit) }
    }
}

/// A measured number over its bound; 0 where both are rounding errors, as under a constant reward.
pub fn over_bound(measured: f64, bound: f64) -> f64 {
    const ROUNDING: f64 = 1e-14;
    if measured.abs() <= ROUNDING && bound.abs() <= ROUNDING { 0.0 } else { measured / bound }
}

/// A broken precondition and what it did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// What it breaks.
    pub breaks: String,
    /// The number that shows it; it holds if the statement visibly fails.
    pub measured: Quantity,
}

/// What a measurement found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Findings {
    measured: Vec<Quantity>,
    controls: Vec<Control>,
}

impl Findings {
    /// Nothing found yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a quantity of the claim itself.
    pub fn measured(mut self, quantity: Quantity) -> Self {
        self.measured.push(quantity);
        self
    }

    /// Adds a negative control: what is broken, and the number that shows the statement failing.
    pub fn control(mut self, breaks: &str, measured: Quantity) -> Self {
        self.controls.push(Control { breaks: breaks.to_owned(), measured });
        self
    }
}

/// What is concluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every quantity and every control is as stated.
    Verified,
    /// So is everything, and the statement holds only under its condition.
    VerifiedUnderCondition,
    /// The paper's wording is false: its counter-example holds.
    FalseAsWorded,
    /// Some quantity or control is not as stated.
    NotVerified,
}

/// A claim after it was run: everything a table, a page or a machine needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// As [`Claim::id`].
    pub id: String,
    /// As [`Claim::title`].
    pub title: String,
    /// As [`Claim::statement`].
    pub statement: String,
    /// As [`Claim::formula`].
    pub formula: String,
    /// As [`Claim::preconditions`].
    pub preconditions: Vec<String>,
    /// As [`Claim::tag`].
    pub tag: Tag,
    /// As [`Claim::section`].
    pub section: String,
    /// As [`Claim::family`].
    pub family: String,
    /// The seed it was run with.
    pub seed: u64,
    /// Random instances of each measurement.
    pub instances: usize,
    /// Whether the instances were larger, as [`Settings::thorough`].
    pub thorough: bool,
    /// The claim's own quantities.
    pub measured: Vec<Quantity>,
    /// Its negative controls.
    pub controls: Vec<Control>,
    /// The conclusion.
    pub verdict: Verdict,
}

impl Report {
    /// Whether every quantity and every control came out as stated.
    pub fn passed(&self) -> bool {
        self.verdict != Verdict::NotVerified
    }
}

impl Claim {
    /// Measures the claim. Fails on no instances, and where a solver refuses an instance.
    pub fn run(&self, settings: &Settings) -> Result<Report, InputError> {
        if settings.instances == 0 {
            return Err(InputError::Empty { argument: "instances" });
        }
        let Findings { measured, controls } = (self.measure)(&Trials::new(self.id, *settings))?;
        let as_stated = measured.iter().all(|q| q.holds) && controls.iter().all(|c| c.measured.holds);
        let verdict = match (as_stated, self.tag) {
            (false, _) => Verdict::NotVerified,
            (true, Tag::True | Tag::Sharper) => Verdict::Verified,
            (true, Tag::Assumption) => Verdict::VerifiedUnderCondition,
            (true, Tag::False) => Verdict::FalseAsWorded,
        };
        Ok(Report {
            id: self.id.to_owned(),
            title: self.title.to_owned(),
            statement: self.statement.to_owned(),
            formula: self.formula.to_owned(),
            preconditions: self.preconditions.iter().map(|&p| p.to_owned()).collect(),
            tag: self.tag,
            section: self.section.to_owned(),
            family: self.family.to_owned(),
            seed: settings.seed,
            instances: settings.instances,
            thorough: settings.thorough,
            measured,
            controls,
            verdict,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_claim_holds_at_the_default_settings() {
        for claim in all() {
            let report = claim.run(&Settings::default()).unwrap();
            let quantities = report.measured.iter().chain(report.controls.iter().map(|c| &c.measured));
            quantities.for_each(|q| println!("{}: {}: {:e} {:?} {:?}", claim.id, q.name, q.value, q.limit, q.interval));
            assert!(report.passed(), "{}: {report:#?}", claim.id);
            assert!(!report.measured.is_empty() && !report.controls.is_empty(), "{}: no control", claim.id);
        }
    }

    #[test]
    fn every_claim_holds_at_another_seed_and_size() {
        for claim in all() {
            let report = claim.run(&Settings { seed: 7, instances: 200, thorough: true }).unwrap();
            assert!(report.passed(), "{}: {report:#?}", claim.id);
        }
    }

    #[test]
    fn report_does_not_depend_on_thread_count() {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let settings = Settings { instances: 60, ..Settings::default() };
            pool.install(|| all().iter().map(|claim| claim.run(&settings).unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn report_survives_json() {
        let report = find("md-equivalence").unwrap().run(&Settings { instances: 5, ..Settings::default() }).unwrap();
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }

    #[test]
    fn ids_are_distinct_and_found() {
        for claim in all() {
            assert!(std::ptr::eq(find(claim.id).unwrap(), claim));
        }
        assert!(find("telepathy").is_none());
    }

    #[test]
    fn number_that_is_not_one_holds_nowhere() {
        assert!(!Quantity::at_most("", f64::NAN, 1.0).holds && !Quantity::at_least("", f64::NAN, 1.0).holds);
    }
}

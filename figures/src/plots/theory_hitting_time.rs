//! Which cost grows with the number of responses (experiments E1.1, E1.4, N1.1, N5.5): iterations of exact REBEL grow with its
//! logarithm, those of the softmax gradient linearly, those of the projected gradient not at all; and reward queries of sampled
//! batches grow faster than those of single pairs.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rebel_theory::experiments::hitting_time::{GAP, GOAL, Plateau, Steps, plateau, steps};
use rebel_theory::experiments::one_pair::{Arrival, Learner, Race};
use rebel_theory::statistics::{Estimate, median_interval};
use serde::{Deserialize, Serialize};

use crate::chart::{Interval, Plot};
use crate::error::Result;
use crate::layout::Sheet;
use crate::render::Figure;
use crate::style::{Dash, Ink, Marker, Role};

/// One line.
pub const SHOWS: &str = "iterations and reward queries against the number of responses";
/// The claims it shows.
pub const CLAIMS: &[&str] = &["dimension-free"];
/// Seeds of the sampled races.
pub const SEEDS: u64 = 200;

const ETA: f64 = 0.1;
const ARMS: [usize; 6] = [4, 8, 16, 32, 64, 128];

/// Medians over the races of one learner, each with its 95% interval, `[arms]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Races {
    /// Pairs a batch, `[arms]`.
    pub pairs: Vec<usize>,
    /// Iterations.
    pub iterations: Vec<Estimate>,
    /// Reward queries.
    pub queries: Vec<Estimate>,
}

/// What the figure shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Step size of the exact methods.
    pub eta: f64,
    /// Steps of the exact methods, by number of responses.
    pub exact: Vec<Steps>,
    /// The way out of a start that hardly plays the better of two responses.
    pub plateaus: Vec<Plateau>,
    /// Numbers of responses of the sampled races.
    pub arms: Vec<usize>,
    /// REBEL with 2K ln K pairs, the second response uniform.
    pub batches: Races,
    /// REBEL with one pair, both responses from the policy: RLOO with two responses.
    pub single: Races,
}

fn races(learner: Learner, pairs: impl Fn(usize) -> usize) -> Races {
    let run = |&arms: &usize| -> (Estimate, Estimate) {
        let race = Race::new(arms, learner, pairs(arms), 1.0).expect("a race");
        let arrivals: Vec<Arrival> = (0..SEEDS).map(|seed| race.run(&mut ChaCha8Rng::seed_from_u64(seed))).collect();
        let median =
            |of: fn(&Arrival) -> usize| median_interval(&arrivals.iter().map(|a| of(a) as f64).collect::<Vec<_>>());
        (median(|a| a.iterations), median(|a| a.queries))
    };
    let (iterations, queries) = ARMS.iter().map(run).unzip();
    Races { pairs: ARMS.iter().map(|&k| pairs(k)).collect(), iterations, queries }
}

/// Runs every method.
pub fn data() -> Data {
    Data {
        eta: ETA,
        exact: (2..=12).map(|k| steps(1 << k, ETA).expect("a race")).collect(),
        plateaus: (0..=8).map(|i| plateau(0.3 * 10f64.powf(-0.5 * f64::from(i))).expect("a start")).collect(),
        arms: ARMS.to_vec(),
        batches: races(Learner::RebelUniform, |arms| (2.0 * arms as f64 * (arms as f64).ln()) as usize),
        single: races(Learner::RebelOnPolicy, |_| 1),
    }
}

fn add(plot: Plot, ink: impl Into<Ink>, label: &str, arms: &[usize], medians: &[Estimate]) -> Plot {
    let ink = ink.into();
    let points: Vec<(f64, f64)> = arms.iter().zip(medians).map(|(&k, m)| (k as f64, m.value)).collect();
    let bars: Vec<Interval> =
        points.iter().zip(medians).map(|(&at, m)| Interval { at, x: (at.0, at.0), y: (m.low, m.high) }).collect();
    plot.bars(ink, &bars).marked_line(ink, label, &points)
}

/// Draws it.
///
/// # Errors
/// A value that is not finite.
pub fn draw(data: &Data) -> Result<Figure> {
    let projected = Role::Control.ink().marker(Marker::Square);
    let by = |of: fn(&Steps) -> usize| -> Vec<(f64, f64)> {
        data.exact.iter().map(|s| (s.arms as f64, of(s) as f64)).collect()
    };
    let exact = Plot::new("responses K", "iterations")
        .title("Exact, uniform start")
        .log_x()
        .log_y()
        .legend_above()
        .marked_line(Role::Rebel, "REBEL: ln K", &by(|s| s.mirror))
        .marked_line(Role::Reinforce, "softmax gradient: K", &by(|s| s.softmax))
        .marked_line(projected, "projected gradient: flat", &by(|s| s.projected));
    let of = |steps: fn(&Plateau) -> usize| -> Vec<(f64, f64)> {
        data.plateaus.iter().map(|p| (1.0 / p.start, steps(p) as f64)).collect()
    };
    let plateaus = Plot::new("1 / initial probability p", "iterations")
        .title("Exact, a rare better response")
        .log_x()
        .log_y()
        .legend_above()
        .marked_line(Role::Rebel, "REBEL: ln 1/p", &of(|p| p.mirror))
        .marked_line(Role::Reinforce, "softmax gradient: 1/p", &of(|p| p.softmax));
    let single = Role::RlooTwo.ink();
    let sampled = Plot::new("responses K", "median").title("Sampled pairs").log_x().log_y().legend_above();
    let sampled =
        add(sampled, Role::Rebel.ink().hollow(), "2K ln K pairs: iterations", &data.arms, &data.batches.iterations);
    let sampled =
        add(sampled, Role::Rebel.ink().dash(Dash::Dashed), "2K ln K pairs: queries", &data.arms, &data.batches.queries);
    let sampled = add(sampled, single.hollow(), "one pair: iterations", &data.arms, &data.single.iterations);
    let sampled = add(sampled, single.dash(Dash::Dashed), "one pair: queries", &data.arms, &data.single.queries);
    let note = format!(
        "One response is better than all others by {GAP}. Left: steps of size {} to regret {GOAL}. Middle: two responses, step size 1, \
         until the better one is played half of the time. Right: REBEL on sampled pairs (with one pair it is RLOO), no reward \
         noise, step size 1, until regret 0.1; medians of {SEEDS} seeds (0 to {}), 95% intervals mostly within the markers. \
         Hollow: iterations, where batches win; filled, dashed: reward queries, where single pairs do.",
        data.eta,
        SEEDS - 1,
    );
    Sheet::row(vec![exact, plateaus, sampled]).title("What depends on the number of responses").note(&note).draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_the_learners_reverses_between_iterations_and_queries() {
        let data = data();
        for i in 0..data.arms.len() {
            assert!(data.batches.iterations[i].high < data.single.iterations[i].low, "K = {}", data.arms[i]);
            assert!(data.batches.queries[i].low > data.single.queries[i].high, "K = {}", data.arms[i]);
        }
        let (first, last) = (data.exact[0], data.exact[data.exact.len() - 1]);
        assert_eq!(first.projected, last.projected);
        assert!(last.softmax > 500 * first.softmax / 10 && last.mirror < 5 * first.mirror);
    }
}

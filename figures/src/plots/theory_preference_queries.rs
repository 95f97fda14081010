//! Reward model or self-play at equal numbers of preference queries (experiment E6.8): on cycles, and on orders that no utility
//! gives, a frozen reward model has a floor that no data removes; where there is a utility it wins at every budget.
//!
//! See [`rebel_theory::experiments::preference_queries`] for the learners. The control is the game that has a utility.

use rebel_theory::experiments::preference_queries::{Budget, Preferences, compare};
use rebel_theory::statistics::Estimate;
use serde::{Deserialize, Serialize};

use crate::chart::Plot;
use crate::error::Result;
use crate::layout::Sheet;
use crate::render::Figure;
use crate::style::{Dash, Ink, Marker, Role};

/// One line.
pub const SHOWS: &str = "duality gap against preference queries: reward model, self-play, online IPO";
/// The claims it shows.
pub const CLAIMS: &[&str] = &["reward-model-limits", "online-ipo"];
/// Seeds of every learner.
pub const SEEDS: u64 = 200;

/// Queries, and pairs of an iteration.
const BUDGETS: [(usize, usize); 6] = [(100, 10), (300, 15), (1000, 20), (3000, 30), (10_000, 55), (30_000, 100)];

/// One game.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Panel {
    /// The preferences.
    pub preferences: Preferences,
    /// What each budget buys.
    pub budgets: Vec<Budget>,
}

/// What the figure shows: a panel a game.
pub type Data = Vec<Panel>;

/// Runs every learner on every game and budget.
pub fn data() -> Data {
    let panel = |preferences: Preferences| {
        let run = |&budget: &(usize, usize)| compare(preferences, budget, 0..SEEDS).expect("a checked game");
        Panel { preferences, budgets: BUDGETS.iter().map(run).collect() }
    };
    Preferences::ALL.map(panel).to_vec()
}

/// A learner's name, ink, and result.
type Curve = (&'static str, Ink, fn(&Budget) -> Estimate);

fn curves() -> [Curve; 6] {
    let (model, rebel) = (Role::Control.ink(), Role::Rebel.ink());
    [
        ("reward model, its best response", model.dash(Dash::Solid), |b| b.model_best),
        ("reward model, best temperature in hindsight", model.dash(Dash::Dotted).marker(Marker::Plus), |b| {
            b.model_tempered
        }),
        ("self-play, 2 queries a pair, average", rebel, |b| b.two_queries),
        ("the same, last iterate", rebel.dash(Dash::Dashed).hollow(), |b| b.two_queries_last),
        ("online IPO, 1 query, average", Role::Ipo.ink().marker(Marker::Diamond), |b| b.one_query),
        ("reward model refitted on the policy, average", Role::Measured.ink().marker(Marker::Up), |b| b.refit),
    ]
}

/// Draws it.
///
/// # Errors
/// A value that is not finite.
pub fn draw(data: &Data) -> Result<Figure> {
    const FLOOR: f64 = 1e-3;
    let plots = data.iter().enumerate().map(|(i, panel)| {
        let title = match panel.preferences {
            Preferences::Cycle => "Weighted cycle above 3 dominated responses",
            Preferences::Intransitive => "Random margins, 8 responses",
            Preferences::BradleyTerry => "A utility (Bradley-Terry), 6 responses",
            Preferences::Order => "A strict order without a utility",
        };
        let mut plot = Plot::new("preference queries", "duality gap").title(title).log_x().log_y().y_range(FLOOR, 2.0);
        for (name, ink, of) in curves() {
            let at = |budget: &Budget| budget.queries as f64;
            // a gap of 0, and an interval that reaches it, leave through the lower edge
            let above = |value: f64| value.max(FLOOR / 10.0);
            let line: Vec<(f64, f64)> = panel.budgets.iter().map(|b| (at(b), above(of(b).value))).collect();
            let band: Vec<(f64, f64, f64)> =
                panel.budgets.iter().map(|b| (at(b), above(of(b).low), above(of(b).high))).collect();
            plot = plot.band(ink, &band).marked_line(ink, if i == 0 { name } else { "" }, &line);
        }
        plot
    });
    let mut plots: Vec<Plot> = plots.collect();
    let lower = plots.split_off(2);
    let note = format!(
        "Means of {SEEDS} seeds with 95% t intervals, every learner at the same number of queries; a policy of duality gap 0 cannot be \
         exploited. Self-play takes the step size of the theory, √(2 ln|Y|/T), in batches of 10 to 100 pairs. Reward models have a \
         ridge; temperatures 1, 4, 16. What leaves through the lower edge has no gap left. A frozen reward model has a floor wherever \
         no utility gives the preferences, and wins where one does. The last iterate is wrong above, where no response beats all \
         others, and best of self-play below, where one does."
    );
    Sheet::grid(vec![plots, lower]).title("Reward model or self-play, at equal preference queries").note(&note).draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_numbers_show_the_floor_and_the_control_without_one() {
        let text = include_str!("../../data/theory_preference_queries.json");
        let file: serde_json::Value = serde_json::from_str(text).unwrap();
        let data: Data = serde_json::from_value(file["data"].clone()).unwrap();
        for panel in &data {
            let last = &panel.budgets[panel.budgets.len() - 1];
            let (model, play) = (last.model_best.value, last.one_query.value);
            match panel.preferences {
                Preferences::BradleyTerry => assert!(model < 1e-3 && play > 0.01, "{last:?}"),
                _ => assert!(model > 0.19 && play < 0.1, "{last:?}"),
            }
        }
    }
}

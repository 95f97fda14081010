//! Reads a file of theory vectors and computes every case from its inputs alone.
//!
//! A file is `{"schema":"rebel-theory-vectors/1","topic":..,"cases":[{"id","op","input"}, ..]}`; expected values, where
//! there are any, are not looked at. [`compare`] holds the rule by which answers are judged.

mod autoreg;
mod baselines;
mod claim1;
mod claim2;
pub mod compare;
mod estimation;
mod example1;
mod input;
mod md;
mod preferences;
mod regularised;
mod sampled;
mod theorem1;

use crate::error::InputError;
use input::Fields;
use serde_json::{Map, Value, json};

/// The schema this reader knows.
pub const SCHEMA: &str = "rebel-theory-vectors/1";

/// Why a file of vectors could not be computed: one line naming the case and the field.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum VectorError {
    /// The file as a whole is not a file of theory vectors.
    #[error("{field}: {problem}")]
    File {
        /// The field at fault.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A field of one case is missing or of the wrong form.
    #[error("{id}: {field}: {problem}")]
    Field {
        /// The case.
        id: String,
        /// The field at fault.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A field of one case has a value that is refused.
    #[error("{id}: {source}")]
    Input {
        /// The case.
        id: String,
        /// What was refused; its message starts with the field's name.
        source: InputError,
    },
}

/// Why one operation failed, before the case's name is known.
pub(crate) enum Failure {
    Field { field: String, problem: String },
    Input(InputError),
}

impl From<InputError> for Failure {
    fn from(error: InputError) -> Self {
        Failure::Input(error)
    }
}

impl Failure {
    /// The same, found within the object `outer`.
    fn within(self, outer: &str) -> Self {
        let (field, problem) = match self {
            Failure::Field { field, problem } => (field, problem),
            Failure::Input(source) => {
                let message = source.to_string(); // starts with the argument's name
                let (field, problem) = message.split_once(": ").unwrap_or((&message, ""));
                (field.to_owned(), problem.to_owned())
            }
        };
        Failure::Field { field: format!("{outer}.{field}"), problem }
    }

    fn in_case(self, id: &str) -> VectorError {
        match self {
            Failure::Field { field, problem } => VectorError::Field { id: id.to_owned(), field, problem },
            Failure::Input(source) => VectorError::Input { id: id.to_owned(), source },
        }
    }
}

/// The computation an operation's name stands for.
type Operation = fn(&Fields) -> Result<Value, Failure>;

fn operation(name: &str) -> Option<Operation> {
    Some(match name {
        "md_run" => md::md_run,
        "kl_tilt_sharp" => md::kl_tilt_sharp,
        "worst_case_rate" => md::worst_case_rate,
        "npg_tabular_step" => md::npg_tabular_step,
        "pg_tabular_run" => md::pg_tabular_run,
        "pg_hitting" => md::pg_hitting,
        "reparam_loglinear" => md::reparam_loglinear,
        "claim1_loglinear" => claim1::claim1_loglinear,
        "claim1_mlp" => claim1::claim1_mlp,
        "claim1_offpolicy" => claim1::claim1_offpolicy,
        "claim1_joint" => claim1::claim1_joint,
        "autoreg_step" => autoreg::autoreg_step,
        "stochastic_tree" => autoreg::stochastic_tree,
        "batch_losses" => baselines::batch_losses,
        "ppo_tabular" => baselines::ppo_tabular,
        "tabular_optima" => baselines::tabular_optima,
        "bandit_replay" => sampled::bandit_replay,
        "bandit_baselines" => sampled::bandit_baselines,
        "spo_decomposition" => sampled::spo_decomposition,
        "gn_finite" => claim2::gn_finite,
        "grad_variance" => claim2::grad_variance,
        "gn_asymptotic" => claim2::gn_asymptotic,
        "ols_excess" => example1::ols_excess,
        "pair_loss_estimation" => estimation::pair_loss_estimation,
        "lemma1_terms" => theorem1::lemma1_terms,
        "theorem1_run" => theorem1::theorem1_run,
        "best_worst" => theorem1::best_worst,
        "md_fixed_f" => theorem1::md_fixed_f,
        "tight_sqrt_c_eps" => theorem1::tight_sqrt_c_eps,
        "lemma2_sequence" => theorem1::lemma2_sequence,
        "minimax_winner" => preferences::minimax_winner_of,
        "spo_run" => preferences::spo_run,
        "bt_fit" => preferences::bt_fit,
        "spo_replay" => preferences::spo_replay,
        "preference_steps" => preferences::preference_steps,
        "ipo_fixed_ref" => preferences::ipo_fixed_ref,
        "regularised_selfplay" => regularised::regularised_selfplay,
        _ => return None,
    })
}

/// What a file of vectors came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// `{"results":[{"id","output"}, ..], "skipped":[{"id","op","skipped"}, ..]}`. A case whose operation is unknown is
    /// listed in `skipped` with its name; nothing is made up for it.
    pub answers: Value,
    /// Why cases that are in neither list could not be computed.
    pub failed: Vec<VectorError>,
}

/// Computes a file of vectors in which every case is sound: the answers of [`run_all`], or the first case's failure.
pub fn run(file: &Value) -> Result<Value, VectorError> {
    let outcome = run_all(file)?;
    outcome.failed.into_iter().next().map_or(Ok(outcome.answers), Err)
}

/// Computes a file of vectors, case by case; one that cannot be computed does not keep the others from it.
///
/// Fails where the file as a whole is none, or a case has no name or no operation.
pub fn run_all(file: &Value) -> Result<Outcome, VectorError> {
    let bad = |field: &str, problem: &str| VectorError::File { field: field.to_owned(), problem: problem.to_owned() };
    let schema = file.get("schema").and_then(Value::as_str).unwrap_or_default();
    if schema != SCHEMA {
        return Err(bad("schema", &format!("{schema:?} (expected {SCHEMA:?})")));
    }
    let cases =
        file.get("cases").and_then(Value::as_array).ok_or_else(|| bad("cases", "is missing (expected a list)"))?;
    let mut results = Vec::with_capacity(cases.len());
    let (mut skipped, mut failed) = (Vec::new(), Vec::new());
    for (n, case) in cases.iter().enumerate() {
        let text = |key: &str| {
            let missing = || bad(&format!("cases[{n}].{key}"), "is missing (expected a text)");
            case.get(key).and_then(Value::as_str).ok_or_else(missing)
        };
        let (id, op) = (text("id")?, text("op")?);
        let Some(compute) = operation(op) else {
            skipped.push(json!({ "id": id, "op": op, "skipped": "unknown operation" }));
            continue;
        };
        let input = case.get("input").and_then(Value::as_object);
        let missing =
            || Failure::Field { field: "input".to_owned(), problem: "is missing (expected an object)".to_owned() };
        let output = input.ok_or_else(missing).and_then(|input| compute(&Fields::new(input)));
        match output {
            Ok(output) => results.push(json!({ "id": id, "output": output })),
            Err(failure) => failed.push(failure.in_case(id)),
        }
    }
    let answers = Value::Object(Map::from_iter([
        ("results".to_owned(), Value::Array(results)),
        ("skipped".to_owned(), Value::Array(skipped)),
    ]));
    Ok(Outcome { answers, failed })
}

/// A number, or null where it is not defined.
pub(crate) fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// A list of numbers.
pub(crate) fn list<'a>(values: impl IntoIterator<Item = &'a f64>) -> Value {
    values.into_iter().map(|&v| number(v)).collect()
}

/// A table as a list of rows.
pub(crate) fn table(values: &ndarray::Array2<f64>) -> Value {
    values.rows().into_iter().map(list).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(case: Value) -> Value {
        json!({ "schema": SCHEMA, "topic": "md", "cases": [case] })
    }

    #[test]
    fn unknown_operation_is_listed_and_not_answered() {
        let got = run(&file(json!({ "id": "a", "op": "telepathy", "input": {} }))).unwrap();
        assert_eq!(
            got,
            json!({ "results": [], "skipped": [{ "id": "a", "op": "telepathy", "skipped": "unknown operation" }] })
        );
    }

    #[test]
    fn bad_input_is_one_line_naming_case_and_field() {
        let case =
            |input: Value| run(&file(json!({ "id": "c7", "op": "md_run", "input": input }))).unwrap_err().to_string();
        let good = json!({ "rho": [1.0], "pi0": [[0.5, 0.5]], "r": [[1.0, 0.0]], "eta": 0.5, "T": 2 });
        let with = |key: &str, value: Value| {
            let mut input = good.clone();
            input[key] = value;
            case(input)
        };
        assert!(run(&file(json!({ "id": "c7", "op": "md_run", "input": good.clone() }))).is_ok());
        assert_eq!(with("eta", json!(-1.0)), "c7: eta: -1 (expected a finite number above 0)");
        assert_eq!(with("pi0", json!([[0.5, 0.6]])), "c7: pi0[0]: sums to 1.1 (expected 1)");
        assert_eq!(with("pi0", json!([[0.2, 0.3, 0.5]])), "c7: pi0: shape [1, 3] (expected [1, 2])");
        assert_eq!(with("r", json!([[1.0], [0.0, 1.0]])), "c7: r: its rows differ in length (expected a table)");
        assert_eq!(with("T", json!(1.5)), "c7: T: 1.5 (expected a whole number from 0 to 1000000)");
        assert_eq!(with("rho", json!([])), "c7: rho: is empty (expected at least one entry)");
        assert_eq!(case(json!({})), "c7: rho: is missing (expected a list of numbers)");
    }

    #[test]
    fn case_that_cannot_be_computed_leaves_the_others_their_answers() {
        let case = |id: &str, s: f64| json!({ "id": id, "op": "kl_tilt_sharp", "input": { "s": [s] } });
        let outcome = run_all(&json!({ "schema": SCHEMA, "cases": [case("bad", -1.0), case("good", 1.0)] })).unwrap();
        assert_eq!(outcome.answers["results"][0]["id"], "good");
        assert_eq!(outcome.failed.len(), 1);
        assert!(outcome.failed[0].to_string().starts_with("bad: s: -1 "), "{}", outcome.failed[0]);
    }

    #[test]
    fn foreign_file_is_refused() {
        assert_eq!(run(&json!({})).unwrap_err().to_string(), "schema: \"\" (expected \"rebel-theory-vectors/1\")");
        assert!(run(&json!({ "schema": SCHEMA })).is_err());
        assert_eq!(
            run(&file(json!({ "id": "a" }))).unwrap_err().to_string(),
            "cases[0].op: is missing (expected a text)"
        );
    }
}

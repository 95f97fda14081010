//! What can be wrong with an argument, said once: the argument's name, the offending index, what was found.

use crate::objective::ArithError;
use ndarray::{ArrayView1, ArrayView2, Dimension};

/// How far a distribution may be from summing to one.
pub const SUM_TOLERANCE: f64 = 1e-9;

/// Why an argument was refused. Every variant names the argument and, where there is one, the offending index.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InputError {
    /// An entry is NaN or infinite.
    #[error("{argument}{index:?}: {value} is not a finite number")]
    NotFinite {
        /// Name of the argument.
        argument: &'static str,
        /// Index of the entry.
        index: Vec<usize>,
        /// The entry.
        value: f64,
    },
    /// A probability or weight is negative.
    #[error("{argument}{index:?}: {value} is negative (expected a probability)")]
    Negative {
        /// Name of the argument.
        argument: &'static str,
        /// Index of the entry.
        index: Vec<usize>,
        /// The entry.
        value: f64,
    },
    /// A distribution does not sum to one.
    #[error("{argument}{index:?}: sums to {sum} (expected 1)")]
    NotNormalised {
        /// Name of the argument.
        argument: &'static str,
        /// Index of the row, empty if the argument is a single distribution.
        index: Vec<usize>,
        /// Its sum.
        sum: f64,
    },
    /// Two arguments do not fit each other.
    #[error("{argument}: shape {found:?} (expected {expected:?})")]
    Shape {
        /// Name of the argument.
        argument: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that would fit.
        expected: Vec<usize>,
    },
    /// A set without elements.
    #[error("{argument}: is empty (expected at least one entry)")]
    Empty {
        /// Name of the argument.
        argument: &'static str,
    },
    /// An entry that is a set without elements.
    #[error("{argument}{index:?}: is empty (expected at least one entry)")]
    EmptyEntry {
        /// Name of the argument.
        argument: &'static str,
        /// Index of the entry.
        index: Vec<usize>,
    },
    /// A table of margins that is not skew-symmetric.
    #[error("{argument}{index:?}: {value} and its mirror image {mirrored} do not add up to 0")]
    NotSkew {
        /// Name of the argument.
        argument: &'static str,
        /// Index of the entry.
        index: Vec<usize>,
        /// The entry.
        value: f64,
        /// The entry with both responses exchanged.
        mirrored: f64,
    },
    /// A table of preferences in which the two probabilities of a pair do not complement each other.
    #[error("{argument}{index:?}: {value} and its mirror image {mirrored} do not add up to 1")]
    NotComplementary {
        /// Name of the argument.
        argument: &'static str,
        /// Index of the entry.
        index: Vec<usize>,
        /// The entry.
        value: f64,
        /// The entry with both responses exchanged.
        mirrored: f64,
    },
    /// A likelihood without a finite maximum.
    #[error(
        "{argument}: no finite fit: responses {responses:?} win every comparison with the others (expected a ridge)"
    )]
    Separated {
        /// Name of the argument.
        argument: &'static str,
        /// The responses whose rewards would be infinitely larger.
        responses: Vec<usize>,
    },
    /// A problem whose solution was not found to the accuracy that is needed.
    #[error("{argument}: not solved, an error of {error} is left")]
    Unsolved {
        /// Name of the argument.
        argument: &'static str,
        /// What is left, in the argument's units.
        error: f64,
    },
    /// An index that points outside its set.
    #[error("{argument}{index:?}: {found} (expected an index below {below})")]
    OutOfRange {
        /// Name of the argument.
        argument: &'static str,
        /// Where in the argument it stands.
        index: Vec<usize>,
        /// The index given.
        found: usize,
        /// The number of things it may point to.
        below: usize,
    },
    /// A probability of a single outcome is above one.
    #[error("{argument}{index:?}: {value} is above 1 (expected a probability)")]
    AboveOne {
        /// Name of the argument.
        argument: &'static str,
        /// Index of the entry.
        index: Vec<usize>,
        /// The entry.
        value: f64,
    },
    /// A matrix whose decomposition did not converge.
    #[error("{argument}: its decomposition did not converge (expected entries of moderate size)")]
    NoConvergence {
        /// Name of the matrix.
        argument: &'static str,
    },
    /// A pair whose second draw belongs to another context than its first.
    #[error("{argument}{index:?}: is a draw of context {found}, its pair of context {expected} (expected one context)")]
    AcrossContexts {
        /// Name of the argument.
        argument: &'static str,
        /// Index of the pair.
        index: Vec<usize>,
        /// The context of its second draw.
        found: usize,
        /// That of its first.
        expected: usize,
    },
    /// A quantity outside its domain.
    #[error("{argument}: {value} (expected {expected})")]
    Domain {
        /// Name of the argument.
        argument: &'static str,
        /// The value given.
        value: f64,
        /// What was expected, in words.
        expected: &'static str,
    },
    /// An objective refused its batch or one of its parameters.
    #[error("{0}")]
    Objective(#[from] ArithError),
}

/// `value` if it is finite and above zero: a step size `eta`, a temperature, a gap.
pub fn positive(argument: &'static str, value: f64) -> Result<f64, InputError> {
    if value.is_finite() && value > 0.0 {
        return Ok(value);
    }
    Err(InputError::Domain { argument, value, expected: "a finite number above 0" })
}

/// `value` if it is finite and not below zero: a standard deviation.
pub fn not_negative(argument: &'static str, value: f64) -> Result<f64, InputError> {
    if value.is_finite() && value >= 0.0 {
        return Ok(value);
    }
    Err(InputError::Domain { argument, value, expected: "a finite number, at least 0" })
}

/// Refuses NaN and infinities, naming the first.
pub fn finite<'a, D: Dimension + 'a>(
    argument: &'static str,
    values: &'a ndarray::Array<f64, D>,
) -> Result<(), InputError> {
    if values.is_empty() {
        return Err(InputError::Empty { argument });
    }
    let dynamic = values.view().into_dyn();
    match dynamic.indexed_iter().find(|(_, v)| !v.is_finite()) {
        Some((index, &value)) => Err(InputError::NotFinite { argument, index: index.slice().to_vec(), value }),
        None => Ok(()),
    }
}

/// Refuses a row that is not a probability distribution; `row` is its index in the argument, empty for a lone row.
pub fn distribution(argument: &'static str, row: &[usize], p: ArrayView1<f64>) -> Result<(), InputError> {
    if p.is_empty() {
        return Err(InputError::Empty { argument });
    }
    for (y, &value) in p.iter().enumerate() {
        let index = || [row, &[y]].concat();
        if !value.is_finite() {
            return Err(InputError::NotFinite { argument, index: index(), value });
        }
        if value < 0.0 {
            return Err(InputError::Negative { argument, index: index(), value });
        }
    }
    let sum = p.sum();
    if (sum - 1.0).abs() > SUM_TOLERANCE {
        return Err(InputError::NotNormalised { argument, index: row.to_vec(), sum });
    }
    Ok(())
}

/// Refuses a table in which some row is not a probability distribution.
pub fn distributions(argument: &'static str, rows: ArrayView2<f64>) -> Result<(), InputError> {
    if rows.is_empty() {
        return Err(InputError::Empty { argument });
    }
    rows.rows().into_iter().enumerate().try_for_each(|(x, row)| distribution(argument, &[x], row))
}

/// Refuses an index that points at or beyond `below`, naming the first.
pub fn indices(argument: &'static str, values: &[usize], below: usize) -> Result<(), InputError> {
    match values.iter().position(|&v| v >= below) {
        Some(at) => Err(InputError::OutOfRange { argument, index: vec![at], found: values[at], below }),
        None => Ok(()),
    }
}

/// Refuses a shape other than `expected`.
pub fn shape(argument: &'static str, found: &[usize], expected: &[usize]) -> Result<(), InputError> {
    if found == expected {
        return Ok(());
    }
    Err(InputError::Shape { argument, found: found.to_vec(), expected: expected.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn error_names_argument_and_index() {
        let error = distributions("mu", array![[0.5, 0.5], [1.5, -0.5]].view()).unwrap_err();
        assert_eq!(error.to_string(), "mu[1, 1]: -0.5 is negative (expected a probability)");
        let error = distributions("mu", array![[0.5, 0.5], [0.5, 0.25]].view()).unwrap_err();
        assert_eq!(error.to_string(), "mu[1]: sums to 0.75 (expected 1)");
        let error = finite("r", &array![[1.0, f64::NAN]]).unwrap_err();
        assert_eq!(error.to_string(), "r[0, 1]: NaN is not a finite number");
        let error = indices("y2", &[0, 3, 2], 3).unwrap_err();
        assert_eq!(error.to_string(), "y2[1]: 3 (expected an index below 3)");
        assert!(positive("eta", 0.0).is_err() && positive("eta", f64::INFINITY).is_err());
    }
}

//! The rule by which answers to vectors are judged.
//!
//! For a rectangular array of numbers $$ \max|e-g|\le \mathrm{abs}+\mathrm{rel}\cdot\max|e| $$ a number being an array of
//! one; ragged arrays element by element; booleans, texts and null exactly. Every expected key must be there; extra keys
//! are ignored. What is not finite never agrees.

use serde_json::Value;

/// How far an answer may be off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Part of the largest expected magnitude.
    pub rel: f64,
    /// Added to it.
    pub abs: f64,
}

/// Where `got` differs from `expected`, one message each; empty if they agree.
pub fn differences(expected: &Value, got: &Value, tolerance: Tolerance) -> Vec<String> {
    let mut found = Vec::new();
    walk("", expected, got, tolerance, &mut found);
    found
}

fn walk(path: &str, expected: &Value, got: &Value, tolerance: Tolerance, found: &mut Vec<String>) {
    if let (Value::Object(wanted), Value::Object(given)) = (expected, got) {
        for (key, value) in wanted {
            match given.get(key) {
                Some(answer) => walk(&format!("{path}/{key}"), value, answer, tolerance, found),
                None => found.push(format!("{path}/{key}: missing")),
            }
        }
        return;
    }
    if let Some(shape) = rectangle(expected) {
        if rectangle(got) != Some(shape) {
            found.push(format!("{path}: another shape than expected"));
            return;
        }
        let (wanted, given) = (numbers(expected), numbers(got));
        let largest = wanted.iter().fold(0.0, |m: f64, e| m.max(e.abs()));
        let worst = wanted.iter().zip(&given).map(|(e, g)| (e - g).abs()).fold(0.0, nan_max);
        let agrees = worst <= tolerance.abs + tolerance.rel * largest; // false for NaN
        if !agrees {
            found.push(format!("{path}: off by {worst:.3e} where the largest expected is {largest:.3e}"));
        }
        return;
    }
    match (expected, got) {
        (Value::Array(wanted), Value::Array(given)) if wanted.len() == given.len() => {
            for (n, (e, g)) in wanted.iter().zip(given).enumerate() {
                walk(&format!("{path}[{n}]"), e, g, tolerance, found);
            }
        }
        _ if expected == got => {}
        _ => found.push(format!("{path}: expected {expected}, got {got}")),
    }
}

/// The larger of two, NaN if either is: `f64::max` would lose one.
fn nan_max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// The shape of a rectangular array of numbers, empty for a number, `None` for anything else.
fn rectangle(value: &Value) -> Option<Vec<usize>> {
    match value {
        Value::Number(_) => Some(Vec::new()),
        Value::Array(items) => {
            let Some((first, rest)) = items.split_first() else { return Some(vec![0]) };
            let inner = rectangle(first)?;
            let same = rest.iter().all(|item| rectangle(item).as_ref() == Some(&inner));
            same.then(|| [vec![items.len()], inner].concat())
        }
        _ => None,
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        other => vec![other.as_f64().unwrap_or(f64::NAN)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TOLERANCE: Tolerance = Tolerance { rel: 0.1, abs: 0.01 };

    fn agrees(expected: Value, got: Value) -> bool {
        differences(&expected, &got, TOLERANCE).is_empty()
    }

    #[test]
    fn array_is_judged_by_its_largest_entry() {
        assert!(agrees(json!([10.0, 0.0]), json!([10.0, 1.0])));
        assert!(!agrees(json!([10.0, 0.0]), json!([10.0, 1.1])));
        assert!(!agrees(json!([[10.0], [0.0, 0.0]]), json!([[10.0], [1.0, 0.0]]))); // ragged: row by row
    }

    #[test]
    fn shape_kind_and_missing_key_count() {
        assert!(!agrees(json!([1.0]), json!(1.0)));
        assert!(!agrees(json!({"a": 1}), json!({"b": 1})));
        assert!(agrees(json!({"a": 1}), json!({"a": 1.05, "b": "more"})));
        assert!(!agrees(json!(null), json!(0.0)) && !agrees(json!(0.0), json!(null)));
        assert!(!agrees(json!(true), json!(1)) && agrees(json!("x"), json!("x")));
    }
}

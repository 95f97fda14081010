//! Reads the fields of a case into arrays and checked values, naming the field that does not fit.

use super::Failure;
use crate::bandit::{Bandit, Policy};
use crate::error::{self, InputError};
use crate::game::Game;
use ndarray::{Array1, Array2, Array3, Axis};
use serde_json::{Map, Value};

/// Largest number of steps a case may ask for.
const MAX_STEPS: u64 = 1_000_000;

/// The input object of one case.
pub(crate) struct Fields<'a> {
    object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(object: &'a Map<String, Value>) -> Self {
        Self { object }
    }

    fn get(&self, key: &str, expected: &str) -> Result<&'a Value, Failure> {
        self.object.get(key).ok_or_else(|| refuse(key, format!("is missing (expected {expected})")))
    }

    pub(crate) fn number(&self, key: &str) -> Result<f64, Failure> {
        let value = self.get(key, "a number")?;
        finite_number(value).ok_or_else(|| refuse(key, format!("{} (expected a finite number)", brief(value))))
    }

    /// The text of a field, if it is one: the name of a mode, or of the policy itself.
    pub(crate) fn text(&self, key: &str) -> Option<&'a str> {
        self.object.get(key).and_then(Value::as_str)
    }

    /// A finite number above zero.
    pub(crate) fn positive(&self, key: &'static str) -> Result<f64, Failure> {
        Ok(error::positive(key, self.number(key)?)?)
    }

    /// A whole number of steps.
    pub(crate) fn count(&self, key: &str) -> Result<usize, Failure> {
        let value = self.get(key, "a whole number")?;
        let whole = value.as_u64().filter(|&n| n <= MAX_STEPS);
        let problem = || format!("{} (expected a whole number from 0 to {MAX_STEPS})", brief(value));
        whole.map(|n| n as usize).ok_or_else(|| refuse(key, problem()))
    }

    /// A list of whole numbers, at least 1 each.
    pub(crate) fn sizes(&self, key: &str) -> Result<Vec<usize>, Failure> {
        let values = as_list(key, self.get(key, "a list of whole numbers")?)?;
        let size = |(i, v): (usize, &Value)| {
            let problem =
                || refuse(&format!("{key}[{i}]"), format!("{} (expected a whole number, at least 1)", brief(v)));
            // Counts may be written with a point.
            v.as_f64().filter(|n| n.fract() == 0.0 && (1.0..9e15).contains(n)).map(|n| n as usize).ok_or_else(problem)
        };
        values.iter().enumerate().map(size).collect()
    }

    /// Whether the field holds exactly this text.
    pub(crate) fn says(&self, key: &str, text: &str) -> bool {
        self.object.get(key).and_then(Value::as_str) == Some(text)
    }

    /// A list of indices `[n]`, counted from 0 and possibly empty; what they point into is not looked at.
    pub(crate) fn indices(&self, key: &str) -> Result<Vec<usize>, Failure> {
        let values = as_list(key, self.get(key, "a list of indices")?)?;
        let index = |(i, v): (usize, &Value)| {
            let problem = || refuse(&format!("{key}[{i}]"), format!("{} (expected an index)", brief(v)));
            v.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or_else(problem)
        };
        values.iter().enumerate().map(index).collect()
    }

    /// A list of objects, each read by `read`; what that refuses is named by its place in the list.
    pub(crate) fn records<T>(
        &self,
        key: &str,
        read: impl Fn(&Fields) -> Result<T, Failure>,
    ) -> Result<Vec<T>, Failure> {
        let values = as_list(key, self.get(key, "a list of objects")?)?;
        let record = |(i, v): (usize, &Value)| {
            let path = format!("{key}[{i}]");
            let object = v.as_object().ok_or_else(|| refuse(&path, format!("{} (expected an object)", brief(v))))?;
            read(&Fields::new(object)).map_err(|failure| failure.within(&path))
        };
        values.iter().enumerate().map(record).collect()
    }

    /// An object of fields.
    pub(crate) fn object(&self, key: &str) -> Result<Fields<'a>, Failure> {
        let value = self.get(key, "an object")?;
        let problem = || refuse(key, format!("{} (expected an object)", brief(value)));
        value.as_object().map(Fields::new).ok_or_else(problem)
    }

    /// A list of finite numbers `[n]`.
    pub(crate) fn vector(&self, key: &str) -> Result<Array1<f64>, Failure> {
        let (_, flat) = self.nested(key, "a list of numbers", 1)?;
        Ok(Array1::from(flat))
    }

    /// A table `[n, m]` of finite numbers.
    pub(crate) fn matrix(&self, key: &str) -> Result<Array2<f64>, Failure> {
        let (shape, flat) = self.nested(key, "a table", 2)?;
        Ok(Array2::from_shape_vec((shape[0], shape[1]), flat).expect("shape was counted"))
    }

    /// A list of tables `[n, m, k]` of finite numbers.
    pub(crate) fn tables(&self, key: &str) -> Result<Array3<f64>, Failure> {
        let (shape, flat) = self.nested(key, "a list of tables", 3)?;
        Ok(Array3::from_shape_vec((shape[0], shape[1], shape[2]), flat).expect("shape was counted"))
    }

    /// A list of tables of finite numbers, each of its own size.
    pub(crate) fn tables_of_any_size(&self, key: &str) -> Result<Vec<Array2<f64>>, Failure> {
        let table = |(i, value): (usize, &Value)| {
            let (mut shape, mut flat) = ([None; 2], Vec::new());
            flatten(&format!("{key}[{i}]"), "a table", value, &mut shape, &mut flat)?;
            let [rows, columns] = shape.map(|n| n.unwrap_or(0));
            Ok(Array2::from_shape_vec((rows, columns), flat).expect("shape was counted"))
        };
        as_list(key, self.get(key, "a list of tables")?)?.iter().enumerate().map(table).collect()
    }

    /// The game of the fields `rho` `[x]` and `L` `[x, y, y']`; of one context, `L` may be a table `[y, y']` and `rho` may be
    /// missing.
    pub(crate) fn game(&self) -> Result<Game, Failure> {
        let rows = as_list("L", self.get("L", "a list of tables")?)?;
        let flat = rows.iter().flat_map(Value::as_array).flatten().next().is_some_and(Value::is_number);
        let margin = if flat { self.matrix("L")?.insert_axis(Axis(0)) } else { self.tables("L")? };
        let one_context = margin.dim().0 == 1 && !self.object.contains_key("rho");
        let weights = if one_context { Array1::ones(1) } else { self.vector("rho")? };
        Ok(Game::new(weights, margin)?)
    }

    fn nested(&self, key: &str, expected: &'static str, depth: usize) -> Result<(Vec<usize>, Vec<f64>), Failure> {
        let mut shape = vec![None; depth];
        let mut flat = Vec::new();
        flatten(key, expected, self.get(key, expected)?, &mut shape, &mut flat)?;
        Ok((shape.into_iter().map(|n| n.unwrap_or(0)).collect(), flat))
    }

    /// The bandit of the fields `rho` `[x]` and `r` `[x, y]`.
    pub(crate) fn bandit(&self) -> Result<Bandit, Failure> {
        Ok(Bandit::new(self.vector("rho")?, self.matrix("r")?)?)
    }

    /// A table of distributions that fits the bandit, `[x, y]`.
    pub(crate) fn policy(&self, key: &'static str, bandit: &Bandit) -> Result<Policy, Failure> {
        let policy = Policy::new(key, self.matrix(key)?)?;
        fits(key, policy.prob().shape(), bandit)?;
        Ok(policy)
    }
}

/// Refuses a field whose first two axes are not contexts and responses.
pub(crate) fn fits(key: &'static str, found: &[usize], bandit: &Bandit) -> Result<(), InputError> {
    let expected = [&[bandit.contexts(), bandit.responses()], &found[2..]].concat();
    error::shape(key, found, &expected)
}

fn refuse(field: &str, problem: String) -> Failure {
    Failure::Field { field: field.to_owned(), problem }
}

/// A value as an error shows it: numbers and words as they are, what is long by its kind.
fn brief(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) if text.len() > 40 => "a long text".to_owned(),
        other => other.to_string(),
    }
}

fn finite_number(value: &Value) -> Option<f64> {
    value.as_f64().filter(|v| v.is_finite())
}

fn as_list<'v>(key: &str, value: &'v Value) -> Result<&'v Vec<Value>, Failure> {
    value.as_array().ok_or_else(|| refuse(key, format!("{} (expected a list)", brief(value))))
}

/// Appends the numbers of `value`, nested as deep as `shape` is long, and checks that all rows of a level are as long.
fn flatten(
    path: &str,
    expected: &'static str,
    value: &Value,
    shape: &mut [Option<usize>],
    flat: &mut Vec<f64>,
) -> Result<(), Failure> {
    let Some((length, inner)) = shape.split_first_mut() else {
        let number = finite_number(value);
        flat.push(number.ok_or_else(|| refuse(path, format!("{} (expected a finite number)", brief(value))))?);
        return Ok(());
    };
    let items = as_list(path, value)?;
    if *length.get_or_insert(items.len()) != items.len() {
        let field = path.split('[').next().unwrap_or(path);
        return Err(refuse(field, format!("its rows differ in length (expected {expected})")));
    }
    items.iter().enumerate().try_for_each(|(i, item)| flatten(&format!("{path}[{i}]"), expected, item, inner, flat))
}

//! Laying one table of settings over another, which names every key there is.

use crate::{Error, Result};
use std::path::Path;
use toml::{Table, Value};

/// `a.b=c` as a table; `c` is read as the type that the key has.
pub(super) fn parse_set(set: &str, known: &Table) -> Result<Table> {
    let wrong = || Error::Usage(format!("--set {set}: not an assignment (expected key=value, as in online.eta=0.5)"));
    let (path, text) = set.split_once('=').ok_or_else(wrong)?;
    let keys: Vec<&str> = path.trim().split('.').collect();
    if keys.iter().any(|key| key.is_empty()) {
        return Err(wrong());
    }
    let is_text = lookup(known, &keys).is_some_and(Value::is_str);
    let read = |text: &str| toml::from_str::<Table>(&format!("v = {text}")).ok().and_then(|mut t| t.remove("v"));
    let value = match read(text.trim()) {
        Some(value) if !is_text || value.is_str() => value,
        _ => Value::String(text.trim().into()),
    };
    let mut table = Table::new();
    let (last, above) = keys.split_last().expect("at least one key");
    table.insert((*last).into(), value);
    for key in above.iter().rev() {
        table = Table::from_iter([((*key).to_string(), Value::Table(table))]);
    }
    Ok(table)
}

fn lookup<'a>(table: &'a Table, keys: &[&str]) -> Option<&'a Value> {
    let (first, rest) = keys.split_first()?;
    match table.get(*first)? {
        value if rest.is_empty() => Some(value),
        Value::Table(inner) => lookup(inner, rest),
        _ => None,
    }
}

/// Replaces values of `base` by those of `over`, which may name only keys that are there.
pub(super) fn lay_over(base: &mut Table, over: Table, file: &Path, prefix: &str) -> Result<()> {
    for (key, value) in over {
        let path = format!("{prefix}{key}");
        let Some(known) = base.get_mut(&key) else {
            let nearest = base.keys().max_by(|a, b| {
                let near = |k: &str| strsim::jaro_winkler(k, &key);
                near(a).total_cmp(&near(b))
            });
            let hint = nearest.map(|k| format!(" (did you mean {prefix}{k}?)")).unwrap_or_default();
            return Err(Error::field(file, path, format!("unknown key{hint}")));
        };
        match (known, value) {
            (Value::Table(inner), Value::Table(over)) => lay_over(inner, over, file, &format!("{path}."))?,
            (known @ Value::Float(_), Value::Integer(n)) => *known = Value::Float(n as f64),
            (known, value) if known.same_type(&value) => *known = value,
            (known, value) => {
                let what = format!("{value} is {} (expected {})", kind(&value), kind(known));
                return Err(Error::field(file, path, what));
            }
        }
    }
    Ok(())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
    }
}

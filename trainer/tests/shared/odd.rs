//! Values that the field of a JSON file should not have.

use serde_json::{Value, json};

/// Values of every kind, most of them wrong wherever they stand: numbers at and beyond every limit, a text that would break a
/// line, and lists and objects empty or of the wrong things.
pub fn odd_values() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1),
        json!(2),
        json!(2.5),
        json!(1e308),
        json!(1u64 << 27),
        json!(1u64 << 40),
        json!(u64::MAX),
        json!(""),
        json!("x\ny"),
        json!([]),
        json!([-1]),
        json!([-1, "x"]),
        json!([["a"]]),
        json!({}),
    ]
}

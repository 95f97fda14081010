//! `make bench BENCH=memory`: bytes that an update takes, for each part of a model that can be trained, with and without
//! gradient checkpointing, and with frozen weights as a graph sees them that computes every gradient.
//!
//! Bytes are counted by the allocator, on one thread: the same on every run. With `--json` one JSON array is printed.

mod modes;

use modes::{Frozen, measure, parts};
use serde_json::json;

fn main() {
    rebel_trainer::nn::threads::set(1).expect("the first thing that is done");
    let mut rows = vec![];
    // Once unmeasured: what is made on first use belongs to no mode.
    measure(&parts()[0].1, false, Frozen::Detached);
    for (name, part) in parts() {
        let before = measure(&part, false, Frozen::Tracked);
        for recompute in [false, true] {
            let taken = measure(&part, recompute, Frozen::Detached);
            assert_eq!(taken, measure(&part, recompute, Frozen::Detached), "{name}: another number on another run");
            rows.push(json!({
                "trained": name,
                "recompute": recompute,
                "parameters": taken.trained,
                "weights_bytes": taken.weights,
                "held_bytes": taken.held,
                "peak_bytes": taken.peak,
                "peak_bytes_tracked": before.peak,
            }));
        }
    }
    if std::env::args().any(|argument| argument == "--json") {
        println!("{}", json!(rows));
        return;
    }
    println!("{:32} {:>12} {:>12} {:>12} {:>12}", "MiB", "weights", "held", "peak", "all tracked");
    for row in rows {
        let mib = |key: &str| row[key].as_f64().unwrap_or(f64::NAN) / f64::from(1 << 20);
        let name =
            format!("{}{}", row["trained"].as_str().unwrap_or(""), if row["recompute"] == true { " *" } else { "" });
        let (weights, held, peak) = (mib("weights_bytes"), mib("held_bytes"), mib("peak_bytes"));
        println!("{name:32} {weights:12.1} {held:12.1} {peak:12.1} {:12.1}", mib("peak_bytes_tracked"));
    }
    println!("* blocks recomputed in the backward; all tracked: no weight is known to be frozen, nothing recomputed");
}

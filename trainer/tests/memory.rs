//! What is not trained costs no memory but its own: bytes counted by the allocator.

#[path = "../benches/memory/modes.rs"]
mod modes;

use modes::{Frozen, Taken, measure, parts};

/// One test, because every thread's bytes are counted.
#[test]
fn training_less_and_recomputing_take_less_memory() {
    measure(&parts()[0].1, false, Frozen::Detached);
    let taken = |part: usize, recompute, frozen| measure(&parts()[part].1, recompute, frozen);
    let [full, last, lora, everywhere] = [0, 1, 2, 3].map(|part| taken(part, false, Frozen::Detached));
    // What the optimizer keeps: two numbers for each trained one, and a little for names.
    for of in [&full, &last, &lora, &everywhere] {
        assert!(of.moments >= 8 * of.trained && of.moments < 8 * of.trained + (1 << 17), "{of:?}");
    }
    // One set of weights for adapters, two for full training, a share of a second for the last block.
    assert!(2 * lora.weights < full.weights + full.weights / 8, "{lora:?} {full:?}");
    assert!(last.weights < full.weights * 3 / 4, "{last:?} {full:?}");
    let ratio = |a: &Taken, b: &Taken| a.peak as f64 / b.peak as f64;
    assert!(ratio(&last, &full) < 0.45, "{last:?} {full:?}");
    assert!(ratio(&lora, &full) < 0.8, "{lora:?} {full:?}");
    assert!(ratio(&everywhere, &full) < 0.85, "{everywhere:?} {full:?}");
    // What a pass takes besides weights, their panels (forward and backward), moments and gradients.
    let pass = |of: &Taken| (of.peak - of.weights - 2 * 4 * full.trained - of.moments - 4 * of.trained) as f64;
    for (part, kept, bound) in [(0, &full, 0.75), (2, &lora, 0.6), (3, &everywhere, 0.6)] {
        let recomputed = taken(part, true, Frozen::Detached);
        assert!(pass(&recomputed) < bound * pass(kept), "{recomputed:?} {kept:?}");
    }
    // A graph that does not know what is frozen makes a gradient for all of it.
    for (part, detached, bound) in [(1, &last, 0.5), (2, &lora, 0.85)] {
        let tracked = taken(part, false, Frozen::Tracked);
        assert!(pass(detached) < bound * pass(&tracked), "{detached:?} {tracked:?}");
    }
}

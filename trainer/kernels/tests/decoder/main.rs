//! The decoder's passes against its definition, and against themselves: any instructions, any threads, any neighbours.

mod models;
mod reference;

use std::sync::Arc;

use models::{Kind, Random, kinds, wide_vocabulary};
use rebel_kernels::Isa;
use rebel_kernels::decoder::forward::Wanted;
use rebel_kernels::decoder::head::Scoring;
use rebel_kernels::decoder::{Batch, Cache, Gradients, Machine, Model, Pass, Weights, decode};
use rebel_kernels::pool::Pool;

/// Prompts with responses to each.
type Texts = Vec<(Vec<u32>, Vec<Vec<u32>>)>;

fn machine(isa: Isa, threads: usize) -> Machine {
    Machine::new(isa, Arc::new(Pool::new(threads)))
}

fn weights(machine: &Machine, kind: &Kind) -> Weights {
    let none = kind.model.map(|_| None);
    Weights::new(machine, kind.shape.clone(), &kind.model.map(|v| &v[..]), &none, kind.tied, &kind.model.map(|_| true))
}

fn texts(kind: &Kind, seed: u64) -> Texts {
    let mut random = Random(seed);
    let vocab = kind.shape.vocab;
    let lengths = [(3, vec![4, 9]), (1, vec![1]), (45, vec![20, 2, 33]), (7, vec![70])];
    lengths
        .into_iter()
        .map(|(p, rs)| (random.tokens(p, vocab), rs.into_iter().map(|n| random.tokens(n, vocab)).collect()))
        .collect()
}

fn batch(texts: &Texts, shared: bool) -> (Batch, Vec<u32>) {
    let (mut batch, mut targets) = (Batch::default(), Vec::new());
    for (prompt, responses) in texts {
        let rs: Vec<&[u32]> = responses.iter().map(Vec::as_slice).collect();
        if shared {
            batch.push_shared(prompt, &rs);
        }
        for r in rs {
            if !shared {
                let whole = [prompt, r].concat();
                batch.push(&whole[..whole.len() - 1], prompt.len() - 1..whole.len() - 1);
            }
            targets.extend_from_slice(r);
        }
    }
    (batch, targets)
}

const DIVISOR: f32 = 0.7;

struct Scored {
    log_probs: Vec<f32>,
    entropies: Vec<f32>,
    gradients: Gradients,
}

/// Cotangents that any order of the rows gives the same numbers.
fn cotangents(n: usize) -> (Vec<f32>, Vec<f32>) {
    let mut random = Random(99);
    ((0..n).map(|_| random.number()).collect(), (0..n).map(|_| random.number()).collect())
}

fn score(machine: &Machine, weights: &Weights, texts: &Texts, shared: bool, wanted: Wanted) -> Scored {
    let (batch, targets) = batch(texts, shared);
    let n = targets.len();
    let pass = Pass::forward(machine, weights, batch, Some(wanted));
    let outputs = pass.scores(weights, Scoring { targets, divisor: DIVISOR, cut: None });
    let (d_log_p, d_entropy) = cotangents(n);
    let gradients = outputs.back_scores(weights, &d_log_p, &d_entropy);
    Scored { log_probs: outputs.log_probs.clone(), entropies: outputs.entropies(), gradients }
}

fn all<T>(model: &Model<T>) -> Wanted {
    Wanted { of: model.map(|_| true), recompute: false }
}

fn defined(kind: &Kind, model: &Model<Vec<f64>>, texts: &Texts) -> (Vec<(f64, f64)>, f64) {
    let mut scores = Vec::new();
    for (prompt, responses) in texts {
        for r in responses {
            scores.extend(reference::scores(&kind.shape, model, kind.tied, prompt, r, f64::from(DIVISOR)));
        }
    }
    let (d_log_p, d_entropy) = cotangents(scores.len());
    let loss = scores.iter().zip(d_log_p.iter().zip(&d_entropy));
    let loss = loss.map(|((lp, h), (a, b))| f64::from(*a) * lp + f64::from(*b) * h).sum();
    (scores, loss)
}

#[test]
fn log_probabilities_entropies_and_gradients_are_those_of_the_definition() {
    for kind in kinds() {
        let machine = machine(Isa::current(), 2);
        let (weights, texts) = (weights(&machine, &kind), texts(&kind, 3));
        let got = score(&machine, &weights, &texts, true, all(&kind.model));
        let wide = kind.model.map(|v| v.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>());
        let (want, _) = defined(&kind, &wide, &texts);
        for (i, ((lp, h), want)) in got.log_probs.iter().zip(&got.entropies).zip(&want).enumerate() {
            let off = (f64::from(*lp) - want.0).abs().max((f64::from(*h) - want.1).abs());
            assert!(off < 1e-5 * want.0.abs().max(1.0), "{}: token {i}: {lp} and {h}, not {want:?}", kind.name);
        }
        // The slope at one element of every parameter.
        let mut random = Random(5);
        for (leaf, gradient) in got.gradients.leaves().into_iter().enumerate() {
            let gradient = gradient.as_ref().expect("all are wanted");
            let scale = gradient.iter().fold(1e-3f32, |m, g| m.max(g.abs()));
            let at = random.below(gradient.len());
            let moved = |h: f64| {
                let mut i = 0;
                let model = wide.map(|v| {
                    let mut v = v.clone();
                    if i == leaf {
                        v[at] += h;
                    }
                    i += 1;
                    v
                });
                defined(&kind, &model, &texts).1
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let off = (slope - f64::from(gradient[at])).abs() / f64::from(scale);
            assert!(off < 1e-4, "{}: parameter {leaf}, element {at}: {} not {slope}", kind.name, gradient[at]);
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn same(a: &Scored, b: &Scored, what: &str) {
    assert_eq!(bits(&a.log_probs), bits(&b.log_probs), "{what}: log-probabilities");
    assert_eq!(bits(&a.entropies), bits(&b.entropies), "{what}: entropies");
    for (i, (a, b)) in a.gradients.leaves().into_iter().zip(b.gradients.leaves()).enumerate() {
        assert_eq!(a.as_deref().map(bits), b.as_deref().map(bits), "{what}: gradient of parameter {i}");
    }
}

#[test]
fn no_instruction_set_and_no_number_of_threads_changes_a_bit() {
    for kind in kinds() {
        let texts = texts(&kind, 3);
        let of = |isa, threads| {
            let machine = machine(isa, threads);
            let weights = weights(&machine, &kind);
            score(&machine, &weights, &texts, true, all(&kind.model))
        };
        let one = of(Isa::Portable, 1);
        for isa in Isa::available() {
            for threads in [1, 2, 3] {
                same(&of(isa, threads), &one, &format!("{}: {} on {threads}", kind.name, isa.name()));
            }
        }
    }
}

#[test]
fn sharing_prompts_and_other_rows_change_no_bit_of_a_log_probability() {
    for kind in kinds() {
        let machine = machine(Isa::current(), 2);
        let (weights, texts) = (weights(&machine, &kind), texts(&kind, 3));
        let shared = score(&machine, &weights, &texts, true, all(&kind.model));
        let plain = score(&machine, &weights, &texts, false, all(&kind.model));
        assert_eq!(bits(&shared.log_probs), bits(&plain.log_probs), "{}", kind.name);
        assert_eq!(bits(&shared.entropies), bits(&plain.entropies), "{}", kind.name);
        for (i, (a, b)) in shared.gradients.leaves().into_iter().zip(plain.gradients.leaves()).enumerate() {
            let (a, b) = (a.as_ref().unwrap(), b.as_ref().unwrap());
            let scale = b.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
            let off = a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / scale;
            assert!(off < 1e-5, "{}: gradient of parameter {i} is off by {off}", kind.name);
        }
        let mut at = 0;
        for (prompt, responses) in &texts {
            for r in responses {
                let alone = vec![(prompt.clone(), vec![r.clone()])];
                let alone = score(&machine, &weights, &alone, false, all(&kind.model));
                assert_eq!(bits(&alone.log_probs), bits(&shared.log_probs[at..at + r.len()]), "{}", kind.name);
                at += r.len();
            }
        }
    }
}

#[test]
fn what_is_computed_again_and_what_is_frozen_change_no_bit_of_a_gradient() {
    for kind in kinds() {
        let machine = machine(Isa::current(), 2);
        let (weights, texts) = (weights(&machine, &kind), texts(&kind, 3));
        let kept = score(&machine, &weights, &texts, true, all(&kind.model));
        let again = score(&machine, &weights, &texts, true, Wanted { recompute: true, ..all(&kind.model) });
        same(&kept, &again, kind.name);
        let leaves = kind.model.leaves().len();
        let mut random = Random(11);
        for round in 0..8 {
            // The last ones alone, or any.
            let of: Vec<bool> = match round {
                0..4 => (0..leaves).map(|i| i >= leaves * (4 + round) / 8).collect(),
                _ => (0..leaves).map(|_| random.below(3) == 0).collect(),
            };
            if !of.contains(&true) {
                continue;
            }
            let mut each = of.iter();
            let wanted = Wanted { of: kind.model.map(|_| *each.next().unwrap()), recompute: round % 2 == 1 };
            let some = score(&machine, &weights, &texts, true, wanted);
            assert_eq!(bits(&some.log_probs), bits(&kept.log_probs));
            for ((i, got), (want, of)) in
                some.gradients.leaves().into_iter().enumerate().zip(kept.gradients.leaves().into_iter().zip(&of))
            {
                assert_eq!(got.is_some(), *of, "{}: parameter {i}", kind.name);
                if let Some(got) = got {
                    assert_eq!(bits(got), bits(want.as_ref().unwrap()), "{}: parameter {i}", kind.name);
                }
            }
        }
    }
}

#[test]
fn a_continued_sequence_has_the_states_of_the_whole_one_to_the_bit() {
    for kind in kinds() {
        for (isa, threads) in Isa::available().into_iter().zip([2, 3, 1]) {
            let machine = machine(isa, threads);
            let weights = weights(&machine, &kind);
            let mut random = Random(17);
            let rows: Vec<Vec<u32>> = [60, 5, 33].iter().map(|&n| random.tokens(n, kind.shape.vocab)).collect();
            let whole: Vec<Vec<f32>> = rows
                .iter()
                .map(|row| {
                    let mut batch = Batch::default();
                    batch.push(row, 0..row.len());
                    Pass::forward(&machine, &weights, batch, None).states(&weights).states(&weights)
                })
                .collect();
            let mut cache = Cache::new(&machine, &kind.shape, 4, 60);
            let slots = [2, 0, 3];
            let mut past = [0; 3];
            // A piece of each, then tokens one by one, then another piece of the first.
            let mut next = |past: &mut [usize; 3], n: [usize; 3]| {
                let live: Vec<usize> = (0..3).filter(|&i| n[i] > 0).collect();
                let of: Vec<(usize, usize)> = live.iter().map(|&i| (slots[i], past[i])).collect();
                let new: Vec<&[u32]> = live.iter().map(|&i| &rows[i][past[i]..past[i] + n[i]]).collect();
                let states = match n.iter().all(|&n| n <= 1) {
                    true => decode::step(&machine, &weights, &mut cache, &of, &new.concat()),
                    false => decode::extend(&machine, &weights, &mut cache, &of, &new, false).states(&weights),
                };
                let mut states = states.chunks_exact(kind.shape.width);
                for i in live {
                    for position in past[i]..past[i] + n[i] {
                        let want = &whole[i][position * kind.shape.width..][..kind.shape.width];
                        assert_eq!(bits(states.next().unwrap()), bits(want), "{}: row {i} at {position}", kind.name);
                    }
                    past[i] += n[i];
                }
            };
            next(&mut past, [40, 2, 1]);
            for _ in 0..3 {
                next(&mut past, [1, 1, 1]);
            }
            next(&mut past, [10, 0, 20]);
            for _ in 0..5 {
                next(&mut past, [1, 0, 1]);
            }
        }
    }
}

#[test]
fn a_copied_row_of_the_cache_goes_on_as_its_source_would() {
    for kind in kinds() {
        let machine = machine(Isa::current(), 2);
        let weights = weights(&machine, &kind);
        let tokens = Random(23).tokens(50, kind.shape.vocab);
        let mut cache = Cache::new(&machine, &kind.shape, 2, 50);
        decode::extend(&machine, &weights, &mut cache, &[(0, 0)], &[&tokens[..49]], true);
        cache.copy(0, 1, 37);
        let from = decode::step(&machine, &weights, &mut cache, &[(0, 49)], &tokens[49..]);
        decode::extend(&machine, &weights, &mut cache, &[(1, 37)], &[&tokens[37..49]], true);
        let to = decode::step(&machine, &weights, &mut cache, &[(1, 49)], &tokens[49..]);
        assert_eq!(bits(&from), bits(&to), "{}", kind.name);
    }
}

#[test]
fn logits_of_states_are_those_that_are_scored() {
    for kind in kinds() {
        let machine = machine(Isa::current(), 2);
        let (weights, texts) = (weights(&machine, &kind), texts(&kind, 29));
        let (batch, targets) = batch(&texts, true);
        let states = Pass::forward(&machine, &weights, batch.clone(), None).states(&weights).states(&weights);
        let logits = decode::logits(&machine, &weights, &states);
        let scoring = Scoring { targets: targets.clone(), divisor: DIVISOR, cut: None };
        let scored = Pass::forward(&machine, &weights, batch, None).scores(&weights, scoring);
        for (row, (logits, &target)) in logits.chunks_exact(kind.shape.vocab).zip(&targets).enumerate() {
            let sum: f64 = logits.iter().map(|&z| f64::from(z / DIVISOR).exp()).sum();
            let lp = f64::from(logits[target as usize] / DIVISOR) - sum.ln();
            assert!((lp - f64::from(scored.log_probs[row])).abs() < 1e-5, "{}: row {row}", kind.name);
        }
    }
}

/// Logits of some rows at a time, computed once more in the backward pass.
#[test]
fn a_vocabulary_too_wide_to_keep_gives_what_few_rows_give() {
    let kind = wide_vocabulary();
    let mut random = Random(37);
    let texts: Texts =
        (0..6).map(|_| (random.tokens(2, kind.shape.vocab), vec![random.tokens(30, kind.shape.vocab)])).collect();
    let of =
        |machine: &Machine, texts: &Texts| score(machine, &weights(machine, &kind), texts, false, all(&kind.model));
    let together = of(&machine(Isa::current(), 2), &texts);
    same(&together, &of(&machine(Isa::current(), 1), &texts), "one thread");
    let alone: Vec<Scored> = texts.iter().map(|text| of(&machine(Isa::current(), 2), &vec![text.clone()])).collect();
    let joined: Vec<f32> = alone.iter().flat_map(|a| a.log_probs.clone()).collect();
    assert_eq!(bits(&together.log_probs), bits(&joined));
    // The same cotangents for every text, so that their gradients add up.
    let (first, n) = (cotangents(180), 30);
    let machine = machine(Isa::current(), 2);
    let weights = weights(&machine, &kind);
    let gradients = |texts: &Texts, at: usize| {
        let (batch, targets) = batch(texts, false);
        let pass = Pass::forward(&machine, &weights, batch, Some(all(&kind.model)));
        let outputs = pass.scores(&weights, Scoring { targets, divisor: DIVISOR, cut: None });
        let range = at..at + outputs.log_probs.len();
        outputs.back_scores(&weights, &first.0[range.clone()], &first.1[range])
    };
    let whole = gradients(&texts, 0).into_leaves();
    let mut sum: Vec<Vec<f32>> = whole.iter().map(|g| vec![0.0; g.as_ref().unwrap().len()]).collect();
    for (i, text) in texts.iter().enumerate() {
        for (sum, part) in sum.iter_mut().zip(gradients(&vec![text.clone()], i * n).into_leaves()) {
            sum.iter_mut().zip(part.unwrap()).for_each(|(s, p)| *s += p);
        }
    }
    for (leaf, (whole, sum)) in whole.iter().zip(&sum).enumerate() {
        let scale = sum.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
        let pairs = whole.as_ref().unwrap().iter().zip(sum);
        let off = pairs.fold(0f32, |m, (a, b)| m.max((a - b).abs())) / scale;
        assert!(off < 1e-5, "parameter {leaf} is off by {off}");
    }
}

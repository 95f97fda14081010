//! The theory's three workloads, as `make bench` compares them with NumPy (`peer_numpy.py`, which does the same arithmetic).
//!
//! `cargo bench --bench theory` measures them with criterion. With `-- --serve` the program is one of two that
//! `scripts/bench.py` alternates: it reads a workload's name from a line, runs it once and answers with the seconds it took.
//! What each is limited by stands in the documentation of the function it calls.

use criterion::Criterion;
use ndarray::{Array, Array1, Array2, Array3};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal, Uniform};
use rebel_theory::bandit::{Bandit, Policy};
use rebel_theory::game::{Game, fast::SelfPlay};
use rebel_theory::policy::{LogLinear, Softmax};
use rebel_theory::solve::batched::{Pair, draw_pairs, gauss_newton_batch};
use rebel_theory::solve::mirror::mirror_descent;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::Instant;

/// A workload: its name in `peer_numpy.py`, and one run of it.
type Workload = (&'static str, Box<dyn FnMut()>);

fn normal(shape: impl ndarray::ShapeBuilder<Dim = ndarray::Ix2>, rng: &mut ChaCha8Rng) -> Array2<f64> {
    Array::from_shape_simple_fn(shape, || StandardNormal.sample(rng))
}

/// 1000 exact mirror-descent steps on 100 contexts of 1000 responses, with the traces of J and both divergences.
fn mirror() -> Workload {
    let reward = normal((100, 1000), &mut ChaCha8Rng::seed_from_u64(0));
    let bandit = Bandit::new(Array1::from_elem(100, 0.01), reward).expect("a bandit");
    let start = Policy::uniform(100, 1000);
    ("mirror_descent", Box::new(move || drop(black_box(mirror_descent(black_box(&bandit), &start, 0.01, 1000)))))
}

/// Gauss-Newton steps from 200 data sets of 1000 pairs, 50 features, 20 contexts of 50 responses.
fn gauss_newton() -> Workload {
    let (contexts, responses, k) = (20, 50, 50);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let features = Array3::from_shape_simple_fn((contexts, responses, k), || StandardNormal.sample(&mut rng));
    let theta = normal((k, 1), &mut rng).column(0).to_owned() / k as f64;
    let reward = normal((contexts, responses), &mut rng);
    let bandit = Bandit::new(Array1::from_elem(contexts, 1.0 / contexts as f64), reward).expect("a bandit");
    let policy = LogLinear::new(features, theta).expect("a policy");
    let (pi, scores) = (policy.policy(), policy.scores());
    let sets: Vec<Vec<Pair>> = (0..200).map(|_| draw_pairs(&bandit, &pi, &pi, 1000, &mut rng)).collect();
    let run = move || drop(black_box(gauss_newton_batch(&bandit, black_box(scores.view()), &sets, 1.0)));
    ("gauss_newton", Box::new(run))
}

/// Self-play with 100 arms and the step size of 10,000 iterations, under one kind of feedback.
fn self_play(name: &'static str, iterate: fn(&mut SelfPlay, &mut ChaCha8Rng)) -> Workload {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let uniform = Uniform::new(-1.0, 1.0).expect("a range");
    let upper = Array2::from_shape_fn((100, 100), |(y, z)| if y < z { uniform.sample(&mut rng) } else { 0.0 });
    let game = Game::single(&upper - &upper.t()).expect("a game");
    let eta = (2.0 * 100f64.ln() / 10_000.0).sqrt();
    let run = move || {
        let mut play = SelfPlay::new(&game, &Policy::uniform(1, 100), eta).expect("it fits");
        iterate(&mut play, &mut ChaCha8Rng::seed_from_u64(3));
        black_box(game.duality_gap(&play.average()));
    };
    (name, Box::new(run))
}

fn workloads() -> Vec<Workload> {
    vec![
        mirror(),
        gauss_newton(),
        self_play("selfplay_exact", |play, _| play.exact(10_000)),
        self_play("selfplay_bernoulli", |play, rng| play.bernoulli(10_000, rng)),
        self_play("selfplay_pairs", |play, rng| play.pairs(1000, 256, rng)), // a tenth: NumPy takes seconds
    ]
}

/// Runs what is asked for, a line a time, until there are no more lines.
fn serve(mut workloads: Vec<Workload>) -> std::io::Result<()> {
    for line in std::io::stdin().lock().lines() {
        let name = line?;
        let (_, run) = workloads.iter_mut().find(|(known, _)| *known == name).expect("a workload's name");
        let begin = Instant::now();
        run();
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", begin.elapsed().as_secs_f64())?;
        out.flush()?;
    }
    Ok(())
}

fn main() -> std::io::Result<()> {
    if std::env::args().any(|argument| argument == "--serve") {
        return serve(workloads());
    }
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    for (name, mut run) in workloads() {
        criterion.bench_function(name, |bencher| bencher.iter(&mut run));
    }
    criterion.final_summary();
    Ok(())
}

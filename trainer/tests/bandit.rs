//! The ordinary trainer in the smallest world, against the closed forms.

use ndarray::{Array2, arr2};
use rebel_theory::objective::Eta;
use rebel_trainer::algorithm::online::Online;
use rebel_trainer::algorithm::rebel::Rebel;
use rebel_trainer::algorithm::rloo::Rloo;
use rebel_trainer::algorithm::supervised::Supervised;
use rebel_trainer::algorithm::update::{Optimizer, gradient, update};
use rebel_trainer::nn::{AdamW, AdamWSettings, Decay, Schedule, Streams};
use rebel_trainer::reward::Recipe;
use rebel_trainer::world::bandit::{Bandit, Table};
use rebel_trainer::world::{Trajectory, World};

fn adamw(weight_decay: f64) -> Optimizer {
    let settings = AdamWSettings { beta1: 0.9, beta2: 0.99, eps: 1e-12, weight_decay };
    Optimizer { adamw: AdamW::new(settings), clip: f64::INFINITY, micro_batch: 3 }
}

/// `pi(y|x) e^{eta r(x,y)} / Z(x)` (equation 3), as logarithms.
fn tilt(log_policy: &Array2<f64>, reward: &Array2<f64>, eta: f64) -> Array2<f64> {
    let mut tilted = log_policy + &(reward * eta);
    for mut row in tilted.rows_mut() {
        let z = row.iter().map(|v| v.exp()).sum::<f64>().ln();
        row -= z;
    }
    tilted
}

fn logits() -> Array2<f64> {
    arr2(&[[0.3, -0.2, 1.0, 0.0], [2.0, 0.0, -1.0, 0.5]])
}

fn reward() -> Array2<f64> {
    arr2(&[[1.0, -0.5, 0.2, 0.0], [0.0, 1.5, 1.4, -1.0]])
}

#[test]
fn rebel_with_ordinary_adamw_reaches_the_exact_mirror_descent_step() {
    for eta in [0.5, 1.0, 3.0] {
        let mut bandit = Bandit::new(&logits()).unwrap();
        let start = bandit.log_policy().unwrap();
        let pairs = bandit.all_pairs(&reward()).unwrap();
        let rebel = Rebel { eta: Eta::new(eta).unwrap() };
        let steps = 4000;
        let schedule = Schedule { decay: Decay::Cosine, warmup: 0, total: steps };
        let walk = Supervised { batch: pairs.len(), learning_rate: 0.05, schedule };
        let mut optimizer = adamw(0.0);
        for step in 0..steps as usize {
            walk.iterate(&mut bandit, &mut optimizer, &rebel, &pairs, &Streams::new(1), step).unwrap();
        }
        let error = (bandit.log_policy().unwrap() - tilt(&start, &reward(), eta)).mapv(f64::abs);
        let worst = error.iter().copied().fold(0.0, f64::max);
        assert!(worst <= 1e-9, "eta {eta}: off by {worst:e}");
    }
}

#[test]
fn the_minimiser_does_not_move_with_a_wrong_reward_for_one_arm_unless_it_is_the_tilt_of_that_reward() {
    // negative control of the test above: the same run against another arm's reward must not pass it
    let mut bandit = Bandit::new(&logits()).unwrap();
    let start = bandit.log_policy().unwrap();
    let mut wrong = reward();
    wrong[[0, 2]] += 0.1;
    let pairs = bandit.all_pairs(&wrong).unwrap();
    let rebel = Rebel { eta: Eta::new(1.0).unwrap() };
    let mut optimizer = adamw(0.0);
    for step in 0..2000 {
        update(&mut bandit, &mut optimizer, &rebel, &pairs, 0.05 * (1.0 - step as f64 / 2000.0)).unwrap();
    }
    let error = (bandit.log_policy().unwrap() - tilt(&start, &reward(), 1.0)).mapv(f64::abs);
    assert!(error.iter().copied().fold(0.0, f64::max) > 1e-2);
}

#[test]
fn the_micro_batch_changes_no_gradient_beyond_rounding() {
    let rebel = Rebel { eta: Eta::new(1.0).unwrap() };
    let of = |micro: usize| {
        let mut bandit = Bandit::new(&logits()).unwrap();
        let pairs = bandit.all_pairs(&reward()).unwrap();
        let seen = gradient(&mut bandit, &rebel, &pairs, micro).unwrap();
        let gradient = bandit.store().take_gradients().remove("policy.logits").unwrap();
        (seen.loss, gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap())
    };
    let (loss, whole) = of(12);
    for micro in [1, 5, 7] {
        let (cut_loss, cut) = of(micro);
        assert!((cut_loss - loss).abs() <= 1e-14 * loss.abs());
        for (a, b) in whole.iter().zip(&cut) {
            assert!((a - b).abs() <= 1e-14, "{a} {b}");
        }
    }
}

#[test]
fn online_rebel_and_rloo_find_the_best_arm_from_their_own_samples() {
    let online = |samples| Online { prompts: 16, samples, epochs: 2 };
    let contexts = [0usize, 1];
    let prompts: Vec<(u64, &usize)> = (0..16).map(|i| (i, &contexts[i as usize % 2])).collect();
    let recipe = Recipe { missing_eos: None, kl: 0.0 };
    for k in [2, 4] {
        let (mut bandit, mut table, mut optimizer) =
            (Bandit::new(&logits()).unwrap(), Table::new(reward()), adamw(0.0));
        let rebel = Rebel { eta: Eta::new(1.0).unwrap() };
        for step in 0..150 {
            let mut iterate = |bandit: &mut Bandit| -> rebel_trainer::Result<()> {
                let (o, t, s) = (&mut optimizer, &mut table, Streams::new(3));
                match k {
                    2 => online(k).iterate(bandit, o, &rebel, &prompts, t, &recipe, &s, step, 0.05).map(drop),
                    _ => online(k).iterate(bandit, o, &Rloo { k }, &prompts, t, &recipe, &s, step, 0.05).map(drop),
                }
            };
            iterate(&mut bandit).unwrap();
        }
        let policy = bandit.log_policy().unwrap().mapv(f64::exp);
        assert!(policy[[0, 0]] > 0.8, "k = {k}: {policy}");
        assert!(policy[[1, 1]] + policy[[1, 2]] > 0.9, "k = {k}: {policy}");
        use rebel_trainer::reward::Score;
        assert_eq!(table.queries(), 150 * 16 * k as u64);
    }
}

#[test]
fn rollouts_depend_on_seed_step_prompt_and_sample_only() {
    let bandit = Bandit::new(&logits()).unwrap();
    let arms = |prompts: &[(u64, &usize)], k| -> Vec<usize> {
        let drawn = bandit.rollout(prompts, k, &Streams::new(5), 7).unwrap();
        drawn.iter().flatten().map(|t: &Trajectory<_>| t.record.arm).collect()
    };
    let contexts: Vec<usize> = vec![0; 40];
    let all: Vec<(u64, &usize)> = contexts.iter().enumerate().map(|(i, c)| (i as u64, c)).collect();
    let together = arms(&all, 2);
    let alone: Vec<usize> = all.iter().flat_map(|one| arms(&[*one], 2)).collect();
    assert_eq!(together, alone);
    assert!(together.iter().any(|&arm| arm != together[0]));
}

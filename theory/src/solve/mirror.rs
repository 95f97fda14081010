//! Mirror descent in its exact form: tilt by the exponential of the reward, and iterate.

use crate::bandit::{Bandit, Policy};
use crate::kernels::{Level, Traces, add_scaled, mirror_row, normalise_row};
use ndarray::{Array1, Array2, Zip};
use rayon::prelude::*;

/// The exact mirror-descent step, equation (3), for a reward or predictor `f` `[x, y]`:
///
/// $$ \pi_{t+1}(y|x)=\pi_t(y|x)\,e^{\eta f(x,y)}/Z_t(x) $$
///
/// A response of probability zero keeps it.
pub fn tilt(pi: &Policy, f: &Array2<f64>, eta: f64) -> Policy {
    tilted(pi, f, eta).0
}

/// The logarithm of the normaliser of a tilt `[x]`, equation (3): $$ \ln Z_t(x)=\ln E_{y\sim\pi_t}e^{\eta f(x,y)} $$
pub fn log_normaliser(pi: &Policy, f: &Array2<f64>, eta: f64) -> Array1<f64> {
    tilted(pi, f, eta).1
}

/// A tilt and the logarithm of its normaliser `[x]`.
fn tilted(pi: &Policy, f: &Array2<f64>, eta: f64) -> (Policy, Array1<f64>) {
    let mut log = pi.log().as_standard_layout().into_owned();
    let mut prob = Array2::zeros(log.dim());
    let f = f.as_standard_layout();
    let level = Level::best();
    let rows = log.rows_mut().into_iter().zip(prob.rows_mut()).zip(f.rows());
    let normaliser = rows.map(|((mut log, mut prob), f)| {
        let (log, prob) = (log.as_slice_mut().expect(CONTIGUOUS), prob.as_slice_mut().expect(CONTIGUOUS));
        add_scaled(level, log, eta, f.to_slice().expect(CONTIGUOUS));
        normalise_row(level, log, prob)
    });
    let normaliser = normaliser.collect();
    (Policy::from_parts(log, prob), normaliser)
}

const CONTIGUOUS: &str = "a table in standard layout has contiguous rows";

/// The objective a tilt maximises, equation (2): $$ E_xE_\pi r-\tfrac1\eta E_x\mathrm{KL}(\pi\|\pi_t) $$
pub fn regularised_value(bandit: &Bandit, pi: &Policy, old: &Policy, eta: f64) -> f64 {
    bandit.value(pi) - bandit.kl(pi, old) / eta
}

/// The reward read back from two successive policies up to a constant of the context `[x, y]`, equations (4) and (5):
///
/// $$ \tfrac1\eta\ln\frac{\pi_{t+1}(y|x)}{\pi_t(y|x)}=r(x,y)-\tfrac1\eta\ln Z_t(x) $$
///
/// Zero where both policies have probability zero: such a response says nothing about its reward.
pub fn implied_reward(new: &Policy, old: &Policy, eta: f64) -> Array2<f64> {
    let ratio = |&new: &f64, &old: &f64| if new == old { 0.0 } else { (new - old) / eta };
    Zip::from(new.log()).and(old.log()).map_collect(ratio)
}

/// What `T` exact mirror-descent steps did.
#[derive(Debug, Clone, PartialEq)]
pub struct MirrorDescent {
    /// Values $$ J(\pi_t) $$ for t = 0..T, `[T+1]`.
    pub values: Vec<f64>,
    /// $$ E_x\mathrm{KL}(\pi_{t+1}\|\pi_t) $$ `[T]`, nats.
    pub kl_forward: Vec<f64>,
    /// $$ E_x\mathrm{KL}(\pi_t\|\pi_{t+1}) $$ `[T]`, nats.
    pub kl_backward: Vec<f64>,
    /// The largest $$ \mathrm{KL}(\pi_{t+1}\|\pi_t) $$ of any step and context, 0 without steps.
    pub kl_forward_max: f64,
    /// The last policy.
    pub last: Policy,
}

/// Steps between two meetings of the contexts; each runs alone in between.
const SPAN: usize = 256;

/// Entries times steps below which a second thread is not worth waking.
const WORTH_A_THREAD: usize = 1 << 16;

/// What one context traced over a span of steps, a number a step.
struct Trace {
    value: Vec<f64>,
    forward: Vec<f64>,
    backward: Vec<f64>,
}

/// `steps` exact mirror-descent steps of size `eta` from `start`. One step is [`tilt`], bit for bit.
///
/// Contexts run side by side; the numbers do not depend on how many threads there are.
///
/// What limits it: each step takes one exponential an entry, and the multiplications of that polynomial are three quarters
/// of all. A context's row, its reward and the weights before and after the step (four rows of `|Y|`) stay in the
/// first-level cache up to about a thousand responses, since a context runs 256 steps before the next one begins;
/// wider rows come from the second level.
pub fn mirror_descent(bandit: &Bandit, start: &Policy, eta: f64, steps: usize) -> MirrorDescent {
    let mut run = MirrorDescent {
        values: vec![bandit.value(start)],
        kl_forward: Vec::new(),
        kl_backward: Vec::new(),
        kl_forward_max: 0.0,
        last: start.clone(),
    };
    if steps == 0 {
        return run;
    }
    let mut log = start.log().as_standard_layout().into_owned();
    let mut prob = start.prob().as_standard_layout().into_owned();
    let reward = bandit.reward().as_standard_layout();
    let (level, y) = (Level::best(), bandit.responses());
    let reward = reward.as_slice().expect(CONTIGUOUS).par_chunks_exact(y);
    for begin in (0..steps).step_by(SPAN) {
        let span = SPAN.min(steps - begin);
        let contexts_at_once = (WORTH_A_THREAD / (y * span)).max(1);
        let rows = log.as_slice_mut().expect(CONTIGUOUS).par_chunks_exact_mut(y);
        let rows = rows.zip(prob.as_slice_mut().expect(CONTIGUOUS).par_chunks_exact_mut(y)).zip(reward.clone());
        let traces: Vec<Trace> = rows
            .with_min_len(contexts_at_once)
            .map(|((log, prob), reward)| {
                let [mut value, mut forward, mut backward] = [(); 3].map(|()| vec![0.0; span]);
                let traces = Traces { value: &mut value, forward: &mut forward, backward: &mut backward };
                mirror_row(level, log, prob, reward, eta, traces);
                Trace { value, forward, backward }
            })
            .collect();
        let mean = |of: fn(&Trace) -> &[f64], t: usize| {
            let weighted = bandit.weights().iter().zip(&traces).filter(|(w, _)| **w > 0.0);
            weighted.fold(0.0, |sum, (w, trace)| sum + w * of(trace)[t])
        };
        run.values.extend((0..span).map(|t| mean(|trace| &trace.value, t)));
        run.kl_forward.extend((0..span).map(|t| mean(|trace| &trace.forward, t)));
        run.kl_backward.extend((0..span).map(|t| mean(|trace| &trace.backward, t)));
        let forward = traces.iter().flat_map(|trace| &trace.forward);
        run.kl_forward_max = forward.fold(run.kl_forward_max, |m, &kl| m.max(kl));
    }
    run.last = Policy::from_parts(log, prob);
    run
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    fn bandit() -> Bandit {
        Bandit::new(array![1.0], array![[2f64.ln(), 0.0, 5.0]]).unwrap()
    }

    #[test]
    fn tilt_equals_number_by_hand_and_keeps_zero() {
        let pi = Policy::new("pi", array![[0.5, 0.5, 0.0]]).unwrap();
        let next = tilt(&pi, bandit().reward(), 1.0);
        assert_abs_diff_eq!(next.prob(), &array![[2.0 / 3.0, 1.0 / 3.0, 0.0]], epsilon = 1e-15);
        assert_abs_diff_eq!(log_normaliser(&pi, bandit().reward(), 1.0)[0], 1.5f64.ln(), epsilon = 1e-15);
        let implied = implied_reward(&next, &pi, 1.0);
        assert_abs_diff_eq!(implied[[0, 0]] - implied[[0, 1]], 2f64.ln(), epsilon = 1e-15);
    }

    #[test]
    fn run_is_the_iterated_tilt_bit_for_bit_and_traces_its_divergences() {
        let reward = Array2::from_shape_fn((3, 37), |(x, y)| ((x * 37 + y) as f64 * 1.7).sin());
        let bandit = Bandit::new(array![0.5, 0.0, 0.5], reward).unwrap();
        let start = Policy::from_logits(&Array2::from_shape_fn((3, 37), |(x, y)| match (x, y) {
            (2, 3) => f64::NEG_INFINITY,
            _ => ((x + 5 * y) as f64).cos(),
        }));
        let (eta, steps) = (0.9, SPAN + 3);
        let run = mirror_descent(&bandit, &start, eta, steps);
        let (mut pi, mut largest) = (start, 0.0f64);
        for t in 0..steps {
            let next = tilt(&pi, bandit.reward(), eta);
            assert_abs_diff_eq!(run.values[t + 1], bandit.value(&next), epsilon = 1e-14);
            assert_abs_diff_eq!(run.kl_forward[t], bandit.kl(&next, &pi), epsilon = 1e-13);
            assert_abs_diff_eq!(run.kl_backward[t], bandit.kl(&pi, &next), epsilon = 1e-13);
            largest = next.kl(&pi).fold(largest, |m, &kl| m.max(kl));
            pi = next;
        }
        assert_eq!(run.last.log(), pi.log());
        assert_eq!(run.last.prob(), pi.prob());
        assert_abs_diff_eq!(run.kl_forward_max, largest, epsilon = 1e-13);
    }

    #[test]
    fn run_does_not_depend_on_thread_count() {
        let reward = Array2::from_shape_fn((7, 300), |(x, y)| ((x * 300 + y) as f64 * 0.7).cos());
        let bandit = Bandit::new(Array1::from_elem(7, 1.0 / 7.0), reward).unwrap();
        let at = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| mirror_descent(&bandit, &Policy::uniform(7, 300), 0.3, 2 * SPAN))
        };
        assert_eq!(at(1), at(3));
    }

    #[test]
    fn no_step_changes_nothing() {
        let start = Policy::uniform(1, 3);
        let run = mirror_descent(&bandit(), &start, 0.5, 0);
        assert_eq!((run.values.len(), run.kl_forward.len(), run.kl_forward_max), (1, 0, 0.0));
        assert_eq!(run.last, start);
    }

    #[test]
    fn divergence_stays_finite_where_probabilities_underflow() {
        let run = mirror_descent(&bandit(), &Policy::uniform(1, 3), 400.0, 2);
        assert!(run.last.prob()[[0, 0]] == 0.0 && run.kl_backward.iter().all(|kl| kl.is_finite()));
    }
}

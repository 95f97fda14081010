//! Claim 8 of the table: which steps do not depend on the coordinates of the parameters.

use super::{Claim, Draw, Features, Findings, Quantity, Tag, over_bound};
use crate::bandit::{Bandit, Policy};
use crate::error::InputError;
use crate::policy::Softmax;
use crate::solve::linear::{EIGENVALUE_CUTOFF, singular, spectrum};
use crate::solve::natural::{mapped_steps, natural_step, policy_gradient, second_moment};
use crate::statistics::{bootstrap_mean, log_log_slope, median};
use ndarray::{Array1, Array2, Array3};

pub(super) const CLAIM: Claim = Claim {
    id: "reparametrisation",
    title: "The natural step is covariant, the gradient is not",
    statement: "With theta = M theta' and a nonsingular Fisher matrix, the natural (Gauss-Newton) step in theta' maps to that in \
                theta: M D' = D. If F is singular the displacements differ by a null vector of F: log-linear policies still \
                coincide, others to first order only. The policy gradient becomes M M^T g.",
    formula: r"M\,(M^\top FM)^+M^\top b=F^+b\quad\text{if }F\text{ is nonsingular}",
    preconditions: &[
        "M invertible",
        "F nonsingular, for equal parameters",
        "a rank that rounding does not decide",
        "rho(x) > 0: a context of weight zero is not determined",
    ],
    tag: Tag::Assumption,
    section: "1.8",
    family: "log-linear policies (generic; collinear), |X| <= 3, |Y| <= 5; MLP with 31 parameters and rank 3; cond(M) 1..1e4",
    measure: |trials| {
        let [parameters, policies] = trials.worst("nonsingular", |draw| {
            let condition = draw.uniform(0.0, 1e4f64.ln()).exp();
            let step = mapped(draw, Features::Generic, condition)?;
            // Rounding is magnified by the condition of the Fisher matrix in the mapped coordinates.
            Ok([step.parameter_error / step.condition, step.policy_error / step.condition])
        })?;
        let tame = trials.each("tame", trials.settings().instances, |draw| {
            let step = mapped(draw, Features::Generic, 10.0)?;
            Ok((step.parameter_error, step.policy_error))
        })?;
        let [singular_policies] =
            trials.worst("singular", |draw| Ok([mapped(draw, Features::Collinear, 10.0)?.policy_error]))?;
        let moved = trials
            .each("singular parameters", FIXED, |draw| Ok(mapped(draw, Features::Collinear, 10.0)?.parameter_error))?;
        let turned = trials.each("gradient", FIXED, |draw| {
            let bandit = Bandit::new(Array1::ones(1), draw.normals((1, 5)))?;
            let policy = draw.log_linear(&bandit, Features::Wide);
            let (pi, scores) = (policy.policy(), policy.scores());
            let plain = policy_gradient(&bandit, &pi, scores.view());
            let cosine = |condition: f64, draw: &mut Draw| -> Result<f64, InputError> {
                let m = matrix(draw, plain.len(), condition)?;
                let (_, there) = mapped_steps(&bandit, &pi, &scores, &m, 1.0)?;
                Ok(plain.dot(&there) / (plain.dot(&plain) * there.dot(&there)).sqrt())
            };
            Ok((cosine(1.0, draw)?, cosine(100.0, draw)?))
        })?;
        let (kept, turned): (Vec<f64>, Vec<f64>) = turned.into_iter().unzip();
        let networks = trials.each("network", 100, network)?;
        let (slopes, displaced): (Vec<f64>, Vec<f64>) = networks.into_iter().unzip();
        let largest = |of: fn(&(f64, f64)) -> f64| tame.iter().map(of).fold(0.0, f64::max);
        Ok(Findings::new()
            .measured(Quantity::at_most("F nonsingular, cond(M) = 10: parameters, relative", largest(|t| t.0), 1e-8))
            .measured(Quantity::at_most(
                "F nonsingular, cond(M) = 10: policies, mean total variation",
                largest(|t| t.1),
                1e-8,
            ))
            .measured(Quantity::at_most(
                "cond(M) 1..1e4: parameters, relative, over the condition of M^T F M",
                parameters,
                1e-13,
            ))
            .measured(Quantity::at_most("cond(M) 1..1e4: policies, over the same", policies, 1e-13))
            .measured(Quantity::at_most(
                "F singular, log-linear: policies, mean total variation",
                singular_policies,
                1e-7,
            ))
            .control(
                "F singular, log-linear: the parameters differ",
                Quantity::at_least("median relative distance of the displacements", median(&moved), 0.05),
            )
            .control(
                "N1.2: F singular, MLP: the parameters differ",
                Quantity::at_least("median relative distance of the displacements", median(&displaced), 0.05),
            )
            .control(
                "N1.2: F singular, MLP: the policies agree to first order only",
                Quantity::exponent(
                    "exponent of their distance in eta, 0.002..0.02",
                    bootstrap_mean(&slopes, 1000, trials.settings().seed),
                    2.0,
                    0.1,
                ),
            )
            .control(
                "the policy gradient under cond(M) = 100 points elsewhere",
                Quantity::at_most("median cosine with the gradient in theta", median(&turned), 0.9),
            )
            .control(
                "the policy gradient under an orthogonal M does not",
                Quantity::at_least("least cosine", kept.iter().copied().fold(1.0, f64::min), 1.0 - 1e-12),
            ))
    },
};

/// Instances of what is shown by a median: few enough to be quick, enough to be sure.
const FIXED: usize = 200;

/// An invertible matrix `[k, k]` with random directions and singular values from 1 down to 1/condition.
fn matrix(draw: &mut Draw, k: usize, condition: f64) -> Result<Array2<f64>, InputError> {
    let frame = singular("M", &draw.normals((k, k)))?;
    let value = |i: usize| condition.powf(-(i as f64) / (k.max(2) - 1) as f64);
    let scaled = &frame.u * &Array1::from_shape_fn(k, value);
    Ok(scaled.dot(&frame.vt))
}

/// A natural step computed in both coordinates.
struct Mapped {
    parameter_error: f64, // relative
    policy_error: f64,
    condition: f64, // of the Fisher matrix in the mapped coordinates, over its kept directions
}

/// Both coordinates' steps for a log-linear policy, drawn until no eigenvalue is near the cutoff in either.
fn mapped(draw: &mut Draw, features: Features, condition: f64) -> Result<Mapped, InputError> {
    loop {
        let bandit = draw.bandit(3, 5);
        let policy = draw.log_linear(&bandit, features);
        let (pi, scores, eta) = (policy.policy(), policy.scores(), draw.eta());
        let m = matrix(draw, policy.parameters().len(), condition)?;
        let here = second_moment(&bandit, &pi, scores.view());
        let there = m.t().dot(&here).dot(&m);
        let (Some((rank, own_condition)), Some((mapped_rank, condition))) = (clear_rank(&here)?, clear_rank(&there)?)
        else {
            continue;
        };
        let full = rank == policy.parameters().len();
        // Nearly singular, a step is so long that rounding shows in the policy whatever the coordinates.
        let tame = own_condition < 1e4;
        if rank != mapped_rank || rank == 0 || full != (features == Features::Generic) || !tame {
            continue;
        }
        let step = natural_step(&bandit, &pi, &pi, scores.view(), eta)?.delta;
        let (other, _) = mapped_steps(&bandit, &pi, &scores, &m, eta)?;
        // In a context of weight zero nothing determines the policy, and the displacements' difference shows.
        let distance = bandit.average(&policy.moved(&step).policy().total_variation(&policy.moved(&other).policy()));
        return Ok(Mapped { parameter_error: relative(&step, &other), policy_error: distance, condition });
    }
}

/// Rank and condition of a Fisher matrix on its range, unless some eigenvalue is neither clearly kept nor clearly zero.
fn clear_rank(fisher: &Array2<f64>) -> Result<Option<(usize, f64)>, InputError> {
    let values = spectrum("F", fisher)?.values;
    let largest = values.fold(0.0, |m: f64, &v| m.max(v));
    let kept: Vec<f64> = values.iter().copied().filter(|&v| v > EIGENVALUE_CUTOFF * largest).collect();
    let least = kept.iter().copied().fold(f64::INFINITY, f64::min);
    let zero = values.iter().all(|&v| v > EIGENVALUE_CUTOFF * largest || v.abs() < 1e-3 * EIGENVALUE_CUTOFF * largest);
    let clear = zero && least > 10.0 * EIGENVALUE_CUTOFF * largest;
    Ok(clear.then(|| (kept.len(), largest / least)))
}

/// The distance of two displacements relative to the first; 0 of two that are nothing, as under a constant reward.
fn relative(of: &Array1<f64>, to: &Array1<f64>) -> f64 {
    let norm = |v: &Array1<f64>| v.dot(v).sqrt();
    over_bound(norm(&(of - to)), norm(of))
}

/// N1.2: the exponent in eta of the distance between a network's two policies, and the relative distance of its displacements.
fn network(draw: &mut Draw) -> Result<(f64, f64), InputError> {
    const ETAS: [f64; 6] = [0.002, 0.0032, 0.005, 0.008, 0.0126, 0.02];
    loop {
        let bandit = Bandit::new(Array1::ones(1), draw.normals((1, 4)))?;
        let policy = draw.mlp(&bandit, 3, 6);
        let (pi, scores): (Policy, Array3<f64>) = (policy.policy(), policy.scores());
        let m = matrix(draw, policy.parameters().len(), 10.0)?;
        // A nearly lost direction would move the parameters far, and the quadratic range would be shorter than ETAS.
        match clear_rank(&second_moment(&bandit, &pi, scores.view()))? {
            Some((3, condition)) if condition < 100.0 => {}
            _ => continue,
        }
        let here = natural_step(&bandit, &pi, &pi, scores.view(), 1.0)?.delta;
        let (there, _) = mapped_steps(&bandit, &pi, &scores, &m, 1.0)?;
        let distance = |&eta: &f64| {
            let moved = |delta: &Array1<f64>| policy.moved(&(delta * eta)).policy();
            moved(&here).total_variation(&moved(&there))[0]
        };
        return Ok((log_log_slope(&ETAS, &ETAS.each_ref().map(distance)).value, relative(&here, &there)));
    }
}

//! Claim 9 of the table, Claim 1 of the paper: one Gauss-Newton step of REBEL is a mixed natural-gradient step.

use super::instances::has_spectral_gap;
use super::{Claim, Draw, Features, Findings, Quantity, Tag, Trials};
use crate::bandit::{Bandit, Policy};
use crate::distribution::best_and_worst;
use crate::error::InputError;
use crate::policy::{LogLinear, Softmax};
use crate::solve::linear::{MinNorm, least_squares, pseudo_solve, spectrum};
use crate::solve::mirror::tilt;
use crate::solve::natural::{NaturalStep, general_step, moment, natural_step, second_moment};
use crate::solve::regression::{PairLaw, gauss_newton_step, pair_design, pair_residuals};
use crate::statistics::{bootstrap_mean, log_log_slope, median};
use ndarray::{Array1, Array2, Array3};
use std::num::NonZeroUsize;

pub(super) const CLAIM: Claim = Claim {
    id: "gauss-newton-npg",
    title: "The Gauss-Newton step of REBEL is a natural policy gradient",
    statement: "The minimum-norm minimiser of the linearised regression (9) is eta F_mix^+ b_mix with F_mix = E_mix[g g^T], \
                b_mix = E_mix[g A], mix = (pi_t + mu)/2; with mu = pi_t it is the NPG step (6).",
    formula: r"\arg\min_D E\big[\tfrac1\eta(g-g^\prime)^\top D-(r-r^\prime)\big]^2=\eta\,F_{\rm mix}^+b_{\rm mix},\qquad {\rm mix}=\tfrac12(\pi_t+\mu)",
    preconditions: &[
        "P1: y ~ pi_t exactly, y' ~ mu, independent given x",
        "P2: F_mix is the uncentred second moment of pi_t's score under the mixture",
        "P3: A is centred with pi_t",
        "P4: minimum norm is that of theta - theta_t",
        "P5: the classical NPG only for mu = pi_t",
    ],
    tag: Tag::True,
    section: "2",
    family: "log-linear (generic, collinear, d > |X|(|Y|-1)) and MLP (null output bias) policies, |X| <= 3, |Y| <= 5; \
             mu random or a point mass; spectra with a gap (eigenvalues of F kept >= 1e-5, dropped <= 1e-16 of the largest)",
    measure: |trials| {
        let [log_linear, general] = trials.worst("log-linear", |draw| {
            let kind = [Features::Generic, Features::Collinear, Features::Wide][draw.instance() % 3];
            let problem = problem(draw, |draw, bandit| draw.log_linear(bandit, kind))?;
            Ok([problem.identity_error()?, problem.general_error(draw)?])
        })?;
        let [network, numeric_network] = trials.worst("network", |draw| {
            let problem = problem(draw, |draw, bandit| draw.mlp(bandit, 2, 3))?;
            Ok([problem.identity_error()?, problem.numeric_error()?])
        })?;
        let [numeric_log_linear] = trials.worst("numeric", |draw| {
            let kind = [Features::Generic, Features::Collinear, Features::Wide][draw.instance() % 3];
            Ok([problem(draw, |draw, bandit| draw.log_linear(bandit, kind))?.numeric_error()?])
        })?;
        let slopes = trials.each("slope", trials.settings().instances.clamp(50, 100), slope_of_distance)?;
        let slope = bootstrap_mean(&slopes, 1000, trials.settings().seed);
        let findings = Findings::new()
            .measured(Quantity::at_most("log-linear: formula against least squares, relative", log_linear, 1e-9))
            .measured(Quantity::at_most("MLP: formula against least squares, relative", network, 1e-9))
            .measured(Quantity::at_most(
                "log-linear: numeric Jacobian of the true loss, relative",
                numeric_log_linear,
                1e-7,
            ))
            .measured(Quantity::at_most("MLP: numeric Jacobian of the true loss, relative", numeric_network, 1e-7))
            .measured(Quantity::at_most("y ~ nu: general formula against least squares, relative", general, 1e-9))
            .measured(Quantity::exponent("MLP: exponent of TV(step, tilt) in eta, 0.002..0.02", slope, 2.0, 0.1));
        controls(trials, findings)
    },
};

/// A policy at `theta_t`, its bandit, and the law of the second response.
struct Problem<P> {
    bandit: Bandit,
    policy: P,
    pi: Policy,
    scores: Array3<f64>, // [x, y, k]
    mu: Policy,
    eta: f64,
    step: NaturalStep,
}

/// A problem whose mixed second moment has a clear rank, drawn until there is one.
fn problem<P: Softmax>(draw: &mut Draw, policy: impl Fn(&mut Draw, &Bandit) -> P) -> Result<Problem<P>, InputError> {
    loop {
        let bandit = draw.bandit(3, 5);
        let policy = policy(draw, &bandit);
        let (pi, scores, eta) = (policy.policy(), policy.scores(), draw.eta());
        let mu = draw.law_within(&pi);
        let step = natural_step(&bandit, &pi, &pi.mixture(&mu, 0.5), scores.view(), eta)?;
        if step.rank > 0 && clear_rank(&bandit, &PairLaw::independent(&pi, &mu), &scores, 1e-5)? {
            return Ok(Problem { bandit, policy, pi, scores, mu, eta, step });
        }
    }
}

/// Whether pairs from `law` determine the rank beyond doubt, kept directions having at least `kept` of the largest square.
fn clear_rank(bandit: &Bandit, law: &PairLaw, scores: &Array3<f64>, kept: f64) -> Result<bool, InputError> {
    let (design, _) = pair_design(bandit, law, scores.view());
    Ok(design.nrows() > 0 && has_spectral_gap(&design, kept)?)
}

/// The distance of two displacements relative to the first.
fn relative(of: &Array1<f64>, to: &Array1<f64>) -> f64 {
    let norm = |v: &Array1<f64>| v.dot(v).sqrt();
    if norm(of) == 0.0 { norm(to) } else { norm(&(of - to)) / norm(of) }
}

impl<P: Softmax> Problem<P> {
    fn law(&self) -> PairLaw {
        PairLaw::independent(&self.pi, &self.mu)
    }

    /// E2.1: the formula against minimum-norm least squares on all pairs.
    fn identity_error(&self) -> Result<f64, InputError> {
        let fit = gauss_newton_step(&self.bandit, &self.law(), self.scores.view(), self.eta)?;
        Ok(if fit.rank == self.step.rank { relative(&fit.solution, &self.step.delta) } else { f64::INFINITY })
    }

    /// E2.2: the formula against least squares on the numeric Jacobian of the residuals of the true loss (1).
    fn numeric_error(&self) -> Result<f64, InputError> {
        let residuals = |delta: &Array1<f64>| {
            pair_residuals(&self.bandit, &self.law(), &self.pi, &self.policy.moved(delta).policy(), self.eta)
        };
        let k = self.step.delta.len();
        let start = residuals(&Array1::zeros(k));
        let mut jacobian = Array2::zeros((start.len(), k));
        let h = 1e-3;
        for (i, mut column) in jacobian.columns_mut().into_iter().enumerate() {
            let at = |steps: f64| residuals(&Array1::from_shape_fn(k, |j| if i == j { steps * h } else { 0.0 }));
            // Central differences of fourth order: errors of h^4, far below the smallest kept singular value.
            column.assign(&(((at(1.0) - at(-1.0)) * 8.0 - (at(2.0) - at(-2.0))) / (12.0 * h)));
        }
        let fit = least_squares(&jacobian, &-start)?;
        Ok(if fit.rank == self.step.rank { relative(&fit.solution, &self.step.delta) } else { f64::INFINITY })
    }

    /// The general formula for `y ~ nu` against least squares, for a `nu` whose pairs determine the rank.
    fn general_error(&self, draw: &mut Draw) -> Result<f64, InputError> {
        let mut nu = draw.policy(&self.bandit);
        while !clear_rank(&self.bandit, &PairLaw::independent(&nu, &self.mu), &self.scores, 1e-5)? {
            nu = draw.policy(&self.bandit);
        }
        let law = PairLaw::independent(&nu, &self.mu);
        let general = general_step(&self.bandit, &self.pi, &nu, &self.mu, self.scores.view(), self.eta)?;
        let fit = gauss_newton_step(&self.bandit, &law, self.scores.view(), self.eta)?;
        Ok(if fit.rank == general.rank { relative(&fit.solution, &general.solution) } else { f64::INFINITY })
    }
}

/// E2.3: the exponent in eta of the total variation between a network's Gauss-Newton step and the tilt.
fn slope_of_distance(draw: &mut Draw) -> Result<f64, InputError> {
    const ETAS: [f64; 6] = [0.002, 0.0032, 0.005, 0.008, 0.0126, 0.02];
    loop {
        let bandit = Bandit::new(Array1::ones(1), draw.normals((1, 4)))?;
        let policy = draw.mlp(&bandit, 3, 6);
        let (pi, scores) = (policy.policy(), policy.scores());
        let unit = natural_step(&bandit, &pi, &pi, scores.view(), 1.0)?;
        // Below rank |Y|-1 the tilt is not reached to first order, and near it the quadratic range is shorter than ETAS.
        if unit.rank < 3 || !clear_rank(&bandit, &PairLaw::independent(&pi, &pi), &scores, 1e-3)? {
            continue;
        }
        let distance = |&eta: &f64| {
            let moved = policy.moved(&(&unit.delta * eta)).policy();
            moved.total_variation(&tilt(&pi, bandit.reward(), eta))[0]
        };
        return Ok(log_log_slope(&ETAS, &ETAS.each_ref().map(distance)).value);
    }
}

/// The negative controls N2.1 to N2.4, on generic log-linear policies that cannot represent the reward.
fn controls(trials: &Trials, findings: Findings) -> Result<Findings, InputError> {
    let count = trials.settings().instances.max(100); // medians need some
    let off_policy = trials.each("N2.1", count, |draw| {
        let problem = misspecified(draw)?;
        let nu = draw.policy(&problem.bandit);
        let shares = [0.001, 0.00316, 0.01, 0.0316];
        let gap = |a: f64| formula_gap(&problem, &PairLaw::independent(&problem.pi.mixture(&nu, a), &problem.mu));
        let gaps = shares.iter().map(|&a| gap(a)).collect::<Result<Vec<_>, _>>()?;
        Ok((log_log_slope(&shares, &gaps).value, gap(1.0)?))
    })?;
    let (slopes, full): (Vec<f64>, Vec<f64>) = off_policy.into_iter().unzip();
    let same_draws = trials.each("N2.2", count, |draw| {
        let problem = misspecified(draw)?;
        let draws = |n| NonZeroUsize::new(n).expect("at least one draw");
        let gap = |n| formula_gap(&problem, &best_and_worst(&problem.pi, problem.bandit.reward(), draws(n)));
        Ok((gap(2)?, gap(4)?))
    })?;
    let (two, four): (Vec<f64>, Vec<f64>) = same_draws.into_iter().unzip();
    let mistaken = trials.each("N2.3", count, |draw| {
        let Problem { bandit, pi, scores, mu, eta, step, .. } = misspecified(draw)?;
        let mix = pi.mixture(&mu, 0.5);
        let raw = moment(&bandit, &mix, scores.view(), bandit.reward());
        let raw = pseudo_solve(&spectrum("F", &step.fisher)?, &raw).solution * eta;
        let fisher = second_moment(&bandit, &pi, scores.view());
        let unmixed = pseudo_solve(&spectrum("F", &fisher)?, &step.b).solution * eta;
        Ok((relative(&step.delta, &raw), relative(&step.delta, &unmixed)))
    })?;
    let (raw, unmixed): (Vec<f64>, Vec<f64>) = mistaken.into_iter().unzip();
    let [realisable] = trials.worst("N2.4", |draw| {
        let mut problem = misspecified(draw)?;
        let w: Array1<f64> = draw.normals(problem.step.delta.len());
        problem.bandit = problem.bandit.with_reward(problem.policy.at(w.view()).logits())?; // r = phi . w
        let nu = draw.policy(&problem.bandit);
        Ok([formula_gap(&problem, &PairLaw::independent(&nu, &problem.mu))?])
    })?;
    let slope = bootstrap_mean(&slopes, 1000, trials.settings().seed);
    Ok(findings
        .control(
            "P1: y ~ (1-a) pi_t + a nu; the gap grows linearly from 0",
            Quantity::exponent("exponent of the gap in a, 0.001..0.03", slope, 1.0, 0.1),
        )
        .control("P1: y ~ nu", Quantity::at_least("median relative gap", median(&full), 0.02))
        .control(
            "P1: best and worst of the same 4 draws",
            Quantity::at_least("median relative gap", median(&four), 0.02),
        )
        .control(
            "P1 kept: best and worst of the same 2 draws are a relabelled independent pair",
            Quantity::at_most("worst relative gap", two.iter().fold(0.0, |m: f64, &g| m.max(g)), 1e-9),
        )
        .control("P3: raw reward instead of A", Quantity::at_least("median relative error", median(&raw), 0.05))
        .control(
            "P2: F of pi_t with b of the mixture",
            Quantity::at_least("median relative error", median(&unmixed), 0.05),
        )
        .control(
            "y ~ nu with a realisable reward: the gap vanishes",
            Quantity::at_most("worst relative gap", realisable, 1e-9),
        ))
}

/// A log-linear problem in one context with two features and at least four responses: too few for its reward.
fn misspecified(draw: &mut Draw) -> Result<Problem<LogLinear>, InputError> {
    loop {
        let responses = draw.size(4, 6);
        let bandit = Bandit::new(Array1::ones(1), draw.normals((1, responses)))?;
        let policy = LogLinear::new(draw.normals((1, responses, 2)), draw.normals(2) * 0.3)?;
        let (pi, scores, eta) = (policy.policy(), policy.scores(), draw.eta());
        let mu = draw.policy(&bandit);
        let step = natural_step(&bandit, &pi, &pi.mixture(&mu, 0.5), scores.view(), eta)?;
        if clear_rank(&bandit, &PairLaw::independent(&pi, &mu), &scores, 1e-2)? {
            return Ok(Problem { bandit, policy, pi, scores, mu, eta, step });
        }
    }
}

/// The relative distance between the true least-squares step for pairs from `law` and Claim 1's formula applied to it.
fn formula_gap<P>(problem: &Problem<P>, law: &PairLaw) -> Result<f64, InputError> {
    let Problem { bandit, pi, scores, eta, .. } = problem;
    let MinNorm { solution, .. } = gauss_newton_step(bandit, law, scores.view(), *eta)?;
    let formula = natural_step(bandit, pi, &law.mean_marginal(), scores.view(), *eta)?;
    Ok(relative(&solution, &formula.delta))
}

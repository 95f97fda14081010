//! Claim 14 of the table, Example 1 of the paper: the rate d/N of the regression's error, and the noise it needs.

use super::{Claim, Draw, Features, Findings, Quantity, Tag, over_bound};
use crate::error::InputError;
use crate::experiments::excess::{Fit, fits, gaussian_design, threshold, undetermined};
use crate::experiments::linear::{LinearProblem, Size};
use crate::policy::Softmax;
use crate::sample::{ContextSampler, Sampler};
use crate::solve::excess::{Design, pair_covariance, quadratic};
use crate::solve::finite_sample::Pairs;
use crate::statistics::{Estimate, log_log_slope_over_seeds, mean, mean_interval};
use ndarray::{Array1, Axis, concatenate};

pub(super) const CLAIM: Claim = Claim {
    id: "example1-rate",
    title: "The error of the regression falls as d/N, if labels are noisy",
    statement: "With reward noise of variance sigma^2 a query, E eps = 2 sigma^2 tr(Sigma (U^T U)^+) + ((I-P)w)^T Sigma (I-P)w \
                given the design, ~ 2 sigma^2 d/N from above, exactly 2 sigma^2 d/(N-d-1) for Gaussian designs; d is the rank \
                of Sigma. Without noise eps = 0 from N = rank on.",
    formula: r"E\,\epsilon=2\sigma^2\,\mathrm{tr}\,\Sigma(U^\top U)^{-1}\simeq\tfrac{2\sigma^2d}N",
    preconditions: &[
        "independent label noise: the paper's rewards are deterministic, and then eps is 0 or bias",
        "N above the rank of Sigma",
        "d counts only features that tell two responses apart",
    ],
    tag: Tag::Assumption,
    section: "4",
    family: "log-linear, |X| <= 3, |Y| <= 5, N 1..12; sampled: |X| = 20, |Y| = 20, d = 10, N 200..1600, 400 seeds; \
             |X| = |Y| = 40, d = 20 through N = d; Gaussian designs",
    measure: |trials| {
        let [expectation, in_sample, idle] = trials.worst("given the design", by_quadrature)?;
        let seed = trials.settings().seed;
        let seeds = if trials.settings().thorough { 800 } else { 400 };
        let sizes = [200, 400, 800, 1600];
        let problem = LinearProblem::new(size(10), 0.0, seed)?;
        let sampled = fits(&problem, &sizes, 1.0, seeds, seed)?;
        let in_pairs = slope(&sizes.map(|n| n as f64), &sampled, |fit| fit.error, seed)?;
        let over_rate =
            |i: usize| mean_interval(&sampled.iter().map(|s| s[i].expected / rate(10, sizes[i])).collect::<Vec<_>>());
        let least = (0..sizes.len()).map(|i| over_rate(i).value).fold(f64::INFINITY, f64::min);
        let far = over_rate(sizes.len() - 1);
        let training = mean(&sampled.iter().map(|s| s[sizes.len() - 1].training).collect::<Vec<_>>()) / 2.0;

        let widths = [2, 4, 8, 16];
        let mut by_width = vec![Vec::new(); seeds];
        for (i, &d) in widths.iter().enumerate() {
            let problem = LinearProblem::new(size(d), 0.0, seed.wrapping_add(d as u64))?;
            let own = fits(&problem, &[800], 1.0, seeds, seed.wrapping_add(100 + i as u64))?;
            by_width.iter_mut().zip(own).for_each(|(all, one)| all.extend(one));
        }
        // Few features scatter most, so the noise is averaged exactly here.
        let in_features = slope(&widths.map(|d| d as f64), &by_width, |fit| fit.expected, seed)?;
        let levels = [0.25, 0.5, 1.0, 2.0];
        let mut by_level = vec![Vec::new(); seeds];
        for (i, &sigma) in levels.iter().enumerate() {
            let own = fits(&problem, &[200], sigma, seeds, seed.wrapping_add(200 + i as u64))?;
            by_level.iter_mut().zip(own).for_each(|(all, one)| all.extend(one));
        }
        let in_noise = slope(&levels, &by_level, |fit| fit.error, seed)?;

        let gaussian =
            mean_interval(&gaussian_design(5, 20, 4 * seeds, seed)?.iter().map(|e| e * 14.0 / 5.0).collect::<Vec<_>>());
        let lost = mean_interval(&undetermined(20, 10, seeds, seed)?.iter().map(|b| b * 2.0).collect::<Vec<_>>());

        let wide = LinearProblem::new(Size { contexts: 40, responses: 40, features: 20 }, 0.0, seed)?;
        let counts = [10, 15, 18, 20, 22, 25, 30, 40, 80];
        let through = threshold(&wide, &counts, 1.0, seeds / 2, seed)?;
        let peak = through.iter().max_by(|a, b| a.noisy.value.total_cmp(&b.noisy.value)).expect("some counts");
        let height = peak.noisy.value / through[7].noisy.value;
        let clean = fits(&wide, &counts, 0.0, seeds / 2, seed)?;
        let determined = |fit: &&Fit| fit.rank == 20;
        let cliff = clean.iter().flatten().filter(determined).fold(0.0, |m: f64, fit| m.max(fit.error));
        let below = clean.iter().map(|seed| seed[2]).filter(|fit| !determined(&fit)).map(|fit| fit.error);
        let undershoot = below.fold(f64::INFINITY, f64::min);
        Ok(Findings::new()
            .measured(Quantity::at_most("E eps given the design against OLS run on noise, relative", expectation, 1e-9))
            .measured(Quantity::at_most("in-sample error against 2 sigma^2 rank/N, relative", in_sample, 1e-9))
            .measured(Quantity::at_most("features of the context alone and a bias change eps, relative", idle, 1e-9))
            .measured(Quantity::exponent("exponent of eps in N, 200..1600", in_pairs, -1.0, 0.1))
            .measured(Quantity::exponent("exponent of E eps in d, 2..16, N = 800", in_features, 1.0, 0.1))
            .measured(Quantity::exponent("exponent of eps in sigma, 0.25..2", in_noise, 2.0, 0.1))
            .measured(Quantity::at_least("N E eps / (2 sigma^2 d), least over N", least, 1.0))
            .measured(Quantity::between("N E eps / (2 sigma^2 d) at N = 1600", far.value, 1.0, 1.05).sampled(far))
            .measured(
                Quantity::between("Gaussian design, d = 5, N = 20: E eps over s^2 d/(N-d-1)", gaussian.value, 0.9, 1.1)
                    .sampled(gaussian),
            )
            .measured(
                Quantity::between("N < d, no noise: E eps over |w|^2 (1 - N/d)", lost.value, 0.9, 1.1).sampled(lost),
            )
            .control("N4.1: no label noise", Quantity::at_most("largest eps of any design of full rank", cliff, 1e-18))
            .control(
                "N4.1: no label noise, N = 18 for d = 20",
                Quantity::at_least("smallest eps of any design", undershoot, 1e-6),
            )
            .control("E4.2: N = d", Quantity::at_least("median eps at its peak over that at N = 2d", height, 5.0))
            .control("E4.2: where the peak is", Quantity::between("N/d", peak.pairs as f64 / 20.0, 0.9, 1.25))
            .control(
                "reading eps off the training loss, which tends to s^2",
                Quantity::between("training loss over s^2 at N = 1600", training, 0.95, 1.05),
            ))
    },
};

fn size(features: usize) -> Size {
    Size { contexts: 20, responses: 20, features }
}

/// $$ s^2d/N $$ for reward noise of variance 1.
fn rate(features: usize, pairs: usize) -> f64 {
    2.0 * features as f64 / pairs as f64
}

/// The log-log slope of one number of these fits `[seeds][x]`.
fn slope(x: &[f64], fits: &[Vec<Fit>], number: fn(&Fit) -> f64, seed: u64) -> Result<Estimate, InputError> {
    let errors: Vec<Vec<f64>> = fits.iter().map(|seed| seed.iter().map(number).collect()).collect();
    log_log_slope_over_seeds(x, &errors, 1000, seed)
}

/// The expected error and in-sample error of a sampled design, by running least squares on noise in every direction, against
/// the formulas; and what features that tell no two responses apart change.
///
/// Both errors are quadratic in the noise, so that their expectation is the value without noise plus half the second
/// differences along each label: no distribution is needed.
fn by_quadrature(draw: &mut Draw) -> Result<[f64; 3], InputError> {
    let kind = [Features::Generic, Features::Collinear, Features::Wide][draw.instance() % 3];
    let (bandit, policy, pairs, sigma) = loop {
        let bandit = draw.bandit(3, 5);
        let policy = draw.log_linear(&bandit, kind);
        let pi = policy.policy();
        let mu = draw.law_within(&pi);
        let n = draw.size(1, 12);
        let (contexts, sigma) = (ContextSampler::new(bandit.weights()), draw.uniform(0.1, 2.0));
        let pairs = Pairs::draw(&contexts, &Sampler::new(&pi), &Sampler::new(&mu), n, draw.rng());
        if super::instances::has_spectral_gap(&pairs.design(policy.features().view()), 1e-5)? {
            break (bandit, (policy, pi, mu), pairs, sigma);
        }
    };
    let (policy, pi, mu) = policy;
    let features = policy.features();
    let w: Array1<f64> = draw.normals(features.dim().2);
    let label_variance = 2.0 * sigma * sigma;
    let covariance = pair_covariance(&bandit, &pi, &mu, features);
    let design = Design::new(pairs.design(features.view()))?;
    let clean = design.rows().dot(&w);
    let errors = |noise: &Array1<f64>| -> Result<[f64; 2], InputError> {
        let off = design.fit(&(&clean + noise))? - &w;
        let inside = design.rows().dot(&off);
        Ok([quadratic(&covariance, &off), inside.dot(&inside) / pairs.len() as f64])
    };
    let none = errors(&Array1::zeros(pairs.len()))?;
    let mut expected = none;
    for m in 0..pairs.len() {
        let unit = |step: f64| Array1::from_shape_fn(pairs.len(), |i| if i == m { step } else { 0.0 });
        let (up, down) = (errors(&unit(sigma))?, errors(&unit(-sigma))?);
        // label noise has twice the variance of a query's, hence no factor 1/2
        (0..2).for_each(|i| expected[i] += up[i] + down[i] - 2.0 * none[i]);
    }
    let formula = design.expected_excess(&covariance, &w, label_variance).total();
    let training = label_variance * design.rank() as f64 / pairs.len() as f64;

    let (contexts, responses, _) = features.dim();
    let mut extra = draw.normals((contexts, 1, 2));
    extra.index_axis_mut(Axis(2), 1).fill(1.0); // a feature of the context, and a bias
    let extra = extra.broadcast((contexts, responses, 2)).expect("one row a context").to_owned();
    let wider = concatenate(Axis(2), &[features.view(), extra.view()]).expect("the same contexts and responses");
    let longer = concatenate(Axis(0), &[w.view(), draw.normals(2).view()]).expect("one coefficient a feature");
    let wide = Design::new(pairs.design(wider.view()))?;
    let same = wide.expected_excess(&pair_covariance(&bandit, &pi, &mu, &wider), &longer, label_variance).total();
    Ok([
        over_bound((expected[0] - formula).abs(), formula),
        over_bound((expected[1] - training).abs(), training),
        over_bound((same - formula).abs(), formula),
    ])
}

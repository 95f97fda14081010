//! The operation of `estimation.json`: what training and held-out losses say about the error of a fit (theory 4.1).

use super::claim1::log_linear;
use super::input::Fields;
use super::{Failure, list, number};
use crate::error;
use crate::policy::{LogLinear, Softmax};
use crate::solve::decomposition::pair_error;
use crate::solve::estimation::{DrawnPairs, ErrorMoments, HeldOut, corrected_by_training};
use crate::solve::excess::{Design, pair_covariance};
use crate::solve::regression::{PairLaw, gauss_newton_step};
use ndarray::{Array1, Array2};
use serde_json::{Value, json};

/// One of the two samples: its pairs and the noise of their labels, `[m]`.
struct Sample {
    pairs: DrawnPairs,
    noise: Array1<f64>,
    again: Array1<f64>,
}

fn sample(input: &Fields, key: &'static str, shape: (usize, usize)) -> Result<Sample, Failure> {
    let fields = input.object(key)?;
    let read = || -> Result<Sample, Failure> {
        let (x, y) = (fields.indices("x")?, fields.indices("y")?);
        let pairs = DrawnPairs::new(&x, &y, fields.indices("i")?, fields.indices("j")?, shape)?;
        let noise = pairs.differences(&fields.vector("noise")?)?;
        // a second label is asked of held-out pairs only
        let again = fields.vector(if key == "heldout" { "noise2" } else { "noise" })?;
        error::shape("noise2", again.shape(), &[pairs.draws()])?;
        let again = pairs.differences(&again)?;
        Ok(Sample { pairs, noise, again })
    };
    read().map_err(|failure| failure.within(key))
}

pub(super) fn pair_loss_estimation(input: &Fields) -> Result<Value, Failure> {
    let bandit = input.bandit()?;
    let policy = log_linear(input, &bandit)?;
    let (pi, mu) = (policy.policy(), input.policy("mu", &bandit)?);
    let (sigma, eta) = (error::not_negative("sigma", input.number("sigma")?)?, input.positive("eta")?);
    let shape = (bandit.contexts(), bandit.responses());
    let (train, held_out) = (sample(input, "train", shape)?, sample(input, "heldout", shape)?);
    let label_variance = 2.0 * sigma * sigma;

    let design = Design::new(train.pairs.pairs().design(policy.features().view()))?;
    let mean_labels = train.pairs.pairs().differences(bandit.reward());
    let labels = &mean_labels + &train.noise;
    let fit = design.fit(&labels)?;
    let predicted = |w: &Array1<f64>| predictor(&policy, w);
    let delta = predicted(&fit) - bandit.reward(); // [x, y]
    let error_of = |delta: &Array2<f64>| pair_error(bandit.weights(), &pi, &mu, delta).total();

    let law = PairLaw::independent(&pi, &mu);
    let best = gauss_newton_step(&bandit, &law, policy.scores().view(), 1.0)?.solution;
    let noiseless = predicted(&design.fit(&mean_labels)?) - bandit.reward();
    let covariance = pair_covariance(&bandit, &pi, &mu, policy.features());
    let moments = ErrorMoments::new(bandit.weights(), &pi, &mu, &delta);

    let residual = &labels - &design.rows().dot(&fit);
    let pairs = design.pairs();
    let in_sample = residual.dot(&residual) / pairs as f64;
    let errors = held_out.pairs.pairs().differences(&delta); // [m], before label noise
    let outside = HeldOut::new(&(&errors - &held_out.noise), &(&errors - &held_out.again), &held_out.pairs.clusters());
    let count = held_out.pairs.pairs().len();
    let corrected = corrected_by_training(outside.loss, in_sample, design.rank(), pairs);
    Ok(json!({
        "rank_design": design.rank(),
        "w_hat": list(&fit),
        "theta_next": list(&(policy.parameters() + &fit * eta)),
        "eps": number(moments.second),
        "eps_floor": number(error_of(&(predicted(&best) - bandit.reward()))),
        "null_loss": number(error_of(bandit.reward())),
        "eps_expected_given_design":
            number(error_of(&noiseless) + train.pairs.noise_excess(&design, &covariance, sigma)),
        "in_sample_expected": number(train.pairs.in_sample_expected(&design, &mean_labels, sigma)),
        "in_sample_textbook": number(label_variance * (1.0 - design.rank() as f64 / pairs as f64)),
        "in_sample_loss": number(in_sample),
        "heldout_loss": number(outside.loss),
        "heldout_expected": number(label_variance + moments.second),
        "eps_hat_known_noise": number(outside.loss - label_variance),
        "eps_hat_two_labels": number(outside.two_labels),
        "eps_hat_train_corrected": number(corrected.unwrap_or(f64::NAN)),
        "se_naive": number(outside.naive_error),
        "se_cluster": number(outside.clustered_error),
        "se_cluster_two_labels": number(outside.two_labels_error),
        "se_exact_known_noise": number(moments.known_noise_error(label_variance, count)),
        "se_exact_two_labels": number(moments.two_label_error(label_variance, count)),
    }))
}

/// The predictor `[x, y]` of coefficients `w` `[k]`: $$ f(x,y)=\phi(x,y)^\top w $$
fn predictor(policy: &LogLinear, w: &Array1<f64>) -> Array2<f64> {
    policy.at(w.view()).logits()
}

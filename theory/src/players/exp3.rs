//! EXP3: exponential weights on importance-weighted losses (Auer, Cesa-Bianchi, Freund and Schapire 2002).

use super::{Player, pick};
use crate::bandit::Policy;
use crate::error::{self, InputError};
use ndarray::Array2;

/// EXP3 in each context by itself, in its form with losses and without mixing: the logarithm of the drawn arm's weight
/// falls by $$ \eta\,(1-r)/p $$. Keeps the policy it plays.
#[derive(Debug, Clone, PartialEq)]
pub struct Exp3 {
    eta: f64,
    log_weight: Array2<f64>, // [x, arm]
    prob: Vec<Vec<f64>>,     // [x][arm]
}

impl Exp3 {
    /// Uniform weights over `arms` arms in each of `contexts` contexts, with steps `eta > 0`; the usual choice for `T`
    /// pulls of a context is $$ \eta=\sqrt{2\ln K/(TK)} $$.
    pub fn new(contexts: usize, arms: usize, eta: f64) -> Result<Self, InputError> {
        let prob = vec![vec![1.0 / arms as f64; arms]; contexts];
        Ok(Self { eta: error::positive("eta", eta)?, log_weight: Array2::zeros((contexts, arms)), prob })
    }

    /// The probabilities of the arms of context `x` `[arm]`.
    pub fn prob(&self, x: usize) -> &[f64] {
        &self.prob[x]
    }
}

impl Player for Exp3 {
    fn choose(&mut self, x: usize, u: f64) -> usize {
        pick(&self.prob[x], u)
    }

    fn observe(&mut self, x: usize, y: usize, reward: f64) {
        let own = &mut self.prob[x];
        let fall = self.eta * (1.0 - reward) / own[y];
        if fall == 0.0 {
            return;
        }
        self.log_weight[[x, y]] -= fall;
        let weights = self.log_weight.row(x);
        let top = weights.fold(f64::NEG_INFINITY, |m, &w| m.max(w));
        own.iter_mut().zip(weights).for_each(|(p, w)| *p = (w - top).exp());
        let sum: f64 = own.iter().sum();
        own.iter_mut().for_each(|p| *p /= sum);
    }

    fn recommend(&self) -> Policy {
        Policy::from_logits(&self.log_weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_draw_loses_weight_by_its_inverse_probability_and_a_won_one_keeps_it() {
        let mut player = Exp3::new(1, 2, 0.3).unwrap();
        assert_eq!((player.choose(0, 0.49), player.choose(0, 0.5)), (0, 1));
        player.observe(0, 0, 1.0);
        assert_eq!(player.prob(0), [0.5, 0.5]);
        player.observe(0, 0, 0.0); // weights e^-.6 and 1
        let low = (-0.6f64).exp();
        assert!((player.prob(0)[0] - low / (1.0 + low)).abs() < 1e-15);
        assert!((player.recommend().prob()[[0, 0]] - player.prob(0)[0]).abs() < 1e-15);
    }
}

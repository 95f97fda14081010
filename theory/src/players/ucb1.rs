//! UCB1: the arm with the largest mean reward plus confidence radius (Auer, Cesa-Bianchi and Fischer 2002).

use super::{Player, first_maximum};
use crate::bandit::Policy;

/// UCB1 in each context by itself: every arm once in the order of their indices, then the largest
/// $$ \hat r_k+\sqrt{2\ln t/n_k} $$ after `t` pulls of the context, `n_k` of them of arm `k`. Keeps the arm it pulled most.
#[derive(Debug, Clone, PartialEq)]
pub struct Ucb1 {
    contexts: Vec<Counts>,
}

#[derive(Debug, Clone, PartialEq)]
struct Counts {
    pulls: Vec<usize>,
    reward: Vec<f64>, // summed
    total: usize,
}

impl Ucb1 {
    /// Before the first pull, for `contexts` contexts of `arms` arms.
    pub fn new(contexts: usize, arms: usize) -> Self {
        let counts = Counts { pulls: vec![0; arms], reward: vec![0.0; arms], total: 0 };
        Self { contexts: vec![counts; contexts] }
    }

    /// Pulls of each arm of context `x` `[arm]`.
    pub fn pulls(&self, x: usize) -> &[usize] {
        &self.contexts[x].pulls
    }

    /// The index of each arm of context `x` `[arm]`; not a number for an arm that was never pulled.
    pub fn index(&self, x: usize) -> impl Iterator<Item = f64> {
        let Counts { pulls, reward, total } = &self.contexts[x];
        let width = 2.0 * (*total as f64).ln();
        pulls.iter().zip(reward).map(move |(&n, &sum)| {
            let n = n as f64;
            sum / n + (width / n).sqrt()
        })
    }
}

impl Player for Ucb1 {
    fn choose(&mut self, x: usize, _: f64) -> usize {
        let own = &self.contexts[x];
        if own.total < own.pulls.len() { own.total } else { first_maximum(self.index(x)) }
    }

    fn observe(&mut self, x: usize, y: usize, reward: f64) {
        let own = &mut self.contexts[x];
        own.pulls[y] += 1;
        own.reward[y] += reward;
        own.total += 1;
    }

    fn recommend(&self) -> Policy {
        let most = |own: &Counts| first_maximum(own.pulls.iter().map(|&n| n as f64));
        let most: Vec<usize> = self.contexts.iter().map(most).collect();
        Policy::pure(&most, self.contexts[0].pulls.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_arm_is_pulled_once_and_then_the_largest_index() {
        let mut player = Ucb1::new(1, 3);
        for (arm, reward) in [(0, 0.0), (1, 1.0), (2, 0.0)] {
            assert_eq!(player.choose(0, 0.5), arm);
            player.observe(0, arm, reward);
        }
        assert_eq!(player.choose(0, 0.5), 1);
        player.observe(0, 1, 0.0);
        let radius = |n: f64| (2.0 * 4f64.ln() / n).sqrt();
        let by_hand = [radius(1.0), 0.5 + radius(2.0), radius(1.0)];
        assert!(player.index(0).zip(by_hand).all(|(a, b)| (a - b).abs() < 1e-15));
        assert_eq!(player.choose(0, 0.5), 1); // 1.677 against 1.665
        assert_eq!(player.recommend(), Policy::pure(&[1], 3));
    }

    #[test]
    fn index_of_an_arm_without_pulls_is_not_a_number() {
        assert!(Ucb1::new(1, 2).index(0).all(f64::is_nan));
    }
}

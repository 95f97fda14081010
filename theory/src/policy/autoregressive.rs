//! A sequence of tokens as one arm: one softmax a prefix, and what one step does to it as a whole and token by token.
//!
//! A response is a sequence of `H` tokens out of `V`, so there are `V^H` arms and `ln|Y| = H ln V`. Prefixes of length `h`
//! and whole sequences are numbered in base `V`, the first token most significant. Two steps are compared (theory 8):
//! [`Autoregressive::tilted`], equation (3) on whole sequences, and [`Autoregressive::token_npg`], the natural gradient in
//! the logits of the prefixes. They differ for `H > 1`.

use crate::bandit::{Policy, average};
use crate::error::{self, InputError};
use crate::solve::mirror::{log_normaliser, tilt};
use ndarray::{Array1, Array2, Array3, Axis};

/// The most sequences that are enumerated, and the most entries of a table of scores.
pub const MAX_SEQUENCES: usize = 1 << 24;

/// A policy over sequences of `H` tokens: for each position `h` a table of distributions over the next token,
/// `[V^h, V]`, one row a prefix.
#[derive(Debug, Clone, PartialEq)]
pub struct Autoregressive {
    vocabulary: usize,
    conditionals: Vec<Policy>, // position h: [prefix, token]
}

/// What a prefix is worth under a policy, and each of its continuations by one token.
#[derive(Debug, Clone, PartialEq)]
pub struct PrefixValues {
    /// The value of the empty prefix.
    pub root: f64,
    /// For each position the values after one more token, `[V^h, V]`.
    pub continued: Vec<Array2<f64>>,
}

impl Autoregressive {
    /// The policy over sequences out of `vocabulary` tokens with finite logits `[V^h, V]` for each position `h`; a policy
    /// without positions has one sequence, the empty one.
    pub fn new(vocabulary: usize, logits: &[Array2<f64>]) -> Result<Self, InputError> {
        if vocabulary == 0 {
            return Err(InputError::Empty { argument: "V" });
        }
        let mut prefixes = 1;
        for table in logits {
            error::shape("logits", table.shape(), &[prefixes, vocabulary])?;
            error::finite("logits", table)?;
            prefixes = prefixes.saturating_mul(vocabulary);
            if prefixes > MAX_SEQUENCES {
                let expected = "at most 16777216 sequences";
                return Err(InputError::Domain { argument: "V^H", value: prefixes as f64, expected });
            }
        }
        Ok(Self { vocabulary, conditionals: logits.iter().map(Policy::from_logits).collect() })
    }

    /// Number of tokens, `V`.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Number of positions, `H`.
    pub fn length(&self) -> usize {
        self.conditionals.len()
    }

    /// Number of sequences, `V^H`.
    pub fn sequences(&self) -> usize {
        self.conditionals.last().map_or(1, |last| last.prob().len())
    }

    /// For each position the distributions of the next token, `[V^h, V]`.
    pub fn conditionals(&self) -> &[Policy] {
        &self.conditionals
    }

    /// Log-probabilities of the prefixes of each length 0 to `H`, nats: position `h` holds `[V^h]`.
    fn log_prefixes(&self) -> Vec<Array1<f64>> {
        let mut prefixes = vec![Array1::zeros(1)];
        for conditional in &self.conditionals {
            let before = prefixes[prefixes.len() - 1].view().insert_axis(Axis(1)); // [prefix, 1]
            prefixes.push((conditional.log() + &before).into_iter().collect());
        }
        prefixes
    }

    /// The probabilities of the sequences, as a policy of one context `[1, V^H]`:
    ///
    /// $$ \pi(y)=\prod_h\pi(y_h|y_{<h}) $$
    pub fn sequence(&self) -> Policy {
        let log = self.log_prefixes().pop().expect("the empty prefix");
        Policy::from_logits(&log.insert_axis(Axis(0)))
    }

    /// Values of prefixes from the end to the start, `backup` giving the value of each prefix `[V^h]` from those of its
    /// continuations `[V^h, V]`.
    fn backward(
        &self,
        reward: &Array1<f64>,
        backup: impl Fn(&Policy, &Array2<f64>) -> Array1<f64>,
    ) -> Result<PrefixValues, InputError> {
        error::shape("r", reward.shape(), &[self.sequences()])?;
        error::finite("r", reward)?;
        let mut values = reward.clone();
        let mut continued = Vec::with_capacity(self.length());
        for conditional in self.conditionals.iter().rev() {
            let table = values.into_shape_with_order(conditional.prob().raw_dim()).expect("V values a prefix");
            values = backup(conditional, &table);
            continued.push(table);
        }
        continued.reverse();
        Ok(PrefixValues { root: values[0], continued })
    }

    /// The ordinary values for rewards `[V^H]` of whole sequences: $$ Q^\pi(s,a)=E_\pi[r|s,a] $$ and at the root the value
    /// $$ J(\pi) $$.
    pub fn values(&self, reward: &Array1<f64>) -> Result<PrefixValues, InputError> {
        self.backward(reward, Policy::expectation)
    }

    /// The soft values for rewards `[V^H]` of whole sequences and a step size `eta`:
    ///
    /// $$ V(s)=\tfrac1\eta\ln E_\pi\big[e^{\eta r}\big|s\big] $$
    ///
    /// At the root this is the logarithm of the tilt's normaliser over `eta`, equation (4).
    pub fn soft_values(&self, reward: &Array1<f64>, eta: f64) -> Result<PrefixValues, InputError> {
        error::positive("eta", eta)?;
        self.backward(reward, |conditional, continued| log_normaliser(conditional, continued, eta) / eta)
    }

    /// Equation (3) on whole sequences, position by position: soft policy iteration. It is exactly the tilt,
    ///
    /// $$ \pi'(a|s)\propto\pi(a|s)\,E_\pi\big[e^{\eta r}\big|s,a\big] $$
    pub fn tilted(&self, reward: &Array1<f64>, eta: f64) -> Result<Self, InputError> {
        let soft = self.soft_values(reward, eta)?;
        Ok(self.stepped(&soft, eta))
    }

    /// One natural-gradient step in the logits of the prefixes, equation (6), which is also one Gauss-Newton step of REBEL:
    ///
    /// $$ \pi'(a|s)\propto\pi(a|s)\,e^{\eta Q^\pi(s,a)} $$
    ///
    /// with the *ordinary* values. It is the tilt only for `H = 1`; for more tokens the two differ at order `eta^2`.
    pub fn token_npg(&self, reward: &Array1<f64>, eta: f64) -> Result<Self, InputError> {
        error::positive("eta", eta)?;
        Ok(self.stepped(&self.values(reward)?, eta))
    }

    fn stepped(&self, values: &PrefixValues, eta: f64) -> Self {
        let tilts = self.conditionals.iter().zip(&values.continued).map(|(pi, q)| tilt(pi, q, eta));
        Self { vocabulary: self.vocabulary, conditionals: tilts.collect() }
    }

    /// The divergence from `old` position by position `[H]`, nats, prefixes being drawn from the *new* policy, which is
    /// this one:
    ///
    /// $$ \mathrm{KL}(\pi'\|\pi)=\sum_hE_{s\sim\pi'}\,\mathrm{KL}(\pi'(\cdot|s)\|\pi(\cdot|s)) $$
    ///
    /// Panics if `old` has other positions or another vocabulary.
    pub fn kl_by_position(&self, old: &Self) -> Vec<f64> {
        self.kl_under(old, self)
    }

    /// As [`Self::kl_by_position`], with the prefixes drawn from any policy `prefixes`.
    pub fn kl_under(&self, old: &Self, prefixes: &Self) -> Vec<f64> {
        let same = |other: &Self| (self.vocabulary, self.length()) == (other.vocabulary, other.length());
        assert!(same(old) && same(prefixes), "policies over the same sequences");
        let pairs = self.conditionals.iter().zip(&old.conditionals);
        let reached = prefixes.log_prefixes().into_iter();
        pairs.zip(reached).map(|((new, old), log)| average(&log.mapv(f64::exp), &new.kl(old))).collect()
    }

    /// Scores of whole sequences in the logits of the prefixes, `[1, V^H, k]`, logits in the order position, prefix, token:
    ///
    /// $$ g(y)=\sum_h\big(e_{y_{<h},y_h}-\textstyle\sum_a\pi(a|y_{<h})\,e_{y_{<h},a}\big) $$
    ///
    /// Refused if it had more than [`MAX_SEQUENCES`] entries.
    pub fn scores(&self) -> Result<Array3<f64>, InputError> {
        let (sequences, parameters) = (self.sequences(), self.parameters());
        let entries = sequences.saturating_mul(parameters);
        if entries > MAX_SEQUENCES {
            let expected = "at most 16777216 entries";
            return Err(InputError::Domain { argument: "scores", value: entries as f64, expected });
        }
        let mut scores = Array3::zeros((1, sequences, parameters));
        for (y, mut row) in scores.index_axis_mut(Axis(0), 0).rows_mut().into_iter().enumerate() {
            let mut first = 0; // of the parameters of this position
            for conditional in &self.conditionals {
                let (prefixes, tokens) = conditional.prob().dim();
                let later = sequences / (prefixes * tokens); // continuations of a prefix with one more token
                let (prefix, token) = (y / (later * tokens), y / later % tokens);
                let own = first + prefix * tokens;
                for (a, p) in conditional.prob().row(prefix).iter().enumerate() {
                    row[own + a] = if a == token { 1.0 - p } else { -p };
                }
                first += prefixes * tokens;
            }
        }
        Ok(scores)
    }

    /// Number of logits, `V + V^2 + ... + V^H`.
    pub fn parameters(&self) -> usize {
        self.conditionals.iter().map(|conditional| conditional.prob().len()).sum()
    }

    /// The policy whose logits are displaced by `delta` `[k]`, in the order of [`Self::scores`].
    pub fn moved(&self, delta: &Array1<f64>) -> Result<Self, InputError> {
        error::shape("delta", delta.shape(), &[self.parameters()])?;
        let mut rest = delta.iter();
        let mut moved = |pi: &Policy| {
            let mut logits = pi.log().clone();
            logits.iter_mut().zip(&mut rest).for_each(|(logit, d)| *logit += d);
            Policy::from_logits(&logits)
        };
        Ok(Self { vocabulary: self.vocabulary, conditionals: self.conditionals.iter().map(&mut moved).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    /// Two tokens out of two; one half, then one quarter after token 0 and three quarters after token 1.
    fn policy() -> Autoregressive {
        let first = array![[0.0, 0.0]];
        let second = array![[0.0, 3f64.ln()], [3f64.ln(), 0.0]];
        Autoregressive::new(2, &[first, second]).unwrap()
    }

    #[test]
    fn sequence_probability_is_the_product_of_its_tokens() {
        assert_abs_diff_eq!(policy().sequence().prob(), &array![[0.125, 0.375, 0.375, 0.125]], epsilon = 1e-15);
        assert_eq!((policy().sequences(), policy().length(), policy().parameters()), (4, 2, 6));
    }

    #[test]
    fn values_equal_numbers_by_hand() {
        let reward = array![4.0, 0.0, 8.0, 16.0];
        let values = policy().values(&reward).unwrap();
        assert_abs_diff_eq!(values.continued[0], array![[1.0, 10.0]], epsilon = 1e-14);
        assert_abs_diff_eq!(values.root, 5.5, epsilon = 1e-14);
        // with e^(eta r) = (9, 1, 1, 1): after token 0 E = 1/4 9 + 3/4 = 3, after token 1 it is 1
        let soft = policy().soft_values(&array![9f64.ln(), 0.0, 0.0, 0.0], 1.0).unwrap();
        assert_abs_diff_eq!(soft.continued[0], array![[3f64.ln(), 0.0]], epsilon = 1e-15);
        assert_abs_diff_eq!(soft.root, 2f64.ln(), epsilon = 1e-15);
    }

    #[test]
    fn token_step_is_not_the_tilt_and_equals_number_by_hand() {
        // uniform over two tokens out of two, r = 1 on the first sequence, e^eta = 3: the first token's probability is 2/3
        // in the tilt and sqrt 3/(1 + sqrt 3) in the token-level step
        let uniform = Autoregressive::new(2, &[Array2::zeros((1, 2)), Array2::zeros((2, 2))]).unwrap();
        let (reward, eta) = (array![1.0, 0.0, 0.0, 0.0], 3f64.ln());
        let tilted = uniform.tilted(&reward, eta).unwrap();
        assert_abs_diff_eq!(tilted.conditionals()[0].prob()[[0, 0]], 2.0 / 3.0, epsilon = 1e-15);
        assert_abs_diff_eq!(tilted.sequence().prob()[[0, 0]], 0.5, epsilon = 1e-15);
        let by_token = uniform.token_npg(&reward, eta).unwrap();
        let root = 3f64.sqrt();
        assert_abs_diff_eq!(by_token.conditionals()[0].prob()[[0, 0]], root / (1.0 + root), epsilon = 1e-15);
        assert_abs_diff_eq!(by_token.conditionals()[1].prob(), &array![[0.75, 0.25], [0.5, 0.5]], epsilon = 1e-15);
    }

    #[test]
    fn divergences_of_positions_add_up_under_the_new_policy_only() {
        let new = policy().tilted(&array![1.0, -1.0, 0.5, 2.0], 0.9).unwrap();
        let whole = new.sequence().kl(&policy().sequence())[0];
        assert_abs_diff_eq!(new.kl_by_position(&policy()).iter().sum::<f64>(), whole, epsilon = 1e-15);
        assert!((new.kl_under(&policy(), &policy()).iter().sum::<f64>() - whole).abs() > 1e-3);
    }

    #[test]
    fn scores_are_the_numeric_gradient_of_sequence_log_probabilities() {
        let (scores, h) = (policy().scores().unwrap(), 1e-5);
        for k in 0..policy().parameters() {
            let at = |step: f64| {
                let delta = Array1::from_shape_fn(6, |i| if i == k { step } else { 0.0 });
                policy().moved(&delta).unwrap().sequence().log().clone()
            };
            assert_abs_diff_eq!(scores.index_axis(Axis(2), k), (at(h) - at(-h)) / (2.0 * h), epsilon = 1e-9);
        }
    }

    #[test]
    fn empty_sequence_is_one_arm_that_no_step_moves() {
        let empty = Autoregressive::new(5, &[]).unwrap();
        let reward = array![3.0];
        assert_eq!((empty.sequences(), empty.parameters()), (1, 0));
        assert_eq!(empty.values(&reward).unwrap().root, 3.0);
        assert_eq!(empty.tilted(&reward, 1.0).unwrap(), empty);
        assert_eq!(empty.sequence().prob(), array![[1.0]]);
    }

    #[test]
    fn what_is_no_policy_over_sequences_is_refused() {
        let refused =
            |vocabulary, logits: &[Array2<f64>]| Autoregressive::new(vocabulary, logits).unwrap_err().to_string();
        assert_eq!(refused(0, &[]), "V: is empty (expected at least one entry)");
        let second = [Array2::zeros((1, 2)), Array2::zeros((3, 2))];
        assert_eq!(refused(2, &second), "logits: shape [3, 2] (expected [2, 2])");
        assert_eq!(refused(2, &[array![[0.0, f64::NAN]]]), "logits[0, 1]: NaN is not a finite number");
        let wide = Array2::zeros((1, MAX_SEQUENCES + 1));
        assert_eq!(refused(MAX_SEQUENCES + 1, &[wide]), "V^H: 16777217 (expected at most 16777216 sequences)");
        assert_eq!(policy().values(&array![1.0]).unwrap_err().to_string(), "r: shape [1] (expected [4])");
        assert!(policy().tilted(&array![1.0, 0.0, 0.0, 0.0], 0.0).is_err());
        assert!(policy().moved(&array![1.0]).is_err());
        let deep = Autoregressive::new(5000, &[Array2::zeros((1, 5000))]).unwrap();
        assert_eq!(deep.scores().unwrap_err().to_string(), "scores: 25000000 (expected at most 16777216 entries)");
    }
}

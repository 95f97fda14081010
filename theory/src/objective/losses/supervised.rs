//! Likelihoods of given data: tokens of a reference text, human choices between two responses.

use super::super::Arith;

/// Cross-entropy of given tokens (supervised fine-tuning), summed over counted tokens:
///
/// $$ -\sum_{i,t} m_{it}\ln\pi(y_{it}\mid y_{i,<t}) $$
///
/// `new`: log-probability of each token, nats, `[rows, steps]`; `mask`: 1 on counted tokens, else 0, `[rows, steps]`.
/// The caller divides by the number of counted tokens of the whole batch.
///
/// # Errors
/// When the shapes differ.
pub fn cross_entropy<A: Arith>(new: &A, mask: &A) -> Result<A, A::Error> {
    new.times(mask)?.total()?.scale(-1.0)
}

/// The Bradley-Terry likelihood of human choices (reward modelling; Stiennon et al. 2020, arXiv 2009.01325), summed over
/// comparisons:
///
/// $$ -\sum_i \ln\sigma\big(r(y^w_i)-r(y^l_i)\big) $$
///
/// `score`: the model's reward of each response, `[comparisons, 2]`, the chosen one first.
///
/// # Errors
/// When the shape is not `[comparisons, 2]`.
pub fn bradley_terry<A: Arith>(score: &A) -> Result<A, A::Error> {
    score.difference_of_pair()?.log_sigmoid()?.total()?.scale(-1.0)
}

#[cfg(test)]
mod tests {
    use super::super::tests::pairs;
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::arr2;

    #[test]
    fn cross_entropy_counts_masked_tokens_only() {
        let new = arr2(&[[-1.0, -2.0], [-4.0, -8.0]]).into_dyn();
        let mask = arr2(&[[1.0, 1.0], [1.0, 0.0]]).into_dyn();
        assert_eq!(cross_entropy(&new, &mask).unwrap().sum(), 7.0);
    }

    #[test]
    fn bradley_terry_of_a_tie_is_ln_2_and_of_a_sure_choice_is_small() {
        assert_abs_diff_eq!(bradley_terry(&pairs(&[[1.5, 1.5]])).unwrap().sum(), 2f64.ln(), epsilon = 1e-15);
        assert_abs_diff_eq!(bradley_terry(&pairs(&[[800.0, 0.0]])).unwrap().sum(), 0.0);
        assert_abs_diff_eq!(bradley_terry(&pairs(&[[0.0, 800.0]])).unwrap().sum(), 800.0);
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let (three, two) = (arr2(&[[1.0, 2.0, 3.0]]).into_dyn(), pairs(&[[1.0, 2.0]]));
        assert!(cross_entropy(&two, &three).is_err() && bradley_terry(&three).is_err());
    }
}

//! Reward models: the utility of Bradley and Terry, fitted to comparisons by maximum likelihood.
//!
//! $$ P(y\succ y^\prime)=\sigma(u_y-u_{y^\prime}) $$ is a model of preferences, not a law of them: where they are no utility, what is
//! fitted depends on which responses were compared how often.

use crate::error::{self, InputError};
use crate::solve::laplacian::laplacian_solve;
use ndarray::{Array1, Array2, s};

/// How far a pair of probabilities may be from adding up to one.
const COMPLEMENT_TOLERANCE: f64 = 1e-9;

/// Comparisons of responses: how often each was preferred to each other, `[y, y']`; whole numbers or expected ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparisons {
    wins: Array2<f64>, // [y, y'], diagonal zero
}

impl Comparisons {
    /// Counts `wins[y, y']` of how often `y` was preferred to `y'`; comparisons with itself say nothing.
    pub fn new(wins: Array2<f64>) -> Result<Self, InputError> {
        counts("wins", &wins)?;
        let mut wins = wins;
        wins.diag_mut().fill(0.0);
        Ok(Self { wins })
    }

    /// The comparisons expected where `W[y, y']` are made of the ordered pair and `y` wins with probability `P[y, y']`.
    pub fn expected(made: &Array2<f64>, probability: &Array2<f64>) -> Result<Self, InputError> {
        counts("W", made)?;
        error::finite("P", probability)?;
        error::shape("P", probability.shape(), made.shape())?;
        for ((y, z), &value) in probability.indexed_iter() {
            let (mirrored, index) = (probability[[z, y]], || vec![y, z]);
            if value < 0.0 {
                return Err(InputError::Negative { argument: "P", index: index(), value });
            }
            if (value + mirrored - 1.0).abs() > COMPLEMENT_TOLERANCE {
                return Err(InputError::NotComplementary { argument: "P", index: index(), value, mirrored });
            }
        }
        Self::new((made + &made.t()) * probability)
    }

    /// The maximum-likelihood rewards `[y]`, of mean zero:
    ///
    /// $$ \max_u\sum_{y,y^\prime}n_{yy^\prime}\ln\sigma(u_y-u_{y^\prime}) $$
    ///
    /// Groups of responses that were never compared with each other have mean zero each. There is no finite maximum where
    /// some responses won every comparison with the others of their group: that is an error, which names them.
    pub fn fit(&self) -> Result<Array1<f64>, InputError> {
        self.refuse_separated()?;
        self.newton(0.0)
    }

    /// The rewards `[y]` that maximise the likelihood less a penalty, which always exist:
    ///
    /// $$ \max_u\sum_{y,y^\prime}n_{yy^\prime}\ln\sigma(u_y-u_{y^\prime})-\tfrac\lambda2\|u\|^2 $$
    pub fn fit_ridge(&self, lambda: f64) -> Result<Array1<f64>, InputError> {
        self.newton(error::positive("lambda", lambda)?)
    }

    /// Newton's iteration with the step that cannot fail: with `M` the largest difference within the Newton direction,
    /// the share $$ \ln(1+M)/M $$ of it lowers the loss from anywhere, since the third derivative of a logistic loss along
    /// the direction is at most `M` times the second (Bach 2010).
    fn newton(&self, lambda: f64) -> Result<Array1<f64>, InputError> {
        const ROUNDS: usize = 1000;
        let mut u = Array1::zeros(self.wins.nrows());
        let mut spread = f64::INFINITY;
        for _ in 0..ROUNDS {
            let direction = self.direction(&u, lambda);
            let (low, high) = direction.fold((0.0f64, 0.0f64), |(low, high), &d| (low.min(d), high.max(d)));
            let before = std::mem::replace(&mut spread, high - low);
            let share = if spread > 0.0 { spread.ln_1p() / spread } else { 1.0 };
            u.scaled_add(share, &direction);
            // Near the maximum each round squares what is left, until only rounding is.
            if spread < 1e-9 && spread >= 0.1 * before || spread == 0.0 {
                break;
            }
        }
        let settled = spread <= 1e-9; // false for NaN
        if settled { Ok(u) } else { Err(InputError::Unsolved { argument: "W", error: spread }) }
    }

    /// The Newton direction `[y]`. The Hessian is the Laplacian of the graph of comparisons; the penalty is an edge of weight
    /// `lambda` from every response to a point kept at zero.
    fn direction(&self, u: &Array1<f64>, lambda: f64) -> Array1<f64> {
        let n = u.len();
        let mut weights = Array2::zeros((n + 1, n + 1));
        let mut pull = Array1::zeros(n + 1);
        for y in 0..n {
            for z in y + 1..n {
                let (won, lost) = (self.wins[[y, z]], self.wins[[z, y]]);
                if won + lost == 0.0 {
                    continue;
                }
                let (up, down) = (sigmoid(u[y] - u[z]), sigmoid(u[z] - u[y]));
                let surplus = won * down - lost * up;
                pull[y] += surplus;
                pull[z] -= surplus;
                weights[[y, z]] = (won + lost) * up * down;
                weights[[z, y]] = weights[[y, z]];
            }
            weights[[y, n]] = lambda;
            weights[[n, y]] = lambda;
            pull[y] -= lambda * u[y];
            pull[n] += lambda * u[y];
        }
        let potential = laplacian_solve(&weights, &pull).value;
        potential.slice(s![..n]).to_owned() - potential[n]
    }

    /// Refuses comparisons in which a part of a group beat the rest of it every time.
    fn refuse_separated(&self) -> Result<(), InputError> {
        let n = self.wins.nrows();
        let mut done = vec![false; n];
        for start in 0..n {
            if done[start] {
                continue;
            }
            let group = self.reached(start, |y, z| self.wins[[y, z]] + self.wins[[z, y]] > 0.0);
            let beaten = self.reached(start, |y, z| self.wins[[y, z]] > 0.0);
            let beating = self.reached(start, |y, z| self.wins[[z, y]] > 0.0);
            let above: Vec<usize> = if beaten != group {
                (0..n).filter(|&y| group[y] && !beaten[y]).collect()
            } else if beating != group {
                (0..n).filter(|&y| beating[y]).collect()
            } else {
                Vec::new()
            };
            if !above.is_empty() {
                return Err(InputError::Separated { argument: "W", responses: above });
            }
            (0..n).filter(|&y| group[y]).for_each(|y| done[y] = true);
        }
        Ok(())
    }

    /// The responses that a chain of edges joins to `start` `[y]`.
    fn reached(&self, start: usize, edge: impl Fn(usize, usize) -> bool) -> Vec<bool> {
        let mut seen = vec![false; self.wins.nrows()];
        seen[start] = true;
        let mut open = vec![start];
        while let Some(y) = open.pop() {
            for (z, seen) in seen.iter_mut().enumerate() {
                if !*seen && edge(y, z) {
                    *seen = true;
                    open.push(z);
                }
            }
        }
        seen
    }
}

/// Refuses a table that is not square, or an entry that is no count.
fn counts(argument: &'static str, table: &Array2<f64>) -> Result<(), InputError> {
    error::finite(argument, table)?;
    error::shape(argument, table.shape(), &[table.nrows(); 2])?;
    match table.indexed_iter().find(|(_, v)| **v < 0.0) {
        Some(((y, z), &value)) => Err(InputError::Negative { argument, index: vec![y, z], value }),
        None => Ok(()),
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::array;

    #[test]
    fn two_responses_differ_by_the_log_odds() {
        let u = Comparisons::new(array![[7.0, 3.0], [1.0, 0.0]]).unwrap().fit().unwrap();
        assert_abs_diff_eq!(u, array![0.5, -0.5] * 3f64.ln(), epsilon = 1e-15);
    }

    #[test]
    fn chain_of_unequal_odds_is_fitted_link_by_link() {
        let u = Comparisons::new(array![[0.0, 1e12, 0.0], [1.0, 0.0, 1e-9], [0.0, 1e-3, 0.0]]).unwrap().fit().unwrap();
        assert_abs_diff_eq!(u[0] - u[1], 1e12f64.ln(), epsilon = 1e-10);
        assert_abs_diff_eq!(u[1] - u[2], -(1e6f64.ln()), epsilon = 1e-10);
    }

    #[test]
    fn responses_never_compared_have_mean_zero_in_their_group() {
        let mut wins = Array2::zeros((4, 4));
        (wins[[0, 2]], wins[[2, 0]]) = (3.0, 1.0);
        let u = Comparisons::new(wins).unwrap().fit().unwrap();
        assert_abs_diff_eq!(u, array![0.5 * 3f64.ln(), 0.0, -0.5 * 3f64.ln(), 0.0], epsilon = 1e-15);
        assert_eq!(Comparisons::new(Array2::zeros((1, 1))).unwrap().fit().unwrap(), array![0.0]);
    }

    #[test]
    fn those_who_always_win_are_named_and_a_ridge_fits_them() {
        let always = Comparisons::new(array![[0.0, 2.0, 1.0], [0.0, 0.0, 2.0], [0.0, 1.0, 0.0]]).unwrap();
        let message = "W: no finite fit: responses [0] win every comparison with the others (expected a ridge)";
        assert_eq!(always.fit().unwrap_err().to_string(), message);
        let never = Comparisons::new(array![[0.0, 0.0, 1.0], [1.0, 0.0, 2.0], [1.0, 1.0, 0.0]]).unwrap();
        assert!(never.fit().is_ok()); // 0 loses to 1, but beats 2, which beats 1
        let last = Comparisons::new(array![[0.0, 1.0, 1.0], [1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]).unwrap();
        assert_eq!(last.fit().unwrap_err(), InputError::Separated { argument: "W", responses: vec![0, 1] });
        let u = always.fit_ridge(0.5).unwrap();
        assert!(u[0] > u[1] && u[1] > u[2]);
        // the stationarity of the penalised likelihood at the first response, by hand
        let surplus = 2.0 * sigmoid(u[1] - u[0]) + sigmoid(u[2] - u[0]);
        assert_abs_diff_eq!(surplus, 0.5 * u[0], epsilon = 1e-14);
        assert_abs_diff_eq!(u.sum(), 0.0, epsilon = 1e-13);
    }

    #[test]
    fn what_is_no_table_of_comparisons_is_refused_by_its_index() {
        let made = array![[0.0, 1.0], [1.0, 0.0]];
        let error = Comparisons::expected(&made, &array![[0.5, 0.7], [0.4, 0.5]]).unwrap_err();
        assert_eq!(error.to_string(), "P[0, 1]: 0.7 and its mirror image 0.4 do not add up to 1");
        assert!(Comparisons::expected(&made, &array![[0.5, 1.1], [-0.1, 0.5]]).is_err());
        assert!(Comparisons::new(array![[0.0, -1.0], [1.0, 0.0]]).is_err());
        assert!(Comparisons::new(Array2::zeros((2, 3))).is_err());
        assert!(Comparisons::new(Array2::zeros((0, 0))).is_err());
    }
}

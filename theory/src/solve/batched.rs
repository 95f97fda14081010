//! Claim 2 over many data sets: the Gauss-Newton step from sampled pairs, through normal equations.

use crate::bandit::{Bandit, Policy};
use crate::error::{self, InputError};
use crate::kernels::{Level, factor, gram_of_rows, inverse_trace, padded, row_differences, solve_factored};
use crate::sample::{ContextSampler, Sampler};
use crate::solve::linear::{MinNorm, least_squares};
use ndarray::{Array1, Array2, ArrayView3};
use rand::Rng;
use rayon::prelude::*;

/// A sampled context and two responses to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// The context, x.
    pub context: u32,
    /// The first response, y.
    pub first: u32,
    /// The second response, y'.
    pub second: u32,
}

/// Draws `count` pairs: a context from the bandit's weights, `y ~ first`, `y' ~ second`, independent given the context.
pub fn draw_pairs(bandit: &Bandit, first: &Policy, second: &Policy, count: usize, rng: &mut impl Rng) -> Vec<Pair> {
    let (contexts, first, second) = (ContextSampler::new(bandit.weights()), Sampler::new(first), Sampler::new(second));
    let draw = |_| {
        let x = contexts.draw(rng);
        Pair { context: x as u32, first: first.draw(x, rng) as u32, second: second.draw(x, rng) as u32 }
    };
    (0..count).map(draw).collect()
}

/// A bound on the condition number of the normal matrix, up to which normal equations are trusted. They lose its square
/// root twice: the answer then has at least nine digits. Far below the inverse of every cutoff in [`crate::solve::linear`],
/// so a matrix of lower rank never passes.
const TRUSTED_CONDITION: f64 = 1e7;

/// Rows that are built at once, few enough to stay in the first-level cache beside the sums.
const PORTION: usize = 32;

/// Features and reward of every context and response as rows `[x y, width]`: features, reward, zeros.
struct Table {
    rows: Vec<f64>,
    width: usize,
    features: usize,
    contexts: usize,
    responses: usize,
}

impl Table {
    fn new(bandit: &Bandit, features: ArrayView3<f64>) -> Result<Self, InputError> {
        let (contexts, responses, k) = features.dim();
        error::shape("features", &[contexts, responses, k], &[bandit.contexts(), bandit.responses(), k])?;
        error::finite("features", &features.to_owned())?;
        let width = padded(k + 1);
        let mut rows = vec![0.0; contexts * responses * width];
        for ((x, y), reward) in bandit.reward().indexed_iter() {
            let row = &mut rows[(x * responses + y) * width..][..=k];
            row.iter_mut().zip(features.slice(ndarray::s![x, y, ..])).for_each(|(entry, feature)| *entry = *feature);
            row[k] = *reward;
        }
        Ok(Self { rows, width, features: k, contexts, responses })
    }

    /// The rows a pair compares. Refuses a pair that names no context or no response; `at` says where it stands.
    fn rows_of(&self, at: [usize; 2], pair: &Pair) -> Result<[usize; 2], InputError> {
        let [x, y, z] = [pair.context, pair.first, pair.second].map(|index| index as usize);
        let refused = |argument, found, below| InputError::OutOfRange { argument, index: at.to_vec(), found, below };
        if x >= self.contexts {
            return Err(refused("context", x, self.contexts));
        }
        if y >= self.responses {
            return Err(refused("first", y, self.responses));
        }
        if z >= self.responses {
            return Err(refused("second", z, self.responses));
        }
        Ok([x * self.responses + y, x * self.responses + z])
    }

    /// The step of one data set through the singular values of its design: for any rank.
    fn by_decomposition(&self, rows: &[[usize; 2]]) -> Result<MinNorm, InputError> {
        let entry = |[a, b]: [usize; 2], c: usize| self.rows[a * self.width + c] - self.rows[b * self.width + c];
        let design = Array2::from_shape_fn((rows.len(), self.features), |(n, c)| entry(rows[n], c));
        let target = Array1::from_shape_fn(rows.len(), |n| entry(rows[n], self.features));
        least_squares(&design, &target)
    }
}

/// Memory for one data set after another.
struct Workspace {
    level: Level,
    rows: Vec<[usize; 2]>,
    portion: Vec<f64>, // [PORTION, width]
    system: Vec<f64>,  // [width, width]
}

impl Workspace {
    fn new(width: usize) -> Self {
        let (portion, system) = (vec![0.0; PORTION * width], vec![0.0; width * width]);
        Self { level: Level::best(), rows: Vec::new(), portion, system }
    }

    /// The least-squares fit of least norm of rewards' differences on features' differences.
    fn fit(&mut self, table: &Table, set: usize, pairs: &[Pair]) -> Result<MinNorm, InputError> {
        let (k, width) = (table.features, table.width);
        self.rows.clear();
        for (n, pair) in pairs.iter().enumerate() {
            self.rows.push(table.rows_of([set, n], pair)?);
        }
        if pairs.len() < k {
            return table.by_decomposition(&self.rows);
        }
        self.system.fill(0.0);
        for rows in self.rows.chunks(PORTION) {
            let portion = &mut self.portion[..rows.len() * width];
            row_differences(self.level, &table.rows, width, rows, portion);
            gram_of_rows(self.level, portion, width, &mut self.system);
        }
        let trace: f64 = (0..k).map(|i| self.system[i * width + i]).sum();
        let trusted = factor(self.level, &mut self.system, k, width)
            && trace * inverse_trace(self.level, &self.system, k, width) <= TRUSTED_CONDITION;
        if !trusted {
            return table.by_decomposition(&self.rows);
        }
        let mut solution = vec![0.0; k];
        solve_factored(self.level, &self.system, width, k, &mut solution);
        Ok(MinNorm { solution: Array1::from(solution), rank: k })
    }
}

/// The Gauss-Newton step of REBEL's loss, Claim 2, for each of many sampled data sets, of least norm `[k]`:
///
/// $$ D=\eta\,\hat F^+\hat b=\eta\arg\min_w\sum_n\big[(g(y_n)-g(y'_n))^\top w-(r(y_n)-r(y'_n))\big]^2 $$
///
/// `features` `[x, y, k]`: scores, or any features that differ from them by a constant of the context. A data set may be
/// empty: its step is zero, of rank zero. Data sets run side by side, each on one thread and in one order, so the digits do
/// not depend on how many threads there are.
///
/// A data set is solved by Cholesky's factorisation of its normal equations if a bound on their condition number,
/// $$ \mathrm{tr}A\;\mathrm{tr}A^{-1} $$ shows that no direction is near any cutoff; else through the singular values of its
/// design, with the cutoff of [`crate::solve::linear`].
///
/// What limits it: the multiplications of the normal matrix, `N k^2 / 2` for each data set, at the machine's peak rate.
/// Building the rows, factorising and bounding the condition take a quarter of the time at `N = 1000`, `k = 50`.
pub fn gauss_newton_batch<S: AsRef<[Pair]> + Sync>(
    bandit: &Bandit,
    features: ArrayView3<f64>,
    sets: &[S],
    eta: f64,
) -> Result<Vec<MinNorm>, InputError> {
    error::positive("eta", eta)?;
    let table = Table::new(bandit, features)?;
    let fit = |workspace: &mut Workspace, (set, pairs): (usize, &S)| {
        let fit = workspace.fit(&table, set, pairs.as_ref())?;
        Ok(MinNorm { solution: fit.solution * eta, rank: fit.rank })
    };
    sets.par_iter().enumerate().map_init(|| Workspace::new(table.width), fit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_abs_diff_eq;
    use ndarray::{Array3, array};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn problem(contexts: usize, responses: usize, k: usize) -> (Bandit, Policy, Array3<f64>) {
        let features = Array3::from_shape_fn((contexts, responses, k), |(x, y, i)| {
            (((x * responses + y) * k + i) as f64 * 12.9898 + 1.0).sin() * 3.0
        });
        let reward = Array2::from_shape_fn((contexts, responses), |(x, y)| ((x * 7 + y * 3) as f64).cos());
        let bandit = Bandit::new(Array1::from_elem(contexts, 1.0 / contexts as f64), reward).unwrap();
        (bandit, Policy::uniform(contexts, responses), features)
    }

    fn by_design(bandit: &Bandit, features: &Array3<f64>, pairs: &[Pair]) -> MinNorm {
        let sides = |p: &Pair| (p.context as usize, p.first as usize, p.second as usize);
        let design = Array2::from_shape_fn((pairs.len(), features.dim().2), |(n, i)| {
            let (x, y, z) = sides(&pairs[n]);
            features[[x, y, i]] - features[[x, z, i]]
        });
        let target = pairs.iter().map(sides).map(|(x, y, z)| bandit.reward()[[x, y]] - bandit.reward()[[x, z]]);
        least_squares(&design, &target.collect()).unwrap()
    }

    #[test]
    fn step_equals_least_squares_on_the_design_at_every_rank() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (contexts, responses, k) in [(1, 2, 1), (3, 4, 2), (2, 5, 8), (4, 6, 15), (1, 1, 2), (5, 9, 30)] {
            let (bandit, pi, mut features) = problem(contexts, responses, k);
            if k > 2 {
                let copied = features.slice(ndarray::s![.., .., 0]).to_owned(); // a feature twice: rank below k
                features.slice_mut(ndarray::s![.., .., 1]).assign(&copied);
            }
            let sets: Vec<_> = [0, 1, k / 2, k, 4 * k, 100]
                .map(|count| draw_pairs(&bandit, &pi, &pi, count, &mut rng))
                .into_iter()
                .collect();
            let steps = gauss_newton_batch(&bandit, features.view(), &sets, 0.5).unwrap();
            for (pairs, step) in sets.iter().zip(&steps) {
                let want = by_design(&bandit, &features, pairs);
                assert_eq!(step.rank, want.rank, "{contexts} {responses} {k} {}", pairs.len());
                assert_abs_diff_eq!(step.solution, want.solution * 0.5, epsilon = 1e-9);
            }
        }
    }

    #[test]
    fn step_of_one_pair_equals_number_by_hand() {
        let bandit = Bandit::new(array![1.0], array![[0.0, 3.0]]).unwrap();
        let pair = Pair { context: 0, first: 1, second: 0 };
        let steps = gauss_newton_batch(&bandit, array![[[0.0], [2.0]]].view(), &[[pair; 3]], 0.5).unwrap();
        assert_abs_diff_eq!(steps[0].solution, array![0.75], epsilon = 1e-15); // eta times 3 over 2
    }

    #[test]
    fn digits_do_not_depend_on_thread_count() {
        let (bandit, pi, features) = problem(4, 10, 12);
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let sets: Vec<_> = (0..40).map(|i| draw_pairs(&bandit, &pi, &pi, 3 * i, &mut rng)).collect();
        let at = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| gauss_newton_batch(&bandit, features.view(), &sets, 1.0).unwrap())
        };
        assert_eq!(at(1), at(3));
    }

    #[test]
    fn bad_argument_is_named() {
        let (bandit, _, features) = problem(2, 3, 2);
        let run = |pair, eta| gauss_newton_batch(&bandit, features.view(), &[vec![], vec![pair]], eta).unwrap_err();
        let pair = |context, first, second| Pair { context, first, second };
        assert_eq!(run(pair(0, 1, 3), 1.0).to_string(), "second[1, 0]: 3 (expected an index below 3)");
        assert_eq!(run(pair(2, 1, 1), 1.0).to_string(), "context[1, 0]: 2 (expected an index below 2)");
        assert!(run(pair(0, 1, 2), 0.0).to_string().starts_with("eta: 0 "));
        let none: &[Vec<Pair>] = &[];
        assert!(gauss_newton_batch(&bandit, Array3::zeros((2, 2, 2)).view(), none, 1.0).is_err());
    }
}

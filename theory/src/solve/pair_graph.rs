//! Least squares on differences: each equation says by how much one entry exceeds another.
//!
//! Tabular REBEL on sampled pairs is this problem: the row of a pair is the difference of two one-hot vectors, an edge of a
//! graph whose nodes are the responses. The normal matrix is then the graph's Laplacian, and what is singular about it is
//! known before any arithmetic: one constant for each connected component, those of one node included. So the rank is
//! counted and not estimated, and no cutoff is needed: fix one node of each component, factorise what is left, which is
//! positive definite, and centre the answer.

use crate::error::{self, InputError};
use crate::kernels::{Level, factor, padded, solve_factored};
use crate::solve::linear::MinNorm;
use ndarray::Array1;

/// A connected component of two nodes or more.
#[derive(Debug, Clone, Copy)]
struct Component {
    /// Its nodes are `members[start..end]`, the one that is fixed last.
    start: usize,
    end: usize,
    /// Where its system begins, `[width, width]`.
    system: usize,
    width: usize,
}

impl Component {
    /// The order of its system: the position of the node that is fixed, and of the right-hand side.
    fn order(&self) -> usize {
        self.end - self.start - 1
    }
}

/// Solves problems on differences, one after another, in the same memory.
#[derive(Debug, Clone)]
pub struct PairSolver {
    level: Level,
    parent: Vec<u32>,           // [n] of the union of trees; in the end the root of each node
    degree: Vec<u32>,           // [n] edges to other nodes
    balance: Vec<f64>,          // [n] right-hand side of the normal equations
    place: Vec<u32>,            // [n] position of a node in its component
    component: Vec<u32>,        // [n] index of the component of each root
    members: Vec<u32>,          // nodes with edges, grouped by component
    components: Vec<Component>, // in the order of their smallest nodes
    systems: Vec<f64>,
    answer: Vec<f64>,
}

impl Default for PairSolver {
    fn default() -> Self {
        Self::new()
    }
}

impl PairSolver {
    /// A solver that has no memory yet.
    pub fn new() -> Self {
        Self {
            level: Level::best(),
            parent: vec![],
            degree: vec![],
            balance: vec![],
            place: vec![],
            component: vec![],
            members: vec![],
            components: vec![],
            systems: vec![],
            answer: vec![],
        }
    }

    /// The solution of least norm of $$ \min_D\sum_m\big(D_{y_m}-D_{y'_m}-z_m\big)^2 $$ into `solution` `[n]`, for `pairs`
    /// $$ (y_m,y'_m) $$ and `targets` $$ z_m $$; the rank. See [`pair_least_squares`]. Panics if a pair names a node from
    /// `n` on.
    ///
    /// Limited by the factorisation, a third of the cube of the largest component in multiplications and additions; up to
    /// some thirty nodes, by finding the components.
    pub fn solve(&mut self, pairs: &[[u32; 2]], targets: &[f64], solution: &mut [f64]) -> usize {
        self.gather(pairs, targets, solution.len());
        self.group();
        self.assemble(pairs);
        solution.fill(0.0);
        let mut rank = 0;
        for &one in &self.components {
            let order = one.order();
            rank += order;
            let system = &mut self.systems[one.system..][..one.width * one.width];
            let definite = factor(self.level, system, order, one.width);
            assert!(definite, "the Laplacian of a connected graph with one node fixed is positive definite");
            self.answer.clear();
            self.answer.resize(order, 0.0);
            solve_factored(self.level, system, one.width, order, &mut self.answer);
            let mean = self.answer.iter().sum::<f64>() / (order + 1) as f64;
            let members = &self.members[one.start..one.end];
            for (&node, value) in members.iter().zip(self.answer.iter().chain(&[0.0])) {
                solution[node as usize] = value - mean;
            }
        }
        rank
    }

    /// The root of a node's tree; halves the way there for those who come after.
    fn root(&mut self, mut node: u32) -> u32 {
        while self.parent[node as usize] != node {
            let above = self.parent[self.parent[node as usize] as usize];
            self.parent[node as usize] = above;
            node = above;
        }
        node
    }

    /// Degrees, right-hand sides and the trees of the components, each rooted at its smallest node.
    fn gather(&mut self, pairs: &[[u32; 2]], targets: &[f64], n: usize) {
        self.parent.clear();
        self.parent.extend(0..n as u32);
        self.degree.clear();
        self.degree.resize(n, 0);
        self.balance.clear();
        self.balance.resize(n, 0.0);
        for (&[y, z], &target) in pairs.iter().zip(targets).filter(|([y, z], _)| y != z) {
            self.degree[y as usize] += 1;
            self.degree[z as usize] += 1;
            self.balance[y as usize] += target;
            self.balance[z as usize] -= target;
            let (a, b) = (self.root(y), self.root(z));
            self.parent[a.max(b) as usize] = a.min(b);
        }
    }

    /// Groups the nodes that have edges by component, each with its node of largest degree last: the one to fix.
    fn group(&mut self) {
        let n = self.parent.len();
        self.components.clear();
        self.component.clear();
        self.component.resize(n, 0);
        self.place.clear();
        self.place.resize(n, 0);
        // Members are counted first, so that each component knows where its own begin. A root comes before its others.
        for node in 0..n as u32 {
            let root = self.root(node);
            self.parent[node as usize] = root;
            if self.degree[node as usize] == 0 {
                continue;
            }
            if root == node {
                self.component[node as usize] = self.components.len() as u32;
                self.components.push(Component { start: 0, end: 0, system: 0, width: 0 });
            }
            let index = self.component[root as usize];
            self.component[node as usize] = index;
            self.components[index as usize].end += 1;
        }
        let (mut start, mut system) = (0, 0);
        for one in &mut self.components {
            let (count, width) = (one.end, padded(one.end));
            *one = Component { start, end: start, system, width };
            start += count;
            system += width * width;
        }
        self.members.clear();
        self.members.resize(start, 0);
        for node in (0..n).filter(|&node| self.degree[node] > 0) {
            let one = &mut self.components[self.component[node] as usize];
            self.members[one.end] = node as u32;
            one.end += 1;
        }
        for one in &self.components {
            let members = &mut self.members[one.start..one.end];
            let fixed = (0..members.len()).rev().max_by_key(|&i| self.degree[members[i] as usize]);
            members.swap(fixed.expect("a component has nodes"), one.order());
            members.iter().zip(0..).for_each(|(&node, place)| self.place[node as usize] = place);
        }
        self.systems.clear();
        self.systems.resize(system, 0.0);
    }

    /// The Laplacian of each component without the node that is fixed, and its right-hand side in the column after it.
    fn assemble(&mut self, pairs: &[[u32; 2]]) {
        for &[y, z] in pairs.iter().filter(|[y, z]| y != z) {
            let one = self.components[self.component[y as usize] as usize];
            let (a, b) = (self.place[y as usize] as usize, self.place[z as usize] as usize);
            let (low, high) = (a.min(b), a.max(b));
            let system = &mut self.systems[one.system..];
            system[low * one.width + low] += 1.0;
            if high < one.order() {
                system[high * one.width + high] += 1.0;
                system[low * one.width + high] -= 1.0;
            }
        }
        for &one in &self.components {
            let free = &self.members[one.start..one.start + one.order()];
            for (place, &node) in free.iter().enumerate() {
                self.systems[one.system + place * one.width + one.order()] = self.balance[node as usize];
            }
        }
    }
}

/// The least-squares solution of least norm `[n]` of equations on differences of two entries, and its rank:
///
/// $$ \arg\min_D\sum_m\big(D_{y_m}-D_{y'_m}-z_m\big)^2 $$
///
/// `pairs` $$ (y_m,y'_m) $$ below `n`, any number of them, equal ones and `y = y'` (which says nothing) included; `targets`
/// `[m]` finite. Entries that no chain of pairs connects have unrelated levels: each connected set gets mean zero, which is
/// the least norm, and an entry in no pair gets 0. The rank is `n` less the number of connected sets.
///
/// The same as [`least_squares`](crate::solve::linear::least_squares) on rows that are differences of two one-hot vectors,
/// at a small part of its cost. Takes memory for the square of the largest connected set.
pub fn pair_least_squares(pairs: &[[usize; 2]], targets: &[f64], n: usize) -> Result<MinNorm, InputError> {
    error::shape("targets", &[targets.len()], &[pairs.len()])?;
    for (index, &value) in targets.iter().enumerate() {
        if !value.is_finite() {
            return Err(InputError::NotFinite { argument: "targets", index: vec![index], value });
        }
    }
    let below = n.min(u32::MAX as usize);
    for (m, pair) in pairs.iter().enumerate() {
        for (side, &value) in pair.iter().enumerate() {
            if value >= below {
                return Err(InputError::OutOfRange { argument: "pairs", index: vec![m, side], found: value, below });
            }
        }
    }
    let narrow: Vec<[u32; 2]> = pairs.iter().map(|pair| pair.map(|node| node as u32)).collect();
    let mut solution = vec![0.0; n];
    let rank = PairSolver::new().solve(&narrow, targets, &mut solution);
    Ok(MinNorm { solution: Array1::from(solution), rank })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::linear::least_squares;
    use approx::assert_abs_diff_eq;
    use ndarray::{Array2, array};

    fn generic(pairs: &[[usize; 2]], targets: &[f64], n: usize) -> MinNorm {
        let mut design = Array2::zeros((pairs.len(), n));
        for (m, &[y, z]) in pairs.iter().enumerate() {
            design[[m, y]] += 1.0;
            design[[m, z]] -= 1.0;
        }
        least_squares(&design, &Array1::from(targets.to_vec())).unwrap()
    }

    #[test]
    fn two_triangles_and_a_lone_node_equal_numbers_by_hand() {
        // 0-1-2 agree on 0, 1, 3; of 3-4 two pairs say 1 and 2; 5 is alone, and a pair with itself says nothing.
        let pairs = [[1, 0], [2, 1], [2, 0], [4, 3], [3, 4], [5, 5]];
        let got = pair_least_squares(&pairs, &[1.0, 2.0, 3.0, 1.0, -2.0, 9.0], 6).unwrap();
        let third = 1.0 / 3.0;
        let want = array![-4.0 * third, -third, 5.0 * third, -0.75, 0.75, 0.0];
        assert_abs_diff_eq!(got.solution, want, epsilon = 1e-14);
        assert_eq!(got.rank, 3);
    }

    #[test]
    fn solution_and_rank_are_those_of_the_generic_least_squares_on_any_graph() {
        let mut state = 1u64;
        let mut below = |n: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % n
        };
        let mut solver = PairSolver::new();
        for trial in 0..400 {
            let n = 1 + below(30);
            let m = below(2 * n + 2);
            let span = 1 + below(n); // pairs only among these, so that graphs fall apart
            let pairs: Vec<[usize; 2]> = (0..m).map(|_| [below(span), below(span)]).collect();
            let targets: Vec<f64> = (0..m).map(|_| below(9) as f64 - 4.0).collect();
            let (got, want) = (pair_least_squares(&pairs, &targets, n).unwrap(), generic(&pairs, &targets, n));
            assert_eq!(got.rank, want.rank, "{trial}: {pairs:?}");
            assert_abs_diff_eq!(got.solution, want.solution, epsilon = 1e-10);
            let narrow: Vec<[u32; 2]> = pairs.iter().map(|pair| pair.map(|node| node as u32)).collect();
            let mut again = vec![f64::NAN; n];
            assert_eq!(solver.solve(&narrow, &targets, &mut again), got.rank);
            assert_eq!(again, got.solution.to_vec(), "memory of earlier problems shows");
        }
    }

    #[test]
    fn long_path_is_solved_exactly() {
        let n = 300;
        let pairs: Vec<[usize; 2]> = (1..n).map(|i| [i, i - 1]).collect();
        let got = pair_least_squares(&pairs, &vec![1.0; n - 1], n).unwrap();
        for (i, d) in got.solution.iter().enumerate() {
            assert_abs_diff_eq!(*d, i as f64 - (n - 1) as f64 / 2.0, epsilon = 1e-9);
        }
    }

    #[test]
    fn no_pairs_and_no_entries_have_solution_zero() {
        let none = pair_least_squares(&[], &[], 3).unwrap();
        assert_eq!((none.rank, none.solution), (0, Array1::zeros(3)));
        assert_eq!(pair_least_squares(&[], &[], 0).unwrap().solution.len(), 0);
    }

    #[test]
    fn bad_pair_is_named() {
        let error = pair_least_squares(&[[0, 1], [1, 2]], &[1.0, 1.0], 2).unwrap_err();
        assert_eq!(error.to_string(), "pairs[1, 1]: 2 (expected an index below 2)");
        let error = pair_least_squares(&[[0, 1]], &[f64::NAN], 2).unwrap_err();
        assert_eq!(error.to_string(), "targets[0]: NaN is not a finite number");
        assert!(pair_least_squares(&[[0, 1]], &[], 2).is_err());
    }
}

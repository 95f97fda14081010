//! The inner loops of the solvers, made wide: exponential, logarithm, softmax, mirror descent, products, Cholesky.
//!
//! Each is plain Rust over blocks of fixed length, compiled three times on x86-64 (AVX-512, AVX2 with FMA, baseline) and
//! chosen at run time by a [`Level`]. There is one algorithm, not three:
//!
//! * a product and a sum that belong together are one fused multiply-add, at every level;
//! * a sum over a row keeps 16 partial sums (8 in an inner product), each entry in the one its place in the row says, folded
//!   in one order; a sum over rows runs in ascending order.
//!
//! So **the bits of a result do not depend on the level**, on the number of threads (a row is computed by one), or on the
//! C library's `exp` and `log`, which are not called. What holds beyond x86-64: any machine whose `f64::mul_add` rounds
//! once, which Rust promises. A machine without FMA instructions computes the same, slowly, by software.
//!
//! Beside each kernel stands, in its tests, the plain form it is held against.

mod cholesky;
mod exp;
mod ln;
mod product;
mod sampling;
mod softmax;

pub use cholesky::{factor, inverse_trace, solve_factored};
pub use exp::exp_in_place;
pub use ln::ln_in_place;
pub use product::{WIDTH, combine_rows, gram_of_rows, padded, row_differences};
pub use sampling::{Cumulative, Uniform};
pub use softmax::{Traces, add_scaled, mirror_row, normalise_row};

/// Entries of a block, and partial sums of a sum over a row.
pub(crate) const LANES: usize = 16;

/// The instructions a kernel may use: a proof, made by asking the machine, that it has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level(Width);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The widest this machine has. What the machine said is remembered, so asking again costs a load.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
                return Level(Width::Avx512);
            }
            if avx2 {
                return Level(Width::Avx2);
            }
        }
        Level(Width::Portable)
    }

    /// Every level this machine has, the narrowest first: for tests that they agree.
    pub fn available() -> Vec<Self> {
        let mut all = vec![Level(Width::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            let best = Level::best();
            all.extend([Width::Avx2, Width::Avx512].map(Level).into_iter().filter(|&level| match level.0 {
                Width::Avx512 => best == level,
                _ => best.0 != Width::Portable,
            }));
        }
        all
    }

    /// Whether a register holds eight numbers.
    pub(crate) fn is_widest(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.0 == Width::Avx512;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}

/// Defines a kernel: its first argument is the [`Level`], its body is compiled once for each.
macro_rules! wide {
    ($(#[$attribute:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$attribute])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(level: $crate::kernels::Level, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    body($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    body($($arg),*)
                }
                match level.0 {
                    // SAFETY: a `Level` is made only by asking the machine, which has these instructions.
                    $crate::kernels::Width::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::kernels::Width::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::kernels::Width::Portable => {}
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = level;
            body($($arg),*)
        }
    };
}
pub(crate) use wide;

/// The sum of the partial sums, in halves: `i` with `i + 8`, then `i + 4`, `i + 2`, `i + 1`.
#[inline(always)]
pub(crate) fn fold(mut sums: [f64; LANES]) -> f64 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
        half /= 2;
    }
    sums[0]
}

/// The last, shorter block of a row, filled up with `filler`.
#[inline(always)]
pub(crate) fn filled(tail: &[f64], filler: f64) -> [f64; LANES] {
    let mut block = [filler; LANES];
    block[..tail.len()].copy_from_slice(tail);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random, in `[-1, 1]`.
    pub(super) fn scattered(n: usize) -> Vec<f64> {
        (0..n).map(|i| (i as f64 * 12.9898 + 1.0).sin() * 43758.5453).map(|v| 2.0 * (v - v.floor()) - 1.0).collect()
    }

    #[test]
    fn best_level_is_the_last_available() {
        assert_eq!(Level::available().last(), Some(&Level::best()));
    }

    #[test]
    fn partial_sums_fold_to_their_sum() {
        assert_eq!(fold(std::array::from_fn(|i| i as f64)), 120.0);
    }
}

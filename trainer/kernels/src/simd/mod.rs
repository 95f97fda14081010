//! Sixteen f32 lanes on three instruction sets.
//!
//! Kernels are written once over [`Simd`]: one register of AVX-512, two of AVX2, or an array. Lane count, order of every
//! reduction and the fused multiply-add are the same for all three, so they compute the same bits at different speeds.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::gemm;
pub use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

/// Lanes of a vector.
pub const LANES: usize = 16;

/// Arithmetic on sixteen f32 lanes. Every function wants the instructions of its implementor to be there.
pub trait Simd: Copy + 'static {
    /// Sixteen lanes.
    type V: Copy;
    /// Vectors that a product's tile is wide: 2 where a panel's 32 columns are taken at once, 1 where half of them.
    const WIDE: usize;
    /// Rows that a product's tile has at most.
    const TALL: usize;

    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// `a b + c` with one rounding.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; where one is not a number, b.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; where one is not a number, b.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sqrt(a: Self::V) -> Self::V;
    unsafe fn abs(a: Self::V) -> Self::V;
    /// The lanes as bits, 127 added and shifted left by 23: the power of two of an integer that a constant of
    /// 1.5 * 2^23 was added to.
    unsafe fn power(a: Self::V) -> Self::V;
    /// Lanes where `a < b` take x, the others y.
    unsafe fn select_less(a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// The first n lanes are x's, the others y's; n may be anything.
    unsafe fn first(n: isize, x: Self::V, y: Self::V) -> Self::V;
    /// Sum of the lanes: 16 are folded to 8, 4, 2 and 1.
    unsafe fn sum(a: Self::V) -> f32;
    /// The largest lane.
    unsafe fn largest(a: Self::V) -> f32;
    /// Brings a line of memory into the second-level cache.
    unsafe fn prefetch(p: *const f32);
    /// Brings a line of memory into the first-level cache.
    unsafe fn prefetch_near(p: *const f32);
    /// Transposes 8 lines of 8, `from` apart, to lines `to` apart.
    unsafe fn transpose8(source: *const f32, from: usize, target: *mut f32, to: usize);
    /// [`gemm::tile_rows`] as a function of its own, so that its many sizes are compiled once.
    unsafe fn tile_rows(tall: usize, t: &gemm::Tile);
    /// [`gemm::outer_block`] as a function of its own.
    unsafe fn outer_block(rows: usize, a: *const f32, b: *const f32, c: *mut f32, ahead: *const f32);
}

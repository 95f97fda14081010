//! Lanes as an array: what the others must equal, on any processor.

use super::{LANES, Simd};
use crate::gemm;

/// The portable lanes.
#[derive(Clone, Copy)]
pub struct Portable;

type V = [f32; LANES];

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> V {
    let mut v = [0.0; LANES];
    for (i, x) in v.iter_mut().enumerate() {
        *x = f(i);
    }
    v
}

/// Halves are folded until one lane is left.
#[inline(always)]
fn fold(mut v: V, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut n = LANES;
    while n > 1 {
        n /= 2;
        for i in 0..n {
            v[i] = f(v[i], v[i + n]);
        }
    }
    v[0]
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

impl Simd for Portable {
    type V = V;
    const WIDE: usize = 1;
    const TALL: usize = 4;

    #[inline(always)]
    unsafe fn load(p: *const f32) -> V {
        p.cast::<V>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: V) {
        p.cast::<V>().write_unaligned(v);
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> V {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn add(a: V, b: V) -> V {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: V, b: V) -> V {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: V, b: V) -> V {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn div(a: V, b: V) -> V {
        each(|i| a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: V, b: V, c: V) -> V {
        each(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    unsafe fn max(a: V, b: V) -> V {
        each(|i| larger(a[i], b[i]))
    }
    #[inline(always)]
    unsafe fn min(a: V, b: V) -> V {
        each(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn sqrt(a: V) -> V {
        each(|i| a[i].sqrt())
    }
    #[inline(always)]
    unsafe fn abs(a: V) -> V {
        each(|i| a[i].abs())
    }
    #[inline(always)]
    unsafe fn power(a: V) -> V {
        each(|i| f32::from_bits(a[i].to_bits().wrapping_add(127) << 23))
    }
    #[inline(always)]
    unsafe fn select_less(a: V, b: V, x: V, y: V) -> V {
        each(|i| if a[i] < b[i] { x[i] } else { y[i] })
    }
    #[inline(always)]
    unsafe fn first(n: isize, x: V, y: V) -> V {
        each(|i| if (i as isize) < n { x[i] } else { y[i] })
    }
    #[inline(always)]
    unsafe fn sum(a: V) -> f32 {
        fold(a, |x, y| x + y)
    }
    #[inline(always)]
    unsafe fn largest(a: V) -> f32 {
        fold(a, larger)
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}
    #[inline(always)]
    unsafe fn prefetch_near(_: *const f32) {}
    #[inline(always)]
    unsafe fn transpose8(source: *const f32, from: usize, target: *mut f32, to: usize) {
        for i in 0..8 {
            for j in 0..8 {
                *target.add(j * to + i) = *source.add(i * from + j);
            }
        }
    }
    unsafe fn tile_rows(tall: usize, t: &gemm::Tile) {
        gemm::tile_rows::<Self>(tall, t);
    }
    unsafe fn outer_block(rows: usize, a: *const f32, b: *const f32, c: *mut f32, ahead: *const f32) {
        gemm::outer_block::<Self>(rows, a, b, c, ahead);
    }
}

//! Layer normalisation (Ba, Kiros and Hinton, arXiv 1607.06450) and normalisation by the root mean square (Zhang and
//! Sennrich, arXiv 1910.07467) of rows, forward and backward.

use crate::panel::{Matrix, PANEL};
use crate::simd::{LANES, Simd};

/// `y = (x - mean) / sqrt(var + eps) * gain + bias` of each row, or without mean and bias.
#[derive(Clone, Copy)]
pub struct Normalise {
    pub x: Matrix,
    pub y: Matrix,
    /// Columns that count.
    pub width: usize,
    pub rows: usize,
    /// `[panels * 32]`, 0 beyond the width.
    pub gain: *const f32,
    /// The same, or null: no mean is taken off then.
    pub bias: *const f32,
    pub eps: f32,
    /// Mean and reciprocal deviation of each row, `[rows]`.
    pub mean: *mut f32,
    pub scale: *mut f32,
}

/// Vector `c` of a row: its place, and how many of its lanes count.
#[inline(always)]
fn vector(m: Matrix, row: usize, c: usize) -> *mut f32 {
    m.at(c / 2, row).wrapping_add(c % 2 * LANES)
}

/// Vectors in the panels of `width` columns.
fn vectors(width: usize) -> usize {
    2 * width.div_ceil(PANEL)
}

/// The lanes of vector `c` that count, the others 0.
#[inline(always)]
unsafe fn counted<S: Simd>(width: usize, c: usize, x: S::V) -> S::V {
    match width >= LANES * (c + 1) {
        true => x,
        false => S::first(width as isize - (LANES * c) as isize, x, S::splat(0.0)),
    }
}

/// See [`Normalise`].
#[inline(always)]
pub unsafe fn normalise<S: Simd>(p: &Normalise) {
    let n = vectors(p.width);
    let width = p.width as f32;
    for row in 0..p.rows {
        let mut mean = 0.0;
        if !p.bias.is_null() {
            let mut sum = S::splat(0.0);
            for c in 0..n {
                sum = S::add(sum, S::load(vector(p.x, row, c)));
            }
            mean = S::sum(sum) / width;
        }
        let m = S::splat(mean);
        let mut sum = S::splat(0.0);
        for c in 0..n {
            let x = counted::<S>(p.width, c, S::sub(S::load(vector(p.x, row, c)), m));
            sum = S::fma(x, x, sum);
        }
        let scale = 1.0 / (S::sum(sum) / width + p.eps).sqrt();
        *p.mean.add(row) = mean;
        *p.scale.add(row) = scale;
        apply::<S>(p, row, n);
    }
}

/// The second half of [`normalise`] alone: mean and scale are known.
#[inline(always)]
pub unsafe fn renormalise<S: Simd>(p: &Normalise) {
    for row in 0..p.rows {
        apply::<S>(p, row, vectors(p.width));
    }
}

#[inline(always)]
unsafe fn apply<S: Simd>(p: &Normalise, row: usize, n: usize) {
    let (m, s) = (S::splat(*p.mean.add(row)), S::splat(*p.scale.add(row)));
    for c in 0..n {
        let normal = S::mul(S::sub(S::load(vector(p.x, row, c)), m), s);
        let gain = S::load(p.gain.add(LANES * c));
        let y = match p.bias.is_null() {
            true => S::mul(normal, gain),
            false => S::fma(normal, gain, S::load(p.bias.add(LANES * c))),
        };
        S::store(vector(p.y, row, c), y);
    }
}

/// The backward pass of [`Normalise`] to its input: `dx = plus + scale (g - mean(g) - n mean(g n))`, where n is the
/// normalised row and g = dy gain; without `centred` no mean(g).
#[derive(Clone, Copy)]
pub struct NormaliseBack {
    pub dy: Matrix,
    pub x: Matrix,
    /// Another gradient of x, or none.
    pub plus: Matrix,
    pub dx: Matrix,
    pub width: usize,
    pub rows: usize,
    pub gain: *const f32,
    pub centred: bool,
    pub mean: *const f32,
    pub scale: *const f32,
}

/// See [`NormaliseBack`].
#[inline(always)]
pub unsafe fn normalise_back<S: Simd>(p: &NormaliseBack) {
    let n = vectors(p.width);
    let width = p.width as f32;
    for row in 0..p.rows {
        let (m, s) = (S::splat(*p.mean.add(row)), S::splat(*p.scale.add(row)));
        let normal = |c: usize| S::mul(S::sub(S::load(vector(p.x, row, c)), m), s);
        let slope = |c: usize| S::mul(S::load(vector(p.dy, row, c)), S::load(p.gain.add(LANES * c)));
        let (mut sum, mut along) = (S::splat(0.0), S::splat(0.0));
        for c in 0..n {
            let g = slope(c); // 0 beyond the width, where the gain is
            sum = S::add(sum, g);
            along = S::fma(g, normal(c), along);
        }
        let mean = S::splat(if p.centred { S::sum(sum) / width } else { 0.0 });
        let along = S::splat(-(S::sum(along) / width));
        for c in 0..n {
            let d = counted::<S>(p.width, c, S::fma(normal(c), along, S::sub(slope(c), mean)));
            let plus = if p.plus.is_some() { S::load(vector(p.plus, row, c)) } else { S::splat(0.0) };
            S::store(vector(p.dx, row, c), S::fma(d, s, plus));
        }
    }
}

/// Gradients of gain and bias of one panel, added to `dgain[32]` and `dbias[32]` (or null), rows in order.
#[derive(Clone, Copy)]
pub struct NormaliseGains {
    /// One panel each.
    pub dy: *const f32,
    pub x: *const f32,
    pub rows: usize,
    pub mean: *const f32,
    pub scale: *const f32,
    pub dgain: *mut f32,
    pub dbias: *mut f32,
}

/// See [`NormaliseGains`].
#[inline(always)]
pub unsafe fn normalise_gains<S: Simd>(p: &NormaliseGains) {
    for v in [0, LANES] {
        let mut dgain = S::load(p.dgain.add(v));
        let mut dbias = if p.dbias.is_null() { S::splat(0.0) } else { S::load(p.dbias.add(v)) };
        for row in 0..p.rows {
            let (m, s) = (S::splat(*p.mean.add(row)), S::splat(*p.scale.add(row)));
            let dy = S::load(p.dy.add(row * PANEL + v));
            let normal = S::mul(S::sub(S::load(p.x.add(row * PANEL + v)), m), s);
            dgain = S::fma(dy, normal, dgain);
            dbias = S::add(dbias, dy);
        }
        S::store(p.dgain.add(v), dgain);
        if !p.dbias.is_null() {
            S::store(p.dbias.add(v), dbias);
        }
    }
}

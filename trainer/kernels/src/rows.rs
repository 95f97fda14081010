//! What is done to rows one by one: activations, rotary positions, sums of columns, transposition of blocks.

use crate::math;
use crate::panel::{BLOCK, Matrix, PANEL};
use crate::simd::{LANES, Simd};

/// The nonlinearity of a feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x Phi(x)`, exact.
    Gelu,
    /// Its approximation by tanh.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `x sigmoid(x)`.
    Silu,
}

/// `out = act(u)`, or with a gate `out = act(gate) u`, of one panel; `rows` rows.
#[derive(Clone, Copy)]
pub struct Activate {
    pub activation: Activation,
    pub rows: usize,
    pub u: *const f32,
    /// Or null.
    pub gate: *const f32,
    pub out: *mut f32,
}

/// The backward pass of [`Activate`] of one panel: from the gradient of `out` in `d` (which becomes that of u, in place) to
/// that of the gate, and `out` once more.
#[derive(Clone, Copy)]
pub struct ActivateBack {
    pub activation: Activation,
    pub rows: usize,
    pub u: *const f32,
    pub gate: *const f32,
    pub d: *mut f32,
    pub dgate: *mut f32,
    pub out: *mut f32,
}

/// Runs `$body` with `$f` the activation's function of a vector.
macro_rules! with_activation {
    ($activation:expr, $f:ident => $body:block) => {
        match $activation {
            Activation::Gelu => {
                let $f = |x: S::V| math::gelu::<S>(x);
                $body
            }
            Activation::GeluTanh => {
                let $f = |x: S::V| math::gelu_tanh::<S>(x);
                $body
            }
            Activation::Relu => {
                let $f = |x: S::V| math::relu::<S>(x);
                $body
            }
            Activation::Silu => {
                let $f = |x: S::V| math::silu::<S>(x);
                $body
            }
        }
    };
}

/// See [`Activate`].
#[inline(always)]
pub unsafe fn activate<S: Simd>(p: &Activate) {
    with_activation!(p.activation, f => {
        for at in (0..p.rows * PANEL).step_by(LANES) {
            let u = S::load(p.u.add(at));
            let out = match p.gate.is_null() {
                true => f(u).0,
                false => S::mul(f(S::load(p.gate.add(at))).0, u),
            };
            S::store(p.out.add(at), out);
        }
    });
}

/// See [`ActivateBack`].
#[inline(always)]
pub unsafe fn activate_back<S: Simd>(p: &ActivateBack) {
    with_activation!(p.activation, f => {
        for at in (0..p.rows * PANEL).step_by(LANES) {
            let (u, d) = (S::load(p.u.add(at)), S::load(p.d.add(at)));
            if p.gate.is_null() {
                let (y, slope) = f(u);
                S::store(p.out.add(at), y);
                S::store(p.d.add(at), S::mul(d, slope));
            } else {
                let (y, slope) = f(S::load(p.gate.add(at)));
                S::store(p.out.add(at), S::mul(y, u));
                S::store(p.dgate.add(at), S::mul(S::mul(d, u), slope));
                S::store(p.d.add(at), S::mul(d, y));
            }
        }
    });
}

/// Rotary positions (Su et al., arXiv 2104.09864) of one head in place: pair (i, i + half) turns by its row's angle.
#[derive(Clone, Copy)]
pub struct Rotate {
    pub head: Matrix,
    pub rows: usize,
    /// `[positions][2 * half]`: cosines, then sines.
    pub turns: *const f32,
    pub half: usize,
    /// Position of each row.
    pub positions: *const u32,
    /// 1, or -1 to turn back.
    pub sign: f32,
}

/// See [`Rotate`].
#[inline(always)]
pub unsafe fn rotate<S: Simd>(p: &Rotate) {
    let half = p.half;
    for row in 0..p.rows {
        let turns = p.turns.add(*p.positions.add(row) as usize * 2 * half);
        let place = |i: usize| p.head.at(i / PANEL, row).wrapping_add(i % PANEL);
        let mut i = 0;
        // Vectors where both of a pair's lie whole in a panel's halves.
        while half.is_multiple_of(LANES) && i < half {
            let (cos, sin) = (S::load(turns.add(i)), S::mul(S::load(turns.add(half + i)), S::splat(p.sign)));
            let (a, b) = (place(i), place(i + half));
            let (x, y) = (S::load(a), S::load(b));
            S::store(a, S::fma(x, cos, S::sub(S::splat(0.0), S::mul(y, sin))));
            S::store(b, S::fma(y, cos, S::mul(x, sin)));
            i += LANES;
        }
        while i < half {
            let (cos, sin) = (*turns.add(i), *turns.add(half + i) * p.sign);
            let (a, b) = (place(i), place(i + half));
            let (x, y) = (*a, *b);
            *a = x.mul_add(cos, 0.0 - y * sin);
            *b = y.mul_add(cos, x * sin);
            i += 1;
        }
    }
}

/// Adds the sum of a panel's rows, in order, to `sum[32]`.
#[derive(Clone, Copy)]
pub struct SumRows {
    pub of: *const f32,
    pub rows: usize,
    pub sum: *mut f32,
}

/// See [`SumRows`].
#[inline(always)]
pub unsafe fn sum_rows<S: Simd>(p: &SumRows) {
    for v in [0, LANES] {
        let mut sum = S::load(p.sum.add(v));
        for row in 0..p.rows {
            sum = S::add(sum, S::load(p.of.add(row * PANEL + v)));
        }
        S::store(p.sum.add(v), sum);
    }
}

/// Lines of 32, `from` apart, transposed to lines of 32, `to` apart.
#[inline(always)]
unsafe fn transpose32<S: Simd>(source: *const f32, from: usize, target: *mut f32, to: usize) {
    for i in (0..PANEL).step_by(8) {
        for j in (0..PANEL).step_by(8) {
            S::transpose8(source.add(i * from + j), from, target.add(j * to + i), to);
        }
    }
}

/// Transposes `rows` lines of one panel into blocks `[32][32]`, `stride` apart; the last is filled up with zeros.
#[derive(Clone, Copy)]
pub struct Transpose {
    pub source: *const f32,
    pub rows: usize,
    pub target: *mut f32,
    pub stride: usize,
}

/// See [`Transpose`].
#[inline(always)]
pub unsafe fn transpose<S: Simd>(p: &Transpose) {
    for block in 0..p.rows / PANEL {
        transpose32::<S>(p.source.add(block * BLOCK), PANEL, p.target.add(block * p.stride), PANEL);
    }
    let rest = p.rows % PANEL;
    if rest > 0 {
        let mut lines = [0f32; BLOCK];
        let block = p.rows / PANEL;
        std::ptr::copy_nonoverlapping(p.source.add(block * BLOCK), lines.as_mut_ptr(), rest * PANEL);
        transpose32::<S>(lines.as_ptr(), PANEL, p.target.add(block * p.stride), PANEL);
    }
}

/// A block of at most 32 x 32 of a row-major matrix, as it is and transposed, each times `factor`; what is missing to
/// 32 x 32 is zeros.
#[derive(Clone, Copy)]
pub struct PackBlock {
    pub source: *const f32,
    pub leading: usize,
    pub lines: usize,
    pub columns: usize,
    pub factor: f32,
    /// `[32][32]`, or null.
    pub same: *mut f32,
    /// `[32][32]`, or null.
    pub transposed: *mut f32,
}

/// See [`PackBlock`].
#[inline(always)]
pub unsafe fn pack_block<S: Simd>(p: &PackBlock) {
    let mut block = [0f32; BLOCK];
    let (mut source, mut leading) = (p.source, p.leading);
    if p.lines < PANEL || p.columns < PANEL || p.factor != 1.0 {
        for line in 0..p.lines {
            for column in 0..p.columns {
                block[line * PANEL + column] = p.factor * *p.source.add(line * p.leading + column);
            }
        }
        (source, leading) = (block.as_ptr(), PANEL);
    }
    if !p.same.is_null() {
        for line in 0..PANEL {
            for v in [0, LANES] {
                S::store(p.same.add(line * PANEL + v), S::load(source.add(line * leading + v)));
            }
        }
    }
    if !p.transposed.is_null() {
        transpose32::<S>(source, leading, p.transposed, PANEL);
    }
}

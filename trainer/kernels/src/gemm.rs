//! Matrix products over panels.
//!
//! Every element is one chain of fused multiply-adds in ascending k. A tile of rows and columns is summed in registers
//! over a chunk of k whose lines of the right operand stay in the first-level cache while all tiles of rows pass.

use crate::panel::{BLOCK, Matrix, PANEL};
use crate::simd::{LANES, Simd};

/// `c = init + a b` over some rows: `a` is `[rows, depth * 32]`, `b` a packed right operand of `depth * 32` lines and
/// `panels` panels, `init` the bias of each column (or none) plus another matrix (or none), which may be `c` itself.
#[derive(Clone, Copy)]
pub struct Product {
    pub a: Matrix,
    /// Panels of `a`: 32 steps of k each.
    pub depth: usize,
    /// The first panel, and elements from one to the next.
    pub b: *const f32,
    pub b_stride: usize,
    pub c: Matrix,
    pub panels: usize,
    pub rows: usize,
    pub plus: Matrix,
    /// `[panels * 32]`, or null.
    pub bias: *const f32,
}

/// Panels of `a` in a chunk of k: 4 x 32 lines of `b` are 16 KiB.
const CHUNK: usize = 4;
/// Cache lines that one panel of k of a panel of `b` takes.
const LINES_AHEAD: usize = BLOCK / 16;
/// Steps of k written out: loop counters compete with multiply-adds for ports.
const UNROLL: usize = 4;

/// Some rows of one panel of a product, over one chunk of k.
#[derive(Clone, Copy)]
pub struct Tile {
    pub depth: usize,
    pub a: Matrix,
    pub b: *const f32,
    pub c: *mut f32,
    /// `[rows][32]`, or null.
    pub plus: *const f32,
    /// `[32]`, or null.
    pub bias: *const f32,
    /// Memory to bring near meanwhile, so many cache lines for each panel of k.
    pub ahead: *const f32,
    pub lines_ahead: usize,
}

impl Tile {
    /// A tile of `c = a b`.
    #[inline(always)]
    pub fn new(depth: usize, a: Matrix, b: *const f32, c: *mut f32) -> Self {
        let none = std::ptr::null();
        Self { depth, a, b, c, plus: none, bias: none, ahead: none, lines_ahead: 0 }
    }

    /// The right half of the panel.
    #[inline(always)]
    fn right(self) -> Self {
        let half = |p: *const f32| if p.is_null() { p } else { p.wrapping_add(LANES) };
        let (b, c) = (self.b.wrapping_add(LANES), self.c.wrapping_add(LANES));
        Self { b, c, plus: half(self.plus), bias: half(self.bias), lines_ahead: 0, ..self }
    }
}

/// `T` rows and `W` vectors of a tile.
#[inline(always)]
unsafe fn tile<S: Simd, const T: usize, const W: usize>(t: Tile) {
    let Tile { depth, a, b, c, plus, bias, mut ahead, lines_ahead } = t;
    let mut sums = [[S::splat(0.0); W]; T];
    if !plus.is_null() {
        for (i, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                *sum = S::load(plus.add(i * PANEL + 16 * v));
            }
        }
    }
    if !bias.is_null() {
        for v in 0..W {
            let x = S::load(bias.add(16 * v));
            for sums in &mut sums {
                sums[v] = S::add(sums[v], x);
            }
        }
    }
    let mut line = b;
    for panel in 0..depth {
        for _ in 0..lines_ahead {
            S::prefetch(ahead);
            ahead = ahead.wrapping_add(16);
        }
        let mut left: *const f32 = a.at(panel, 0);
        for i in 0..2 * T {
            S::prefetch_near(left.wrapping_add(T * PANEL + 16 * i)); // the rows of the next tile
        }
        for _ in 0..PANEL / UNROLL {
            for u in 0..UNROLL {
                let mut right = [S::splat(0.0); W];
                for (v, right) in right.iter_mut().enumerate() {
                    *right = S::load(line.add(u * PANEL + 16 * v));
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let x = S::splat(*left.add(i * PANEL + u));
                    for (sum, &right) in sums.iter_mut().zip(&right) {
                        *sum = S::fma(x, right, *sum);
                    }
                }
            }
            left = left.add(UNROLL);
            line = line.add(UNROLL * PANEL);
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        for (v, &sum) in sums.iter().enumerate() {
            S::store(c.add(i * PANEL + 16 * v), sum);
        }
    }
}

/// `tall` rows (at most `S::TALL`) of one panel of a product.
#[inline(always)]
pub unsafe fn tile_rows<S: Simd>(tall: usize, t: &Tile) {
    macro_rules! arm {
        ($($tall:literal),*) => {
            match tall {
                $($tall if $tall <= S::TALL => match S::WIDE {
                    2 => tile::<S, $tall, 2>(*t),
                    _ => {
                        tile::<S, $tall, 1>(*t);
                        tile::<S, $tall, 1>(t.right());
                    }
                })*
                _ => unreachable!("a tile of {tall} rows"),
            }
        };
    }
    arm!(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14);
}

/// Rows of each tile where `rows` are dealt evenly to tiles of at most `S::TALL`: (tiles, rows of each, how many have one
/// more).
#[inline(always)]
pub fn deal<S: Simd>(rows: usize) -> (usize, usize, usize) {
    let tiles = rows.div_ceil(S::TALL);
    (tiles, rows / tiles.max(1), rows % tiles.max(1))
}

/// See [`Product`].
#[inline(always)]
pub unsafe fn product<S: Simd>(p: &Product) {
    let (tiles, base, more) = deal::<S>(p.rows);
    // One tile reads every line of `b` once: nothing to keep near, all to bring near.
    let chunk = if tiles == 1 { p.depth } else { CHUNK };
    let mut k = 0;
    while k < p.depth && tiles > 0 {
        let depth = chunk.min(p.depth - k);
        let lines_ahead = LINES_AHEAD.div_ceil(tiles);
        for j in 0..p.panels {
            let b = p.b.add(j * p.b_stride + k * BLOCK);
            let last = j + 1 == p.panels;
            let mut ahead = if last { p.b.wrapping_add((k + depth) * BLOCK) } else { b.wrapping_add(p.b_stride) };
            let mut row = 0;
            for t in 0..tiles {
                let tall = base + usize::from(t < more);
                let c = p.c.at(j, row);
                let (plus, bias) = match k {
                    0 if p.bias.is_null() => (p.plus.place(j, row), p.bias),
                    0 => (p.plus.place(j, row), p.bias.add(j * PANEL)),
                    _ => (c, std::ptr::null()),
                };
                S::tile_rows(tall, &Tile { depth, a: p.a.from(k, row), b, c, plus, bias, ahead, lines_ahead });
                ahead = ahead.wrapping_add(lines_ahead * depth * 16);
                row += tall;
            }
        }
        k += depth;
    }
}

/// `c += a^T b` with k over rows, in order: the gradient of a weight. `a`: `[rows, panels * 32]`; `b`: one panel;
/// `c`: `[panels][32][32]`, line i of block j for column `32 j + i` of `a`.
#[derive(Clone, Copy)]
pub struct Outer {
    pub a: Matrix,
    pub panels: usize,
    pub b: *const f32,
    pub rows: usize,
    pub c: *mut f32,
}

/// Rows in a chunk of k: 128 lines of `b` are 16 KiB.
const LINES: usize = 128;

#[inline(always)]
unsafe fn tile_outer<S: Simd, const T: usize, const W: usize, const AHEAD: bool>(
    rows: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    ahead: *const f32,
) {
    let mut sums = [[S::splat(0.0); W]; T];
    for (i, sums) in sums.iter_mut().enumerate() {
        for (v, sum) in sums.iter_mut().enumerate() {
            *sum = S::load(c.add(i * PANEL + 16 * v));
        }
    }
    let (mut left, mut right, mut ahead) = (a, b, ahead);
    macro_rules! line {
        ($u:expr) => {
            if AHEAD {
                S::prefetch_near(ahead.wrapping_add($u * PANEL));
                S::prefetch_near(ahead.wrapping_add($u * PANEL + 16));
            }
            let mut of = [S::splat(0.0); W];
            for (v, of) in of.iter_mut().enumerate() {
                *of = S::load(right.add($u * PANEL + 16 * v));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let x = S::splat(*left.add($u * PANEL + i));
                for (sum, &of) in sums.iter_mut().zip(&of) {
                    *sum = S::fma(x, of, *sum);
                }
            }
        };
    }
    for _ in 0..rows / UNROLL {
        for u in 0..UNROLL {
            line!(u);
        }
        left = left.add(UNROLL * PANEL);
        right = right.add(UNROLL * PANEL);
        ahead = ahead.wrapping_add(UNROLL * PANEL);
    }
    for u in 0..rows % UNROLL {
        line!(u);
    }
    for (i, sums) in sums.iter().enumerate() {
        for (v, &sum) in sums.iter().enumerate() {
            S::store(c.add(i * PANEL + 16 * v), sum);
        }
    }
}

/// The block of `c` that belongs to one panel of `a`; `ahead` is read soon.
#[inline(always)]
pub unsafe fn outer_block<S: Simd>(rows: usize, a: *const f32, b: *const f32, c: *mut f32, ahead: *const f32) {
    if S::WIDE == 2 {
        tile_outer::<S, 11, 2, true>(rows, a, b, c, ahead);
        tile_outer::<S, 11, 2, false>(rows, a.add(11), b, c.add(11 * PANEL), ahead);
        tile_outer::<S, 10, 2, false>(rows, a.add(22), b, c.add(22 * PANEL), ahead);
        return;
    }
    for half in [0, 16] {
        let (b, c) = (b.add(half), c.add(half));
        if S::TALL >= 6 {
            if half == 0 {
                tile_outer::<S, 6, 1, true>(rows, a, b, c, ahead);
            } else {
                tile_outer::<S, 6, 1, false>(rows, a, b, c, ahead);
            }
            tile_outer::<S, 6, 1, false>(rows, a.add(6), b, c.add(6 * PANEL), ahead);
            for i in [12, 17, 22, 27] {
                tile_outer::<S, 5, 1, false>(rows, a.add(i), b, c.add(i * PANEL), ahead);
            }
        } else {
            for i in (0..PANEL).step_by(4) {
                tile_outer::<S, 4, 1, false>(rows, a.add(i), b, c.add(i * PANEL), ahead);
            }
        }
    }
}

/// See [`Outer`].
#[inline(always)]
pub unsafe fn outer<S: Simd>(p: &Outer) {
    for row in (0..p.rows).step_by(LINES) {
        let rows = LINES.min(p.rows - row);
        for j in 0..p.panels {
            let next = if j + 1 < p.panels { p.a.at(j + 1, row) } else { p.a.at(0, row + rows) };
            S::outer_block(rows, p.a.at(j, row), p.b.add(row * PANEL), p.c.add(j * BLOCK), next);
        }
    }
}

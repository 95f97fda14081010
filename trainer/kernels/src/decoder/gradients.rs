//! Gradients of parameters from what the passes have left: products over all rows of a batch, rows in order.

use std::cell::Cell;
use std::ops::Range;

use super::Machine;
use super::shape::Layout;
use crate::buffer::{Arena, Buffer};
use crate::gemm::Outer;
use crate::norm::NormaliseGains;
use crate::panel::{BLOCK, Columns, Matrix, PANEL};
use crate::rows::SumRows;

/// Gradient of a parameter that is being made: as many elements as the parameter has, row-major.
pub(super) struct Target {
    values: Cell<Vec<f32>>,
    start: *mut f32,
    len: usize,
}

// SAFETY: tasks write disjoint elements.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// For a parameter of this layout.
    pub fn new(layout: &Layout) -> Self {
        let mut values = Vec::with_capacity(layout.len());
        Self { start: values.as_mut_ptr(), values: Cell::new(values), len: layout.len() }
    }

    /// For a parameter of this layout, zeros: where only some elements will be added to.
    pub fn zeros(layout: &Layout) -> Self {
        let mut values = vec![0.0; layout.len()];
        Self { start: values.as_mut_ptr(), values: Cell::new(values), len: layout.len() }
    }

    /// The gradient, given once.
    ///
    /// # Safety
    /// Every element has been written, and no task writes any more.
    pub unsafe fn finish(&self) -> Vec<f32> {
        let mut values = self.values.take();
        values.set_len(self.len);
        values
    }
}

/// Rows of a norm: its output's gradient, its input, both one panel, and their statistics.
#[derive(Debug, Clone, Copy)]
pub(super) struct NormRows {
    pub dy: *const f32,
    pub x: *const f32,
    pub mean: *const f32,
    pub scale: *const f32,
}

/// A part of the work.
enum Work {
    /// Blocks of a weight: `factor * a^T b`.
    Blocks {
        a: Matrix,
        outs: Vec<Columns>,
        b: *const f32,
        within: Columns,
        ranges: usize,
        factor: f32,
        target: *mut f32,
        leading: usize,
        add: bool,
    },
    /// 32 elements of a bias.
    Sum { of: *const f32, columns: Columns, ranges: usize, target: *mut f32 },
    /// 32 elements of a norm's gain, and of its bias.
    Gains { of: Vec<NormRows>, columns: Columns, ranges: usize, gain: *mut f32, bias: *mut f32 },
}

/// What is to be done for some parameters; rows in `ranges`.
pub(super) struct Jobs {
    work: Vec<Work>,
    ranges: Vec<Vec<Range<usize>>>,
}

// SAFETY: every piece of work writes elements of its own.
unsafe impl Send for Jobs {}
// SAFETY: as above.
unsafe impl Sync for Jobs {}

/// Panels of outputs that a task takes: its blocks are 64 KiB.
const OUTS: usize = 16;

impl Jobs {
    pub fn new() -> Self {
        Self { work: Vec::new(), ranges: Vec::new() }
    }

    /// Rows that the work added from now on runs over.
    pub fn over(&mut self, ranges: Vec<Range<usize>>) {
        self.ranges.push(ranges);
    }

    fn now(&self) -> usize {
        self.ranges.len() - 1
    }

    /// `target[outs, ins] = factor * dy^T x` (or added to it); `inputs` columns in the file.
    pub fn weight(
        &mut self,
        (dy, outs): (Matrix, &[Columns]),
        (x, ins): (Matrix, &[Columns]),
        inputs: usize,
        factor: f32,
        target: &Target,
        add: bool,
    ) {
        let ranges = self.now();
        for first in (0..outs.len()).step_by(OUTS) {
            let outs = &outs[first..(first + OUTS).min(outs.len())];
            for (panel, &within) in ins.iter().enumerate() {
                let (a, b) = (dy.from(first, 0), x.at(panel, 0).cast_const());
                let (outs, target, leading) = (outs.to_vec(), target.start, inputs);
                self.work.push(Work::Blocks { a, outs, b, within, ranges, factor, target, leading, add });
            }
        }
    }

    /// `target[columns] = sum of the rows of dy`.
    pub fn bias(&mut self, dy: Matrix, columns: &[Columns], target: &Target) {
        let ranges = self.now();
        for (panel, &columns) in columns.iter().enumerate() {
            self.work.push(Work::Sum { of: dy.at(panel, 0), columns, ranges, target: target.start });
        }
    }

    /// Gain and bias of a norm; `of(panel)`: the rows of one of its panels, several where heads share a gain.
    pub fn norm(
        &mut self,
        columns: &[Columns],
        of: impl Fn(usize) -> Vec<NormRows>,
        gain: Option<&Target>,
        bias: Option<&Target>,
    ) {
        let ranges = self.now();
        let place = |t: Option<&Target>| t.map_or(std::ptr::null_mut(), |t| t.start);
        if gain.is_none() && bias.is_none() {
            return;
        }
        for (panel, &columns) in columns.iter().enumerate() {
            self.work.push(Work::Gains { of: of(panel), columns, ranges, gain: place(gain), bias: place(bias) });
        }
    }

    /// Does it all.
    ///
    /// # Safety
    /// The matrices hold the rows of the ranges, and nobody writes them meanwhile.
    pub unsafe fn run(&self, machine: &Machine) {
        let mut arena = Arena::measuring();
        let threads = machine.pool.threads();
        arena.take(threads * OUTS * BLOCK);
        let buffer = machine.spare.take(arena.len());
        let mut arena = Arena::of(&buffer);
        let blocks: Vec<Matrix> = (0..threads).map(|_| Matrix::new(arena.take(OUTS * BLOCK), BLOCK)).collect();
        machine.pool.tasks(self.work.len(), |thread, task| self.one(machine, &self.work[task], blocks[thread]));
        machine.spare.give(buffer);
    }

    unsafe fn one(&self, machine: &Machine, work: &Work, blocks: Matrix) {
        let kernels = &machine.kernels;
        match work {
            Work::Blocks { a, outs, b, within, ranges, factor, target, leading, add } => {
                let c = blocks.at(0, 0);
                std::ptr::write_bytes(c, 0, outs.len() * BLOCK);
                for rows in &self.ranges[*ranges] {
                    let (a, b) = (a.from(0, rows.start), b.add(rows.start * PANEL));
                    (kernels.outer)(&Outer { a, panels: outs.len(), b, rows: rows.len(), c });
                }
                for (i, out) in outs.iter().enumerate() {
                    for line in 0..out.count {
                        let from = c.add(i * BLOCK + line * PANEL);
                        let to = target.add((out.first + line) * leading + within.first);
                        for column in 0..within.count {
                            let value = factor * *from.add(column);
                            *to.add(column) = if *add { *to.add(column) + value } else { value };
                        }
                    }
                }
            }
            Work::Sum { of, columns, ranges, target } => {
                let mut sum = [0f32; PANEL];
                for rows in &self.ranges[*ranges] {
                    let of = of.add(rows.start * PANEL);
                    (kernels.sum_rows)(&SumRows { of, rows: rows.len(), sum: sum.as_mut_ptr() });
                }
                std::ptr::copy_nonoverlapping(sum.as_ptr(), target.add(columns.first), columns.count);
            }
            Work::Gains { of, columns, ranges, gain, bias } => {
                let (mut dgain, mut dbias) = ([0f32; PANEL], [0f32; PANEL]);
                for of in of {
                    for rows in &self.ranges[*ranges] {
                        (kernels.normalise_gains)(&NormaliseGains {
                            dy: of.dy.add(rows.start * PANEL),
                            x: of.x.add(rows.start * PANEL),
                            rows: rows.len(),
                            mean: of.mean.add(rows.start),
                            scale: of.scale.add(rows.start),
                            dgain: dgain.as_mut_ptr(),
                            dbias: dbias.as_mut_ptr(),
                        });
                    }
                }
                for (sum, target) in [(dgain, gain), (dbias, bias)] {
                    if !target.is_null() {
                        std::ptr::copy_nonoverlapping(sum.as_ptr(), target.add(columns.first), columns.count);
                    }
                }
            }
        }
    }
}

/// Adds the rows of `dx` to the vectors of their tokens: `target[token] += dx[row]`, rows in order.
///
/// # Safety
/// As [`Jobs::run`]; `target` holds numbers already.
pub(super) unsafe fn embedding(machine: &Machine, dx: Matrix, tokens: &[u32], width: usize, target: &Target) {
    machine.pool.tasks(width.div_ceil(PANEL), |_, panel| {
        let count = PANEL.min(width - panel * PANEL);
        for (row, &token) in tokens.iter().enumerate() {
            let (from, to) = (dx.at(panel, row), target.start.add(token as usize * width + panel * PANEL));
            for i in 0..count {
                *to.add(i) += *from.add(i);
            }
        }
    });
}

/// A buffer that goes back where it came from.
pub(super) struct Borrowed<'a> {
    machine: &'a Machine,
    pub buffer: Option<Buffer>,
}

impl<'a> Borrowed<'a> {
    /// Places made by `lay` in one buffer.
    pub fn places<T>(machine: &'a Machine, lay: impl Fn(&mut Arena) -> T) -> (Self, T) {
        let mut measure = Arena::measuring();
        lay(&mut measure);
        let buffer = machine.spare.take(measure.len());
        let places = lay(&mut Arena::of(&buffer));
        (Self { machine, buffer: Some(buffer) }, places)
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.machine.spare.give(self.buffer.take().expect("given back once"));
    }
}

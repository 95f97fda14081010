//! What is read at the end of a pass: final states, or log-probabilities and entropies of tokens, and the way back from
//! their gradients.
//!
//! Logits exist for some rows at a time; where those of all rows are few they are kept for the backward pass, else they
//! are computed again.

use std::fmt;
use std::sync::Arc;

use super::backward::{Gradients, Targets, bias_of};
use super::forward::{Pass, Wanted};
use super::gradients::{Borrowed, Jobs, NormRows, Target};
use super::shape::{Layout, Linear};
use super::weights::{Packed, Weights};
use crate::buffer::{Arena, Buffer};
use crate::norm::NormaliseBack;
use crate::panel::{Matrix, PANEL};
use crate::pool::share;
use crate::softmax::{RowGradient, RowSoftmax, Softmax, SoftmaxBack};

/// Logits kept at most, elements: 16 MiB.
const KEPT: usize = 1 << 22;
/// Rows a task takes.
const ROWS: usize = 64;

/// Sets logits of a row that take no part to minus infinity, given the row and its target.
pub type Cut = Arc<dyn Fn(&mut [f32], u32) + Send + Sync>;

/// How tokens are scored.
#[derive(Clone)]
pub struct Scoring {
    /// The token that each read row is asked about.
    pub targets: Vec<u32>,
    /// What logits are divided by.
    pub divisor: f32,
    /// Truncation, where there is some.
    pub cut: Option<Cut>,
}

impl fmt::Debug for Scoring {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Scoring of {} tokens / {}", self.targets.len(), self.divisor)
    }
}

/// The read rows: the stream before the final norm, and after it.
#[derive(Debug)]
struct Read {
    n: usize,
    x: Matrix,
    y: Matrix,
    low: Matrix,
    mean: *mut f32,
    scale: *mut f32,
    /// Of `chunk` rows.
    logits: Matrix,
    chunk: usize,
}

// SAFETY: places only; tasks write disjoint rows.
unsafe impl Send for Read {}
// SAFETY: as above.
unsafe impl Sync for Read {}

impl Read {
    fn new(arena: &mut Arena, weights: &Weights, n: usize, logits: bool) -> Self {
        let shape = &weights.shape;
        let rank = weights.head.as_ref().and_then(|h| h.adapter.as_ref()).map_or(0, |a| a.down.outs().len());
        let vocab = shape.vocab_panels();
        let chunk = if n * vocab * PANEL <= KEPT { n } else { (KEPT / (vocab * PANEL)).clamp(16, n.max(16)) };
        Self {
            n,
            x: arena.matrix(shape.stream(), n),
            y: arena.matrix(shape.stream(), n),
            low: arena.matrix(rank, n),
            mean: arena.take(n),
            scale: arena.take(n),
            logits: arena.matrix(if logits { vocab } else { 0 }, chunk),
            chunk,
        }
    }
}

/// Final states or scores of a pass's read rows, with what a backward pass needs.
#[derive(Debug)]
pub struct Outputs {
    pass: Pass,
    read: Read,
    scored: Option<(Scoring, Vec<RowSoftmax>)>,
    /// Log-probability of each target, nats; empty where states were asked for.
    pub log_probs: Vec<f32>,
    buffer: Option<Buffer>,
}

impl Drop for Outputs {
    fn drop(&mut self) {
        self.pass.machine.spare.give(self.buffer.take().expect("given back once"));
    }
}

impl Pass {
    fn outputs(self, weights: &Weights, logits: bool) -> Outputs {
        let n = self.batch.reads.len();
        let mut measure = Arena::measuring();
        Read::new(&mut measure, weights, n, logits);
        let buffer = self.machine.spare.take(measure.len());
        let read = Read::new(&mut Arena::of(&buffer), weights, n, logits);
        // SAFETY: every task writes its own rows of the places just made.
        unsafe {
            let (run, read) = (self.run(weights), &read);
            let x = self.places.xs[weights.shape.layers()];
            let parts = n.div_ceil(ROWS);
            self.machine.pool.tasks(parts, |_, part| {
                let rows = share(n, part, parts);
                for panel in 0..weights.shape.stream() {
                    for row in rows.clone() {
                        let from = x.at(panel, self.batch.reads[row]);
                        std::ptr::copy_nonoverlapping(from, read.x.at(panel, row), PANEL);
                    }
                }
                let y = read.y.from(0, rows.start);
                let norm = run.norm(&weights.model.final_norm, [read.mean, read.scale], read.x, y, rows);
                (self.machine.kernels.normalise)(&norm);
            });
        }
        Outputs { pass: self, read, scored: None, log_probs: Vec::new(), buffer: Some(buffer) }
    }

    /// States after the final norm of the rows that are read.
    pub fn states(self, weights: &Weights) -> Outputs {
        self.outputs(weights, false)
    }

    /// Log-probabilities of tokens under the distributions of the rows that are read.
    ///
    /// # Panics
    /// When there is no head, a target is outside of the vocabulary, or there are not as many as rows.
    pub fn scores(self, weights: &Weights, scoring: Scoring) -> Outputs {
        let vocab = weights.shape.vocab;
        assert!(scoring.targets.len() == self.batch.reads.len(), "a target for every row that is read");
        assert!(scoring.targets.iter().all(|&t| (t as usize) < vocab), "targets of the vocabulary");
        let mut outputs = self.outputs(weights, true);
        let n = outputs.read.n;
        let mut softmaxes = vec![RowSoftmax::default(); n];
        outputs.log_probs = vec![0.0; n];
        let (softmax, log_probs) = (Shared(softmaxes.as_mut_ptr()), Shared(outputs.log_probs.as_mut_ptr()));
        for first in (0..n).step_by(outputs.read.chunk) {
            // SAFETY: rows of the chunk are computed before they are looked at, each by one task.
            unsafe { outputs.logits_of(weights, &scoring, first, Some((&softmax, &log_probs))) };
        }
        outputs.scored = Some((scoring, softmaxes));
        outputs
    }
}

/// An array that tasks write in disjoint parts.
struct Shared<T>(*mut T);

// SAFETY: a place only.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn at(&self, i: usize) -> *mut T {
        self.0.wrapping_add(i)
    }
}

impl Outputs {
    /// Entropy of each row's distribution, nats.
    pub fn entropies(&self) -> Vec<f32> {
        self.scored.iter().flat_map(|(_, softmaxes)| softmaxes.iter().map(|s| s.entropy)).collect()
    }

    /// The final states, `[rows, width]`.
    pub fn states(&self, weights: &Weights) -> Vec<f32> {
        let width = weights.shape.width;
        let mut states = Vec::with_capacity(self.read.n * width);
        for row in 0..self.read.n {
            for column in crate::panel::panels(0, width) {
                let from = self.read.y.at(column.first / PANEL, row);
                // SAFETY: the row has these columns.
                states.extend_from_slice(unsafe { std::slice::from_raw_parts(from, column.count) });
            }
        }
        states
    }

    /// Whether a backward pass is possible.
    pub fn has_gradient(&self) -> bool {
        self.pass.has_gradient()
    }

    fn head(weights: &Weights) -> &Linear<Arc<Packed>> {
        weights.head.as_ref().expect("a model with a head")
    }

    /// Logits of the chunk that begins at row `first`, and their softmaxes where these are asked for.
    unsafe fn logits_of(
        &self,
        weights: &Weights,
        scoring: &Scoring,
        first: usize,
        results: Option<(&Shared<RowSoftmax>, &Shared<f32>)>,
    ) {
        let (read, run, head) = (&self.read, self.pass.run(weights), Self::head(weights));
        let (vocab, panels) = (weights.shape.vocab, weights.shape.vocab_panels());
        let n = read.chunk.min(read.n - first);
        let parts = n.div_ceil(ROWS);
        self.pass.machine.pool.tasks(parts, |_, part| {
            let rows = share(n, part, parts);
            let (at, count) = (first + rows.start, rows.len());
            let (y, logits) = (read.y.from(0, at), read.logits.from(0, rows.start));
            run.lower(head, y, read.low.from(0, at), count);
            run.linear(head, 0..panels, y, logits, Matrix::NONE, read.low.from(0, at), count);
            if let Some(cut) = &scoring.cut {
                for row in 0..count {
                    cut_row(logits, row, vocab, |line| cut(line, scoring.targets[at + row]));
                }
            }
            if let Some((softmaxes, log_probs)) = results {
                let (divisor, out) = (scoring.divisor, softmaxes.at(at));
                (run.machine.kernels.softmax)(&Softmax { logits, vocab, rows: count, divisor, out });
                for row in 0..count {
                    let target = scoring.targets[at + row] as usize;
                    let logit = *logits.at(target / PANEL, row).add(target % PANEL);
                    *log_probs.at(at + row) = (*softmaxes.at(at + row)).log_p(logit, divisor);
                }
            }
        });
    }

    /// Gradients of parameters from those of log-probabilities and entropies.
    ///
    /// # Panics
    /// When states were asked for, or no gradient was wanted.
    pub fn back_scores(&self, weights: &Weights, d_log_probs: &[f32], d_entropies: &[f32]) -> Gradients {
        let (scoring, softmaxes) = self.scored.as_ref().expect("scores were asked for");
        let of: Vec<RowGradient> = (0..self.read.n)
            .map(|row| {
                // What cannot be drawn stays so, whichever way the logits move a little.
                let possible = self.log_probs[row] > f32::NEG_INFINITY;
                let RowSoftmax { max, log_sum, entropy } = softmaxes[row];
                RowGradient {
                    target: scoring.targets[row],
                    entropy,
                    log_sum: max + log_sum,
                    d_log_p: if possible { d_log_probs[row] } else { 0.0 },
                    d_entropy: d_entropies[row],
                }
            })
            .collect();
        self.back(weights, |dy, dlow, targets| {
            let (read, run, head) = (&self.read, self.pass.run(weights), Self::head(weights));
            let (vocab, panels) = (weights.shape.vocab, weights.shape.vocab_panels());
            for first in (0..read.n).step_by(read.chunk) {
                let n = read.chunk.min(read.n - first);
                // SAFETY: each task takes its own rows; the products of weights come when all are done.
                unsafe {
                    if read.chunk < read.n {
                        self.logits_of(weights, scoring, first, None);
                    }
                    let parts = n.div_ceil(ROWS);
                    self.pass.machine.pool.tasks(parts, |_, part| {
                        let rows = share(n, part, parts);
                        let (at, count) = (first + rows.start, rows.len());
                        let logits = read.logits.from(0, rows.start);
                        let (divisor, of) = (scoring.divisor, of[at..].as_ptr());
                        (run.machine.kernels.softmax_back)(&SoftmaxBack { logits, vocab, rows: count, divisor, of });
                        run.pull(head, 0..panels, logits, dy.from(0, at), Matrix::NONE, dlow.from(0, at), count);
                    });
                    self.head_jobs(weights, targets, first..first + n, dlow);
                }
            }
        })
    }

    /// Gradients of the head's parameters from those of a chunk's logits.
    unsafe fn head_jobs(&self, weights: &Weights, targets: &Targets, rows: std::ops::Range<usize>, dlow: Matrix) {
        let (read, head, width) = (&self.read, Self::head(weights), weights.shape.width);
        let add = rows.start > 0;
        let mut jobs = Jobs::new();
        jobs.over(vec![0..rows.len()]);
        let (outs, ins) = (head.weight.outs(), head.weight.ins());
        let at = |m: Matrix| m.from(0, rows.start);
        let own = targets.head.as_ref();
        let tied = if weights.tied { targets.embedding.as_ref() } else { None };
        if let Some(target) = tied.or(own.and_then(|h| h.weight.as_ref())) {
            jobs.weight((read.logits, outs), (at(read.y), ins), width, 1.0, target, add || tied.is_some());
        }
        let adapters = head.adapter.as_ref().zip(own.and_then(|h| h.adapter.as_ref()));
        if let Some((adapter, targets)) = adapters {
            let rank = adapter.up.ins();
            if let Some(target) = &targets.up {
                jobs.weight((read.logits, outs), (at(read.low), rank), adapter.rank, adapter.scaling, target, add);
            }
            if let Some(target) = &targets.down {
                jobs.weight((at(dlow), rank), (at(read.y), ins), width, 1.0, target, add);
            }
        }
        jobs.run(&self.pass.machine);
    }

    /// Gradients of parameters from those of the states, `[rows, width]`.
    ///
    /// # Panics
    /// When no gradient was wanted.
    pub fn back_states(&self, weights: &Weights, d_states: &[f32]) -> Gradients {
        let width = weights.shape.width;
        assert_eq!(d_states.len(), self.read.n * width, "a gradient for every state");
        self.back(weights, |dy, _, _| {
            for (row, d) in d_states.chunks_exact(width).enumerate() {
                for column in crate::panel::panels(0, width) {
                    let mut lines = [0f32; PANEL];
                    lines[..column.count].copy_from_slice(&d[column.first..column.first + column.count]);
                    // SAFETY: `dy` has a panel here.
                    unsafe { std::ptr::copy_nonoverlapping(lines.as_ptr(), dy.at(column.first / PANEL, row), PANEL) };
                }
            }
        })
    }

    /// From the gradient of the states, which `fill` writes (with that of the head's `x A^T`, and the head's own), back.
    fn back(&self, weights: &Weights, fill: impl FnOnce(Matrix, Matrix, &Targets)) -> Gradients {
        let wanted: &Wanted = self.pass.wanted.as_ref().expect("a gradient was wanted");
        let (read, machine, shape) = (&self.read, &self.pass.machine, &weights.shape);
        let layouts = shape.layouts(&weights.model);
        let mut targets: Targets = layouts.zip(&wanted.of).map(|(layout, wanted)| wanted.then(|| Target::new(layout)));
        if let Some(target) = &mut targets.embedding {
            *target = Target::zeros(&layouts.embedding);
        }
        if let (Some(head), None) = (&mut targets.head, &self.scored) {
            // Nobody asked the head.
            let head_layouts = layouts.head.as_ref().expect("the same form");
            zero(head, head_layouts);
        }
        let rank = weights.head.as_ref().and_then(|h| h.adapter.as_ref()).map_or(0, |a| a.down.outs().len());
        let (_buffer, (dy, dx, dlow)) = Borrowed::places(machine, |arena| {
            let stream = |arena: &mut Arena| arena.matrix(shape.stream(), read.n);
            (stream(arena), stream(arena), arena.matrix(rank, read.n))
        });
        fill(dy, dlow, &targets);
        let norm = &weights.model.final_norm;
        // SAFETY: the places hold the read rows, and every task writes its own.
        unsafe {
            let parts = read.n.div_ceil(ROWS);
            machine.pool.tasks(parts, |_, part| {
                let rows = share(read.n, part, parts);
                let at = |m: Matrix| m.from(0, rows.start);
                (machine.kernels.normalise_back)(&NormaliseBack {
                    dy: at(dy),
                    x: at(read.x),
                    plus: Matrix::NONE,
                    dx: at(dx),
                    width: shape.width,
                    rows: rows.len(),
                    gain: norm.gain.forward(),
                    centred: norm.bias.is_some(),
                    mean: read.mean.wrapping_add(rows.start),
                    scale: read.scale.wrapping_add(rows.start),
                });
            });
            let mut jobs = Jobs::new();
            jobs.over(vec![0..read.n]);
            let rows = |panel: usize| {
                vec![NormRows { dy: dy.at(panel, 0), x: read.x.at(panel, 0), mean: read.mean, scale: read.scale }]
            };
            let of = &targets.final_norm;
            jobs.norm(norm.gain.outs(), rows, of.gain.as_ref(), bias_of(of));
            jobs.run(machine);
            let batch = &self.pass.batch;
            let fill = |next: Matrix| {
                machine.pool.tasks(shape.stream(), |_, panel| {
                    for unit in &batch.units {
                        let live = unit.live_range();
                        std::ptr::write_bytes(next.at(panel, live.start), 0, live.len() * PANEL);
                    }
                    for (i, &row) in batch.reads.iter().enumerate() {
                        let (from, to) = (dx.at(panel, i), next.at(panel, row));
                        for column in 0..PANEL {
                            *to.add(column) += *from.add(column);
                        }
                    }
                });
            };
            self.pass.back_through(weights, wanted, targets, fill)
        }
    }
}

/// Makes the wanted targets of a map zeros.
fn zero(head: &mut Linear<Option<Target>>, layouts: &Linear<Layout>) {
    let put = |target: &mut Option<Target>, layout: &Layout| {
        if target.is_some() {
            *target = Some(Target::zeros(layout));
        }
    };
    put(&mut head.weight, &layouts.weight);
    if let (Some(adapter), Some(layouts)) = (&mut head.adapter, &layouts.adapter) {
        put(&mut adapter.down, &layouts.down);
        put(&mut adapter.up, &layouts.up);
    }
}

/// One row of logits as a line that `f` may change.
unsafe fn cut_row(logits: Matrix, row: usize, vocab: usize, f: impl FnOnce(&mut [f32])) {
    let mut line = vec![0f32; vocab];
    for column in crate::panel::panels(0, vocab) {
        let from = logits.at(column.first / PANEL, row);
        std::ptr::copy_nonoverlapping(from, line[column.first..].as_mut_ptr(), column.count);
    }
    f(&mut line);
    for column in crate::panel::panels(0, vocab) {
        let to = logits.at(column.first / PANEL, row);
        std::ptr::copy_nonoverlapping(line[column.first..].as_ptr(), to, column.count);
    }
}

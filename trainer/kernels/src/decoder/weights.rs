//! A decoder's parameters as panels: what products read, made from row-major weights.

use std::sync::{Arc, Mutex};

use super::Machine;
use super::shape::{Layout, Linear, Model, Shape};
use crate::buffer::Buffer;
use crate::panel::{BLOCK, Columns, PANEL, panels};
use crate::rows::PackBlock;

/// A parameter in panels, a part of a buffer that many share: panels lie in few large pages.
#[derive(Debug)]
pub struct Packed {
    layout: Layout,
    buffer: Arc<Buffer>,
    /// Of a matrix: right operand of `x W^T`, `[outs][ins][32][32]`. Of a vector: `[panels * 32]`. Of a table:
    /// `[lines][panels * 32]`.
    forward: usize,
    /// Of a matrix whose input has a gradient: right operand of `dy W`, `[ins][outs][32][32]`.
    backward: Option<usize>,
}

/// Elements of a parameter's panels.
fn panels_of(layout: &Layout) -> usize {
    match layout {
        Layout::Matrix { outs, ins, .. } => outs.len() * ins.len() * BLOCK,
        Layout::Vector(columns) => columns.len() * PANEL,
        Layout::Table { lines, columns } => lines * columns.next_multiple_of(PANEL),
    }
}

/// Panels, not yet filled, of each layout and whether a backward pass reads it; none where the panels are there already.
fn reserve(all: Vec<Option<(Layout, bool)>>) -> Vec<Option<Arc<Packed>>> {
    let mut len = 0;
    let mut take = |n: usize| {
        len += n;
        len - n
    };
    // All that a forward pass reads lies together.
    let forward: Vec<usize> =
        all.iter().map(|of| of.as_ref().map_or(0, |(layout, _)| take(panels_of(layout)))).collect();
    let backward: Vec<Option<usize>> = all
        .iter()
        .map(|of| match of {
            Some((layout @ Layout::Matrix { .. }, true)) => Some(take(panels_of(layout))),
            _ => None,
        })
        .collect();
    let buffer = Arc::new(Buffer::zeros(len));
    all.into_iter()
        .zip(forward.into_iter().zip(backward))
        .map(|(of, (forward, backward))| {
            of.map(|(layout, _)| Arc::new(Packed { layout, buffer: buffer.clone(), forward, backward }))
        })
        .collect()
}

impl Packed {
    /// Where the panels begin.
    #[inline(always)]
    pub(super) fn forward(&self) -> *const f32 {
        self.place(self.forward)
    }

    #[inline(always)]
    fn place(&self, at: usize) -> *mut f32 {
        self.buffer.start().wrapping_add(at)
    }

    /// Where the panels of the backward product begin.
    ///
    /// # Panics
    /// When the model was packed for the forward pass alone.
    #[inline(always)]
    pub(super) fn backward(&self) -> *const f32 {
        self.place(self.backward.expect("packed for training"))
    }

    /// Whether a backward pass can read it.
    pub fn trains(&self) -> bool {
        self.backward.is_some() || !matches!(self.layout, Layout::Matrix { .. })
    }

    /// Panels of outputs.
    #[inline(always)]
    pub(super) fn outs(&self) -> &[Columns] {
        match &self.layout {
            Layout::Matrix { outs, .. } => outs,
            Layout::Vector(columns) => columns,
            Layout::Table { .. } => &[],
        }
    }

    /// Panels of inputs.
    #[inline(always)]
    pub(super) fn ins(&self) -> &[Columns] {
        match &self.layout {
            Layout::Matrix { ins, .. } => ins,
            _ => &[],
        }
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }
}

/// One block of work of packing.
struct Piece<'a> {
    packed: &'a Packed,
    source: &'a [f32],
    part: usize,
}

impl Piece<'_> {
    fn parts(layout: &Layout) -> usize {
        match layout {
            Layout::Matrix { outs, .. } => outs.len(),
            Layout::Vector(_) => 1,
            Layout::Table { lines, .. } => lines.div_ceil(64),
        }
    }

    /// # Safety
    /// Nobody else reads or writes this part of the panels.
    unsafe fn pack(&self, machine: &Machine) {
        let target = self.packed.place(self.packed.forward);
        match &self.packed.layout {
            Layout::Matrix { outs, ins, inputs, factor } => {
                let out = outs[self.part];
                for (i, within) in ins.iter().enumerate() {
                    let back = |at: usize| self.packed.place(at + (i * outs.len() + self.part) * BLOCK);
                    (machine.kernels.pack_block)(&PackBlock {
                        source: self.source[out.first * inputs + within.first..].as_ptr(),
                        leading: *inputs,
                        lines: out.count,
                        columns: within.count,
                        factor: *factor,
                        same: self.packed.backward.map_or(std::ptr::null_mut(), back),
                        transposed: target.add((self.part * ins.len() + i) * BLOCK),
                    });
                }
            }
            Layout::Vector(columns) => {
                for (panel, c) in columns.iter().enumerate() {
                    let source = self.source[c.first..c.first + c.count].as_ptr();
                    std::ptr::copy_nonoverlapping(source, target.add(panel * PANEL), c.count);
                }
            }
            Layout::Table { lines, columns } => {
                let stride = columns.next_multiple_of(PANEL);
                for line in self.part * 64..(self.part * 64 + 64).min(*lines) {
                    let source = self.source[line * columns..][..*columns].as_ptr();
                    std::ptr::copy_nonoverlapping(source, target.add(line * stride), *columns);
                }
            }
        }
    }
}

/// All parameters of a decoder in panels, with the angles of its positions.
#[derive(Debug)]
pub struct Weights {
    pub(super) shape: Shape,
    pub(super) model: Model<Arc<Packed>>,
    /// The head: the model's own, or the embedding once more.
    pub(super) head: Option<Linear<Arc<Packed>>>,
    pub(super) tied: bool,
    /// `[positions][2 * pairs]`: cosines, then sines, of as many positions as were asked for yet.
    turns: Mutex<Arc<Vec<f32>>>,
}

impl Weights {
    /// The panels of `source`, of which those that `ready` holds are taken as they are (frozen ones that another model has
    /// packed). `tied`: the head is the embedding. `trains`: whether a backward pass goes through a parameter's map.
    ///
    /// # Panics
    /// When a parameter's length is not what the shape says.
    pub fn new(
        machine: &Machine,
        shape: Shape,
        source: &Model<&[f32]>,
        ready: &Model<Option<Arc<Packed>>>,
        tied: bool,
        trains: &Model<bool>,
    ) -> Self {
        let layouts = shape.layouts(source);
        let expected = layouts.leaves().into_iter().zip(source.leaves()).zip(ready.leaves());
        for ((layout, slice), ready) in expected {
            assert_eq!(layout.len(), slice.len(), "a parameter's length");
            assert!(ready.as_ref().is_none_or(|ready| ready.layout == *layout), "panels of another parameter");
        }
        let any = trains.leaves().into_iter().any(|&trains| trains);
        let pairs = layouts.leaves().into_iter().zip(ready.leaves()).zip(trains.leaves());
        let mut wanted: Vec<Option<(Layout, bool)>> =
            pairs.map(|((layout, ready), &trains)| ready.is_none().then(|| (layout.clone(), trains))).collect();
        wanted.extend(tied.then(|| {
            let (outs, ins) = (panels(0, shape.vocab).collect(), panels(0, shape.width).collect());
            Some((Layout::Matrix { outs, ins, inputs: shape.width, factor: 1.0 }, any))
        }));
        let mut reserved = reserve(wanted).into_iter();
        let model = ready.map(|ready| {
            let reserved = reserved.next().expect("one for each");
            reserved.or_else(|| ready.clone()).expect("ready or reserved")
        });
        let head = match reserved.next().flatten() {
            Some(weight) => Some(Linear { weight, bias: None, adapter: None }),
            None => model.head.clone(),
        };
        let weights = Self { shape, model, head, tied, turns: Mutex::default() };
        weights.write(machine, source, &ready.map(Option::is_none));
        weights
    }

    /// Packs again those parameters that `stale` names.
    ///
    /// # Panics
    /// When a parameter's length has changed.
    pub fn renew(&mut self, machine: &Machine, source: &Model<&[f32]>, stale: &Model<bool>) {
        for (packed, slice) in self.model.leaves().into_iter().zip(source.leaves()) {
            assert_eq!(packed.layout.len(), slice.len(), "a parameter's length");
        }
        self.write(machine, source, stale);
    }

    /// The packed parameters, for other models that hold the same.
    pub fn packed(&self) -> &Model<Arc<Packed>> {
        &self.model
    }

    /// What a decoder is made of.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Cosines and sines of the angles at positions below `positions`, `[positions][2 * pairs]`.
    pub(super) fn turns(&self, positions: usize) -> Arc<Vec<f32>> {
        let mut turns = self.turns.lock().expect("no thread panics while it holds the angles");
        let frequencies = &self.shape.frequencies;
        let have = turns.len() / (2 * frequencies.len()).max(1);
        if have < positions && !frequencies.is_empty() {
            let all = Arc::make_mut(&mut turns);
            for position in have..positions.next_power_of_two() {
                let angle = |&f: &f32| f64::from(position as f32 * f);
                all.extend(frequencies.iter().map(|f| angle(f).cos() as f32));
                all.extend(frequencies.iter().map(|f| angle(f).sin() as f32));
            }
        }
        turns.clone()
    }

    fn write(&self, machine: &Machine, source: &Model<&[f32]>, stale: &Model<bool>) {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut add = |packed, source| {
            let layout: &Layout = Packed::layout(packed);
            pieces.extend((0..Piece::parts(layout)).map(|part| Piece { packed, source, part }));
        };
        for ((packed, source), stale) in self.model.leaves().into_iter().zip(source.leaves()).zip(stale.leaves()) {
            if *stale {
                add(packed.as_ref(), source);
            }
        }
        if let (true, Some(head), true) = (self.tied, &self.head, stale.embedding) {
            add(head.weight.as_ref(), source.embedding);
        }
        // SAFETY: every part of every parameter is one task's. What is stale is written only under `&mut self`, or before
        // anyone else sees it.
        machine.pool.tasks(pieces.len(), |_, i| unsafe { pieces[i].pack(machine) });
    }
}

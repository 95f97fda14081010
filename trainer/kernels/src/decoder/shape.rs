//! What a decoder is made of, and the tree of its parameters.

use crate::panel::{Columns, PANEL, panels};
use crate::rows::Activation;

/// How the outputs of the projections to queries, keys and values lie in their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// One map: query, key and value of a head side by side, head after head (GPT-NeoX); as many keys as queries.
    PerHead,
    /// A map each.
    PerPart,
}

/// Sizes and arithmetic of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Width of the residual stream.
    pub width: usize,
    /// Width of the feed-forward part.
    pub inner: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, a divisor of `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Layout of the projections.
    pub packing: Packing,
    /// Added to the variance. A norm with a bias takes the mean off, one without normalises by the root mean square.
    pub eps: f32,
    /// The nonlinearity.
    pub activation: Activation,
    /// `x + attention(x) + mlp(x)`; else the second branch sees the first one's sum.
    pub parallel: bool,
    /// How many positions each layer's tokens see, their own included; none: all before.
    pub windows: Vec<Option<usize>>,
    /// Radians a position of each rotated pair: pair i is components i and i + their number.
    pub frequencies: Vec<f32>,
}

impl Shape {
    /// Blocks.
    pub fn layers(&self) -> usize {
        self.windows.len()
    }

    /// Panels of the residual stream.
    pub fn stream(&self) -> usize {
        self.width.div_ceil(PANEL)
    }

    /// Panels of the feed-forward part.
    pub fn inner_panels(&self) -> usize {
        self.inner.div_ceil(PANEL)
    }

    /// Panels of the vocabulary.
    pub fn vocab_panels(&self) -> usize {
        self.vocab.div_ceil(PANEL)
    }

    /// Panels of a head.
    pub fn depth(&self) -> usize {
        self.head_dim.div_ceil(PANEL)
    }

    /// Panels of all queries, and of the context.
    pub fn query_panels(&self) -> usize {
        self.heads * self.depth()
    }

    /// Panels of all keys, and of all values.
    pub fn key_panels(&self) -> usize {
        self.kv_heads * self.depth()
    }

    /// What scores are multiplied by.
    pub fn scale(&self) -> f32 {
        (self.head_dim as f64).powf(-0.5) as f32
    }

    /// The window of a layer.
    pub fn window(&self, layer: usize) -> usize {
        self.windows[layer].unwrap_or(usize::MAX)
    }

    /// The panels of `heads` heads, `apart` columns of the file from one to the next.
    fn heads_of(&self, first: usize, heads: usize, apart: usize) -> impl Iterator<Item = Columns> {
        let dim = self.head_dim;
        (0..heads).flat_map(move |head| panels(first + head * apart, dim))
    }

    /// The panels of each projection's outputs: queries, keys and values of all heads in this order.
    pub(super) fn projected(&self) -> Vec<Vec<Columns>> {
        let (dim, keys) = (self.head_dim, self.kv_heads);
        match self.packing {
            Packing::PerHead => {
                let part = |i: usize| self.heads_of(i * dim, self.heads, 3 * dim);
                vec![part(0).chain(part(1)).chain(part(2)).collect()]
            }
            Packing::PerPart => {
                [self.heads, keys, keys].into_iter().map(|heads| self.heads_of(0, heads, dim).collect()).collect()
            }
        }
    }

    /// The panels of the context.
    pub(super) fn context(&self) -> Vec<Columns> {
        self.heads_of(0, self.heads, self.head_dim).collect()
    }

    /// Parts of the packed queries, keys and values: (projection, panels of its outputs, first panel in the packed rows,
    /// whether these are queries).
    pub(super) fn parts(&self) -> Vec<(usize, std::ops::Range<usize>, usize, bool)> {
        let (q, k) = (self.query_panels(), self.key_panels());
        match self.packing {
            Packing::PerHead => vec![(0, 0..q, 0, true), (0, q..q + 2 * k, q, false)],
            Packing::PerPart => vec![(0, 0..q, 0, true), (1, 0..k, q, false), (2, 0..k, q + k, false)],
        }
    }
}

/// A low-rank correction `scaling * up down` of a linear map (LoRA: Hu et al., arXiv 2106.09685).
#[derive(Debug, Clone)]
pub struct Adapter<T> {
    /// `[rank, inputs]`.
    pub down: T,
    /// `[outputs, rank]`.
    pub up: T,
    /// Its rank and factor.
    pub rank: usize,
    pub scaling: f32,
}

/// `x W^T + b`.
#[derive(Debug, Clone)]
pub struct Linear<T> {
    /// `[outputs, inputs]`.
    pub weight: T,
    /// `[outputs]`.
    pub bias: Option<T>,
    /// The correction, where there is one.
    pub adapter: Option<Adapter<T>>,
}

/// A norm: gain and, in layer norms, bias, each `[width]`.
#[derive(Debug, Clone)]
pub struct Norm<T> {
    pub gain: T,
    pub bias: Option<T>,
}

/// One block.
#[derive(Debug, Clone)]
pub struct Block<T> {
    pub attention_norm: Norm<T>,
    /// One map, or those of queries, keys and values: see [`Packing`].
    pub projections: Vec<Linear<T>>,
    /// Gains of the norms of every head's query and key, `[head_dim]` (Qwen 3).
    pub head_norms: Option<[T; 2]>,
    pub out: Linear<T>,
    pub mlp_norm: Norm<T>,
    /// With a gate: `down(act(gate x) up x)`.
    pub gate: Option<Linear<T>>,
    pub up: Linear<T>,
    pub down: Linear<T>,
}

/// Something for every parameter of a decoder: its values, its panels, its gradient.
#[derive(Debug, Clone)]
pub struct Model<T> {
    /// `[vocab, width]`.
    pub embedding: T,
    pub blocks: Vec<Block<T>>,
    pub final_norm: Norm<T>,
    /// `[vocab, width]`; none in a trunk, and where the head is the embedding.
    pub head: Option<Linear<T>>,
}

impl<T> Linear<T> {
    fn map<'a, U>(&'a self, f: &mut impl FnMut(&'a T) -> U) -> Linear<U> {
        Linear {
            weight: f(&self.weight),
            bias: self.bias.as_ref().map(&mut *f),
            adapter: self.adapter.as_ref().map(|a| Adapter {
                down: f(&a.down),
                up: f(&a.up),
                rank: a.rank,
                scaling: a.scaling,
            }),
        }
    }
}

impl<T> Linear<T> {
    fn into_leaves(self, all: &mut Vec<T>) {
        all.push(self.weight);
        all.extend(self.bias);
        all.extend(self.adapter.into_iter().flat_map(|a| [a.down, a.up]));
    }
}

impl<T> Norm<T> {
    fn into_leaves(self, all: &mut Vec<T>) {
        all.push(self.gain);
        all.extend(self.bias);
    }

    fn map<'a, U>(&'a self, f: &mut impl FnMut(&'a T) -> U) -> Norm<U> {
        Norm { gain: f(&self.gain), bias: self.bias.as_ref().map(f) }
    }
}

impl<T> Model<T> {
    /// The tree of `f` of every parameter, visited in one fixed order.
    pub fn map<'a, U>(&'a self, mut f: impl FnMut(&'a T) -> U) -> Model<U> {
        let f = &mut f;
        Model {
            embedding: f(&self.embedding),
            blocks: self.blocks.iter().map(|block| block.map(f)).collect(),
            final_norm: self.final_norm.map(f),
            head: self.head.as_ref().map(|head| head.map(f)),
        }
    }

    /// All parameters, in that order.
    pub fn leaves(&self) -> Vec<&T> {
        let mut all = Vec::new();
        self.map(|leaf| all.push(leaf));
        all
    }

    /// All parameters by value, in that order.
    pub fn into_leaves(self) -> Vec<T> {
        let mut all = vec![self.embedding];
        for block in self.blocks {
            let Block { attention_norm, projections, head_norms, out, mlp_norm, gate, up, down } = block;
            attention_norm.into_leaves(&mut all);
            projections.into_iter().for_each(|linear| linear.into_leaves(&mut all));
            all.extend(head_norms.into_iter().flatten());
            out.into_leaves(&mut all);
            mlp_norm.into_leaves(&mut all);
            gate.into_iter().chain([up, down]).for_each(|linear| linear.into_leaves(&mut all));
        }
        self.final_norm.into_leaves(&mut all);
        self.head.into_iter().for_each(|linear| linear.into_leaves(&mut all));
        all
    }

    /// The tree of pairs with another tree of the same form.
    ///
    /// # Panics
    /// When the forms differ.
    pub fn zip<'a, U>(&'a self, other: &'a Model<U>) -> Model<(&'a T, &'a U)> {
        let (mine, theirs) = (self.leaves(), other.leaves());
        assert_eq!(mine.len(), theirs.len(), "two trees of parameters differ");
        let mut pairs = mine.into_iter().zip(theirs);
        self.map(|_| pairs.next().expect("as many as there are leaves"))
    }
}

impl<T> Block<T> {
    pub(super) fn map<'a, U>(&'a self, f: &mut impl FnMut(&'a T) -> U) -> Block<U> {
        Block {
            attention_norm: self.attention_norm.map(f),
            projections: self.projections.iter().map(|linear| linear.map(f)).collect(),
            head_norms: self.head_norms.as_ref().map(|[q, k]| [f(q), f(k)]),
            out: self.out.map(f),
            mlp_norm: self.mlp_norm.map(f),
            gate: self.gate.as_ref().map(|linear| linear.map(f)),
            up: self.up.map(f),
            down: self.down.map(f),
        }
    }

    /// Every linear map of the block.
    pub(super) fn linears(&self, mut f: impl FnMut(&Linear<T>)) {
        self.projections.iter().chain([&self.out, &self.up, &self.down]).chain(&self.gate).for_each(&mut f);
    }

    /// Whether `f` holds for any of its parameters.
    pub(super) fn any(&self, f: impl Fn(&T) -> bool) -> bool {
        let mut found = false;
        self.map(&mut |leaf| found |= f(leaf));
        found
    }
}

impl Shape {
    /// A tree of linear maps, norms and gains like `like`, each described by what its outputs and inputs are in panels.
    pub(super) fn layouts<T>(&self, like: &Model<T>) -> Model<Layout> {
        let stream: Vec<Columns> = panels(0, self.width).collect();
        let inner: Vec<Columns> = panels(0, self.inner).collect();
        let vocab: Vec<Columns> = panels(0, self.vocab).collect();
        let linear = |of: &Linear<T>, outs: &[Columns], ins: &[Columns], inputs: usize| Linear {
            weight: Layout::matrix(outs, ins, inputs, 1.0),
            bias: of.bias.as_ref().map(|_| Layout::Vector(outs.to_vec())),
            adapter: of.adapter.as_ref().map(|a| {
                let rank: Vec<Columns> = panels(0, a.rank).collect();
                Adapter {
                    down: Layout::matrix(&rank, ins, inputs, 1.0),
                    up: Layout::matrix(outs, &rank, a.rank, a.scaling),
                    rank: a.rank,
                    scaling: a.scaling,
                }
            }),
        };
        let norm = |of: &Norm<T>| Norm {
            gain: Layout::Vector(stream.clone()),
            bias: of.bias.as_ref().map(|_| Layout::Vector(stream.clone())),
        };
        let (projected, context) = (self.projected(), self.context());
        let block = |of: &Block<T>| Block {
            attention_norm: norm(&of.attention_norm),
            projections: of
                .projections
                .iter()
                .zip(&projected)
                .map(|(of, outs)| linear(of, outs, &stream, self.width))
                .collect(),
            head_norms: of.head_norms.as_ref().map(|_| {
                let gain = || Layout::Vector(panels(0, self.head_dim).collect());
                [gain(), gain()]
            }),
            out: linear(&of.out, &stream, &context, self.heads * self.head_dim),
            mlp_norm: norm(&of.mlp_norm),
            gate: of.gate.as_ref().map(|of| linear(of, &inner, &stream, self.width)),
            up: linear(&of.up, &inner, &stream, self.width),
            down: linear(&of.down, &stream, &inner, self.inner),
        };
        Model {
            embedding: Layout::Table { lines: self.vocab, columns: self.width },
            blocks: like.blocks.iter().map(block).collect(),
            final_norm: norm(&like.final_norm),
            head: like.head.as_ref().map(|of| linear(of, &vocab, &stream, self.width)),
        }
    }
}

/// How a parameter lies in panels.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Layout {
    /// A matrix `[outputs, inputs]` of `inputs` columns, times `factor`.
    Matrix { outs: Vec<Columns>, ins: Vec<Columns>, inputs: usize, factor: f32 },
    /// A vector along these panels.
    Vector(Vec<Columns>),
    /// Rows to be picked.
    Table { lines: usize, columns: usize },
}

impl Layout {
    fn matrix(outs: &[Columns], ins: &[Columns], inputs: usize, factor: f32) -> Self {
        Self::Matrix { outs: outs.to_vec(), ins: ins.to_vec(), inputs, factor }
    }

    /// Elements of the parameter.
    pub fn len(&self) -> usize {
        let count = |columns: &[Columns]| columns.iter().map(|c| c.count).sum::<usize>();
        match self {
            Self::Matrix { outs, inputs, .. } => count(outs) * inputs,
            Self::Vector(columns) => count(columns),
            Self::Table { lines, columns } => lines * columns,
        }
    }
}

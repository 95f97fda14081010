//! The decoder in f32 on a CPU: the project's own kernels ([`rebel_kernels`]) under the names and tensors of a [`Store`].
//!
//! Parameters are packed into panels when they are first used and again when they have moved; a twin shares its model's
//! panels, and a reference those of what is frozen. A pass appears to candle as one operation, whose backward leaves the
//! gradients of the parameters in [`Recomputed`], where [`super::Decoder::backward`] finds them.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape as Dims, Storage, Tensor, Var};
use rebel_kernels::decoder::forward::Wanted;
use rebel_kernels::decoder::head::{Cut, Outputs, Scoring as RowScoring};
use rebel_kernels::decoder::shape::Packing as Projections;
use rebel_kernels::decoder::{
    Adapter, Batch, Block, Cache, Gradients, Linear, Machine, Model, Norm, Pass, Shape, Weights, decode,
};
use rebel_kernels::rows;

use super::batch::TokenBatch;
use super::config::{Activation, DecoderConfig, Family, Residual};
use super::parameters::{self, GATE, KEY, KEY_NORM, QKV, QUERY, QUERY_NORM, VALUE};
use crate::nn::ops::attention::Continued;
use crate::nn::store::{Handle, Moved};
use crate::nn::{Recomputed, Scoring, Store};
use crate::{Error, Result};

/// A decoder's parameters and what computes with them. Clones share the panels.
#[derive(Debug, Clone)]
pub(super) struct Fused {
    shared: Arc<Shared>,
    /// What of it is trained.
    wanted: Option<Model<bool>>,
    found: Recomputed,
}

#[derive(Debug)]
struct Shared {
    machine: Machine,
    shape: Shape,
    parameters: Model<Handle>,
    tied: bool,
    /// Through which maps a backward pass goes.
    reached: Model<bool>,
    store: Arc<Moved>,
    packed: Mutex<Option<(Weights, [u64; 2])>>,
}

/// The panels of a decoder, for as long as nobody may move its parameters.
type Held<'a> = MutexGuard<'a, Option<(Weights, [u64; 2])>>;

fn weights<'a>(held: &'a Held) -> &'a Weights {
    &held.as_ref().expect("packed by whoever holds it").0
}

impl Fused {
    /// The decoder of `config` on `store`, where the kernels are for it: in f32 on a CPU.
    pub fn new(config: &DecoderConfig, store: &Store, prefix: &str) -> Result<Option<Self>> {
        if store.dtype() != DType::F32 || !store.device().is_cpu() {
            return Ok(None);
        }
        let parameters = parameters_of(config, store, prefix)?;
        let wanted = parameters.map(|p| p.tensor.is_variable());
        let trains = wanted.leaves().into_iter().any(|&wanted| wanted);
        let shared = Shared {
            machine: Machine::current(),
            shape: shape_of(config),
            parameters,
            tied: config.tied_head,
            reached: Wanted::reached(&wanted),
            store: store.moved(),
            packed: Mutex::new(None),
        };
        Ok(Some(Self { shared: Arc::new(shared), wanted: trains.then_some(wanted), found: Recomputed::default() }))
    }

    /// The same without gradients, on the same panels.
    pub fn detached(&self) -> Self {
        Self { shared: self.shared.clone(), wanted: None, found: Recomputed::default() }
    }

    /// Where gradients are left.
    pub fn found(&self) -> &Recomputed {
        &self.found
    }

    /// The panels, packed from the parameters as they are now.
    fn held(&self) -> Result<Held<'_>> {
        let Shared { machine, shape, parameters, tied, reached, store, packed } = &*self.shared;
        let mut packed = packed.lock().expect("no thread panics while it packs");
        let now = store.counts();
        let old = packed.as_ref().map(|(_, then)| *then);
        if old == Some(now) {
            return Ok(packed);
        }
        let tensors: Vec<_> = parameters.leaves().into_iter().map(|p| p.tensor.storage_and_layout()).collect();
        let mut slices = Vec::with_capacity(tensors.len());
        for (storage, layout) in &tensors {
            slices.push(match (&**storage, layout.contiguous_offsets()) {
                (Storage::Cpu(storage), Some((start, end))) => &storage.as_slice::<f32>()?[start..end],
                _ => return Err(Error::invalid("a parameter is not contiguous host memory")),
            });
        }
        let mut slices = slices.into_iter();
        let source = parameters.map(|_| slices.next().expect("one for each"));
        match packed.as_mut() {
            // Only steps of an optimizer lie between: what is frozen is as it was.
            Some((weights, then)) if then[1] == now[1] => {
                weights.renew(machine, &source, &parameters.map(|p| p.moves));
                *then = now;
            }
            _ => {
                let ready = parameters.zip(reached).map(|(p, trains)| store.ready(p, **trains));
                let weights = Weights::new(machine, shape.clone(), &source, &ready, *tied, reached);
                for (parameter, packed) in parameters.leaves().into_iter().zip(weights.packed().leaves()) {
                    store.keep(parameter, packed);
                }
                *packed = Some((weights, now));
            }
        }
        Ok(packed)
    }

    fn wanted(&self, recompute: bool) -> Option<Wanted> {
        self.wanted.clone().map(|of| Wanted { of, recompute })
    }

    /// States after the final norm at flat indices `at` (`row * time + column`) of `tokens`: `[at.len(), width]`. Those of
    /// padding are zeros.
    pub fn states(&self, tokens: &TokenBatch, at: &[usize], recompute: bool) -> Result<Tensor> {
        let (rows, time) = tokens.dims();
        let mut batch = Batch::default();
        // Where each real token is, and for each the places of the result that ask for it.
        let mut asked: Vec<Vec<usize>> = vec![Vec::new(); rows * time];
        at.iter().enumerate().for_each(|(place, &i)| asked[i].push(place));
        let mut places = Vec::new();
        for row in 0..rows {
            let real: Vec<usize> = (row * time..(row + 1) * time).filter(|&i| tokens.mask()[i]).collect();
            let Some(last) = real.iter().rposition(|&i| !asked[i].is_empty()) else { continue };
            let ids: Vec<u32> = real[..=last].iter().map(|&i| tokens.ids()[i]).collect();
            let first = real.iter().position(|&i| !asked[i].is_empty()).unwrap_or(0);
            let begin = batch.rows();
            batch.push(&ids, 0..0);
            batch.units.last_mut().expect("just pushed").live = first;
            for (i, &token) in real[..=last].iter().enumerate() {
                for &place in &asked[token] {
                    batch.reads.push(begin + i);
                    places.push(place);
                }
            }
        }
        let width = self.shared.shape.width;
        if places.is_empty() {
            return Ok(Tensor::zeros((at.len(), width), DType::F32, &candle_core::Device::Cpu)?);
        }
        let held = self.held()?;
        let weights = weights(&held);
        let outputs = Pass::forward(&self.shared.machine, weights, batch, self.wanted(recompute)).states(weights);
        let mut states = vec![0f32; at.len() * width];
        for (state, &place) in outputs.states(weights).chunks_exact(width).zip(&places) {
            states[place * width..][..width].copy_from_slice(state);
        }
        drop(held);
        let back = move |fused: &Fused, d: &[f32]| -> Result<Gradients> {
            let held = fused.held()?;
            let d: Vec<f32> = places.iter().flat_map(|&place| &d[place * width..][..width]).copied().collect();
            Ok(outputs.back_states(self::weights(&held), &d))
        };
        self.operation(states, (at.len(), width).into(), back)
    }

    /// Log-probabilities of the responses' tokens given their prompts, and entropies of the distributions, `[2, tokens]`,
    /// row after row. Neighbours with the same prompt share its reading.
    pub fn scores(&self, rows: &[(&[u32], &[u32])], scoring: Scoring, recompute: bool) -> Result<Tensor> {
        let (mut batch, mut targets) = (Batch::default(), Vec::new());
        for group in rows.chunk_by(|a, b| a.0 == b.0) {
            let responses: Vec<&[u32]> = group.iter().map(|(_, response)| *response).collect();
            match responses.as_slice() {
                [response] => {
                    let whole = [group[0].0, response].concat();
                    batch.push(&whole[..whole.len() - 1], group[0].0.len() - 1..whole.len() - 1);
                }
                _ => batch.push_shared(group[0].0, &responses),
            }
            responses.iter().for_each(|response| targets.extend_from_slice(response));
        }
        let sampling = scoring.sampling;
        let cut = sampling.is_truncated().then(|| -> Cut {
            Arc::new(move |row: &mut [f32], target| sampling.truncate(row, scoring.admits.then_some(target)))
        });
        let n = targets.len();
        let divisor = sampling.temperature().divisor() as f32;
        let held = self.held()?;
        let weights = weights(&held);
        let pass = Pass::forward(&self.shared.machine, weights, batch, self.wanted(recompute));
        let outputs: Outputs = pass.scores(weights, RowScoring { targets, divisor, cut });
        let values = [outputs.log_probs.clone(), outputs.entropies()].concat();
        drop(held);
        let back = move |fused: &Fused, d: &[f32]| -> Result<Gradients> {
            let held = fused.held()?;
            Ok(outputs.back_scores(self::weights(&held), &d[..n], &d[n..]))
        };
        self.operation(values, (2, n).into(), back)
    }

    /// Values as a tensor, with a gradient where something is trained.
    fn operation(
        &self,
        values: Vec<f32>,
        dims: Dims,
        back: impl Fn(&Fused, &[f32]) -> Result<Gradients> + Send + Sync + 'static,
    ) -> Result<Tensor> {
        if self.wanted.is_none() {
            return Ok(Tensor::from_vec(values, dims, &candle_core::Device::Cpu)?);
        }
        // candle remembers an operation only on an input that wants a gradient.
        let input = Var::zeros(1, DType::F32, &candle_core::Device::Cpu)?;
        let counts = self.shared.store.counts();
        let value = Mutex::new(Some((values, dims)));
        Ok(input.apply_op1(Operation { value, fused: self.clone(), counts, back: Box::new(back) })?)
    }

    /// Logits of states `[.., width]`: `[.., vocab]`, without a gradient.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let mut dims = hidden.dims().to_vec();
        let states = hidden.flatten_all()?.to_vec1::<f32>()?;
        let held = self.held()?;
        let logits = decode::logits(&self.shared.machine, weights(&held), &states);
        *dims.last_mut().expect("at least one dimension") = self.shared.shape.vocab;
        Ok(Tensor::from_vec(logits, dims, &candle_core::Device::Cpu)?)
    }

    /// An empty cache.
    pub fn cache(&self, rows: usize, capacity: usize) -> Cache {
        Cache::new(&self.shared.machine, &self.shared.shape, rows, capacity)
    }

    /// Bytes that such a cache takes; none where they cannot be counted.
    pub fn cache_bytes(&self, rows: usize, capacity: usize) -> Option<usize> {
        Cache::len(&self.shared.shape, rows, capacity)?.checked_mul(2 * size_of::<f32>())
    }

    /// States of tokens that continue a cache, `[rows, time, width]` with zeros for padding; or `[rows, width]`, those of
    /// every row's last token.
    pub fn continued(
        &self,
        tokens: &TokenBatch,
        cache: &mut Cache,
        continued: &[Continued],
        last_only: bool,
    ) -> Result<Tensor> {
        let (rows, time) = tokens.dims();
        let width = self.shared.shape.width;
        let new: Vec<usize> = (0..rows).filter(|&row| continued[row].count > 0).collect();
        let of: Vec<(usize, usize)> = new.iter().map(|&row| (continued[row].slot, continued[row].past)).collect();
        let range = |row: usize| -> Range<usize> {
            let first = row * time + continued[row].start;
            first..first + continued[row].count
        };
        let ids: Vec<&[u32]> = new.iter().map(|&row| &tokens.ids()[range(row)]).collect();
        let held = self.held()?;
        let (machine, weights) = (&self.shared.machine, weights(&held));
        let found = match () {
            () if new.is_empty() => Vec::new(),
            () if ids.iter().all(|ids| ids.len() == 1) => decode::step(machine, weights, cache, &of, &ids.concat()),
            () => decode::extend(machine, weights, cache, &of, &ids, last_only).states(weights),
        };
        let per_row = if last_only { 1 } else { time };
        let mut states = vec![0f32; rows * per_row * width];
        let mut rest = found.as_slice();
        for &row in &new {
            let (count, first) = if last_only { (1, row) } else { (range(row).len(), range(row).start) };
            let (mine, others) = rest.split_at(count * width);
            states[first * width..][..count * width].copy_from_slice(mine);
            rest = others;
        }
        let dims = if last_only { vec![rows, width] } else { vec![rows, time, width] };
        Ok(Tensor::from_vec(states, dims, &candle_core::Device::Cpu)?)
    }
}

/// A pass as candle sees it: a value, and gradients found elsewhere when that of the value is known.
struct Operation {
    /// The value, until the forward pass has taken it.
    value: Mutex<Option<(Vec<f32>, Dims)>>,
    fused: Fused,
    /// What the parameters were then.
    counts: [u64; 2],
    #[allow(clippy::type_complexity)]
    back: Box<dyn Fn(&Fused, &[f32]) -> Result<Gradients> + Send + Sync>,
}

impl CustomOp1 for Operation {
    fn name(&self) -> &'static str {
        "decoder"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Dims)> {
        let value = self.value.lock().expect("no thread panics while it holds the value").take();
        let Some((values, dims)) = value else { candle_core::bail!("decoder: a forward pass runs once") };
        Ok((CpuStorage::F32(values), dims))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, d: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let wrong = |error: Error| match error {
            Error::Candle(error) => error,
            other => candle_core::Error::Msg(other.to_string()),
        };
        let Fused { shared, found, .. } = &self.fused;
        if shared.store.counts() != self.counts {
            candle_core::bail!("decoder: its parameters have moved since the forward pass");
        }
        let d = d.detach().flatten_all()?.to_vec1::<f32>()?;
        let gradients = (self.back)(&self.fused, &d).map_err(wrong)?;
        for (parameter, gradient) in into_pairs(&shared.parameters, gradients) {
            let gradient = Tensor::from_vec(gradient, parameter.tensor.shape(), &candle_core::Device::Cpu)?;
            found.insert(&parameter.tensor, gradient)?;
        }
        Ok(None)
    }
}

/// Each trained parameter with its gradient.
fn into_pairs(parameters: &Model<Handle>, gradients: Gradients) -> Vec<(&Handle, Vec<f32>)> {
    let gradients = gradients.into_leaves();
    parameters.leaves().into_iter().zip(gradients).filter_map(|(p, g)| Some((p, g?))).collect()
}

fn shape_of(config: &DecoderConfig) -> Shape {
    Shape {
        width: config.width,
        inner: config.inner,
        vocab: config.vocab,
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        packing: if config.family == Family::NeoX { Projections::PerHead } else { Projections::PerPart },
        eps: config.norm_eps as f32,
        activation: match config.activation {
            Activation::Gelu => rows::Activation::Gelu,
            Activation::GeluTanh => rows::Activation::GeluTanh,
            Activation::Relu => rows::Activation::Relu,
            Activation::Silu => rows::Activation::Silu,
        },
        parallel: config.residual == Residual::Parallel,
        windows: (0..config.layers).map(|layer| config.geometry(layer).window).collect(),
        frequencies: config.rope.frequencies(DType::F32).into_iter().map(|f| f as f32).collect(),
    }
}

/// The parameters of a decoder, by what they are. Fails naming the first that is absent or of another shape.
fn parameters_of(config: &DecoderConfig, store: &Store, prefix: &str) -> Result<Model<Handle>> {
    let DecoderConfig { family, vocab, width, inner, heads, kv_heads, head_dim, attention_bias, mlp_bias, .. } =
        *config;
    let names = family.names();
    let linear = |module: String, outputs: usize, inputs: usize, bias: bool| -> Result<Linear<Handle>> {
        Ok(Linear {
            weight: store.handle(&format!("{module}.weight"), &[outputs, inputs])?,
            bias: bias.then(|| store.handle(&format!("{module}.bias"), &[outputs])).transpose()?,
            adapter: store.adapter_handles(&module)?.map(|(down, up, scaling)| Adapter {
                rank: down.tensor.dims()[0],
                down,
                up,
                scaling: scaling as f32,
            }),
        })
    };
    let norm = |name: String| -> Result<Norm<Handle>> {
        let bias = (family == Family::NeoX).then(|| store.handle(&format!("{name}.bias"), &[width]));
        Ok(Norm { gain: store.handle(&format!("{name}.weight"), &[width])?, bias: bias.transpose()? })
    };
    let block = |layer: usize| -> Result<Block<Handle>> {
        let name = |part: &str| format!("{}.{part}", parameters::block(prefix, layer));
        let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
        let projections: &[(&str, usize)] = match family {
            Family::NeoX => &[(QKV, queries + 2 * keys)],
            _ => &[(QUERY, queries), (KEY, keys), (VALUE, keys)],
        };
        let head_norm = |part: &str| store.handle(&format!("{}.weight", name(part)), &[head_dim]);
        let head_norms =
            (family == Family::Qwen3).then(|| Ok::<_, Error>([head_norm(QUERY_NORM)?, head_norm(KEY_NORM)?]));
        let gate = (family != Family::NeoX).then(|| linear(name(GATE), inner, width, mlp_bias));
        Ok(Block {
            attention_norm: norm(name(names.attention_norm))?,
            projections: projections
                .iter()
                .map(|&(part, outputs)| linear(name(part), outputs, width, attention_bias))
                .collect::<Result<_>>()?,
            head_norms: head_norms.transpose()?,
            out: linear(name(names.attention_out), width, queries, config.attention_out_bias())?,
            mlp_norm: norm(name(names.mlp_norm))?,
            gate: gate.transpose()?,
            up: linear(name(names.up), inner, width, mlp_bias)?,
            down: linear(name(names.down), width, inner, mlp_bias)?,
        })
    };
    let own_head = !config.tied_head && store.contains(names.head);
    let head = || linear(names.head.trim_end_matches(".weight").into(), vocab, width, false);
    Ok(Model {
        embedding: store.handle(&format!("{prefix}.{}.weight", names.embedding), &[vocab, width])?,
        blocks: (0..config.layers).map(block).collect::<Result<_>>()?,
        final_norm: norm(format!("{prefix}.{}", names.final_norm))?,
        head: own_head.then(head).transpose()?,
    })
}

//! Models of every kind at odd sizes, with random weights.

use rebel_kernels::decoder::shape::Packing;
use rebel_kernels::decoder::{Adapter, Block, Linear, Model, Norm, Shape};
use rebel_kernels::rows::Activation;

/// A stream of numbers in (-1, 1).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn number(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    pub fn tokens(&mut self, n: usize, vocab: usize) -> Vec<u32> {
        (0..n).map(|_| self.below(vocab) as u32).collect()
    }
}

pub struct Kind {
    pub name: &'static str,
    pub shape: Shape,
    pub tied: bool,
    pub model: Model<Vec<f32>>,
}

struct Options {
    biases: [bool; 2],
    layer_norm: bool,
    gated: bool,
    head_norms: bool,
    rank: usize,
    tied: bool,
}

fn random_model(shape: &Shape, options: &Options, random: &mut Random) -> Model<Vec<f32>> {
    let values =
        |random: &mut Random, n: usize, size: f32| -> Vec<f32> { (0..n).map(|_| size * random.number()).collect() };
    let linear = |random: &mut Random, outs: usize, ins: usize, bias: bool| Linear {
        weight: values(random, outs * ins, 1.5 / (ins as f32).sqrt()),
        bias: bias.then(|| values(random, outs, 0.3)),
        adapter: (options.rank > 0).then(|| Adapter {
            down: values(random, options.rank * ins, 1.5 / (ins as f32).sqrt()),
            up: values(random, outs * options.rank, 0.5),
            rank: options.rank,
            scaling: 1.5,
        }),
    };
    let gain = |random: &mut Random, n: usize| values(random, n, 0.3).iter().map(|x| x + 1.0).collect::<Vec<f32>>();
    let norm = |random: &mut Random| Norm {
        gain: gain(random, shape.width),
        bias: options.layer_norm.then(|| values(random, shape.width, 0.2)),
    };
    let (q, k) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    let widths: &[usize] = if shape.packing == Packing::PerHead { &[3 * q] } else { &[q, k, k] };
    let [attention, mlp] = options.biases;
    let block = |random: &mut Random| Block {
        attention_norm: norm(random),
        projections: widths.iter().map(|&n| linear(random, n, shape.width, attention)).collect(),
        head_norms: options.head_norms.then(|| [gain(random, shape.head_dim), gain(random, shape.head_dim)]),
        out: linear(random, shape.width, q, attention),
        mlp_norm: norm(random),
        gate: options.gated.then(|| linear(random, shape.inner, shape.width, mlp)),
        up: linear(random, shape.inner, shape.width, mlp),
        down: linear(random, shape.width, shape.inner, mlp),
    };
    Model {
        embedding: values(random, shape.vocab * shape.width, 1.0),
        blocks: (0..shape.layers()).map(|_| block(random)).collect(),
        final_norm: norm(random),
        head: (!options.tied).then(|| linear(random, shape.vocab, shape.width, false)),
    }
}

/// A vocabulary whose logits do not fit into what is kept of a hundred rows.
pub fn wide_vocabulary() -> Kind {
    let shape = Shape {
        width: 6,
        inner: 9,
        vocab: 60_013,
        heads: 2,
        kv_heads: 1,
        head_dim: 4,
        packing: Packing::PerPart,
        eps: 1e-6,
        activation: Activation::Silu,
        parallel: false,
        windows: vec![None],
        frequencies: vec![1.0, 0.1],
    };
    let options =
        Options { biases: [false; 2], layer_norm: false, gated: true, head_norms: false, rank: 2, tied: false };
    let model = random_model(&shape, &options, &mut Random(31));
    Kind { name: "wide vocabulary", shape, tied: false, model }
}

/// GPT-NeoX with both residuals, Llama with grouped queries and a window, Qwen 2 tied, Qwen 3 with norms of heads; with and
/// without low-rank corrections.
pub fn kinds() -> Vec<Kind> {
    let frequencies = |n: usize| (0..n).map(|i| 10f32.powf(-(i as f32) / 2.0)).collect::<Vec<f32>>();
    let neox = |parallel: bool, activation| Shape {
        width: 40,
        inner: 70,
        vocab: 51,
        heads: 4,
        kv_heads: 4,
        head_dim: 10,
        packing: Packing::PerHead,
        eps: 1e-5,
        activation,
        parallel,
        windows: vec![None; 3],
        frequencies: frequencies(2),
    };
    let llama = |head_dim: usize, kv_heads: usize, windows: Vec<Option<usize>>| Shape {
        width: 37,
        inner: 65,
        vocab: 67,
        heads: 6,
        kv_heads,
        head_dim,
        packing: Packing::PerPart,
        eps: 1e-6,
        activation: Activation::Silu,
        parallel: false,
        frequencies: frequencies(head_dim / 2),
        windows,
    };
    let of_neox =
        |rank| Options { biases: [true; 2], layer_norm: true, gated: false, head_norms: false, rank, tied: false };
    let of_llama =
        |rank| Options { biases: [false; 2], layer_norm: false, gated: true, head_norms: false, rank, tied: false };
    let all = vec![
        ("neox", neox(true, Activation::Gelu), of_neox(0)),
        ("neox, sequential, tanh", neox(false, Activation::GeluTanh), of_neox(0)),
        ("neox, adapters", neox(true, Activation::Relu), of_neox(3)),
        ("llama", llama(6, 2, vec![None; 2]), of_llama(0)),
        ("llama, wide heads, one key head", llama(64, 1, vec![None; 2]), of_llama(0)),
        ("mistral, adapters", llama(38, 3, vec![Some(5), Some(1)]), of_llama(33)),
        ("qwen2, tied", llama(6, 6, vec![None, Some(4)]), Options { biases: [true, false], tied: true, ..of_llama(0) }),
        ("qwen3", llama(14, 2, vec![None; 2]), Options { head_norms: true, ..of_llama(0) }),
        ("qwen3, adapters", llama(14, 3, vec![None; 2]), Options { head_norms: true, ..of_llama(5) }),
    ];
    let mut random = Random(7);
    all.into_iter()
        .map(|(name, shape, options)| {
            let model = random_model(&shape, &options, &mut random);
            Kind { name, shape, tied: options.tied, model }
        })
        .collect()
}

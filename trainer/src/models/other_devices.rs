//! Every family as a device without fused forms computes it, held against the fused forms: log-probabilities, the gradient of
//! every parameter, sampling through the cache; in f32, and in bf16 by bounds that were measured (each about twice what is
//! seen).

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::config::{Activation, DecoderConfig, Family, Residual, Window};
use super::reward::Kind;
use super::{Completion, Generation, RewardConfig, RewardModel, TokenBatch, generate, hf, parameters, tensors};
use crate::nn::ops::testing::unfused;
use crate::nn::{Choice, Gradients, Purpose, Rope, RopeScaling, Sampling, Store, Streams, Temperature};
use crate::vectors;

/// A decoder of each family: heads rotated in part and whole, a window in all layers and in the last, keys for one query head and
/// for three, a tied head.
fn families() -> Vec<DecoderConfig> {
    let neox = DecoderConfig { init_std: 0.3, ..DecoderConfig::neox(37, 24, 2, 3, 64) };
    let rope = Rope { dims: 6, theta: 10_000.0, scaling: RopeScaling::None };
    let llama = DecoderConfig {
        family: Family::Llama,
        inner: 29,
        heads: 6,
        kv_heads: 2,
        head_dim: 6,
        rope,
        residual: Residual::Sequential,
        activation: Activation::Silu,
        mlp_bias: false,
        attention_bias: false,
        ..neox.clone()
    };
    let window = |from_layer| Some(Window { tokens: 5, from_layer });
    let mistral = DecoderConfig { family: Family::Mistral, kv_heads: 1, window: window(0), ..llama.clone() };
    let (attention_bias, tied_head) = (true, true);
    let qwen2 = DecoderConfig { family: Family::Qwen2, window: window(1), attention_bias, tied_head, ..llama.clone() };
    let qwen3 = DecoderConfig { family: Family::Qwen3, ..mistral.clone() };
    let sequential = DecoderConfig { residual: Residual::Sequential, ..neox.clone() };
    vec![neox, sequential, llama, mistral, qwen2, qwen3]
}

/// Rows of 21, 3 and 11 tokens.
fn rows() -> Vec<Vec<u32>> {
    vec![(0..21).map(|i| i * 5 % 37).collect(), vec![7, 1, 30], (0..11).map(|i| (i * i) % 37).collect()]
}

/// What a model says and how it would learn: log-probabilities and entropies of all tokens but the first of each row, and the
/// gradients of a mixture of them.
struct Passes {
    log_p: Vec<f32>,
    entropy: Vec<f32>,
    gradients: Gradients,
}

fn passes(config: &DecoderConfig, store: &mut Store) -> Passes {
    let model = hf::decoder(config, store).unwrap();
    let tokens = TokenBatch::left_padded(&rows(), 0).unwrap();
    let mask = tokens.mask();
    let at: Vec<usize> = (0..mask.len()).filter(|&i| i % 21 > 0 && mask[i] && mask[i - 1]).collect();
    let hidden = model.hidden(&tokens, None).unwrap();
    let (log_p, entropy) = model.token_logprobs(&hidden, &tokens, &at, Temperature::new(0.7).unwrap()).unwrap();
    assert_eq!((log_p.dtype(), entropy.dtype()), (DType::F32, DType::F32));
    let weights: Vec<f32> = (0..at.len()).map(|i| ((i * 7 % 5) as f32 - 1.8) / at.len() as f32).collect();
    let weights = Tensor::new(weights, &Device::Cpu).unwrap();
    let loss = ((&log_p * &weights).unwrap() + (&entropy * 0.01).unwrap()).unwrap().sum_all().unwrap();
    store.accumulate(model.backward(&loss).unwrap()).unwrap();
    assert_eq!(store.missing_gradients(), Vec::<String>::new());
    let values = |t: Tensor| t.to_vec1::<f32>().unwrap();
    Passes { log_p: values(log_p), entropy: values(entropy), gradients: store.take_gradients() }
}

/// Two samples of each prompt, and the scorer's log-probabilities of them.
fn samples(config: &DecoderConfig, store: &Store) -> (Vec<Completion>, Vec<Vec<f64>>) {
    let model = hf::decoder(config, store).unwrap().detached();
    let sampling = Sampling::new(Temperature::new(0.7).unwrap(), Some(20), Some(0.95)).unwrap();
    // Three rows for six completions: rows of the cache are handed on, and prompts begin beside completions that go on.
    let choice = Choice::Sample(sampling);
    let generation = Generation { max_new: 12, choice, stop: &[5], samples: 2, batch: 3 };
    let stream = |p: usize, s: usize| Streams::new(9).stream(Purpose("sample"), 0, p as u64, s as u64);
    let completions = generate(&model, &rows(), generation, stream).unwrap();
    let scored = completions.iter().enumerate().map(|(i, completion)| {
        let prompt = &rows()[i / 2];
        let whole = [prompt.as_slice(), &completion.ids].concat();
        let at: Vec<usize> = (prompt.len()..whole.len()).collect();
        let tokens = TokenBatch::right_padded(&[whole], 0).unwrap();
        let hidden = model.hidden(&tokens, None).unwrap();
        let (log_p, _) = model.token_logprobs(&hidden, &tokens, &at, sampling.of_drawn()).unwrap();
        log_p.to_dtype(DType::F64).unwrap().to_vec1().unwrap()
    });
    let scored = scored.collect();
    (completions, scored)
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |m, (x, y)| m.max((x - y).abs()))
}

/// How far `a` is from `b`, by the length of `b`.
fn relative(a: &Tensor, b: &Tensor) -> f64 {
    let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
    let length = |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
    length(&(wide(a) - wide(b)).unwrap()) / length(&wide(b))
}

/// A store of each family's parameters, and one of the same values rounded to bf16, in f32 and in bf16.
fn stores(config: &DecoderConfig) -> [Store; 3] {
    let load = |from: &Store, dtype| Store::load(from.to_tensors(), dtype, &Device::Cpu).unwrap();
    let exact = parameters::initial(config, &Streams::new(3), DType::F32, &Device::Cpu).unwrap();
    let narrow = load(&exact, DType::BF16);
    [exact, load(&narrow, DType::F32), narrow]
}

#[test]
fn every_family_is_the_same_on_other_devices_in_f32() {
    for config in families() {
        let [mut store, ..] = stores(&config);
        let fused = passes(&config, &mut store);
        let other = unfused(|| passes(&config, &mut store));
        assert!(worst(&fused.log_p, &other.log_p) < 2e-5, "{:?}", config.family);
        assert!(worst(&fused.entropy, &other.entropy) < 2e-5, "{:?}", config.family);
        for (name, gradient) in &other.gradients {
            let off = relative(gradient, &fused.gradients[name]);
            // The keys' bias moves no weight: its gradient is rounding alone.
            let nothing = name.contains("k_proj.bias") || fused.gradients[name].dims().is_empty();
            assert!(off < 1e-4 || nothing, "{:?}: {name}: {off}", config.family);
        }
        let (drawn, _) = samples(&config, &store);
        let (others, scored) = unfused(|| samples(&config, &store));
        for ((one, other), scored) in drawn.iter().zip(&others).zip(&scored) {
            assert_eq!(one.ids, other.ids, "{:?}", config.family);
            for ((a, b), c) in one.log_probs.iter().zip(&other.log_probs).zip(scored) {
                assert!((a - b).abs() < 2e-5 && (b - c).abs() < 2e-5, "{a} {b} {c}");
            }
        }
    }
}

#[test]
fn a_frozen_parameter_gets_no_gradient_on_other_devices() {
    for config in families() {
        for dtype in [DType::F32, DType::BF16] {
            let mut store = parameters::initial(&config, &Streams::new(3), dtype, &Device::Cpu).unwrap();
            store.freeze(|name| name.contains("layers.0.") || name.contains("embed"));
            let trainable: Vec<String> = store.trainable().map(|(name, _)| name.to_owned()).collect();
            let gradients = unfused(|| passes(&config, &mut store)).gradients;
            assert_eq!(gradients.into_keys().collect::<Vec<_>>(), trainable);
        }
    }
}

/// Weights of standard deviation 0.3 make logits spread by 2, as a trained model's do, and the log-probabilities of a vocabulary
/// of 37 by as much: errors of a few hundredths of a nat are what numbers with 8 bits leave.
#[test]
fn every_family_in_bf16_is_near_the_same_weights_in_f32() {
    for config in families() {
        let [_, mut wide, mut narrow] = stores(&config);
        let (expected, got) = (passes(&config, &mut wide), passes(&config, &mut narrow));
        let largest = worst(&expected.log_p, &got.log_p).max(worst(&expected.entropy, &got.entropy));
        let off = expected.log_p.iter().zip(&got.log_p).map(|(a, b)| (a - b).abs());
        let mean = off.sum::<f32>() / got.log_p.len() as f32;
        let all = |of: &Gradients| {
            let flat = of.values().map(|g| g.to_dtype(DType::F64).unwrap().flatten_all().unwrap());
            Tensor::cat(&flat.collect::<Vec<_>>(), 0).unwrap()
        };
        let slopes = relative(&all(&got.gradients), &all(&expected.gradients));
        let (drawn, scored) = samples(&config, &narrow);
        let pairs = drawn.iter().zip(&scored).flat_map(|(drawn, scored)| drawn.log_probs.iter().zip(scored));
        let sampled = pairs.fold(0.0f64, |worst, (a, b)| worst.max((a - b).abs()));
        println!(
            "{:?} in bf16: {largest:.3} nats, {mean:.3} on average; gradients {slopes:.3}; sampler and scorer {sampled:.4}",
            config.family
        );
        assert!(largest < 0.6 && mean < 0.06 && slopes < 0.3 && sampled < 0.02);
    }
}

#[test]
fn a_scalar_model_in_bf16_scores_in_f32() {
    for config in families() {
        let [_, wide, narrow] = stores(&config);
        let scalar = RewardConfig { decoder: config.clone(), kind: Kind::Scalar { shift: 0.0 }, pad: None };
        let rewards = |policy: &Store| {
            let store = RewardModel::initial(&scalar, policy, &Streams::new(4)).unwrap();
            let model = RewardModel::new(&scalar, &store).unwrap();
            model.rewards(&TokenBatch::right_padded(&rows(), 0).unwrap()).unwrap()
        };
        let (expected, got) = (rewards(&wide), rewards(&narrow));
        assert_eq!(got.dtype(), DType::F32);
        let (expected, got) = (expected.to_vec1::<f32>().unwrap(), got.to_vec1::<f32>().unwrap());
        assert!(worst(&expected, &got) < 0.05, "{:?}", config.family);
    }
}

#[test]
fn vectors_come_out_the_same_on_other_devices() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/hf/lm");
    for case in ["llama3_bf16", "neox_bin", "neox_f16_legacy", "neox_sequential"] {
        let run = |out: &Path| {
            vectors::run_case(&root.join(case), out, &Device::Cpu).unwrap();
            tensors::load(&out.join("got.safetensors")).unwrap()
        };
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (fused, other) = (run(here.path()), unfused(|| run(there.path())));
        assert!(fused.keys().eq(other.keys()));
        for (name, tensor) in &fused {
            let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
            let off = (wide(tensor) - wide(&other[name])).unwrap().abs().unwrap().flatten_all().unwrap();
            let off = off.max(0).unwrap().to_scalar::<f64>().unwrap();
            // Integers are equal; floats within what the vectors' own judge allows logits.
            let bound = if tensor.dtype() == DType::F32 { 3e-5 } else { 0.0 };
            assert!(off <= bound, "{case}: {name}: {off}");
        }
    }
}

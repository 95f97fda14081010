//! The decoder as its users meet it, in every family: gradients reach what they should, padding and cache change nothing,
//! samples carry the scorer's log-probabilities, folders survive a round trip.

mod shared;

use candle_core::{DType, Device, Tensor};
use rand::RngCore;
use rebel_trainer::models::{DecoderConfig, Generation, TokenBatch, config::Residual, generate, hf};
use rebel_trainer::nn::{Choice, Purpose, Store, Streams, Temperature};
use shared::{config, families, rows, store, worst};

/// Flat indices of every real token that has a real one before it.
fn scored(tokens: &TokenBatch) -> Vec<usize> {
    let (_, time) = tokens.dims();
    let mask = tokens.mask();
    (0..mask.len()).filter(|&i| i % time > 0 && mask[i] && mask[i - 1]).collect()
}

fn log_probs(config: &DecoderConfig, store: &Store, tokens: &TokenBatch) -> Vec<f32> {
    let model = hf::decoder(config, store).unwrap().detached();
    let hidden = model.hidden(tokens, None).unwrap();
    let (log_p, _) = model.token_logprobs(&hidden, tokens, &scored(tokens), Temperature::ONE).unwrap();
    log_p.to_vec1().unwrap()
}

#[test]
fn every_trainable_parameter_gets_a_gradient_and_no_frozen_one_does() {
    let sequential = DecoderConfig { residual: Residual::Sequential, tied_head: true, ..config() };
    let unbiased = DecoderConfig { tied_head: false, attention_bias: false, ..sequential.clone() };
    for config in families().into_iter().chain([sequential, unbiased]) {
        for freeze in [|_: &str| false, |name: &str| name.contains("layers.0.") || name.contains("norm")] {
            let mut store = store(&config);
            store.freeze(freeze);
            let model = hf::decoder(&config, &store).unwrap();
            let tokens = TokenBatch::left_padded(&rows(), 0).unwrap();
            let hidden = model.hidden(&tokens, None).unwrap();
            let (log_p, _) = model.token_logprobs(&hidden, &tokens, &scored(&tokens), Temperature::ONE).unwrap();
            store.accumulate(log_p.sum_all().unwrap().backward().unwrap()).unwrap();
            assert_eq!(store.missing_gradients(), Vec::<String>::new());
            let trainable: Vec<String> = store.trainable().map(|(name, _)| name.to_string()).collect();
            assert!(trainable.iter().all(|name| !freeze(name)));
            for (name, gradient) in store.take_gradients() {
                assert!(trainable.contains(&name), "{name} is frozen");
                let size = gradient.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
                assert!(size > 0.0 && size.is_finite(), "{:?}: {name}: {size}", config.family);
            }
        }
    }
}

/// candle's product of few rows may sum in another order: 2e-5 until it is replaced.
#[test]
fn padding_and_neighbours_move_log_probs_by_less_than_2e_5() {
    for config in families() {
        let store = store(&config);
        let left = log_probs(&config, &store, &TokenBatch::left_padded(&rows(), 0).unwrap());
        let right = log_probs(&config, &store, &TokenBatch::right_padded(&rows(), 0).unwrap());
        let alone: Vec<f32> = rows()
            .into_iter()
            .flat_map(|row| log_probs(&config, &store, &TokenBatch::left_padded(&[row], 0).unwrap()))
            .collect();
        assert!(worst(&left, &right) < 2e-5 && worst(&left, &alone) < 2e-5);
        // Fifty columns of padding in front.
        let padded: Vec<u32> = [vec![36; 50], rows()[0].clone()].concat();
        let mask = (0..padded.len()).map(|i| i >= 50).collect();
        let far = log_probs(&config, &store, &TokenBatch::new(padded, mask, 1).unwrap());
        assert!(worst(&left[..far.len()], &far) < 2e-5);
    }
}

#[test]
fn samples_carry_the_scorers_log_probs_and_depend_on_prompt_and_sample_only() {
    for config in families() {
        check_samples(&config);
    }
}

fn check_samples(config: &DecoderConfig) {
    let store = store(config);
    let model = hf::decoder(config, &store).unwrap().detached();
    let temperature = Temperature::new(0.7).unwrap();
    let generation = Generation { max_new: 25, choice: Choice::Sample(temperature), stop: Some(5), samples: 2 };
    let stream = |p: usize, s: usize| Streams::new(9).stream(Purpose("sample"), 0, p as u64, s as u64);
    let prompts = rows();
    let completions = generate(&model, &prompts, generation, stream).unwrap();
    assert_eq!(completions.len(), 6);
    assert!(completions.iter().any(|c| c.stopped) && completions.iter().any(|c| !c.stopped));
    for (i, completion) in completions.iter().enumerate() {
        let (prompt, ids) = (&prompts[i / 2], &completion.ids);
        assert_eq!(completion.stopped, ids.last() == Some(&5));
        assert!(completion.stopped || ids.len() == 25);
        let whole: Vec<u32> = prompt.iter().chain(ids).copied().collect();
        let tokens = TokenBatch::left_padded(&[whole], 0).unwrap();
        let at: Vec<usize> = (prompt.len()..prompt.len() + ids.len()).collect();
        let hidden = model.hidden(&tokens, None).unwrap();
        let (log_p, _) = model.token_logprobs(&hidden, &tokens, &at, temperature).unwrap();
        for (a, b) in log_p.to_vec1::<f32>().unwrap().iter().zip(&completion.log_probs) {
            assert!((f64::from(*a) - b).abs() < 2e-5, "{a} scored, {b} sampled");
        }
        // Alone, the same draws.
        let single = Generation { samples: 1, ..generation };
        let alone = generate(&model, &prompts[i / 2..=i / 2], single, |_, _| stream(i / 2, i % 2)).unwrap();
        assert_eq!(alone[0].ids, *ids);
    }
    assert_ne!(stream(0, 0).next_u64(), stream(0, 1).next_u64());
}

#[test]
fn a_saved_folder_gives_config_and_parameters_back() {
    let tokens = TokenBatch::left_padded(&rows(), 0).unwrap();
    for config in families() {
        let first = store(&config);
        let folder = tempfile::tempdir().unwrap();
        hf::save(folder.path(), &config, &first).unwrap();
        let (read, second) = hf::load(folder.path(), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(read, config);
        assert_eq!(log_probs(&config, &first, &tokens), log_probs(&read, &second, &tokens));
    }
}

#[test]
fn a_detached_model_follows_the_parameters() {
    let config = config();
    let first = store(&config);
    let tokens = TokenBatch::left_padded(&rows(), 0).unwrap();
    let twin = hf::decoder(&config, &first).unwrap().detached();
    let mut moved = first.to_tensors();
    let bias = "gpt_neox.final_layer_norm.bias".to_string();
    moved.insert(bias, Tensor::ones(18, DType::F32, &Device::Cpu).unwrap());
    let before = twin.hidden(&tokens, None).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    first.set(&moved).unwrap();
    let after = twin.hidden(&tokens, None).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    assert!((after - before - (3 * 21 * 18) as f32).abs() < 0.1, "{before} {after}");
}

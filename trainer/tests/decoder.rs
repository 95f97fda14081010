//! The decoder as its users meet it, in every family: gradients reach what they should, padding changes nothing, folders
//! survive a round trip.

mod shared;

use candle_core::{DType, Device, Tensor};
use rebel_trainer::models::{DecoderConfig, TokenBatch, config::Residual, hf};
use rebel_trainer::nn::{Store, Temperature};
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
            store.accumulate(model.backward(&log_p.sum_all().unwrap()).unwrap()).unwrap();
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
    let real = tokens.mask().iter().filter(|&&real| real).count(); // the states of padding are zeros
    assert!((after - before - (real * 18) as f32).abs() < 0.1, "{before} {after}");
}

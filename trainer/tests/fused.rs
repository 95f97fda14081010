//! The decoder by hand-written kernels against its composed definition: values and every gradient, in every family.

use candle_core::{DType, Device, Tensor};
use rebel_trainer::models::peft::{LoraConfig, Modules};
use rebel_trainer::models::{Decoder, DecoderConfig, TokenBatch, Trained, config::Residual, hf};
use rebel_trainer::nn::{Gradients, Sampling, Scoring, Store, Streams, Temperature};

#[path = "shared/mod.rs"]
mod shared;

use shared::{config, families, rows, store, worst};

fn numbers(t: &Tensor) -> Vec<f32> {
    t.detach().flatten_all().unwrap().to_vec1().unwrap()
}

/// Difference relative to the largest entry, or to 1 where that is small.
fn off(a: &Tensor, b: &Tensor, least: f64) -> f64 {
    let (a, b) = (numbers(a), numbers(b));
    worst(&a, &b) / b.iter().fold(least, |m, x| m.max(f64::from(x.abs())))
}

/// Everything is trained, the last block, or adapters that correct something.
fn modes() -> Vec<Trained> {
    let lora = LoraConfig { targets: Modules::AllLinear, ..LoraConfig::new(3, 6.0) };
    vec![Trained::Full, Trained::LastBlocks(1), Trained::Adapter(lora)]
}

fn prepared(config: &DecoderConfig, mode: &Trained) -> Store {
    let mut store = store(config);
    mode.prepare(config, &mut store, &Streams::new(4)).unwrap();
    let moved = store.to_tensors().into_iter().filter(|(name, _)| name.ends_with("lora_B.weight"));
    let moved = moved.map(|(name, t)| {
        let values = (0..t.elem_count()).map(|i| ((i * 7 % 11) as f32 - 5.0) / 40.0).collect();
        (name, Tensor::from_vec(values, t.shape(), &Device::Cpu).unwrap())
    });
    store.set_some(&moved.collect()).unwrap();
    store
}

fn all_families() -> Vec<DecoderConfig> {
    let sequential = DecoderConfig { residual: Residual::Sequential, ..config() };
    families().into_iter().chain([sequential]).collect()
}

/// A scalar of some outputs, with weights that make no cotangent like another.
fn weighted(outputs: &[&Tensor]) -> Tensor {
    let one = |t: &&Tensor| {
        let weights: Vec<f32> = (0..t.elem_count()).map(|i| ((i * 7 % 5) as f32 - 1.8) / 3.0).collect();
        (*t * Tensor::from_vec(weights, t.shape(), &Device::Cpu).unwrap()).unwrap().sum_all().unwrap()
    };
    outputs.iter().map(one).reduce(|a, b| (a + b).unwrap()).unwrap()
}

fn gradients(model: &Decoder, store: &mut Store, loss: &Tensor) -> Gradients {
    store.accumulate(model.backward(loss).unwrap()).unwrap();
    assert_eq!(store.missing_gradients(), Vec::<String>::new());
    store.take_gradients()
}

/// Holds `outputs` of both forms of a model equal, and their gradients.
fn compare(config: &DecoderConfig, mode: &Trained, what: &str, outputs: impl Fn(&Decoder) -> Vec<Tensor>) {
    let mut store = prepared(config, mode);
    let (fused, composed) = (hf::decoder(config, &store).unwrap(), hf::decoder(config, &store).unwrap().composed());
    let (a, b) = (outputs(&fused), outputs(&composed));
    for (a, b) in a.iter().zip(&b) {
        let off = off(a, b, 1.0);
        assert!(off < 1e-5, "{:?} {mode:?} {what}: values are off by {off}", config.family);
    }
    let loss = |outputs: &[Tensor]| weighted(&outputs.iter().collect::<Vec<_>>());
    let (a, b) = (gradients(&fused, &mut store, &loss(&a)), gradients(&composed, &mut store, &loss(&b)));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, b) in &b {
        let off = off(&a[name], b, 1e-2);
        assert!(off < 1e-5, "{:?} {mode:?} {what}: the gradient of {name} is off by {off}", config.family);
    }
}

#[test]
fn scores_and_entropies_of_shared_prompts_agree_whatever_the_distribution() {
    let rows = rows();
    let pairs: Vec<(&[u32], &[u32])> = vec![
        (&rows[0], &rows[1]),
        (&rows[0], &rows[2]),
        (&rows[0], &rows[1][..1]),
        (&rows[1], &rows[2]),
        (&rows[2], &rows[0]),
    ];
    let temperature = Temperature::new(0.7).unwrap();
    let truncated = Sampling::new(temperature, Some(9), Some(0.9)).unwrap();
    for config in all_families() {
        for mode in modes() {
            for scoring in [Scoring::from(Temperature::ONE), temperature.into(), truncated.of_drawn()] {
                compare(&config, &mode, "scores", |model| {
                    let (log_p, entropy) = model.scores(&pairs, scoring).unwrap();
                    vec![log_p, entropy]
                });
            }
        }
    }
}

#[test]
fn states_agree_under_padding_anywhere() {
    let holes: Vec<bool> = (0..rows().len() * 21).map(|i| i % 21 % 5 != 3 && i % 21 > i / 21).collect();
    let ids: Vec<u32> = (0..holes.len() as u32).map(|i| i * i % 37).collect();
    let padded = [
        TokenBatch::left_padded(&rows(), 0).unwrap(),
        TokenBatch::right_padded(&rows(), 0).unwrap(),
        TokenBatch::new(ids, holes, rows().len()).unwrap(),
    ];
    for config in all_families() {
        for mode in modes() {
            for tokens in &padded {
                let real: Vec<usize> = (0..tokens.mask().len()).filter(|&i| tokens.mask()[i]).collect();
                compare(&config, &mode, "states", |model| {
                    let states = model.states_at(tokens, &real).unwrap();
                    let hidden = model.hidden(tokens, None).unwrap().flatten_to(1).unwrap();
                    let at: Vec<u32> = real.iter().map(|&i| i as u32).collect();
                    let same = hidden.index_select(&Tensor::new(at, &Device::Cpu).unwrap(), 0).unwrap();
                    assert_eq!(numbers(&states), numbers(&same));
                    // A head that is not trained reads nothing of the states here: its own gradient is tested above.
                    match mode {
                        Trained::Adapter(_) => vec![states],
                        _ => vec![model.logits(&states).unwrap()],
                    }
                });
            }
        }
    }
}

#[test]
fn padding_and_neighbours_change_no_bit_of_a_state_or_a_score() {
    for config in all_families() {
        let model = hf::decoder(&config, &store(&config)).unwrap().detached();
        let alone: Vec<Vec<f32>> = rows()
            .iter()
            .map(|row| {
                numbers(&model.hidden(&TokenBatch::right_padded(std::slice::from_ref(row), 0).unwrap(), None).unwrap())
            })
            .collect();
        for tokens in [TokenBatch::left_padded(&rows(), 9).unwrap(), TokenBatch::right_padded(&rows(), 9).unwrap()] {
            let together = model.hidden(&tokens, None).unwrap();
            for (row, alone) in alone.iter().enumerate() {
                let of_row = tokens.mask()[row * 21..][..21].iter().enumerate().filter(|(_, real)| **real);
                let columns: Vec<u32> = of_row.map(|(column, _)| column as u32).collect();
                let columns = Tensor::new(columns, &Device::Cpu).unwrap();
                let states = together.get(row).unwrap().index_select(&columns, 0).unwrap();
                assert_eq!(&numbers(&states), alone, "{:?} row {row}", config.family);
            }
        }
    }
}

#[test]
fn weights_that_an_optimizer_or_a_file_changes_are_seen() {
    use rebel_trainer::nn::{AdamW, AdamWSettings};
    for mode in modes() {
        let config = config();
        let mut store = prepared(&config, &mode);
        let model = hf::decoder(&config, &store).unwrap();
        let (twin, composed) = (model.detached(), model.clone().composed().detached());
        let rows = rows();
        let pair = [(rows[0].as_slice(), rows[1].as_slice())];
        let (before, _) = model.scores(&pair, Temperature::ONE).unwrap();
        let gradients = gradients(&model, &mut store, &before.sum_all().unwrap());
        let saved = store.to_tensors().into_iter().map(|(name, t)| (name, t.copy().unwrap())).collect();
        AdamW::new(AdamWSettings::default()).step(&store, &gradients, 0.05).unwrap();
        let moved = numbers(&twin.scores(&pair, Temperature::ONE).unwrap().0);
        let want = numbers(&composed.scores(&pair, Temperature::ONE).unwrap().0);
        assert!(worst(&moved, &want) < 1e-4 && worst(&moved, &numbers(&before)) > 1e-3, "{mode:?}");
        store.set(&saved).unwrap();
        assert_eq!(numbers(&twin.scores(&pair, Temperature::ONE).unwrap().0), numbers(&before), "{mode:?}");
        // A graph from before a step would mix two models.
        let (stale, _) = model.scores(&pair, Temperature::ONE).unwrap();
        store.touch();
        assert!(model.backward(&stale.sum_all().unwrap()).unwrap_err().to_string().contains("moved"));
    }
}

#[test]
fn the_reference_of_an_adapter_stays_what_it_was_and_so_does_that_of_full_training() {
    for mode in modes() {
        let config = config();
        let store = prepared(&config, &mode);
        let reference = hf::decoder(&config, &store.reference().unwrap()).unwrap();
        let plain = hf::decoder(&config, &store.base()).unwrap();
        let rows = rows();
        let pair = [(rows[0].as_slice(), rows[1].as_slice())];
        let score = |model: &Decoder| numbers(&model.scores(&pair, Temperature::ONE).unwrap().0);
        let (before, base) = (score(&reference), score(&plain));
        assert_eq!(before, base);
        let policy = hf::decoder(&config, &store).unwrap();
        let (first, trainable) = (score(&policy), store.trainable().map(|(n, _)| n.to_string()).collect::<Vec<_>>());
        let moved = store.to_tensors().into_iter().filter(|(name, _)| trainable.contains(name));
        store.set_some(&moved.map(|(name, t)| (name, (t * 1.1).unwrap())).collect()).unwrap();
        assert_eq!(score(&reference), before, "{mode:?}");
        assert!(worst(&score(&policy), &first) > 1e-3, "{mode:?}");
    }
}

#[test]
fn doubles_take_the_composed_form() {
    let store =
        rebel_trainer::models::parameters::initial(&config(), &Streams::new(3), DType::F64, &Device::Cpu).unwrap();
    let model = hf::decoder(&config(), &store).unwrap();
    let (log_p, _) = model.scores(&[(&[1, 2], &[3, 4])], Temperature::ONE).unwrap();
    assert_eq!((log_p.dtype(), log_p.dims()), (DType::F64, &[2][..]));
}

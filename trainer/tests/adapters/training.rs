//! Which parameters get a gradient and which, recomputed blocks, the reference policy, and torch's gradients of one update.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use rebel_trainer::files;
use rebel_trainer::models::peft::{self, LoraConfig};
use rebel_trainer::models::{DecoderConfig, TokenBatch, Trained, hf, tensors};
use rebel_trainer::nn::{Gradients, Store, Streams, Temperature};
use serde_json::{Value, json};

use crate::{all_linear, committed, families, folders, logits, modes, neox, store, tokens, unsettle, values};

/// The sum of log-probabilities of every real token after a real one, and its gradients.
fn gradients(config: &DecoderConfig, store: &mut Store, recompute: bool) -> (f32, Gradients) {
    let model = hf::decoder(config, store).unwrap();
    let model = if recompute { model.recomputing() } else { model };
    let tokens = tokens();
    let (_, time) = tokens.dims();
    let mask = tokens.mask();
    let at: Vec<usize> = (0..mask.len()).filter(|&i| i % time > 0 && mask[i] && mask[i - 1]).collect();
    let hidden = model.hidden(&tokens, None).unwrap();
    let (log_p, _) = model.token_logprobs(&hidden, &tokens, &at, Temperature::ONE).unwrap();
    let loss = log_p.sum_all().unwrap();
    store.accumulate(model.backward(&loss).unwrap()).unwrap();
    assert_eq!(store.missing_gradients(), Vec::<String>::new());
    (loss.to_scalar().unwrap(), store.take_gradients())
}

#[test]
fn in_every_model_and_mode_what_is_trained_gets_a_gradient_and_nothing_else_does() {
    for config in families() {
        for mode in modes() {
            let mut store = store(&config);
            mode.prepare(&config, &mut store, &Streams::new(4)).unwrap();
            unsettle(&store);
            let trainable: Vec<String> = store.trainable().map(|(name, _)| name.to_string()).collect();
            let fits = |name: &String| match &mode {
                Trained::Full => true,
                Trained::LastBlocks(n) => !name.contains(".embed_") && (*n == 3 || !name.contains("layers.0.")),
                Trained::Adapter(_) => name.contains(".lora_") || name.contains(".modules_to_save."),
            };
            assert!(trainable.iter().all(fits), "{mode:?}: {trainable:?}");
            let model = hf::decoder(&config, &store).unwrap();
            let hidden = model.hidden(&tokens(), None).unwrap();
            let raw = model.backward(&model.logits(&hidden).unwrap().sum_all().unwrap()).unwrap();
            // Nothing else has a gradient at the end: neither a frozen weight nor what is computed from frozen ones alone.
            assert_eq!(raw.get_ids().count(), trainable.len(), "{:?} {mode:?}", config.family);
            for (name, gradient) in gradients(&config, &mut store, false).1 {
                let size = values(&gradient).iter().fold(0.0f32, |m, g| m.max(g.abs()));
                assert!(trainable.contains(&name) && size > 0.0 && size.is_finite(), "{mode:?}: {name}: {size}");
            }
        }
    }
}

#[test]
fn recomputed_blocks_give_the_gradients_of_kept_ones_bit_for_bit() {
    for config in families() {
        for mode in modes() {
            let mut store = store(&config);
            mode.prepare(&config, &mut store, &Streams::new(4)).unwrap();
            unsettle(&store);
            let (kept, recomputed) = (gradients(&config, &mut store, false), gradients(&config, &mut store, true));
            assert_eq!(kept.0, recomputed.0);
            assert_eq!(kept.1.len(), recomputed.1.len());
            for (name, gradient) in &kept.1 {
                assert_eq!(values(gradient), values(&recomputed.1[name]), "{:?} {mode:?}: {name}", config.family);
            }
        }
    }
}

#[test]
fn adapters_off_equal_the_base_bit_for_bit_and_share_its_weights() {
    for config in families() {
        let mut store = store(&config);
        let before = logits(&config, &store);
        Trained::Adapter(all_linear(3)).prepare(&config, &mut store, &Streams::new(4)).unwrap();
        let reference = store.reference().unwrap();
        assert_eq!(logits(&config, &store), before); // B is zero
        unsettle(&store);
        assert_ne!(logits(&config, &store), before);
        assert_eq!(logits(&config, &reference), before);
        assert_eq!(logits(&config, &store.base()), before);
        // one set of weights: a change of the base is seen by the reference
        let name = format!("{}.weight", config.family.names().head.trim_end_matches(".weight"));
        let moved = Tensor::zeros(&[37, 18], DType::F32, &Device::Cpu).unwrap();
        store.set_some(&BTreeMap::from([(name, moved)])).unwrap();
        assert!(logits(&config, &reference).iter().all(|&logit| logit == 0.0));
    }
}

#[test]
fn a_reference_of_trained_blocks_stays_where_it_is_and_shares_the_frozen_ones() {
    let config = neox();
    let mut store = store(&config);
    Trained::LastBlocks(1).prepare(&config, &mut store, &Streams::new(4)).unwrap();
    let (before, reference) = (logits(&config, &store), store.reference().unwrap());
    let zeros = |name: &str| (name.to_string(), store.to_tensors()[name].zeros_like().unwrap());
    store.set_some(&BTreeMap::from([zeros("gpt_neox.layers.2.mlp.dense_4h_to_h.weight")])).unwrap();
    assert_ne!(logits(&config, &store), before);
    assert_eq!(logits(&config, &reference), before);
    store.set_some(&BTreeMap::from([zeros("gpt_neox.embed_in.weight")])).unwrap();
    assert_ne!(logits(&config, &reference), before);
}

/// Policy, batch and adapter of the Python libraries' REBEL update, and the gradients torch found.
fn torchs_update() -> (DecoderConfig, Store, BTreeMap<String, Tensor>, BTreeMap<String, Tensor>) {
    let folder = committed("train");
    let (config, mut store) = hf::load(&folder.join("policy"), DType::F32, &Device::Cpu).unwrap();
    let lora = LoraConfig::new(4, 8.0);
    peft::begin(&lora, &config, &mut store, &Streams::new(1)).unwrap();
    let update = tensors::load(&folder.join("rebel_lora_b_nonzero.safetensors")).unwrap();
    let ours = |name: &str| name.replace("policy.base_model.model.", "").replace(".default.", ".");
    let part = |begin: &str| {
        let found = update.iter().filter_map(|(n, t)| Some((ours(n.strip_prefix(begin)?), t.clone())));
        found.collect::<BTreeMap<_, _>>()
    };
    store.set_some(&part("init.")).unwrap();
    let batch = tensors::load(&folder.join("batch.safetensors")).unwrap();
    (config, store, batch, part("grad1."))
}

#[test]
fn gradients_of_an_adapter_under_rebel_are_torchs() {
    let (config, mut store, batch, expected) = torchs_update();
    let ids = |name: &str| batch[name].flatten_all().unwrap().to_vec1::<i64>().unwrap();
    let numbers = |name: &str| values(&batch[name]).into_iter().map(f64::from).collect::<Vec<f64>>();
    let (input, mask, counted) =
        (ids("online2.model_input_ids"), ids("online2.attention_mask"), ids("online2.response_mask"));
    let (rows, response) = batch["online2.response_mask"].dims2().unwrap();
    let time = input.len() / rows;
    let tokens =
        TokenBatch::new(input.iter().map(|&i| i as u32).collect(), mask.iter().map(|&m| m != 0).collect(), rows)
            .unwrap();
    let place = |i: usize| i / response * time + time - response + i % response;
    let at: Vec<usize> = (0..counted.len()).filter(|&i| counted[i] != 0).map(place).collect();
    let (old, reward) = (numbers("online2.seq_logprob_old"), numbers("online2.reward"));
    for recompute in [false, true] {
        let model = hf::decoder(&config, &store).unwrap();
        let model = if recompute { model.recomputing() } else { model };
        let hidden = model.hidden(&tokens, None).unwrap();
        let (log_p, _) = model.token_logprobs(&hidden, &tokens, &at, Temperature::new(0.7).unwrap()).unwrap();
        let mut new = vec![0.0; rows];
        let of_row: Vec<usize> = at.iter().map(|&i| i / time).collect();
        of_row.iter().zip(values(&log_p)).for_each(|(&row, p)| new[row] += f64::from(p));
        // d/dlog p of the mean over pairs of (movement - difference of rewards)^2
        let pairs = rows as f64 / 2.0;
        let slope: Vec<f32> = (0..rows)
            .map(|row| {
                let (a, b) = (row / 2 * 2, row / 2 * 2 + 1);
                let off = (new[a] - old[a]) - (new[b] - old[b]) - (reward[a] - reward[b]);
                (2.0 * off / pairs * if row == a { 1.0 } else { -1.0 }) as f32
            })
            .collect();
        let slopes: Vec<f32> = of_row.iter().map(|&row| slope[row]).collect();
        let loss = (log_p * Tensor::new(slopes, &Device::Cpu).unwrap()).unwrap().sum_all().unwrap();
        store.accumulate(model.backward(&loss).unwrap()).unwrap();
        let found = store.take_gradients();
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, want) in &expected {
            let (want, got) = (values(want), values(&found[name]));
            let scale = want.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            let worst = want.iter().zip(&got).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(worst <= 2e-5 * scale, "{name}: {worst} of {scale}");
        }
    }
}

#[test]
fn dropout_is_read_and_refused_in_training() {
    let lora = LoraConfig { dropout: 0.1, ..LoraConfig::new(2, 4.0) };
    let error = peft::begin(&lora, &neox(), &mut store(&neox()), &Streams::new(1)).unwrap_err().to_string();
    assert_eq!(error, "lora_dropout: 0.1 is not supported in training (expected 0)");
    let (folder, _) = folders(&neox(), LoraConfig::new(2, 4.0));
    let file = folder.path().join("adapter").join(peft::CONFIG);
    let mut json: Value = files::read_json(&file).unwrap();
    json["lora_dropout"] = json!(0.1);
    std::fs::write(&file, json.to_string()).unwrap();
    assert!(peft::open(&folder.path().join("adapter"), None, DType::F32, &Device::Cpu).is_ok());
}

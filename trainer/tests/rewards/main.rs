//! Reward models of every kind on trunks of every family: gradients reach what they should, padding and neighbours change
//! nothing, folders survive a round trip, and a reward is what its definition says.

mod folders;
#[path = "../shared/odd.rs"]
mod odd;
#[path = "../shared/mod.rs"]
mod shared;

use std::path::Path;

use candle_core::{D, DType, Device, Tensor};
use rebel_trainer::algorithm::bradley_terry::BradleyTerry;
use rebel_trainer::algorithm::update::{Optimizer, update};
use rebel_trainer::models::reward::{Kind, folder, mixture::MixtureConfig};
use rebel_trainer::models::{DecoderConfig, Family, RewardConfig, RewardModel, TokenBatch, Tokenizer};
use rebel_trainer::nn::{AdamW, AdamWSettings, Store, Streams};
use rebel_trainer::world::Group;
use rebel_trainer::world::text::Text;
use shared::{families, rows, store, worst};

/// The tokens between prompt and answer, for the gate.
const PATTERN: [u32; 2] = [30, 2];

/// Every kind on every family that can carry it; gates of depth 0, 1 and 4.
fn kinds() -> Vec<RewardConfig> {
    let mixture = |hidden_layers| {
        Kind::Mixture(MixtureConfig {
            objectives: ["helpful", "short", "safe"].map(String::from).to_vec(),
            hidden_layers,
            hidden_width: 7,
            temperature: 2.5,
            pattern: PATTERN.to_vec(),
        })
    };
    let mut all = Vec::new();
    for decoder in families() {
        let mut kinds = vec![Kind::Scalar { shift: 0.5 }, Kind::Classifier, mixture(1)];
        if decoder.family != Family::NeoX {
            kinds.extend([Kind::Value { trunk: "transformer" }, Kind::Value { trunk: "model.model" }]);
        }
        match decoder.family {
            Family::Mistral => kinds.push(Kind::Regression),
            Family::Llama => kinds.extend([mixture(0), mixture(4)]),
            _ => {}
        }
        let config = |kind: Kind| {
            let pad = (!matches!(kind, Kind::Scalar { .. })).then_some(36);
            RewardConfig { decoder: decoder.clone(), kind, pad }
        };
        all.extend(kinds.into_iter().map(config));
    }
    all
}

fn fresh(config: &RewardConfig) -> Store {
    RewardModel::initial(config, &store(&config.decoder), &Streams::new(4)).unwrap()
}

/// Rows with a question and an answer each.
fn conversations() -> Vec<Vec<u32>> {
    rows().into_iter().map(|row| [row.as_slice(), &PATTERN, &row[..2]].concat()).collect()
}

fn rewards(config: &RewardConfig, store: &Store, tokens: &TokenBatch) -> Vec<f32> {
    RewardModel::new(config, store).unwrap().detached().rewards(tokens).unwrap().to_vec1().unwrap()
}

#[test]
fn every_trainable_parameter_gets_a_gradient_and_no_frozen_one_does() {
    for config in kinds() {
        let head = |name: &str| ["head", "score", "gating", "reg", "reward"].iter().any(|part| name.contains(part));
        let freezes: [&dyn Fn(&str) -> bool; 3] = [&|_| false, &|name| !head(name), &|name| name.contains("layers.0.")];
        for freeze in freezes {
            let mut store = fresh(&config);
            store.freeze(freeze);
            let model = RewardModel::new(&config, &store).unwrap();
            let tokens = TokenBatch::left_padded(&conversations(), 0).unwrap();
            let rewards = model.rewards(&tokens).unwrap();
            store.accumulate(model.decoder().backward(&rewards.sum_all().unwrap()).unwrap()).unwrap();
            assert_eq!(store.missing_gradients(), Vec::<String>::new());
            let trainable: Vec<String> = store.trainable().map(|(name, _)| name.to_string()).collect();
            assert!(!trainable.is_empty() && trainable.iter().all(|name| !freeze(name)));
            for (name, gradient) in store.take_gradients() {
                assert!(trainable.contains(&name), "{name} is frozen");
                let size = gradient.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
                assert!(
                    size > 0.0 && size.is_finite(),
                    "{:?} {:?}: {name}: {size}",
                    config.decoder.family,
                    config.kind
                );
            }
        }
    }
}

#[test]
fn a_saved_folder_gives_config_and_rewards_back() {
    let tokens = TokenBatch::right_padded(&conversations(), 0).unwrap();
    for config in kinds() {
        let first = fresh(&config);
        let at = tempfile::tempdir().unwrap();
        folder::save(at.path(), &config, &first).unwrap();
        assert!(folder::is_reward_model(at.path()).unwrap());
        let (mut read, second) = folder::load(at.path(), DType::F32, &Device::Cpu).unwrap();
        if let Kind::Mixture(mixture) = &mut read.kind {
            assert_eq!(mixture.pattern.len(), 5); // ArmoRM's own until a tokenizer says otherwise
            mixture.pattern = PATTERN.to_vec();
        }
        assert_eq!(read, config);
        assert_eq!(rewards(&config, &first, &tokens), rewards(&read, &second, &tokens));
    }
}

/// The bound is candle's product of few rows, which may sum in another order.
#[test]
fn batch_and_padding_move_a_reward_by_less_than_2e_5() {
    let pool: Vec<Vec<u32>> = (0..64)
        .map(|i| {
            let question: Vec<u32> = (0..3 + i * 7 % 29).map(|t| (t * t + i) % 37).collect();
            let answer: Vec<u32> = (0..1 + i % 5).map(|t| (t * 3 + i) % 37).collect();
            [question.as_slice(), &PATTERN, &answer].concat()
        })
        .collect();
    for config in kinds() {
        let store = fresh(&config);
        let model = RewardModel::new(&config, &store).unwrap().detached();
        let alone: Vec<f32> = pool
            .iter()
            .map(|row| {
                let tokens = TokenBatch::right_padded(std::slice::from_ref(row), 0).unwrap();
                model.rewards(&tokens).unwrap().to_vec1::<f32>().unwrap()[0]
            })
            .collect();
        let spread = worst(&alone, &vec![alone[0]; 64]);
        assert!(spread > 1e-2, "{:?}: rewards differ by {spread} alone", config.kind);
        for batch in [8, 64] {
            for pad in [TokenBatch::left_padded, TokenBatch::right_padded] {
                let padded: Vec<f32> = pool
                    .chunks(batch)
                    .flat_map(|rows| model.rewards(&pad(rows, 3).unwrap()).unwrap().to_vec1::<f32>().unwrap())
                    .collect();
                let off = worst(&alone, &padded);
                assert!(off < 2e-5, "{:?} {:?}, batch {batch}: {off}", config.decoder.family, config.kind);
            }
        }
    }
}

/// Nothing but candle's own operations on the trunk's states: no published vector has a Eurus model.
#[test]
fn a_reward_is_the_heads_product_with_the_last_tokens_state() {
    for config in kinds() {
        if matches!(config.kind, Kind::Mixture(_)) {
            continue;
        }
        let store = fresh(&config);
        let tokens = TokenBatch::left_padded(&conversations(), 0).unwrap();
        let hidden = RewardModel::new(&config, &store).unwrap().decoder().hidden(&tokens, None).unwrap();
        let last = hidden.narrow(1, tokens.dims().1 - 1, 1).unwrap().squeeze(1).unwrap(); // [batch, width]
        let weight = store.get(&format!("{}.weight", config.head()), &[1, config.decoder.width]).unwrap();
        let mut expected = last.broadcast_mul(&weight).unwrap().sum(D::Minus1).unwrap();
        if let Kind::Scalar { shift } = config.kind {
            let bias = store.get("scalar_head.bias", &[1]).unwrap();
            expected = (expected.broadcast_add(&bias).unwrap() - shift).unwrap();
        }
        let off = worst(&rewards(&config, &store, &tokens), &expected.to_vec1().unwrap());
        assert!(off < 1e-5, "{:?}: {off}", config.kind);
    }
}

fn mixture_config() -> RewardConfig {
    kinds().into_iter().find(|c| matches!(&c.kind, Kind::Mixture(m) if m.hidden_layers == 4)).unwrap()
}

#[test]
fn the_gate_reads_the_last_pattern_among_the_real_tokens() {
    let config = mixture_config();
    let store = fresh(&config);
    let model = RewardModel::new(&config, &store).unwrap().detached();
    // The pattern twice, then once more in the padding.
    let row = [vec![7, 30, 2, 9, 8], PATTERN.to_vec(), vec![5], PATTERN.to_vec()].concat();
    let mask = (0..row.len()).map(|i| i < 8).collect();
    let assessed = model.assess(&TokenBatch::new(row, mask, 1).unwrap()).unwrap();
    assert_eq!(assessed.mixed.unwrap().gate_columns, [5]);
    let without = TokenBatch::right_padded(&[vec![1, 30, 3, 2]], 0).unwrap();
    let error = model.rewards(&without).unwrap_err().to_string();
    assert!(error.contains("row 0") && error.contains("[30, 2]") && !error.contains('\n'), "{error}");
}

#[test]
fn weights_of_objectives_sum_to_the_scale_and_an_untouched_matrix_changes_none() {
    let config = mixture_config();
    let store = fresh(&config);
    let mut values = store.to_tensors();
    values.insert("gating.logit_scale".into(), Tensor::new(&[3.5f32], &Device::Cpu).unwrap());
    store.set(&values).unwrap();
    let model = RewardModel::new(&config, &store).unwrap().detached();
    let mixed = model.assess(&TokenBatch::left_padded(&conversations(), 0).unwrap()).unwrap().mixed.unwrap();
    let sums: Vec<f32> = mixed.gating.sum(1).unwrap().to_vec1().unwrap();
    assert!(worst(&sums, &[3.5; 3]) < 1e-5, "{sums:?}");
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(flat(&mixed.objectives), flat(&mixed.transformed)); // the matrix starts as the identity
}

#[test]
fn only_the_papers_head_has_a_shift() {
    for config in kinds() {
        let model = RewardModel::new(&config, &fresh(&config)).unwrap();
        let moved = model.with_shift(2.0);
        match config.kind {
            Kind::Scalar { .. } => assert_eq!(moved.unwrap().config().kind, Kind::Scalar { shift: 2.0 }),
            _ => assert!(moved.unwrap_err().to_string().contains(config.head())),
        }
    }
}

#[test]
fn a_half_precision_head_is_read_in_single_precision() {
    let config = RewardConfig {
        decoder: DecoderConfig { layers: 1, ..families()[1].clone() },
        kind: Kind::Classifier,
        pad: None,
    };
    let store = fresh(&config);
    let exact = Tensor::new(&[[1.0f32; 18]], &Device::Cpu).unwrap();
    let half = Store::load(store.to_tensors(), DType::BF16, &Device::Cpu).unwrap();
    let model = RewardModel::new(&config, &half).unwrap().detached();
    let values = model.values(&exact.to_dtype(DType::BF16).unwrap()).unwrap();
    assert_eq!(values.dtype(), DType::F32);
    // bf16 holds 8 bits: a sum of 18 of its numbers has more.
    let weight = half.get("score.weight", &[1, 18]).unwrap().to_dtype(DType::F32).unwrap();
    let sum = weight.sum_all().unwrap().to_scalar::<f32>().unwrap();
    assert!((values.to_vec1::<f32>().unwrap()[0] - sum).abs() < 1e-6);
}

#[test]
fn every_kind_on_every_trunk_learns_a_preference() {
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/hf/rm/tldr_scalar");
    for config in kinds() {
        let tokenizer = Tokenizer::load(&tokenizer).unwrap();
        let mut world = Text::reward_model(&config, fresh(&config), tokenizer).unwrap();
        let side = |world: &Text, answer: &[u32]| {
            world.given(0, "", vec![7, 1, 9, 30, 2], answer.to_vec(), "") // the question ends in the gate's tokens
        };
        let trajectories = vec![side(&world, &[3, 4, 5]), side(&world, &[8, 11])];
        let pair = [Group { trajectories, rewards: vec![] }];
        let settings = AdamWSettings { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
        let mut optimizer = Optimizer { adamw: AdamW::new(settings), clip: f64::INFINITY, micro_batch: 1 };
        let losses: Vec<f64> =
            (0..12).map(|_| update(&mut world, &mut optimizer, &BradleyTerry, &pair, 1e-2).unwrap().loss).collect();
        assert!(losses[11] < losses[0].min(0.1), "{:?} {:?}: {losses:?}", config.decoder.family, config.kind);
    }
}

//! Generation as its users meet it: draws depend on prompt and sample alone, samples carry the scorer's log-probabilities,
//! and what cannot be continued is refused.

mod shared;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use rand_chacha::ChaCha8Rng;
use rebel_trainer::models::{
    Completion, Decoder, DecoderConfig, Event, Generation, TokenBatch, Tokenizer, Trained, generate, generate_observed,
    hf, parameters,
};
use rebel_trainer::nn::{Choice, Purpose, Sampling, Scoring, Streams, Temperature};
use rebel_trainer::world::text::{Prompt, Responses, Text};
use rebel_trainer::world::{Ask, Outputs, Trajectory, World};
use shared::{config, families, rows, store, worst};

/// Prompts of 1 to 30 tokens, numbered as they are.
fn many(n: usize) -> Vec<Vec<u32>> {
    (0..n).map(|p| (0..1 + p * 7 % 30).map(|i| ((p * 11 + i * i) % 37) as u32).collect()).collect()
}

fn sampling(k: Option<usize>, p: Option<f64>) -> Sampling {
    Sampling::new(Temperature::new(0.7).unwrap(), k, p).unwrap()
}

fn stream(prompt: usize, sample: usize) -> ChaCha8Rng {
    Streams::new(9).stream(Purpose("sample"), 0, prompt as u64, sample as u64)
}

fn model(config: &DecoderConfig, dtype: DType) -> Decoder {
    let store = parameters::initial(config, &Streams::new(3), dtype, &Device::Cpu).unwrap();
    hf::decoder(config, &store).unwrap().detached()
}

const STOP: [u32; 2] = [5, 36];

fn drawn(sampling: Sampling, batch: usize) -> Generation<'static> {
    Generation { max_new: 25, choice: Choice::Sample(sampling), stop: &STOP, samples: 2, batch }
}

/// Log-probabilities of a completion by one forward pass over the whole of it.
fn scored(model: &Decoder, prompt: &[u32], ids: &[u32], scoring: impl Into<Scoring>) -> Vec<f64> {
    let (log_p, _) = model.scores(&[(prompt, ids)], scoring).unwrap();
    log_p.to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// Six completions in three rows, so that rows are copied, handed on and read anew.
#[test]
fn samples_carry_the_scorers_log_probs_to_the_bit_in_every_family_however_they_are_truncated() {
    let mut stopped = 0;
    for config in families() {
        let model = model(&config, DType::F32);
        for sampling in
            [sampling(None, None), sampling(Some(6), None), sampling(None, Some(0.8)), sampling(Some(9), Some(0.9))]
        {
            let completions = generate(&model, &rows(), drawn(sampling, 3), stream).unwrap();
            assert_eq!(completions.len(), 6);
            for (i, completion) in completions.iter().enumerate() {
                let Completion { ids, log_probs, .. } = completion;
                assert_eq!(completion.stopped, ids.last().is_some_and(|id| STOP.contains(id)));
                assert!(ids[..ids.len() - 1].iter().all(|id| !STOP.contains(id)));
                assert!(completion.stopped || ids.len() == 25);
                stopped += usize::from(completion.stopped);
                let scored = scored(&model, &rows()[i / 2], ids, sampling.of_drawn());
                assert_eq!(&scored, log_probs, "{:?} {sampling:?}", config.family);
            }
        }
    }
    assert!(stopped > 20 && stopped < 100, "{stopped} of 120"); // both ends are met
}

/// Layers that add nothing, and a head with one entry a row: the logits are the same numbers in any batch.
#[test]
fn with_logits_that_no_batch_changes_neither_batch_nor_order_changes_a_bit() {
    let config = DecoderConfig { vocab: 36, width: 36, inner: 72, heads: 6, kv_heads: 6, head_dim: 6, ..config() };
    let store = store(&config);
    let mut tensors = store.to_tensors();
    for (name, tensor) in &mut tensors {
        if name.ends_with("attention.dense.weight") || name.ends_with("dense_4h_to_h.weight") {
            *tensor = tensor.zeros_like().unwrap();
        }
    }
    let head = Tensor::eye(36, DType::F32, &Device::Cpu).unwrap();
    tensors.insert("embed_out.weight".into(), (head * 2.0).unwrap());
    store.set(&tensors).unwrap();
    let model = hf::decoder(&config, &store).unwrap().detached();
    let prompts: Vec<Vec<u32>> = many(40).into_iter().map(|p| p.into_iter().map(|id| id % 36).collect()).collect();
    for sampling in [Sampling::ONE, sampling(Some(9), Some(0.9))] {
        let alone = generate(&model, &prompts, drawn(sampling, 1), stream).unwrap();
        assert!(alone.iter().any(|c| c.stopped) && alone.iter().any(|c| !c.stopped));
        for batch in [8, 64] {
            assert_eq!(generate(&model, &prompts, drawn(sampling, batch), stream).unwrap(), alone);
        }
        // Prompt number p is now at place 39 - p * 7 % 40.
        let place = |i: usize| (39 - i) * 23 % 40;
        let moved: Vec<Vec<u32>> = (0..40).map(|i| prompts[place(i)].clone()).collect();
        let again = generate(&model, &moved, drawn(sampling, 8), |p, s| stream(place(p), s)).unwrap();
        for (i, completion) in again.iter().enumerate() {
            assert_eq!(*completion, alone[2 * place(i / 2) + i % 2]);
        }
        let other = generate(&model, &prompts, drawn(sampling, 8), |p, s| stream(p + 1, s)).unwrap();
        assert_ne!(other, alone);
    }
}

/// In f64 a sum in another order is off by 1e-15, so no draw meets a tie.
#[test]
fn in_f64_every_family_completes_alike_at_batch_1_8_and_64_and_in_any_order() {
    for config in families() {
        let model = model(&config, DType::F64);
        let sampling = sampling(None, Some(0.95));
        let alone = generate(&model, &many(20), drawn(sampling, 1), stream).unwrap();
        for batch in [8, 64] {
            let backwards: Vec<Vec<u32>> = many(20).into_iter().rev().collect();
            let together = generate(&model, &backwards, drawn(sampling, batch), |p, s| stream(19 - p, s)).unwrap();
            for (i, one) in alone.iter().enumerate() {
                let other = &together[2 * (19 - i / 2) + i % 2];
                assert_eq!(one.ids, other.ids, "{:?} {i}", config.family);
                assert!(worst(&one.log_probs, &other.log_probs) < 1e-11);
            }
        }
    }
}

#[test]
fn in_f32_every_family_completes_alike_to_the_bit_at_batch_1_8_and_64_and_in_any_order() {
    for config in families() {
        let model = model(&config, DType::F32);
        for sampling in [Sampling::ONE, sampling(Some(9), Some(0.9))] {
            let alone = generate(&model, &many(20), drawn(sampling, 1), stream).unwrap();
            for batch in [8, 64] {
                let backwards: Vec<Vec<u32>> = many(20).into_iter().rev().collect();
                let together = generate(&model, &backwards, drawn(sampling, batch), |p, s| stream(19 - p, s)).unwrap();
                for (i, one) in alone.iter().enumerate() {
                    assert_eq!(*one, together[2 * (19 - i / 2) + i % 2], "{:?} {i}", config.family);
                }
            }
            // The scorer, all rows together: neighbours share their prompt.
            let prompts = many(20);
            let row = |(i, c): (usize, &Completion)| (prompts[i / 2].clone(), c.ids.clone());
            let rows: Vec<(Vec<u32>, Vec<u32>)> = alone.iter().enumerate().map(row).collect();
            let rows: Vec<(&[u32], &[u32])> = rows.iter().map(|(p, r)| (p.as_slice(), r.as_slice())).collect();
            let (log_p, _) = model.scores(&rows, sampling.of_drawn()).unwrap();
            let log_p: Vec<f64> = log_p.to_dtype(DType::F64).unwrap().to_vec1().unwrap();
            let drawn: Vec<f64> = alone.iter().flat_map(|c| c.log_probs.clone()).collect();
            assert_eq!(log_p, drawn, "{:?}", config.family);
        }
    }
}

#[test]
fn greedy_takes_the_likeliest_token_of_a_forward_pass() {
    for config in families() {
        let model = model(&config, DType::F64);
        let greedy = Generation { choice: Choice::Greedy, stop: &[], samples: 1, ..drawn(Sampling::ONE, 2) };
        for (prompt, completion) in rows().iter().zip(generate(&model, &rows(), greedy, stream).unwrap()) {
            let tokens = TokenBatch::left_padded(&[[prompt.as_slice(), &completion.ids].concat()], 0).unwrap();
            let logits = model.logits(&model.hidden(&tokens, None).unwrap()).unwrap().squeeze(0).unwrap();
            let likeliest = logits.argmax(1).unwrap().to_vec1::<u32>().unwrap();
            assert_eq!(likeliest[prompt.len() - 1..][..25], completion.ids);
        }
    }
}

/// A prompt longer than a pass is read in pieces.
#[test]
fn a_prompt_of_5000_tokens_is_continued_as_its_forward_pass_says() {
    let config = DecoderConfig { max_positions: 8192, ..families()[2].clone() }; // with a window of 5
    let model = model(&config, DType::F64);
    let long: Vec<u32> = (0..5000u32).map(|i| i * i % 37).collect();
    let generation = Generation { max_new: 3, ..drawn(Sampling::ONE, 2) };
    for (i, completion) in generate(&model, &[vec![3], long.clone()], generation, stream).unwrap().iter().enumerate() {
        let prompt = if i < 2 { &[3][..] } else { &long };
        assert!(worst(&scored(&model, prompt, &completion.ids, Sampling::ONE), &completion.log_probs) < 1e-10);
    }
}

#[test]
fn every_token_and_every_end_is_told_once() {
    let model = model(&config(), DType::F32);
    let mut told: BTreeMap<usize, (usize, bool)> = BTreeMap::new();
    let generation = drawn(Sampling::ONE, 3);
    let completions = generate_observed(&model, &rows(), generation, stream, |event| {
        match event {
            Event::Logits(rows, logits) => assert_eq!(logits.dims(), [rows.len(), 37]),
            Event::Token(number, so_far) => {
                let (tokens, finished) = told.entry(number).or_default();
                *tokens += 1;
                assert!(*tokens == so_far.ids.len() && !*finished);
            }
            Event::Finished(number, _) => told.get_mut(&number).unwrap().1 = true,
        }
        Ok(())
    })
    .unwrap();
    let ends: Vec<(usize, bool)> = told.into_values().collect();
    assert_eq!(ends, completions.iter().map(|c| (c.ids.len(), true)).collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_continued_is_refused_by_the_number_of_its_prompt() {
    let model = model(&config(), DType::F32); // 64 positions
    let refused = |prompt: Vec<u32>, generation: Generation| {
        generate(&model, &[vec![1], prompt], generation, stream).unwrap_err().to_string()
    };
    let usual = drawn(Sampling::ONE, 4);
    assert_eq!(refused(vec![], usual), "prompt 1: is empty (expected at least one token)");
    let most = "(expected at most max_position_embeddings 64)";
    assert_eq!(refused(vec![2; 65], usual), format!("prompt 1: has 65 tokens {most}"));
    assert_eq!(refused(vec![2; 40], usual), format!("prompt 1: has 40 tokens, 65 with 25 new ones {most}"));
    assert!(refused(vec![99], usual).contains("token 99 (expected less than vocab_size 37)"));
    let all = Generation { max_new: usize::MAX, ..usual };
    assert!(refused(vec![2], all).contains(most));

    let vast = DecoderConfig { max_positions: 1 << 28, ..config() };
    let model = self::model(&vast, DType::F32);
    let generation = Generation { max_new: 1 << 27, samples: 1 << 20, batch: 1 << 20, ..usual };
    let error = generate(&model, &[vec![1]], generation, stream).unwrap_err().to_string();
    assert!(error.starts_with("cache: 1048576 rows of"), "{error}");
}

/// A world whose policy is truncated: what is drawn is trained on as it was drawn, and stays finite when the policy moves.
#[test]
fn a_truncated_policys_trajectories_keep_finite_log_probs_while_it_moves() {
    let texts = ["a post about cats", "a post about dogs and cats"].map(String::from);
    let tokenizer = Tokenizer::train(texts.into_iter(), 262).unwrap();
    let config = DecoderConfig { vocab: tokenizer.vocab_len(), ..config() };
    let sampling = sampling(Some(40), Some(0.6));
    let responses = Responses { sampling, response_length: 12, eos: tokenizer.eos().unwrap() };
    let ids = tokenizer.encode("a post").unwrap();
    let first = store(&config);
    let mut world = Text::policy(config.clone(), store(&config), tokenizer, responses)
        .unwrap()
        .begin(Trained::Full, false, &Streams::new(5))
        .unwrap();
    let prompt = Prompt { text: "a post".into(), ids };
    let drawn = world.rollout(&[(0, &prompt)], 8, &Streams::new(4), 0).unwrap().remove(0);
    assert!(drawn.iter().all(|t| t.kl() == 0.0 && t.old.iter().all(|l| l.is_finite())));
    let rows: Vec<&Trajectory<_>> = drawn.iter().collect();
    let log_probs = |world: &Text| {
        let (Outputs::LogProbabilities { values, .. }, _) = world.outputs(&rows, Ask::LogProbabilities).unwrap() else {
            panic!("asked for log-probabilities")
        };
        values
    };
    let before = log_probs(&world);
    for (row, t) in before.rows().into_iter().zip(&drawn) {
        assert!(worst(&row.to_vec()[..t.steps], &t.old) < 2e-5);
    }
    let moved: BTreeMap<String, Tensor> =
        first.to_tensors().into_iter().map(|(name, t)| (name, (t * -1.0).unwrap())).collect();
    world.store().set(&moved).unwrap();
    let after = log_probs(&world);
    assert!(after.iter().all(|l| l.is_finite()) && after != before);
}

use candle_core::Device;

use super::*;
use crate::nn::ops::testing::*;
use crate::nn::rope::RopeScaling;

const ROPE: Rope = Rope { dims: 6, theta: 10_000.0, scaling: RopeScaling::None };
const NEOX: Geometry = Geometry { heads: 3, kv_heads: 3, head_dim: 10, packing: Packing::PerHead, window: None };
const GROUPED: Geometry = Geometry { heads: 6, kv_heads: 2, packing: Packing::PerPart, ..NEOX };
const WINDOWED: Geometry = Geometry { window: Some(7), kv_heads: 1, ..GROUPED };

/// Rows of 37 tokens: one left-padded by 5, one right-padded by 3, one with a hole.
fn tokens(rope: &Rope, dtype: DType) -> Tokens {
    let (batch, time) = (3, 37);
    let mut visible = vec![true; batch * time];
    visible[..5].fill(false);
    visible[2 * time - 3..2 * time].fill(false);
    visible[2 * time + 20] = false;
    let positions: Vec<u32> = (0..batch as u32).flat_map(|b| (0..time as u32).map(move |i| i + b)).collect();
    Tokens::new(rope, &positions, visible, batch, dtype)
}

#[test]
fn fused_and_composed_attention_agree_and_the_gradient_is_the_slope() {
    let whole = Rope { dims: 10, ..ROPE };
    let none = Rope { dims: 0, ..ROPE };
    let cases = [(NEOX, ROPE), (NEOX, whole), (NEOX, none), (GROUPED, whole), (WINDOWED, ROPE)];
    for (geometry, rope) in cases {
        let qkv = random("qkv", &[3, 37, geometry.packed()], DType::F64);
        let at = |dtype| tokens(&rope, dtype);
        let fused = |a: &[Tensor]| attention(&a[0], geometry, &at(a[0].dtype())).unwrap();
        let slow = |a: &[Tensor]| composed(&a[0], geometry, &at(a[0].dtype())).unwrap();
        agree(std::slice::from_ref(&qkv), fused, slow, [3e-6, 1e-12]);
        matches_finite_differences(std::slice::from_ref(&qkv), fused, 1e-6);
    }
}

#[test]
fn a_token_sees_its_window_and_nothing_before() {
    let rope = Rope { dims: 10, ..ROPE };
    let tokens = Tokens::new(&rope, &(0..20).collect::<Vec<u32>>(), vec![true; 20], 1, DType::F64);
    let qkv = random("qkv", &[1, 20, WINDOWED.packed()], DType::F64);
    let early = random("other", &[1, 13, WINDOWED.packed()], DType::F64);
    let changed = Tensor::cat(&[&early, &qkv.narrow(1, 13, 7).unwrap()], 1).unwrap();
    let last = |qkv: &Tensor, i| attention(qkv, WINDOWED, &tokens).unwrap().narrow(1, i, 1).unwrap();
    assert_eq!(difference(&last(&qkv, 19), &last(&changed, 19)), 0.0);
    assert!(difference(&last(&qkv, 18), &last(&changed, 18)) > 1e-3);
}

/// Rows of 37, 30 and 12 tokens in pieces of their own lengths, padded left, right or not at all, in rows of the cache that are
/// not in order; the cache holds what an earlier sequence left.
#[test]
fn attention_by_pieces_through_the_cache_equals_attention_at_once_bit_for_bit() {
    let (slots, capacity, lens) = ([3, 0, 2], 41, [37, 30, 12]);
    for geometry in [NEOX, GROUPED, WINDOWED] {
        let rows = lens.map(|n| random(&format!("row {n}"), &[1, n, geometry.packed()], DType::F32));
        let at_once = [0, 1, 2].map(|b: usize| {
            let positions: Vec<u32> = (0..lens[b] as u32).collect();
            let tokens = Tokens::new(&ROPE, &positions, vec![true; lens[b]], 1, DType::F32);
            attention(&rows[b], geometry, &tokens).unwrap()
        });
        let dirty = |shape: &[usize]| random("left over", shape, DType::F32);
        let keys = dirty(&[4, geometry.kv_heads, 10, capacity]);
        let values = dirty(&[4, geometry.kv_heads, capacity, 10]);
        let untouched = keys.get(1).unwrap().copy().unwrap();
        // Tokens of each row in a pass, and the column at which they start.
        let mut past = [0; 3];
        for (counts, starts, time) in [
            ([20, 9, 1], [0, 0, 0], 20),
            ([1, 1, 1], [0, 0, 0], 1),
            ([10, 0, 2], [2, 0, 10], 12),
            ([6, 20, 8], [14, 0, 3], 20),
        ] {
            let continued: Vec<Continued> = (0..3)
                .map(|b| Continued { slot: slots[b], past: past[b], start: starts[b], count: counts[b] })
                .collect();
            let tokens = Tokens::continuing(&ROPE, continued, time, DType::F32);
            let piece: Vec<Tensor> = (0..3)
                .map(|b| {
                    let padding = |n: usize| random("padding", &[1, n, geometry.packed()], DType::F32);
                    let real = rows[b].narrow(1, past[b], counts[b]).unwrap();
                    let after = padding(time - starts[b] - counts[b]);
                    Tensor::cat(&[padding(starts[b]), real, after], 1).unwrap()
                })
                .collect();
            let piece = Tensor::cat(&piece, 0).unwrap();
            let fused = attention_cached(&piece, geometry, &tokens, &keys, &values).unwrap();
            let slow = composed_cached(&piece, geometry, &tokens, &keys, &values).unwrap();
            for b in 0..3 {
                let expected = at_once[b].narrow(1, past[b], counts[b]).unwrap();
                let real = |x: &Tensor| x.narrow(0, b, 1).unwrap().narrow(1, starts[b], counts[b]).unwrap();
                assert_eq!(difference(&real(&fused), &expected), 0.0);
                assert!(difference(&real(&slow), &expected) < 2e-6);
                past[b] += counts[b];
            }
        }
        assert_eq!(past, lens);
        assert_eq!(difference(&keys.get(1).unwrap(), &untouched), 0.0);
    }
}

#[test]
fn rows_that_do_not_fit_the_cache_are_an_error() {
    let qkv = random("qkv", &[1, 2, NEOX.packed()], DType::F32);
    let keys = Tensor::zeros((2, 3, 10, 4), DType::F32, &Device::Cpu).unwrap();
    let values = Tensor::zeros((2, 3, 4, 10), DType::F32, &Device::Cpu).unwrap();
    for (slot, past, count) in [(2, 0, 2), (0, 3, 2), (0, 0, 3)] {
        let tokens = Tokens::continuing(&ROPE, vec![Continued { slot, past, start: 0, count }], 2, DType::F32);
        assert!(attention_cached(&qkv, NEOX, &tokens, &keys, &values).is_err(), "{slot} {past} {count}");
    }
}

#[test]
fn left_padding_changes_no_bit_of_the_real_tokens() {
    for geometry in [NEOX, GROUPED, WINDOWED] {
        let qkv = random("qkv", &[1, 21, geometry.packed()], DType::F32);
        let padding = random("padding", &[1, 7, geometry.packed()], DType::F32);
        let positions: Vec<u32> = (0..21).collect();
        let plain = Tokens::new(&ROPE, &positions, vec![true; 21], 1, DType::F32);
        let padded_positions: Vec<u32> = (0..28u32).map(|i| i.saturating_sub(7)).collect();
        let visible = (0..28).map(|j| j >= 7).collect();
        let padded = Tokens::new(&ROPE, &padded_positions, visible, 1, DType::F32);
        let a = attention(&qkv, geometry, &plain).unwrap();
        let b = attention(&Tensor::cat(&[&padding, &qkv], 1).unwrap(), geometry, &padded).unwrap();
        assert_eq!(difference(&a, &b.narrow(1, 7, 21).unwrap()), 0.0);
        let before = b.narrow(1, 0, 7).unwrap();
        assert_eq!(difference(&before, &before.zeros_like().unwrap()), 0.0);
    }
}

//! Lanes as registers of AVX-512 and of AVX2.

use std::arch::x86_64::*;

use super::Simd;
use crate::gemm;

/// Halves of eight, then of four, two and one.
#[inline(always)]
unsafe fn sum8(v: __m256) -> f32 {
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(v, _mm_shuffle_ps(v, v, 1)))
}

#[inline(always)]
unsafe fn largest8(v: __m256) -> f32 {
    let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_max_ss(v, _mm_shuffle_ps(v, v, 1)))
}

/// Pairs of lines are interleaved, then pairs of pairs, then halves exchanged.
#[inline(always)]
unsafe fn transpose(source: *const f32, from: usize, target: *mut f32, to: usize) {
    let line = |i: usize| _mm256_loadu_ps(source.add(i * from));
    let (mut a, mut b) = ([_mm256_setzero_ps(); 8], [_mm256_setzero_ps(); 8]);
    for i in 0..4 {
        let (x, y) = (line(2 * i), line(2 * i + 1));
        a[2 * i] = _mm256_unpacklo_ps(x, y);
        a[2 * i + 1] = _mm256_unpackhi_ps(x, y);
    }
    for i in 0..2 {
        let q = 4 * i;
        b[q] = _mm256_shuffle_ps(a[q], a[q + 2], 0x44);
        b[q + 1] = _mm256_shuffle_ps(a[q], a[q + 2], 0xEE);
        b[q + 2] = _mm256_shuffle_ps(a[q + 1], a[q + 3], 0x44);
        b[q + 3] = _mm256_shuffle_ps(a[q + 1], a[q + 3], 0xEE);
    }
    for i in 0..4 {
        _mm256_storeu_ps(target.add(i * to), _mm256_permute2f128_ps(b[i], b[i + 4], 0x20));
        _mm256_storeu_ps(target.add((i + 4) * to), _mm256_permute2f128_ps(b[i], b[i + 4], 0x31));
    }
}

/// One register of sixteen lanes.
#[derive(Clone, Copy)]
pub struct Avx512;

impl Simd for Avx512 {
    type V = __m512;
    const WIDE: usize = 2;
    const TALL: usize = 14;

    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        _mm512_loadu_ps(p)
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        _mm512_storeu_ps(p, v)
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        _mm512_set1_ps(x)
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        _mm512_add_ps(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        _mm512_sub_ps(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        _mm512_mul_ps(a, b)
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        _mm512_div_ps(a, b)
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        _mm512_max_ps(a, b)
    }
    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        _mm512_min_ps(a, b)
    }
    #[inline(always)]
    unsafe fn sqrt(a: __m512) -> __m512 {
        _mm512_sqrt_ps(a)
    }
    #[inline(always)]
    unsafe fn abs(a: __m512) -> __m512 {
        _mm512_abs_ps(a)
    }
    #[inline(always)]
    unsafe fn power(a: __m512) -> __m512 {
        let n = _mm512_add_epi32(_mm512_castps_si512(a), _mm512_set1_epi32(127));
        _mm512_castsi512_ps(_mm512_slli_epi32(n, 23))
    }
    #[inline(always)]
    unsafe fn select_less(a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x)
    }
    #[inline(always)]
    unsafe fn first(n: isize, x: __m512, y: __m512) -> __m512 {
        let mask = (1u32 << n.clamp(0, 16)) - 1;
        _mm512_mask_blend_ps(mask as u16, y, x)
    }
    #[inline(always)]
    unsafe fn sum(a: __m512) -> f32 {
        sum8(_mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1)))
    }
    #[inline(always)]
    unsafe fn largest(a: __m512) -> f32 {
        largest8(_mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1)))
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        _mm_prefetch(p.cast(), _MM_HINT_T1)
    }
    #[inline(always)]
    unsafe fn prefetch_near(p: *const f32) {
        _mm_prefetch(p.cast(), _MM_HINT_T0)
    }
    #[inline(always)]
    unsafe fn transpose8(source: *const f32, from: usize, target: *mut f32, to: usize) {
        transpose(source, from, target, to)
    }
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn tile_rows(tall: usize, t: &gemm::Tile) {
        gemm::tile_rows::<Self>(tall, t);
    }
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn outer_block(rows: usize, a: *const f32, b: *const f32, c: *mut f32, ahead: *const f32) {
        gemm::outer_block::<Self>(rows, a, b, c, ahead);
    }
}

/// Two registers of eight lanes.
#[derive(Clone, Copy)]
pub struct Avx2;

type Pair = [__m256; 2];

#[inline(always)]
unsafe fn pair(f: impl Fn(usize) -> __m256) -> Pair {
    [f(0), f(1)]
}

impl Simd for Avx2 {
    type V = Pair;
    const WIDE: usize = 1;
    const TALL: usize = 6;

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Pair {
        [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))]
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Pair) {
        _mm256_storeu_ps(p, v[0]);
        _mm256_storeu_ps(p.add(8), v[1]);
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Pair {
        [_mm256_set1_ps(x); 2]
    }
    #[inline(always)]
    unsafe fn add(a: Pair, b: Pair) -> Pair {
        [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])]
    }
    #[inline(always)]
    unsafe fn sub(a: Pair, b: Pair) -> Pair {
        [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])]
    }
    #[inline(always)]
    unsafe fn mul(a: Pair, b: Pair) -> Pair {
        [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])]
    }
    #[inline(always)]
    unsafe fn div(a: Pair, b: Pair) -> Pair {
        [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])]
    }
    #[inline(always)]
    unsafe fn fma(a: Pair, b: Pair, c: Pair) -> Pair {
        [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])]
    }
    #[inline(always)]
    unsafe fn max(a: Pair, b: Pair) -> Pair {
        [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])]
    }
    #[inline(always)]
    unsafe fn min(a: Pair, b: Pair) -> Pair {
        [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])]
    }
    #[inline(always)]
    unsafe fn sqrt(a: Pair) -> Pair {
        [_mm256_sqrt_ps(a[0]), _mm256_sqrt_ps(a[1])]
    }
    #[inline(always)]
    unsafe fn abs(a: Pair) -> Pair {
        let sign = _mm256_set1_ps(-0.0);
        [_mm256_andnot_ps(sign, a[0]), _mm256_andnot_ps(sign, a[1])]
    }
    #[inline(always)]
    unsafe fn power(a: Pair) -> Pair {
        pair(|i| {
            let n = _mm256_add_epi32(_mm256_castps_si256(a[i]), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32(n, 23))
        })
    }
    #[inline(always)]
    unsafe fn select_less(a: Pair, b: Pair, x: Pair, y: Pair) -> Pair {
        pair(|i| _mm256_blendv_ps(y[i], x[i], _mm256_cmp_ps(a[i], b[i], _CMP_LT_OQ)))
    }
    #[inline(always)]
    unsafe fn first(n: isize, x: Pair, y: Pair) -> Pair {
        let n = n.clamp(0, 16) as i32;
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        pair(|i| {
            let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(n - 8 * i as i32), lanes);
            _mm256_blendv_ps(y[i], x[i], _mm256_castsi256_ps(mask))
        })
    }
    #[inline(always)]
    unsafe fn sum(a: Pair) -> f32 {
        sum8(_mm256_add_ps(a[0], a[1]))
    }
    #[inline(always)]
    unsafe fn largest(a: Pair) -> f32 {
        largest8(_mm256_max_ps(a[0], a[1]))
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        _mm_prefetch(p.cast(), _MM_HINT_T1)
    }
    #[inline(always)]
    unsafe fn prefetch_near(p: *const f32) {
        _mm_prefetch(p.cast(), _MM_HINT_T0)
    }
    #[inline(always)]
    unsafe fn transpose8(source: *const f32, from: usize, target: *mut f32, to: usize) {
        transpose(source, from, target, to)
    }
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile_rows(tall: usize, t: &gemm::Tile) {
        gemm::tile_rows::<Self>(tall, t);
    }
    #[target_feature(enable = "avx2,fma")]
    unsafe fn outer_block(rows: usize, a: *const f32, b: *const f32, c: *mut f32, ahead: *const f32) {
        gemm::outer_block::<Self>(rows, a, b, c, ahead);
    }
}

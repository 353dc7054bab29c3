// Sixteen floats at a time: AVX-512 F, BW, DQ and VL. The members are explained in vec_scalar.hpp.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#define HEADWAY_LEVEL avx512

namespace headway::avx512 {
namespace {

// Bits set for the first count of sixteen entries.
inline __mmask16 first(std::size_t count) { return static_cast<__mmask16>((1u << count) - 1); }

struct Vec {
    static constexpr std::size_t width = 16;
    __m512 v;

    static Vec all(float x) { return {_mm512_set1_ps(x)}; }
    static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
    static Vec load(const float* p, std::size_t count, Vec fill) {
        return {_mm512_mask_loadu_ps(fill.v, first(count), p)};
    }
    void store(float* p) const { _mm512_storeu_ps(p, v); }
    void store(float* p, std::size_t count) const { _mm512_mask_storeu_ps(p, first(count), v); }

    float sum() const { return _mm512_reduce_add_ps(v); }
    float greatest() const { return _mm512_reduce_max_ps(v); }
};

inline Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Vec mul_add(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }

inline Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Vec max_or_nan(Vec a, Vec b) {
    return {_mm512_mask_mov_ps(max(a, b).v, _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q), a.v)};
}

inline Vec round(Vec a) {
    return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Vec power_of_2(Vec a) {
    const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(a.v), _mm512_set1_epi32(127));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(biased, 23))};
}
inline Vec keep_from(Vec a, Vec bound, Vec value) {
    return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a.v, bound.v, _CMP_GE_OQ), value.v)};
}

inline std::uint32_t is_nan(Vec a) { return _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q); }
inline std::uint32_t equal(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ); }
inline std::uint32_t greater(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ); }

}  // namespace
}  // namespace headway::avx512

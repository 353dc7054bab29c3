// Eight floats at a time: AVX2 and FMA. The members are explained in vec_scalar.hpp.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#define HEADWAY_LEVEL avx2

namespace headway::avx2 {
namespace {

// All ones in the first count of eight entries.
inline __m256i first(std::size_t count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

struct Vec {
    static constexpr std::size_t width = 8;
    __m256 v;

    static Vec all(float x) { return {_mm256_set1_ps(x)}; }
    static Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
    static Vec load(const float* p, std::size_t count, Vec fill) {
        const __m256i some = first(count);
        return {_mm256_blendv_ps(fill.v, _mm256_maskload_ps(p, some), _mm256_castsi256_ps(some))};
    }
    void store(float* p) const { _mm256_storeu_ps(p, v); }
    void store(float* p, std::size_t count) const { _mm256_maskstore_ps(p, first(count), v); }

    float sum() const {
        const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
    }
    float greatest() const {
        const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
    }
};

inline Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Vec mul_add(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }

inline Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Vec max_or_nan(Vec a, Vec b) {
    return {_mm256_blendv_ps(max(a, b).v, a.v, _mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q))};
}

inline Vec round(Vec a) {
    return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Vec power_of_2(Vec a) {
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(a.v), _mm256_set1_epi32(127));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(biased, 23))};
}
inline Vec keep_from(Vec a, Vec bound, Vec value) {
    return {_mm256_and_ps(_mm256_cmp_ps(a.v, bound.v, _CMP_GE_OQ), value.v)};
}

inline std::uint32_t bits(__m256 lanes) {
    return static_cast<std::uint32_t>(_mm256_movemask_ps(lanes));
}
inline std::uint32_t is_nan(Vec a) { return bits(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q)); }
inline std::uint32_t equal(Vec a, Vec b) { return bits(_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)); }
inline std::uint32_t greater(Vec a, Vec b) { return bits(_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)); }

}  // namespace
}  // namespace headway::avx2

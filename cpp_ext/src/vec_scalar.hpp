// One float at a time: the vector type of the scalar level. Its siblings have the same members.
// Nothing here or in *_generic.hpp may be seen by the linker under a shared name, hence the unnamed
// namespaces, and no standard library templates: the linker could keep the copy for the newest CPU.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#define HEADWAY_LEVEL scalar

namespace headway::scalar {
namespace {

struct Vec {
    static constexpr std::size_t width = 1;
    float v;

    static Vec all(float x) { return {x}; }
    static Vec load(const float* p) { return {*p}; }
    // The first count < width entries from memory, the others from fill.
    static Vec load(const float*, std::size_t, Vec fill) { return fill; }
    void store(float* p) const { *p = v; }
    void store(float*, std::size_t) const {}

    // Every entry added up, in a fixed order; the greatest of all entries.
    float sum() const { return v; }
    float greatest() const { return v; }
};

inline Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
inline Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
inline Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
inline Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
inline Vec mul_add(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }

// The second where they are equal or one is NaN, as x86 does.
inline Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
// NaN where either is NaN.
inline Vec max_or_nan(Vec a, Vec b) { return {(a.v > b.v) | (a.v != a.v) ? a.v : b.v}; }

// To the nearest integer, for |a| < 2^22.
inline Vec round(Vec a) { return {(a.v + 12582912.0f) - 12582912.0f}; }
// 2^a for an integer a in [-126, 127]; NaN gives anything. Of a + 1.5 * 2^23 the lowest bits are a.
inline Vec power_of_2(Vec a) {
    return {std::bit_cast<float>((std::bit_cast<std::uint32_t>(a.v + 12582912.0f) + 127u) << 23)};
}
// value where a >= bound, else 0.
inline Vec keep_from(Vec a, Vec bound, Vec value) { return {a.v >= bound.v ? value.v : 0.0f}; }

// One bit per entry, the first entry's lowest.
inline std::uint32_t is_nan(Vec a) { return a.v != a.v; }
inline std::uint32_t equal(Vec a, Vec b) { return a.v == b.v; }
inline std::uint32_t greater(Vec a, Vec b) { return a.v > b.v; }

}  // namespace
}  // namespace headway::scalar

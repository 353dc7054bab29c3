// What several kernels do with vectors, written once over Vec: tails, exp, finding.
#pragma once

#include <cstddef>
#include <cstdint>

namespace headway::HEADWAY_LEVEL {
namespace {

// A whole vector, or as much of one as is left and then fill.
inline Vec load_up_to(const float* p, std::size_t left, Vec fill) {
    return left >= Vec::width ? Vec::load(p) : Vec::load(p, left, fill);
}

inline void store_up_to(Vec v, float* p, std::size_t left) {
    if (left >= Vec::width)
        v.store(p);
    else
        v.store(p, left);
}

inline Vec least_exponent() { return Vec::all(-87.33654f); }  // ln(2^-126): the smallest normal

// exp(x) for x from least_exponent() to 0, within 2 ulp. NaN gives NaN.
// Source: expf of Stephen L. Moshier's Cephes library. x = n ln(2) + r with |r| <= ln(2)/2, where
// ln(2) is split in two so that n times the first part is exact; then exp(x) = 2^n exp(r), and
// exp(r) = 1 + r + r^2 P(r).
inline Vec exp_within(Vec x) {
    const Vec n = round(x * Vec::all(1.44269504f));
    Vec r = mul_add(n, Vec::all(-0.693359375f), x);
    r = mul_add(n, Vec::all(2.12194440e-4f), r);
    Vec p = Vec::all(1.9875691500e-4f);
    p = mul_add(p, r, Vec::all(1.3981999507e-3f));
    p = mul_add(p, r, Vec::all(8.3334519073e-3f));
    p = mul_add(p, r, Vec::all(4.1665795894e-2f));
    p = mul_add(p, r, Vec::all(1.6666665459e-1f));
    p = mul_add(p, r, Vec::all(5.0000001201e-1f));
    return (mul_add(p, r * r, r) + Vec::all(1.0f)) * power_of_2(n);
}

// exp(x) for x <= 0; 0 where x is less than least_exponent().
inline Vec exp(Vec x) {
    return keep_from(x, least_exponent(), exp_within(max(x, least_exponent())));
}

// The first index from `from` on where test(entry, value) holds, else n.
template <class Test>
std::size_t find(const float* x, std::size_t from, std::size_t n, float value, Test test) {
    const Vec wanted = Vec::all(value), never = Vec::all(__builtin_nanf(""));
    for (std::size_t i = from; i < n; i += Vec::width)
        if (const std::uint32_t hits = test(load_up_to(x + i, n - i, never), wanted))
            return i + static_cast<std::size_t>(__builtin_ctz(hits));
    return n;
}

inline std::size_t find_greater(const float* x, std::size_t from, std::size_t n, float value) {
    return find(x, from, n, value, [](Vec a, Vec b) { return greater(a, b); });
}

}  // namespace
}  // namespace headway::HEADWAY_LEVEL

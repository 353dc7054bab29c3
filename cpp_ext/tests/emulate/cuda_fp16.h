// CUDA's 16-bit floats, for the emulator: IEEE binary16.
#pragma once

#include <cmath>
#include <cstdint>

struct __half {
    std::uint16_t bits;
};

inline float __half2float(__half x) {
    const int exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
    float size = exponent == 0 ? std::ldexp(float(fraction), -24)
                               : std::ldexp(float(1024 + fraction), exponent - 25);
    if (exponent == 31) size = fraction ? std::nanf("") : HUGE_VALF;
    return x.bits >> 15 ? -size : size;
}

// To the nearest, ties to even.
inline __half __float2half(float x) {
    const auto sign = static_cast<std::uint16_t>(std::signbit(x) ? 0x8000 : 0);
    const float size = std::fabs(x);
    if (std::isnan(x)) return {0x7FFF};
    if (size >= 65520.0f) return {static_cast<std::uint16_t>(sign | 0x7C00)};
    int exponent = 0;
    std::frexp(size, &exponent);
    if (size == 0.0f || exponent < -13) exponent = -13;  // zero or subnormal
    const auto steps = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(size, 11 - exponent)));
    const std::uint32_t bits = (std::uint32_t(exponent + 13) << 10) + steps;
    return {static_cast<std::uint16_t>(sign | bits)};
}

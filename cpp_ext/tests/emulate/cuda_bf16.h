// CUDA's 16-bit floats, for the emulator: the upper half of a float.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

struct __nv_bfloat16 {
    std::uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 x) {
    return std::bit_cast<float>(std::uint32_t(x.bits) << 16);
}

// To the nearest, ties to even.
inline __nv_bfloat16 __float2bfloat16(float x) {
    if (std::isnan(x)) return {0x7FFF};
    const auto bits = std::bit_cast<std::uint32_t>(x);
    return {static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)};
}

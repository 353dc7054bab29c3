// From floats to int8 with one scale for each token.
#pragma once

#include "headway/cuda/device.hpp"

namespace headway::cuda {

// Symmetric: scale = max(greatest size * (1 / 127), 1e-20), as the exporter's int8 has it, and
// out = x / scale, rounded half to even. NaN in a row makes its scale NaN, and its int8 anything.
struct Quantize {
    const void* x;         // (N, D)
    Type type;             // of x
    std::int64_t rows;     // N
    std::int64_t columns;  // D
    std::int8_t* out;      // (N, D), -127 to 127
    float* scales;         // (N)
};

// Throws Error.
void quantize(const Quantize& given, Stream stream);

}  // namespace headway::cuda

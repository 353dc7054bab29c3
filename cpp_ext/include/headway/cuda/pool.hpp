// From one vector per token to one vector per text.
#pragma once

#include "headway/cuda/device.hpp"

namespace headway::cuda {

enum class Pooling { mean, max, cls, last };  // cls, last: the first, or last, token's vector

// Letters: B batch, T tokens, D hidden, N flat tokens. Sums are float32; each result depends on its
// own row alone, to the last bit. A row without tokens gives NaN, and so does NaN in a row.
struct Pool {
    const void* hidden;           // (B, T, D), or ragged (N, D)
    Type type;                    // of hidden
    const std::int64_t* lengths;  // (B): padding stands on the right; or null: ragged
    const std::int64_t* offsets;  // (B + 1), if ragged
    std::int64_t batch;           // B
    std::int64_t tokens;          // T, if not ragged
    std::int64_t width;           // D
    Pooling kind;
    bool normalize;  // whether to divide by max(L2 norm, 1e-12)
    float* out;      // (B, D)
};

// Throws Error.
void pool(const Pool& given, Stream stream);

}  // namespace headway::cuda

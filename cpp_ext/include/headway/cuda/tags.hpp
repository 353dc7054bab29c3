// From logits of tags, or classes, to each token's best one and its probability.
#pragma once

#include "headway/cuda/device.hpp"

namespace headway::cuda {

// The first index of the row's maximum, and what softmax gives it: what tags.hpp finds wherever
// each word's best tags make a sequence that the scheme allows. A row which softmax.hpp refuses
// (NaN, +inf, nothing but -inf) gets -1 and NaN.
struct Tags {
    const void* logits;    // (W, C)
    Type type;             // of logits
    std::int64_t rows;     // W
    std::int64_t columns;  // C, at least 1
    std::int32_t* tags;    // (W)
    float* chances;        // (W)
};

// Throws Error.
void tags(const Tags& given, Stream stream);

}  // namespace headway::cuda

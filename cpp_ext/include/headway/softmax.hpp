// From scores to probabilities and choices, row by row.
#pragma once

#include <cstdint>

#include "headway/array.hpp"

namespace headway {

// Letters: B rows, C classes. All throw std::invalid_argument, naming the row, for NaN anywhere
// and for C = 0; -inf entries are welcome.

// exp(x) / sum(exp(x)), after subtracting the row's maximum; entries more than 87.3 below it become
// 0. Also throws for +inf and for a row of nothing but -inf.  // (B, C) -> (B, C)
Buffer<float> softmax(const Matrix& logits);

// The first index of the row's maximum.  // (B, C) -> (B)
Buffer<std::int32_t> argmax(const Matrix& logits);

struct TopK {
    Buffer<float> values;          // (B, k), descending
    Buffer<std::int32_t> indices;  // (B, k), the lower index first among equals
};

// The k largest entries of each row. Also throws unless 1 <= k <= C.
TopK top_k(const Matrix& values, std::int64_t k);

}  // namespace headway

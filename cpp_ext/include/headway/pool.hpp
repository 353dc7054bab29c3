// From one vector per token to one vector per text.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "headway/array.hpp"

namespace headway {

enum class Pooling { mean, max, cls };  // cls: the first token's vector

// Throws std::invalid_argument for a name other than these three.
Pooling pooling_named(std::string_view name);

// normalize divides each result by max(its L2 norm, 1e-12), as torch.nn.functional.normalize does.
// Means add float32 in token order: a row's result depends on that row alone, to the last bit.
// NaN in a row gives NaN. Both throw std::invalid_argument for a row without tokens.

// Each row's first lengths[b] tokens: padding stands on the right.  // (B, T, D), (B) -> (B, D)
Buffer<float> pool(const Hidden& hidden, std::span<const std::int64_t> lengths, Pooling kind,
                   bool normalize);

// hidden: (N, D), offsets: (B + 1), see ragged.hpp.  // -> (B, D)
Buffer<float> pool_ragged(const Matrix& hidden, std::span<const std::int64_t> offsets, Pooling kind,
                          bool normalize);

}  // namespace headway
